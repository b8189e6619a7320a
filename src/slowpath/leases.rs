//! Dynamic leases: addresses by DHCP for clients without a port of their own, out of the pools of their network.
//!
//! What a pool decides stands in [`crate::services::dhcp4::pool`]; here it is made durable. A reply that grants a lease is sent
//! only after the lease is in the store, on the disk. Requests that wait are decided together and written with one commit, so
//! that a slow disk costs latency and not throughput. Where the disk fails there is no reply; the lease is kept in memory, and
//! written with the next commit that succeeds. What the store has is what the pools have bound, but for that.
//!
//! The thread is one of its own, since it waits for the disk.
//!
//! Limits: what the store knows of a client does not include its port, so after a restart the limits of a port begin anew. Times
//! are the wall clock's, which must be about right before leases are given. Addresses are not probed before they are offered
//! (RFC 2131, 2.2 recommends it); a client that finds its address in use declines it. A client that comes by a relay gets an
//! address of the relay's subnet only. Of leases that are over the pools remember the clients, the store does not.

mod store;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crossbeam::channel::{self, Receiver, Sender, select};
use tokio::sync::oneshot;

use super::counters::{count, count_by, counters};
use crate::dataplane::serve::Punt;
use crate::services::dhcp4::pool::{Change, Entry, Limits, Pool, Subnet, answer_in};
use crate::services::dhcp4::{Answered, Refused, Settings};
use crate::types::{Mac, NetIdx, PortIdx};
use store::Store;

pub use crate::services::dhcp4::pool::{Config, State};
pub use store::OpenError;

/// Most requests that are answered with one commit.
const BATCH: usize = 512;
/// How often leases that are over are removed from the store, and how many at a time.
const SWEEP: (Duration, usize) = (Duration::from_secs(5), 4096);
/// Seconds between two lines of the log about the same.
const QUIET: u64 = 10;

counters! {
    /// Requests that were looked at.
    requests,
    /// Addresses that were offered.
    offers,
    /// Leases that were granted or extended, and settings that were told.
    acks,
    /// Addresses that were denied.
    naks,
    /// Messages that need no reply: DECLINE and RELEASE.
    given_up,
    /// No answer: a length, a checksum or an option is wrong.
    refused_malformed,
    /// No answer: nothing that is served.
    refused_unsupported,
    /// No answer: another server is meant.
    refused_other_server,
    /// No answer: somebody else's lease.
    refused_other_client,
    /// No answer: no address is left, or there is no such lease.
    refused_no_lease,
    /// No answer: the clients behind the port have as many leases as they may have.
    refused_limit,
    /// No answer: the network has no pools (any more).
    refused_unknown_network,
    /// Times that the store was written.
    commits,
    /// Times that it could not be.
    commits_failed,
    /// Replies that were not sent because what they grant could not be stored.
    replies_withheld,
    /// Replies that found no room at the worker of their port.
    replies_dropped,
    /// Requests that found no room here.
    dropped_queue_full,
    /// Leases that were removed from the store because they were over.
    expired,
    /// Leases that held and were ended because the configuration takes their address away.
    ended,
}

/// A network whose clients get addresses out of pools.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkLeases {
    /// Where it stands in the tables.
    pub network: NetIdx,
    /// Its name, by which its leases are stored.
    pub name: String,
    /// Its subnets with a pool, and what their clients are told. The first one with a free address serves a new client.
    pub subnets: Vec<(Config, Settings)>,
}

/// An address of a pool, to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The network, by name.
    pub network: String,
    /// The address.
    pub address: Ipv4Addr,
    /// The client's hardware address.
    pub mac: Mac,
    /// The client's identifier: its own, or made of its hardware address; empty when the address was declined.
    pub client: Box<[u8]>,
    /// What the address is in.
    pub state: State,
    /// Until when, in seconds since 1970; none: for ever. Once this is over the address is free, and the client remembered.
    pub until: Option<u64>,
    /// Whether it still holds.
    pub holds: bool,
    /// The port that the client was last heard at; none after a restart.
    pub ingress: Option<PortIdx>,
}

/// How much of a pool of so many addresses may be in use. One port alone can never use it up: a sixteenth, and one address at
/// least, is left to others as far as the pool has so many.
pub fn limits(addresses: usize) -> Limits {
    let share = addresses / 16;
    let (offers, declined) = (share.clamp(1, 64), share.clamp(1, 16));
    let leases = addresses.saturating_sub(offers + declined + share.max(1)).max(1);
    Limits { offers, leases, declined, ..Limits::default() }
}

struct Network {
    name: Arc<str>,
    subnets: Vec<Subnet>,
}

/// The pools of all networks, and the store.
pub struct Leases {
    store: Store,
    networks: HashMap<NetIdx, Network>,
    /// What was stored when the process began, until the first configuration claims it.
    saved: Option<Vec<store::Row>>,
    /// What the store does not have yet: a lease, or that there is none.
    unwritten: BTreeMap<(Arc<str>, Ipv4Addr), Option<Entry>>,
    counters: Arc<Counters>,
    disk: Quiet,
    full: Quiet,
}

impl Leases {
    /// Opens the store, which is made where there is none. Without a path, leases end with the process.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(path: Option<&Path>) -> Result<Leases, OpenError> {
        let store = Store::open(path)?;
        let saved = Some(store.rows(path)?);
        Ok(Leases {
            store,
            networks: HashMap::new(),
            saved,
            unwritten: BTreeMap::new(),
            counters: Arc::default(),
            disk: Quiet::default(),
            full: Quiet::default(),
        })
    }

    /// Takes the networks that there are from now on. Those that stay keep their leases; leases of others, and of addresses that
    /// are no longer a pool's, are forgotten and removed from the store.
    pub fn configure(&mut self, networks: Vec<NetworkLeases>, now: u64) {
        let mut before: HashMap<Arc<str>, Vec<Subnet>> =
            self.networks.drain().map(|(_, network)| (network.name, network.subnets)).collect();
        let mut held: Vec<(Arc<str>, Entry)> = Vec::new();
        for (name, subnets) in &before {
            let entries = subnets.iter().flat_map(|subnet| subnet.pool.iter());
            let bound = entries.filter(|entry| entry.state == State::Bound);
            held.extend(bound.map(|entry| (name.clone(), entry.clone())));
        }
        let saved = self.saved.take().unwrap_or_default();
        held.extend(saved.iter().map(|row| (row.network.as_str().into(), row.entry.clone())));
        for NetworkLeases { network, name, subnets } in networks {
            let name: Arc<str> = name.into();
            let mut old = before.remove(&name).unwrap_or_default();
            let own = || saved.iter().filter(|row| *row.network == *name).map(|row| row.entry.clone());
            let keep = |(config, settings): (Config, Settings)| {
                let at = old.iter().position(|subnet| subnet.pool.config().subnet == config.subnet);
                let mut pool = match at.map(|at| old.swap_remove(at)) {
                    Some(mut subnet) => {
                        subnet.pool.configure(config);
                        subnet.pool
                    }
                    None => Pool::new(config),
                };
                pool.restore(own());
                Subnet { pool, settings }
            };
            let subnets = subnets.into_iter().map(keep).collect();
            self.networks.insert(network, Network { name, subnets });
        }
        self.forget(held, now);
        self.write();
    }

    /// Notes that leases are to be removed from the store, unless a pool has them.
    fn forget(&mut self, held: Vec<(Arc<str>, Entry)>, now: u64) {
        let by_name: HashMap<&str, &Network> =
            self.networks.values().map(|network| (&*network.name, network)).collect();
        for (name, entry) in held {
            let subnets = by_name.get(&*name).map_or(&[][..], |network| &network.subnets);
            let is_kept = |subnet: &Subnet| {
                subnet.pool.get(entry.address).is_some_and(|found| found.client == entry.client)
            };
            if subnets.iter().any(is_kept) {
                continue;
            }
            if entry.holds(now) {
                count(&self.counters.ended);
                tracing::warn!(network = &*name, address = %entry.address, client = %entry.mac,
                    "a lease ends before its time: the configuration takes its address away");
            }
            self.unwritten.insert((name, entry.address), None);
        }
    }

    /// Decides what requests are answered with, makes it durable, and gives the replies that may be sent then. `now` is in
    /// seconds since 1970.
    pub fn answer(&mut self, requests: impl IntoIterator<Item = Punt>, now: u64) -> Vec<Punt> {
        let mut replies = Vec::new();
        for request in requests {
            count(&self.counters.requests);
            replies.extend(self.decide(request, now));
        }
        let is_stored = self.write();
        let count_of = replies.len();
        replies.retain(|(_, must_last)| is_stored || !must_last);
        count_by(&self.counters.replies_withheld, (count_of - replies.len()) as u64);
        replies.into_iter().map(|(reply, _)| reply).collect()
    }

    /// A reply, and whether it must wait for the disk.
    fn decide(&mut self, request: Punt, now: u64) -> Option<(Punt, bool)> {
        let Punt { ingress, network: place, frame } = request;
        let Some(network) = self.networks.get_mut(&place) else {
            count(&self.counters.refused_unknown_network);
            return None;
        };
        let mut reply = Vec::new();
        let (done, change) = match answer_in(&mut network.subnets, &frame, ingress, now, &mut reply) {
            Ok(answered) => answered,
            Err(refused) => {
                self.refuse(refused, place, ingress, now);
                return None;
            }
        };
        let counters = &self.counters;
        count(match done {
            Answered::Offer { .. } => &counters.offers,
            Answered::Ack { .. } => &counters.acks,
            Answered::Nak { .. } => &counters.naks,
            Answered::Consumed { .. } => &counters.given_up,
        });
        let must_last = change.is_some();
        match change {
            Some(Change::Bound(entry)) => {
                self.unwritten.insert((network.name.clone(), entry.address), Some(entry));
            }
            Some(Change::Released(address)) => {
                self.unwritten.insert((network.name.clone(), address), None);
            }
            None => {}
        }
        done.has_reply().then_some((Punt { ingress, network: place, frame: reply }, must_last))
    }

    fn refuse(&mut self, refused: Refused, network: NetIdx, ingress: PortIdx, now: u64) {
        let counters = &self.counters;
        count(match refused {
            Refused::Malformed => &counters.refused_malformed,
            Refused::NotARequest | Refused::Unsupported => &counters.refused_unsupported,
            Refused::OtherServer => &counters.refused_other_server,
            Refused::OtherClient => &counters.refused_other_client,
            Refused::NoLease => &counters.refused_no_lease,
            Refused::Limit => &counters.refused_limit,
        });
        if matches!(refused, Refused::NoLease | Refused::Limit)
            && let Some(unsaid) = self.full.may(now)
        {
            let name = self.networks.get(&network).map_or("", |network| &network.name);
            tracing::warn!(
                network = name,
                port = ingress.0,
                unsaid,
                "a DHCP client gets no answer: {refused}"
            );
        }
    }

    /// Writes what the store does not have yet. Says whether it has all now.
    fn write(&mut self) -> bool {
        if self.unwritten.is_empty() {
            return true;
        }
        let changes = self.unwritten.iter();
        let written = self.store.write(changes.map(|((name, at), entry)| (&**name, *at, entry.as_ref())));
        match written {
            Ok(()) => {
                count(&self.counters.commits);
                self.unwritten.clear();
                true
            }
            Err(error) => {
                self.failed(&error);
                false
            }
        }
    }

    fn failed(&mut self, error: &rusqlite::Error) {
        count(&self.counters.commits_failed);
        if let Some(unsaid) = self.disk.may(unix_time()) {
            tracing::error!(unsaid, "leases cannot be stored, so none are given: {error}");
        }
    }

    /// From time to time: tries again what could not be written, and removes leases that are over from the store.
    pub fn tidy(&mut self, now: u64) {
        if !self.write() {
            return;
        }
        match self.store.remove_over(now, SWEEP.1) {
            Ok(removed) => count_by(&self.counters.expired, removed as u64),
            Err(error) => self.failed(&error),
        }
    }

    /// All addresses that were ever given, in the order of networks' names and of subnets.
    pub fn shown(&self, now: u64) -> Vec<Shown> {
        let mut networks: Vec<&Network> = self.networks.values().collect();
        networks.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let of = |network: &Network, entry: &Entry| Shown {
            network: network.name.to_string(),
            address: entry.address,
            mac: entry.mac,
            client: entry.client.clone(),
            state: entry.state,
            until: Some(entry.until).filter(|until| *until != u64::MAX),
            holds: entry.holds(now),
            ingress: entry.ingress,
        };
        let entries = networks.into_iter().flat_map(|network| {
            let all = network.subnets.iter().flat_map(|subnet| subnet.pool.iter());
            all.map(move |entry| of(network, entry))
        });
        entries.collect()
    }
}

/// Keeps what happens often from filling the log.
#[derive(Default)]
struct Quiet {
    next: u64,
    unsaid: u64,
}

impl Quiet {
    /// Whether a line may be written; then, how many were not since the last.
    fn may(&mut self, now: u64) -> Option<u64> {
        // A clock that was set back silences nobody for long.
        if now < self.next && self.next - now <= QUIET {
            self.unsaid += 1;
            return None;
        }
        self.next = now.saturating_add(QUIET);
        Some(std::mem::take(&mut self.unsaid))
    }
}

/// Seconds since 1970.
fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

enum Ask {
    Configure(Vec<NetworkLeases>),
    Show(oneshot::Sender<Vec<Shown>>),
}

/// Where requests are handed to the thread.
#[derive(Clone)]
pub(super) struct Inbox {
    frames: Sender<Punt>,
    counters: Arc<Counters>,
}

impl Inbox {
    /// Hands over a request; one too many is dropped and counted.
    pub(super) fn receive(&self, request: Punt) {
        if self.frames.try_send(request).is_err() {
            count(&self.counters.dropped_queue_full);
        }
    }
}

/// The thread. It ends when its inbox is gone.
pub(super) struct Handle {
    asks: Sender<Ask>,
    counters: Arc<Counters>,
    thread: Option<JoinHandle<()>>,
}

impl Handle {
    /// Starts it, with room for so many requests that wait.
    pub(super) fn start(
        leases: Leases,
        room: usize,
        answer: impl Fn(Punt) -> bool + Send + 'static,
    ) -> std::io::Result<(Handle, Inbox)> {
        let counters = leases.counters.clone();
        let (frames, waiting) = channel::bounded(room);
        let (asks, asked) = channel::unbounded();
        let thread = std::thread::Builder::new()
            .name("leases".to_owned())
            .spawn(move || run(leases, &waiting, &asked, &answer))?;
        let inbox = Inbox { frames, counters: counters.clone() };
        Ok((Handle { asks, counters, thread: Some(thread) }, inbox))
    }

    pub(super) fn configure(&self, networks: Vec<NetworkLeases>) {
        if self.asks.send(Ask::Configure(networks)).is_err() {
            tracing::error!("the thread of the leases has ended: no leases are given any more");
        }
    }

    /// All leases; none where the thread has ended.
    pub(super) fn shown(&self) -> impl Future<Output = Vec<Shown>> + Send + use<> {
        let (tell, told) = oneshot::channel();
        let _ = self.asks.send(Ask::Show(tell));
        async { told.await.unwrap_or_default() }
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(super) fn join(&mut self) {
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the leases panicked");
        }
    }
}

fn run(mut leases: Leases, frames: &Receiver<Punt>, asks: &Receiver<Ask>, answer: &impl Fn(Punt) -> bool) {
    let ticks = channel::tick(SWEEP.0);
    loop {
        let first = select! {
            recv(asks) -> ask => match ask {
                Ok(ask) => { leases.asked(ask); continue }
                Err(_) => return,
            },
            recv(ticks) -> _ => { leases.tidy(unix_time()); continue }
            recv(frames) -> first => match first {
                Ok(first) => first,
                Err(_) => return,
            },
        };
        // What comes by new tables is judged by the configuration that goes with them.
        asks.try_iter().for_each(|ask| leases.asked(ask));
        let batch = std::iter::once(first).chain(frames.try_iter()).take(BATCH);
        for reply in leases.answer(batch, unix_time()) {
            if !answer(reply) {
                count(&leases.counters.replies_dropped);
            }
        }
    }
}

impl Leases {
    fn asked(&mut self, ask: Ask) {
        match ask {
            Ask::Configure(networks) => self.configure(networks, unix_time()),
            // Who asked may be gone.
            Ask::Show(tell) => drop(tell.send(self.shown(unix_time()))),
        }
    }
}
