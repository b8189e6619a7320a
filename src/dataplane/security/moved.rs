//! What ends when addresses change hands: a guest goes, its address is another's, and whoever was connected to the first one must not
//! find the second one behind it.
//!
//! Which guest had what is compared with each new tables; what has changed is looked for among all connections in small steps, one
//! a turn of the worker, so that no frame waits for it.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::dataplane::conntrack::{Direction, Entry, Tracker};
use crate::tables::security::Guard;
use crate::tables::tunnel::key_address;
use crate::tables::{Segments, Tables};
use crate::types::NetIdx;

/// Places of connections that are looked at in a turn.
const STEP: u32 = 4096;

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Moved {
    /// By slot.
    homes: Vec<Option<Home>>,
    /// Addresses whose connections end: those of the walk that goes on, and of the next one.
    now: Vec<(NetIdx, IpNet)>,
    next: Vec<(NetIdx, IpNet)>,
    /// Where the walk is.
    at: u32,
}

/// Whose a slot is, and what its guest may claim.
struct Home {
    name: Arc<str>,
    network: NetIdx,
    guard: Arc<Guard>,
}

impl Home {
    fn addresses(&self) -> impl Iterator<Item = (NetIdx, IpNet)> {
        self.guard.claims.stations.iter().flat_map(|station| {
            let v4 = station.v4.iter().copied().map(IpNet::V4);
            v4.chain(station.v6.iter().copied().map(IpNet::V6)).map(|net| (self.network, net))
        })
    }

    fn is(&self, other: &Home) -> bool {
        self.name == other.name
            && self.network == other.network
            && (Arc::ptr_eq(&self.guard, &other.guard) || self.guard.claims == other.guard.claims)
    }
}

impl Moved {
    /// Takes over newly published tables.
    pub(super) fn configure(&mut self, tables: &Tables) {
        self.homes.resize_with(tables.ports.len().max(self.homes.len()), || None);
        for (slot, home) in self.homes.iter_mut().enumerate() {
            let port = tables.ports.get(slot).and_then(Option::as_ref);
            let found = port.and_then(|port| match (&port.segments, &port.guard) {
                (Segments::Access(network), Some(guard)) => {
                    Some(Home { name: port.name.clone(), network: *network, guard: guard.clone() })
                }
                _ => None,
            });
            let is_same = match (&*home, &found) {
                (None, None) => true,
                (Some(was), Some(is)) => was.is(is),
                _ => false,
            };
            if !is_same {
                self.next.extend(home.iter().chain(&found).flat_map(Home::addresses));
            }
            *home = found;
        }
    }

    /// Looks at some more connections.
    pub(super) fn step(&mut self, tracker: &mut Tracker) {
        if self.now.is_empty() {
            if self.next.is_empty() {
                return;
            }
            self.now = std::mem::take(&mut self.next);
            self.at = 0;
        }
        let now = &self.now;
        match tracker.flush(self.at, STEP, |entry| is_of(entry, now), &mut |_, _| {}) {
            Some(at) => self.at = at,
            None => self.now.clear(),
        }
    }
}

fn is_of(entry: &Entry, addresses: &[(NetIdx, IpNet)]) -> bool {
    let tuple = entry.tuple(Direction::Original);
    let [source, destination]: [IpAddr; 2] = [tuple.source, tuple.destination].map(key_address);
    let mut in_zone = addresses.iter().filter(|(zone, _)| zone.0 == tuple.zone);
    in_zone.any(|(_, net)| net.contains(&source) || net.contains(&destination))
}
