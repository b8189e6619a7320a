//! Dynamic leases: addresses out of ranges for clients that nobody has written down.
//!
//! An address is *fresh* until it was first offered; then it has an entry for ever, of one of these states:
//!
//! | state | begun by | until | ended by |
//! |---|---|---|---|
//! | offered | DISCOVER | a minute later | REQUEST (bound), REQUEST to another server, time |
//! | bound | REQUEST, or DISCOVER with rapid commit | the lease's end | REQUEST (anew), RELEASE, DECLINE, time |
//! | released | RELEASE | at once | |
//! | declined | DECLINE | ten minutes later (RFC 2131, 4.3.3) | time |
//!
//! An entry whose time is over is free, but its client is remembered and gets it again (4.3.1) as long as nobody else had to
//! take it. A new client gets, in this order: the address that it asks for if that is free; one that was offered in vain; a
//! fresh one; the one whose lease ended longest ago; the one that was declined longest ago.
//!
//! A client is known by its identifier, else by its hardware address (4.2); an identifier that says the same as the hardware
//! address is the same client. No bound lease is ever taken away. Whoever makes up clients keeps to the [`Limits`] of the port
//! that he is behind: an offer too many takes back that port's oldest, so he uses up no more addresses than that. All is done in
//! logarithmic time. A client that is not known gets no NAK for an address that may be another server's (4.3.2).
//!
//! A lease counts when it is durable: [`answer`] gives the [`Change`] that must be written before its reply is sent.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::Ipv4Net;

use super::options::{Compiled, Settings};
use super::request::{Asks, Request};
use super::{Answered, Refused};
use crate::types::{Mac, PortIdx};
use crate::wire::dhcp4::{ETHERNET, MessageType};

mod subnets;

pub use subnets::{Subnet, answer_in};

/// Seconds that an offer holds.
pub const OFFER_TIME: u64 = 60;
/// Seconds that a declined address is held back.
pub const DECLINED_TIME: u64 = 600;
/// MTU where the settings have none.
const MTU: u16 = 1500;

/// How much may be remembered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Addresses in use or remembered, of the whole pool.
    pub entries: usize,
    /// Offers that hold at a time, behind one port.
    pub offers: usize,
    /// Leases that hold at a time, behind one port.
    pub leases: usize,
    /// Addresses that are held back at a time because clients behind one port declined them.
    pub declined: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { entries: 65_536, offers: 64, leases: 4096, declined: 16 }
    }
}

/// What a pool has to give.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// The subnet of all its addresses.
    pub subnet: Ipv4Net,
    /// All subnets of the network: an address outside of them is wrong here, and a client is told so.
    pub network: Vec<Ipv4Net>,
    /// First and last addresses.
    pub ranges: Vec<(Ipv4Addr, Ipv4Addr)>,
    /// Addresses in the ranges that are others' (fixed IPs of ports).
    pub reserved: Vec<Ipv4Addr>,
    /// How much may be remembered.
    pub limits: Limits,
}

/// What an address is in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs)] // the module's text says it
pub enum State {
    Offered,
    Bound,
    Released,
    Declined,
}

/// An address and whose it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The address.
    pub address: Ipv4Addr,
    /// The client's identifier (RFC 2132, 9.14): its own, or made of its hardware address. Empty when it was declined.
    pub client: Box<[u8]>,
    /// The client's hardware address.
    pub mac: Mac,
    /// The port that it was last heard at; none after a restart.
    pub ingress: Option<PortIdx>,
    /// What the address is in.
    pub state: State,
    /// Until when (seconds since 1970); `u64::MAX` is for ever.
    pub until: u64,
}

impl Entry {
    /// Whether it still holds at `now`; else the address is free.
    pub fn holds(&self, now: u64) -> bool {
        self.until > now
    }

    fn class(&self) -> Class {
        match self.state {
            State::Offered => Class::Offer,
            State::Bound | State::Released => Class::Lease,
            State::Declined => Class::Declined,
        }
    }
}

/// What must be durable before the reply to a message is sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// The address is this client's until then; whoever else had it has it no more.
    Bound(Entry),
    /// The address is nobody's.
    Released(Ipv4Addr),
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Class {
    Offer,
    Lease,
    Declined,
}

/// The addresses of a subnet that are leased to whoever comes.
#[derive(Debug)]
pub struct Pool {
    config: Config,
    /// Sorted, without overlaps; address as number.
    ranges: Vec<(u32, u32)>,
    reserved: BTreeSet<u32>,
    entries: BTreeMap<u32, Entry>,
    clients: BTreeMap<Box<[u8]>, u32>,
    /// All entries by class and end of time.
    ends: BTreeSet<(Class, u64, u32)>,
    /// The same of each port.
    behind: BTreeSet<(PortIdx, Class, u64, u32)>,
    counts: BTreeMap<(PortIdx, Class), usize>,
    /// The next address that may be fresh, and its range.
    fresh: Option<(usize, u32)>,
    compiled: Option<(Settings, Arc<Compiled>)>,
}

impl Pool {
    /// A pool whose addresses are all fresh.
    pub fn new(config: Config) -> Pool {
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        let mut given: Vec<(u32, u32)> =
            config.ranges.iter().map(|(first, last)| (first.to_bits(), last.to_bits())).collect();
        given.retain(|(first, last)| first <= last);
        given.sort_unstable();
        for (first, last) in given {
            match ranges.last_mut() {
                Some((_, end)) if first <= *end => *end = last.max(*end),
                _ => ranges.push((first, last)),
            }
        }
        Pool {
            fresh: ranges.first().map(|(first, _)| (0, *first)),
            ranges,
            reserved: config.reserved.iter().map(|address| address.to_bits()).collect(),
            entries: BTreeMap::new(),
            clients: BTreeMap::new(),
            ends: BTreeSet::new(),
            behind: BTreeSet::new(),
            counts: BTreeMap::new(),
            compiled: None,
            config,
        }
    }

    /// Takes another configuration. Entries stay, but for addresses that are no longer in it.
    pub fn configure(&mut self, config: Config) {
        let before = std::mem::replace(self, Pool::new(config));
        self.restore(before.entries.into_values());
    }

    /// Takes in entries that were saved. Left out are those of addresses that are not the pool's or are known, and of clients
    /// that have one.
    pub fn restore(&mut self, entries: impl IntoIterator<Item = Entry>) {
        for entry in entries {
            let address = entry.address.to_bits();
            let known = self.entries.contains_key(&address) || self.clients.contains_key(&entry.client);
            let whose = entry.client.is_empty() == (entry.state == State::Declined);
            if self.entries.len() < self.config.limits.entries
                && self.contains(entry.address)
                && !known
                && whose
            {
                self.insert(entry);
            }
        }
    }

    /// What it was told to give.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What an address is in; none where it is fresh or not the pool's.
    pub fn get(&self, address: Ipv4Addr) -> Option<&Entry> {
        self.entries.get(&address.to_bits())
    }

    /// All entries in order of their addresses, also those whose time is over.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// Whether an address is the pool's to give.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        let address = address.to_bits();
        let after = self.ranges.partition_point(|(first, _)| *first <= address);
        let range = after.checked_sub(1).and_then(|at| self.ranges.get(at));
        range.is_some_and(|(_, last)| address <= *last) && !self.reserved.contains(&address)
    }

    fn insert(&mut self, entry: Entry) {
        let address = entry.address.to_bits();
        self.ends.insert((entry.class(), entry.until, address));
        if let Some(port) = entry.ingress {
            self.behind.insert((port, entry.class(), entry.until, address));
            *self.counts.entry((port, entry.class())).or_default() += 1;
        }
        if !entry.client.is_empty() {
            self.clients.insert(entry.client.clone(), address);
        }
        self.entries.insert(address, entry);
    }

    /// Takes an entry out. An address that was offered once is never fresh again, so it must get an entry at once.
    fn remove(&mut self, address: u32) -> Option<Entry> {
        let entry = self.entries.remove(&address)?;
        let class = entry.class();
        self.ends.remove(&(class, entry.until, address));
        if let Some(port) = entry.ingress {
            self.behind.remove(&(port, class, entry.until, address));
            if let Some(count) = self.counts.get_mut(&(port, class)) {
                *count -= 1;
                if *count == 0 {
                    self.counts.remove(&(port, class));
                }
            }
        }
        self.clients.remove(&entry.client);
        Some(entry)
    }

    /// Ends what an address is in; it counts for no port any more.
    fn end(&mut self, address: u32, now: u64) {
        if let Some(mut entry) = self.remove(address) {
            entry.until = entry.until.min(now);
            entry.ingress = None;
            self.insert(entry);
        }
    }

    /// Makes room for one more of a class behind a port. What it takes back is the oldest there, which for a lease must be over.
    fn make_room(&mut self, port: PortIdx, class: Class, now: u64) -> Result<(), Refused> {
        let limits = &self.config.limits;
        let most = match class {
            Class::Offer => limits.offers,
            Class::Lease => limits.leases,
            Class::Declined => limits.declined,
        };
        if self.counts.get(&(port, class)).copied().unwrap_or(0) < most {
            return Ok(());
        }
        let oldest = self.behind.range((port, class, 0, 0)..).next();
        match oldest.filter(|(of, found, ..)| (*of, *found) == (port, class)) {
            Some((.., until, address)) if class != Class::Lease || *until <= now => {
                let address = *address;
                self.end(address, now);
                Ok(())
            }
            _ => Err(Refused::Limit),
        }
    }

    /// Whether an address may be given to a client that has none.
    fn is_free(&self, address: Ipv4Addr, now: u64) -> bool {
        match self.entries.get(&address.to_bits()) {
            Some(entry) => !entry.holds(now),
            None => self.contains(address) && self.entries.len() < self.config.limits.entries,
        }
    }

    /// An address for a client that has none.
    fn choose(&mut self, wanted: Option<Ipv4Addr>, now: u64) -> Option<u32> {
        if let Some(wanted) = wanted.filter(|wanted| self.is_free(*wanted, now)) {
            return Some(wanted.to_bits());
        }
        let over = |pool: &Pool, class: Class| {
            let first = pool.ends.range((class, 0, 0)..).next();
            first.filter(|(found, until, _)| *found == class && *until <= now).map(|(.., address)| *address)
        };
        over(self, Class::Offer)
            .or_else(|| self.next_fresh())
            .or_else(|| over(self, Class::Lease))
            .or_else(|| over(self, Class::Declined))
    }

    /// The next address that was never offered. Each address is passed once.
    fn next_fresh(&mut self) -> Option<u32> {
        if self.entries.len() >= self.config.limits.entries {
            return None;
        }
        while let Some((range, address)) = self.fresh {
            let (_, last) = self.ranges.get(range)?;
            if !self.entries.contains_key(&address) && !self.reserved.contains(&address) {
                return Some(address);
            }
            self.fresh = if address < *last {
                Some((range, address + 1))
            } else {
                self.ranges.get(range + 1).map(|(first, _)| (range + 1, *first))
            };
        }
        None
    }

    /// Puts a client to an address, which is free or its own.
    fn put(&mut self, entry: Entry) {
        self.remove(entry.address.to_bits());
        self.insert(entry);
    }

    fn compile(&mut self, settings: &Settings) -> Arc<Compiled> {
        match &self.compiled {
            Some((of, compiled)) if of == settings => compiled.clone(),
            _ => {
                let compiled = Arc::new(Compiled::new(settings, self.config.subnet.addr()));
                self.compiled = Some((settings.clone(), compiled.clone()));
                compiled
            }
        }
    }
}

/// What a message is answered with, besides the pool.
struct Asked<'a> {
    request: &'a Request<'a>,
    client: Box<[u8]>,
    options: Arc<Compiled>,
    ingress: PortIdx,
    now: u64,
    mtu: u16,
}

type Answer = Result<(Answered, Option<Change>), Refused>;

/// Answers the message in a whole, untagged frame, out of the pool. The reply, a whole frame for the port `ingress`, replaces
/// what is in `reply`; it must not be sent before the change is durable. `now` is in seconds since 1970.
///
/// # Errors
/// [`Refused`] when it gets no answer; what is in `reply` is then of no use.
pub fn answer(
    frame: &[u8],
    pool: &mut Pool,
    settings: &Settings,
    ingress: PortIdx,
    now: u64,
    reply: &mut Vec<u8>,
) -> Answer {
    let request = Request::parse(frame)?;
    let giaddr = request.message.giaddr();
    if request.is_relayed() && !pool.config.subnet.contains(&giaddr) {
        return Err(Refused::NoLease);
    }
    let options = pool.compile(settings);
    let mtu = if settings.mtu == 0 { MTU } else { settings.mtu };
    let asked = Asked { request: &request, client: client(&request), options, ingress, now, mtu };
    match request.kind {
        MessageType::Discover => asked.discover(pool, reply),
        MessageType::Request => asked.request(pool, reply),
        MessageType::Inform => asked.inform(pool, reply),
        MessageType::Decline | MessageType::Release => asked.give_up(pool),
        MessageType::Offer | MessageType::Ack | MessageType::Nak => Err(Refused::NotARequest),
    }
}

/// Who a client is (RFC 2131, 4.2).
fn client(request: &Request<'_>) -> Box<[u8]> {
    match request.client_id {
        Some(id) => id.pieces().flatten().copied().collect(),
        None => [&[ETHERNET][..], &request.mac.0].concat().into(),
    }
}

impl Asked<'_> {
    fn own<'p>(&self, pool: &'p Pool) -> Option<&'p Entry> {
        pool.clients.get(&self.client).and_then(|address| pool.entries.get(address))
    }

    fn entry(&self, address: u32, state: State, until: u64) -> Entry {
        let (address, mac, ingress) = (Ipv4Addr::from_bits(address), self.request.mac, Some(self.ingress));
        Entry { address, client: self.client.clone(), mac, ingress, state, until }
    }

    fn discover(&self, pool: &mut Pool, reply: &mut Vec<u8>) -> Answer {
        let last = super::is_final(self.request);
        let own = self
            .own(pool)
            .map(|entry| (entry.address.to_bits(), entry.state == State::Bound && entry.holds(self.now)));
        if let Some((address, true)) = own.filter(|_| !last) {
            // It stays bound: whoever asks so may not be the client.
            return self.grant(pool, address, reply);
        }
        self.room(pool, Class::Lease)?;
        if !last {
            self.room(pool, Class::Offer)?;
        }
        let own = own.map(|(address, _)| address);
        let address =
            own.or_else(|| pool.choose(self.request.requested, self.now)).ok_or(Refused::NoLease)?;
        if !last {
            pool.put(self.entry(address, State::Offered, self.now.saturating_add(OFFER_TIME)));
        }
        self.grant(pool, address, reply)
    }

    /// Whether there may be one more entry of a class behind this port. The client's own there is no other.
    fn room(&self, pool: &mut Pool, class: Class) -> Result<(), Refused> {
        let here = |entry: &Entry| entry.class() == class && entry.ingress == Some(self.ingress);
        if self.own(pool).is_some_and(here) { Ok(()) } else { pool.make_room(self.ingress, class, self.now) }
    }

    fn request(&self, pool: &mut Pool, reply: &mut Vec<u8>) -> Answer {
        if let Err(other) = self.request.for_us() {
            // RFC 2131, 3.1.4: by this the client says that it does not take our offer.
            if let Some(entry) = self.own(pool).filter(|entry| entry.state == State::Offered) {
                let address = entry.address.to_bits();
                pool.end(address, self.now);
            }
            return Err(other);
        }
        let asks = self.request.asks()?;
        let address = asks.address();
        let own = self.own(pool).map(|entry| entry.address);
        if own == Some(address) {
            self.room(pool, Class::Lease)?;
            return self.grant(pool, address.to_bits(), reply);
        }
        let ours = pool.config.subnet.contains(&address);
        let here = ours || pool.config.network.iter().any(|subnet| subnet.contains(&address));
        let deny = match asks {
            // An offer of ours that we no longer know, as after a restart.
            Asks::Selecting(_) if own.is_none() && pool.is_free(address, self.now) => {
                self.room(pool, Class::Lease)?;
                return self.grant(pool, address.to_bits(), reply);
            }
            Asks::Selecting(_) => true,
            _ if !here => true,
            _ if own.is_some() => ours,
            Asks::Reboot(_) => false,
            // What is surely another's.
            Asks::Extend(_) => {
                let taken = pool.entries.get(&address.to_bits());
                taken.is_some_and(|entry| entry.state == State::Bound && entry.holds(self.now))
                    || pool.reserved.contains(&address.to_bits())
            }
        };
        if !deny {
            return Err(Refused::NoLease);
        }
        Ok((super::deny(self.request, address, self.mtu, reply), None))
    }

    /// Offers or binds an address, as the message asks.
    fn grant(&self, pool: &mut Pool, address: u32, reply: &mut Vec<u8>) -> Answer {
        let done = super::grant(self.request, &self.options, Ipv4Addr::from_bits(address), self.mtu, reply);
        if !super::is_final(self.request) {
            return Ok((done, None));
        }
        let until = match super::lease_time(self.request, &self.options) {
            u32::MAX => u64::MAX,
            time => self.now.saturating_add(time.into()),
        };
        let entry = self.entry(address, State::Bound, until);
        pool.put(entry.clone());
        Ok((done, Some(Change::Bound(entry))))
    }

    fn inform(&self, pool: &Pool, reply: &mut Vec<u8>) -> Answer {
        let address = self.request.informs();
        if address.is_some_and(|address| !pool.config.subnet.contains(&address)) {
            return Err(Refused::NoLease);
        }
        let done = super::inform(self.request, &self.options, address, self.mtu, reply)?;
        Ok((done, None))
    }

    /// DECLINE and RELEASE, which only the client itself may say: from where it was last heard.
    fn give_up(&self, pool: &mut Pool) -> Answer {
        self.request.for_us()?;
        let (kind, address) = (self.request.kind, super::given_up(self.request)?);
        let its = |entry: &&Entry| entry.address == address && entry.holds(self.now);
        let entry = self.own(pool).filter(its).ok_or(Refused::NoLease)?;
        if entry.ingress.is_some_and(|port| port != self.ingress) {
            return Err(Refused::OtherClient);
        }
        let bound = entry.state == State::Bound;
        if kind == MessageType::Release && !bound {
            return Err(Refused::NoLease);
        }
        if kind == MessageType::Decline {
            pool.make_room(self.ingress, Class::Declined, self.now)?;
        }
        if let Some(mut entry) = pool.remove(address.to_bits()) {
            if kind == MessageType::Decline {
                (entry.client, entry.ingress) = (Box::default(), Some(self.ingress));
                (entry.state, entry.until) = (State::Declined, self.now.saturating_add(DECLINED_TIME));
            } else {
                (entry.state, entry.until) = (State::Released, entry.until.min(self.now));
            }
            pool.insert(entry);
        }
        let change = bound.then_some(Change::Released(address));
        Ok((Answered::Consumed { request: kind, address }, change))
    }
}
