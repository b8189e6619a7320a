//! Bindings: an inside endpoint and the outside endpoint that it has towards everybody (endpoint-independent mapping,
//! RFC 4787, REQ-1; RFC 5382, REQ-1), for as long as a session holds it.
//!
//! A router has a pool of outside addresses. A host inside has all its bindings at one of them (paired pooling, RFC 4787,
//! REQ-2), chosen when it has none, among those that have room. A port is kept where it is free; if not,
//! another of its range and parity is taken where there is one (REQ-3a, REQ-4). TCP and UDP have ports, ICMP queries have identifiers (RFC 5508, REQ-1); each is a space of its
//! own. A protocol without ports can be one host's at an address, and one worker's in all.
//!
//! From the inside a binding is found by a hash, from the outside by its port alone. All is constant time, but for changes
//! of a pool.
//!
//! Limits: an address's tables take 0.8 MB for a worker that has all ports, when all are used. A port may be given to
//! somebody else as soon as its last session has ended; sessions linger as long as their protocol asks.

use super::index::{self, Index, fold};
use super::ports::Space;
use super::slab::{Item, Slab};

pub use super::ports::Slice;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// How full the indexes are when all bindings are in use, in percent.
const LOAD: usize = 75;

/// A binding's number: good for as long as a session holds the binding.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BindingRef(u32);

impl BindingRef {
    pub(super) fn from_number(number: u32) -> Option<BindingRef> {
        (number != 0).then_some(BindingRef(number))
    }

    /// The number, as [`Bindings::walk`] counts.
    pub fn number(self) -> u32 {
        self.0
    }
}

/// An inside endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Inside {
    /// The router.
    pub zone: u16,
    /// The IP protocol.
    pub protocol: u8,
    /// The IPv4 address.
    pub address: u32,
    /// The port, or an ICMP query's identifier; without meaning for protocols that have neither.
    pub port: u16,
}

/// An outside endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Outside {
    /// The IPv4 address, of the pool.
    pub address: u32,
    /// The port or identifier; that of the inside for protocols that have neither.
    pub port: u16,
}

/// A binding, to be shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Binding {
    /// Whose it is.
    pub inside: Inside,
    /// What the world sees.
    pub outside: Outside,
    /// Sessions that hold it.
    pub sessions: u32,
    /// Whether the pool still has its address; if not, only sessions that there are use it.
    pub is_current: bool,
}

/// Why there is no binding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoBinding {
    /// The router has no outside address.
    NoPool,
    /// No port is free at the host's address, or another host has the protocol there.
    Exhausted,
    /// The host has as many bindings as one may have.
    HostLimit,
    /// There are as many bindings as there may be.
    Full,
    /// The protocol has no ports, and is that worker's.
    Elsewhere(u16),
}

const TAKEN: u8 = 1;
/// The pool has no such address any more.
const STALE: u8 = 2;

#[derive(Clone, Copy)]
struct Slot {
    /// In a vacant slot, the next one.
    inside_address: u32,
    sessions: u32,
    inside_port: u16,
    outside_port: u16,
    zone: u16,
    /// Of the outside address in the pool.
    place: u16,
    protocol: u8,
    flags: u8,
}

impl Item for Slot {
    fn vacant(next: u32) -> Slot {
        Slot {
            inside_address: next,
            sessions: 0,
            inside_port: 0,
            outside_port: 0,
            zone: 0,
            place: 0,
            protocol: 0,
            flags: 0,
        }
    }

    fn next_vacant(&self) -> Option<u32> {
        (self.flags == 0).then_some(self.inside_address)
    }
}

impl Slot {
    fn inside(&self) -> Inside {
        Inside {
            zone: self.zone,
            protocol: self.protocol,
            address: self.inside_address,
            port: self.inside_port,
        }
    }
}

/// A host inside that has bindings, and where.
#[derive(Clone, Copy)]
struct Host {
    /// In a vacant place, the next one.
    address: u32,
    /// Bindings; none in a vacant place.
    bindings: u32,
    zone: u16,
    place: u16,
}

impl Item for Host {
    fn vacant(next: u32) -> Host {
        Host { address: next, bindings: 0, zone: 0, place: 0 }
    }

    fn next_vacant(&self) -> Option<u32> {
        (self.bindings == 0).then_some(self.address)
    }
}

/// What is in use at an outside address.
struct Tables {
    /// TCP, UDP, ICMP.
    spaces: [Space; 3],
    /// Protocols without ports: whose they are.
    others: [u32; 256],
}

struct Address {
    address: u32,
    /// None when the pool has it no more; it stands here as long as bindings refer to it.
    tables: Option<Box<Tables>>,
    bindings: u32,
}

/// Where a binding is to be.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    /// Of its inside host, if that has bindings already.
    host: Option<u32>,
    host_hash: u64,
    /// Of the outside address in the pool.
    place: u16,
    port: u16,
}

struct Pool {
    slice: Slice,
    addresses: Vec<Address>,
    exhausted: u64,
}

/// Which of an address's spaces is a protocol's.
fn space(protocol: u8) -> Option<usize> {
    match protocol {
        TCP => Some(0),
        UDP => Some(1),
        ICMP => Some(2),
        _ => None,
    }
}

impl Tables {
    fn new(slice: Slice) -> Box<Tables> {
        let spaces = [false, false, true].map(|identifiers| Space::new(slice, identifiers));
        Box::new(Tables { spaces, others: [0; 256] })
    }

    fn choose(&self, inside: &Inside, random: u64) -> Option<u16> {
        match space(inside.protocol) {
            Some(space) => self.spaces[space].choose(inside.port, random),
            None => (self.others[usize::from(inside.protocol)] == 0).then_some(0),
        }
    }

    fn take(&mut self, protocol: u8, port: u16, number: u32) {
        match space(protocol) {
            Some(space) => self.spaces[space].take(port, number),
            None => self.others[usize::from(protocol)] = number,
        }
    }

    fn give_back(&mut self, protocol: u8, port: u16) {
        match space(protocol) {
            Some(space) => self.spaces[space].give_back(port),
            None => self.others[usize::from(protocol)] = 0,
        }
    }

    fn owner(&self, protocol: u8, port: u16) -> Option<u32> {
        match space(protocol) {
            Some(space) => self.spaces[space].owner(port),
            None => Some(self.others[usize::from(protocol)]).filter(|number| *number != 0),
        }
    }

    fn owners(&self) -> Vec<u32> {
        let others = self.others.iter().copied().filter(|number| *number != 0);
        self.spaces.iter().flat_map(Space::owners).chain(others).collect()
    }
}

/// How much of an outside address is in use: ports in use, and ports that there are, of this worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Usage {
    /// The IPv4 address.
    pub address: u32,
    /// TCP ports.
    pub tcp: (u32, u32),
    /// UDP ports.
    pub udp: (u32, u32),
    /// ICMP identifiers.
    pub icmp: (u32, u32),
}

/// See the module's documentation.
pub struct Bindings {
    slots: Slab<Slot>,
    by_inside: Index,
    hosts: Slab<Host>,
    by_host: Index,
    /// By zone.
    pools: Vec<Option<Box<Pool>>>,
    per_host: u32,
    keys: [u64; 3],
    counter: u64,
}

impl Bindings {
    /// Bindings for as many sessions as the tracker has entries, and one more, because a session gets its binding before
    /// another's entry goes for it. `seed` keys the hashes and the choice of ports, and is secret.
    pub fn new(sessions: u32, seed: u64) -> Bindings {
        let capacity = sessions.clamp(1, super::Limits::MAX_ENTRIES) + 1;
        Bindings {
            slots: Slab::new(capacity),
            by_inside: Index::new(capacity as usize, capacity, LOAD),
            hosts: Slab::new(capacity),
            by_host: Index::new(capacity as usize, capacity, LOAD),
            pools: Vec::new(),
            per_host: u32::MAX,
            keys: index::keys(seed ^ 0x6269_6e64_696e_6773),
            counter: 0,
        }
    }

    /// Sets how many bindings a host may have, in all protocols, so that one cannot have all ports (RFC 6888, REQ-4). No
    /// limit in the beginning. What a host has above a lower limit stays.
    pub fn set_host_limit(&mut self, most: u32) {
        self.per_host = most;
    }

    /// Bindings that there are.
    pub fn len(&self) -> u32 {
        self.slots.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that all of it takes once it is full.
    pub fn bytes(&self) -> usize {
        let tables =
            |tables: &Tables| size_of::<Tables>() + tables.spaces.iter().map(Space::bytes).sum::<usize>();
        let pools = self.pools.iter().flatten().flat_map(|pool| &pool.addresses);
        let pools = pools.filter_map(|address| address.tables.as_deref()).map(tables).sum::<usize>();
        self.slots.bytes() + self.by_inside.bytes() + self.hosts.bytes() + self.by_host.bytes() + pools
    }

    /// Gives a router these outside addresses, and this worker's share of their ports. Bindings at addresses that it had
    /// before stay. Others are not given to sessions any more and go with the last one that holds them; all do so when the
    /// share changes.
    pub fn set_pool(&mut self, zone: u16, addresses: &[u32], slice: Slice) {
        let at = usize::from(zone);
        if self.pools.len() <= at {
            self.pools.resize_with(at + 1, || None);
        }
        let mut pool = self.pools[at]
            .take()
            .unwrap_or_else(|| Box::new(Pool { slice, addresses: Vec::new(), exhausted: 0 }));
        let same = pool.slice == slice;
        pool.slice = slice;
        for address in &mut pool.addresses {
            if (!same || !addresses.contains(&address.address))
                && let Some(tables) = address.tables.take()
            {
                for number in tables.owners() {
                    self.make_stale(number);
                }
            }
        }
        for &new in addresses {
            let has = |address: &Address| address.address == new && address.tables.is_some();
            if !pool.addresses.iter().any(has) {
                let entry = Address { address: new, tables: Some(Tables::new(slice)), bindings: 0 };
                let gone = |address: &Address| address.tables.is_none() && address.bindings == 0;
                match pool.addresses.iter().position(gone) {
                    Some(place) => pool.addresses[place] = entry,
                    None if pool.addresses.len() < usize::from(u16::MAX) => pool.addresses.push(entry),
                    None => {}
                }
            }
        }
        let needed = |address: &Address| address.tables.is_some() || address.bindings > 0;
        self.pools[at] = pool.addresses.iter().any(needed).then_some(pool);
    }

    /// From now on nobody finds it but those who hold it.
    fn make_stale(&mut self, number: u32) {
        let inside = self.slots[number].inside();
        self.slots[number].flags |= STALE;
        self.by_inside.remove(self.hash(&inside), number);
        self.leave_host(inside.zone, inside.address);
    }

    fn hash(&self, inside: &Inside) -> u64 {
        hash_inside(inside, self.keys)
    }

    fn host_hash(&self, zone: u16, address: u32) -> u64 {
        self.hash(&Inside { zone, protocol: 0, address, port: 0 })
    }

    /// Ports mean nothing where there are none.
    fn normal(inside: &Inside) -> Inside {
        let port = if space(inside.protocol).is_some() { inside.port } else { 0 };
        Inside { port, ..*inside }
    }

    /// The binding of an inside endpoint.
    #[inline]
    pub fn find(&self, inside: &Inside) -> Option<BindingRef> {
        let inside = Bindings::normal(inside);
        let is = |number: u32| self.slots[number].inside() == inside;
        self.by_inside.find(self.hash(&inside), is).map(BindingRef)
    }

    /// Brings near what [`Bindings::acquire`] looks at first for this inside endpoint.
    #[inline]
    pub fn approach(&self, inside: &Inside) {
        self.by_inside.prefetch(self.hash(&Bindings::normal(inside)));
        self.by_host.prefetch(self.host_hash(inside.zone, inside.address));
    }

    /// The binding that has an outside endpoint.
    pub fn find_outside(&self, zone: u16, protocol: u8, outside: Outside) -> Option<BindingRef> {
        let pool = self.pools.get(usize::from(zone))?.as_deref()?;
        let mut tables = pool.addresses.iter().filter(|address| address.address == outside.address);
        tables.find_map(|address| address.tables.as_deref()?.owner(protocol, outside.port)).map(BindingRef)
    }

    /// Whether an address is one of a router's pool.
    pub fn has_address(&self, zone: u16, address: u32) -> bool {
        let pool = self.pools.get(usize::from(zone)).and_then(Option::as_deref);
        pool.is_some_and(|pool| pool.addresses.iter().any(|a| a.address == address && a.tables.is_some()))
    }

    /// The binding of an inside endpoint for one session more; a new one if there is none. Give it back by
    /// [`Bindings::release`].
    ///
    /// # Errors
    /// [`NoBinding`]; [`NoBinding::Exhausted`] is counted by pool.
    pub fn acquire(&mut self, inside: &Inside) -> Result<BindingRef, NoBinding> {
        let got = self.hold_or_bind(Bindings::normal(inside));
        if got == Err(NoBinding::Exhausted)
            && let Some(Some(pool)) = self.pools.get_mut(usize::from(inside.zone))
        {
            pool.exhausted += 1;
        }
        got
    }

    /// As [`Bindings::acquire`], with the outside endpoint. That there is none is not counted: it will be asked for again.
    pub fn try_acquire(&mut self, inside: &Inside) -> Option<(BindingRef, Outside)> {
        let got = self.hold_or_bind(Bindings::normal(inside)).ok()?;
        Some((got, self.outside(got)?))
    }

    fn hold_or_bind(&mut self, inside: Inside) -> Result<BindingRef, NoBinding> {
        if let Some(found) = self.find(&inside) {
            self.hold(found);
            return Ok(found);
        }
        let counter = self.next_counter();
        let chosen = self.choose(&inside, self.random_after(counter))?;
        self.counter = counter;
        self.bind_at(inside, chosen)
    }

    /// Where an inside endpoint without a binding would get one.
    #[inline(always)]
    fn choose(&self, inside: &Inside, random: u64) -> Result<Place, NoBinding> {
        let host_hash = self.host_hash(inside.zone, inside.address);
        let host = self.find_host(inside.zone, inside.address, host_hash);
        if host.is_some_and(|host| self.hosts[host].bindings >= self.per_host) {
            return Err(NoBinding::HostLimit);
        }
        let paired = host.map(|host| usize::from(self.hosts[host].place));
        let pool = self.pools.get(usize::from(inside.zone)).and_then(Option::as_deref);
        let (place, port) = pool.ok_or(NoBinding::NoPool)?.choose(inside, paired, host_hash, random)?;
        if self.slots.is_full() || host.is_none() && self.hosts.is_full() {
            return Err(NoBinding::Full);
        }
        Ok(Place { host, host_hash, place, port })
    }

    /// The outside endpoint that [`Bindings::acquire`] would find or make now.
    ///
    /// # Errors
    /// As it says.
    pub fn foresee(&self, inside: &Inside) -> Result<Outside, NoBinding> {
        let inside = Bindings::normal(inside);
        if let Some(outside) = self.find(&inside).and_then(|binding| self.outside(binding)) {
            return Ok(outside);
        }
        let Place { place, port, .. } = self.choose(&inside, self.random_after(self.next_counter()))?;
        let pool = self.pools.get(usize::from(inside.zone)).and_then(Option::as_deref);
        let address = pool.and_then(|pool| pool.addresses.get(usize::from(place)));
        Ok(Outside { address: address.ok_or(NoBinding::NoPool)?.address, port })
    }

    /// As [`Bindings::acquire`], of this outside endpoint and no other: for looking at what would become of packets.
    pub fn import(&mut self, inside: &Inside, outside: Outside) -> Option<BindingRef> {
        let inside = Bindings::normal(inside);
        if let Some(found) = self.find(&inside).filter(|found| self.outside(*found) == Some(outside)) {
            self.hold(found);
            return Some(found);
        }
        let pool = self.pools.get(usize::from(inside.zone))?.as_deref()?;
        let is_free = |address: &Address| {
            let tables = address.tables.as_deref();
            tables.is_some_and(|tables| tables.owner(inside.protocol, outside.port).is_none())
        };
        let is_it = |address: &Address| address.address == outside.address && is_free(address);
        let place = u16::try_from(pool.addresses.iter().position(is_it)?).ok()?;
        let host_hash = self.host_hash(inside.zone, inside.address);
        let host = self.find_host(inside.zone, inside.address, host_hash);
        self.bind_at(inside, Place { host, host_hash, place, port: outside.port }).ok()
    }

    #[inline(always)]
    fn bind_at(&mut self, inside: Inside, chosen: Place) -> Result<BindingRef, NoBinding> {
        let Place { host, host_hash, place, port } = chosen;
        let slot = Slot {
            inside_address: inside.address,
            sessions: 1,
            inside_port: inside.port,
            outside_port: port,
            zone: inside.zone,
            place,
            protocol: inside.protocol,
            flags: TAKEN,
        };
        let number = self.slots.take(slot).ok_or(NoBinding::Full)?;
        let hash = self.hash(&inside);
        if self.join_host(host, host_hash, &slot).is_none() {
            self.slots.give_back(number);
            return Err(NoBinding::Full);
        }
        let (slots, keys) = (&self.slots, self.keys);
        let hash_of = |number: u32| hash_inside(&slots[number].inside(), keys);
        if self.by_inside.insert(hash, number, hash_of).is_err() {
            self.leave_host(inside.zone, inside.address);
            self.slots.give_back(number);
            return Err(NoBinding::Full);
        }
        if let Some(address) = self.address_mut(inside.zone, place) {
            address.bindings += 1;
            if let Some(tables) = &mut address.tables {
                tables.take(inside.protocol, port, number);
            }
        }
        Ok(BindingRef(number))
    }

    fn address_mut(&mut self, zone: u16, place: u16) -> Option<&mut Address> {
        self.pools.get_mut(usize::from(zone))?.as_deref_mut()?.addresses.get_mut(usize::from(place))
    }

    fn find_host(&self, zone: u16, address: u32, hash: u64) -> Option<u32> {
        let is = |number: u32| self.hosts[number].address == address && self.hosts[number].zone == zone;
        self.by_host.find(hash, is)
    }

    /// Notes one binding more of a host.
    fn join_host(&mut self, host: Option<u32>, hash: u64, slot: &Slot) -> Option<()> {
        if let Some(host) = host {
            self.hosts[host].bindings += 1;
            return Some(());
        }
        let new = Host { address: slot.inside_address, bindings: 1, zone: slot.zone, place: slot.place };
        let number = self.hosts.take(new)?;
        let (hosts, keys) = (&self.hosts, self.keys);
        let hash_of = |number: u32| {
            let Host { address, zone, .. } = hosts[number];
            hash_inside(&Inside { zone, protocol: 0, address, port: 0 }, keys)
        };
        if self.by_host.insert(hash, number, hash_of).is_err() {
            self.hosts.give_back(number);
            return None;
        }
        Some(())
    }

    /// Notes one binding less of a host.
    fn leave_host(&mut self, zone: u16, address: u32) {
        let hash = self.host_hash(zone, address);
        let Some(number) = self.find_host(zone, address, hash) else { return };
        let host = &mut self.hosts[number];
        if host.bindings > 1 {
            host.bindings -= 1;
        } else {
            self.by_host.remove(hash, number);
            self.hosts.give_back(number);
        }
    }

    fn next_counter(&self) -> u64 {
        self.counter.wrapping_add(0x9e37_79b9_7f4a_7c15)
    }

    fn random_after(&self, counter: u64) -> u64 {
        let [a, b, c] = self.keys;
        fold(fold(counter ^ c, a | 1) ^ b, 0xd6e8_feb8_6659_fd93)
    }

    /// One session more holds a binding.
    pub fn hold(&mut self, binding: BindingRef) {
        if let Some(slot) = self.slots.get_mut(binding.0) {
            slot.sessions += 1;
        }
    }

    /// One session less holds a binding. With the last one it goes.
    pub fn release(&mut self, binding: BindingRef) {
        let number = binding.0;
        let Some(slot) = self.slots.get_mut(number) else { return };
        slot.sessions -= 1;
        if slot.sessions > 0 {
            return;
        }
        let slot = *slot;
        if slot.flags & STALE == 0 {
            self.make_stale(number);
        }
        self.slots.give_back(number);
        if let Some(address) = self.address_mut(slot.zone, slot.place) {
            address.bindings -= 1;
            if slot.flags & STALE == 0
                && let Some(tables) = &mut address.tables
            {
                tables.give_back(slot.protocol, slot.outside_port);
            }
        }
    }

    /// The outside endpoint of a binding.
    #[inline]
    pub fn outside(&self, binding: BindingRef) -> Option<Outside> {
        let slot = self.slots.get(binding.0)?;
        let pool = self.pools.get(usize::from(slot.zone))?.as_deref()?;
        let address = pool.addresses.get(usize::from(slot.place))?.address;
        Some(Outside { address, port: slot.outside_port })
    }

    /// Whether the pool still has the binding's address: if not, its sessions are to be translated anew.
    pub fn is_current(&self, binding: BindingRef) -> bool {
        self.slots.get(binding.0).is_some_and(|slot| slot.flags & STALE == 0)
    }

    /// A binding.
    pub fn get(&self, binding: BindingRef) -> Option<Binding> {
        let slot = self.slots.get(binding.0)?;
        let outside = self.outside(binding)?;
        let is_current = slot.flags & STALE == 0;
        Some(Binding { inside: slot.inside(), outside, sessions: slot.sessions, is_current })
    }

    /// Looks at up to `most` places from `from` on, and shows the bindings there. Returns where to go on.
    pub fn walk(&self, from: u32, most: u32, mut show: impl FnMut(BindingRef, Binding)) -> Option<u32> {
        let end = self.slots.end().min(from.saturating_add(most));
        for number in from..end {
            if let Some(binding) = self.get(BindingRef(number)) {
                show(BindingRef(number), binding);
            }
        }
        (end < self.slots.end()).then_some(end)
    }

    /// What is in use of a router's addresses.
    pub fn usage(&self, zone: u16) -> Vec<Usage> {
        let pool = self.pools.get(usize::from(zone)).and_then(Option::as_deref);
        let of = |address: &Address| {
            let [tcp, udp, icmp] = address.tables.as_deref()?.spaces.each_ref().map(Space::usage);
            Some(Usage { address: address.address, tcp, udp, icmp })
        };
        pool.map_or(Vec::new(), |pool| pool.addresses.iter().filter_map(of).collect())
    }

    /// How often a router had no port.
    pub fn exhausted(&self, zone: u16) -> u64 {
        self.pools.get(usize::from(zone)).and_then(Option::as_deref).map_or(0, |pool| pool.exhausted)
    }
}

fn hash_inside(inside: &Inside, [a, b, c]: [u64; 3]) -> u64 {
    let rest = u64::from(inside.zone) | u64::from(inside.protocol) << 16 | u64::from(inside.port) << 32;
    fold(fold(u64::from(inside.address) ^ a, rest ^ b), c | 1)
}

impl Pool {
    /// Where a host gets a binding, and which port.
    #[allow(clippy::cast_possible_truncation)] // a pool has fewer than 2^16 addresses
    fn choose(
        &self,
        inside: &Inside,
        paired: Option<usize>,
        host_hash: u64,
        random: u64,
    ) -> Result<(u16, u16), NoBinding> {
        let owner = self.slice.owner_of_protocol(inside.protocol);
        if space(inside.protocol).is_none() && owner != self.slice.worker() {
            return Err(NoBinding::Elsewhere(owner));
        }
        let at = |place: usize| {
            let tables = self.addresses.get(place)?.tables.as_deref()?;
            Some((place as u16, tables.choose(inside, random)?))
        };
        let chosen = match paired {
            Some(place) => at(place),
            None => {
                let count = self.addresses.len();
                let start = ((u128::from(host_hash) * count as u128) >> 64) as usize;
                (0..count).find_map(|n| at((start + n) % count))
            }
        };
        if chosen.is_none() && !self.addresses.iter().any(|address| address.tables.is_some()) {
            return Err(NoBinding::NoPool);
        }
        chosen.ok_or(NoBinding::Exhausted)
    }
}
