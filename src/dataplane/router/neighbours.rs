//! What a worker knows of the neighbours of routers' interfaces: those that the tables name, and those that an interface's
//! home has found and told. What was told counts for a while only; then the home is asked again, by a packet that goes its
//! way, and so learns that the neighbour is still wanted.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};

use crate::dataplane::fdb::fold;
use crate::types::{Mac, PortIdx};

/// Seconds for which a home's word counts.
const TOLD: u32 = 30;
/// Most neighbours that are known by being told; the packets of others take the way over their home.
const MAX_TOLD: usize = 1 << 16;
/// A known host stays.
const FOR_EVER: u32 = u32::MAX;

/// A neighbour on the network of an interface.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Key {
    /// By [`crate::tables::tunnel::address_key`].
    address: u128,
    interface: PortIdx,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    mac: Mac,
    /// Second from which it counts no longer.
    until: u32,
}

/// What a home tells of a neighbour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NeighbourEvent {
    /// The interface that it is a neighbour of.
    pub interface: PortIdx,
    /// Its address, by [`crate::tables::tunnel::address_key`].
    pub address: u128,
    /// Its MAC; none: not known any more.
    pub mac: Option<Mac>,
}

/// See the module's documentation.
pub struct Neighbours {
    known: HashMap<Key, Known, Seeded>,
}

impl Neighbours {
    /// Knows nobody. `seed` is secret.
    pub fn new(seed: u64) -> Neighbours {
        Neighbours { known: HashMap::with_hasher(Seeded(seed)) }
    }

    /// The MAC of a neighbour, if it is known now.
    #[inline(always)]
    pub fn get(&self, interface: PortIdx, address: u128, now: u32) -> Option<Mac> {
        let known = self.known.get(&Key { address, interface })?;
        (now < known.until).then_some(known.mac)
    }

    /// Takes over what a home tells.
    pub fn hear(&mut self, event: NeighbourEvent, now: u32) {
        let key = Key { address: event.address, interface: event.interface };
        if self.known.get(&key).is_some_and(|known| known.until == FOR_EVER) {
            return;
        }
        let Some(mac) = event.mac else {
            self.known.remove(&key);
            return;
        };
        if self.known.len() >= MAX_TOLD && !self.known.contains_key(&key) {
            self.known.retain(|_, known| now < known.until);
            if self.known.len() >= MAX_TOLD {
                return;
            }
        }
        self.known.insert(key, Known { mac, until: now.saturating_add(TOLD) });
    }

    /// Takes over the tables' known hosts, and forgets neighbours of interfaces that `is_there` denies.
    pub(in crate::dataplane) fn sync(
        &mut self,
        hosts: &[(PortIdx, u128, Mac)],
        is_there: impl Fn(PortIdx) -> bool,
    ) {
        self.known.retain(|key, known| known.until != FOR_EVER && is_there(key.interface));
        self.known.extend(
            hosts.iter().map(|&(interface, address, mac)| {
                (Key { address, interface }, Known { mac, until: FOR_EVER })
            }),
        );
    }
}

/// A keyed hash for keys of few words.
#[derive(Clone, Copy)]
struct Seeded(u64);

impl BuildHasher for Seeded {
    type Hasher = Folding;

    #[inline(always)]
    fn build_hasher(&self) -> Folding {
        Folding(self.0)
    }
}

struct Folding(u64);

impl Hasher for Folding {
    #[inline(always)]
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(byte.into());
        }
    }

    #[inline(always)]
    fn write_u16(&mut self, value: u16) {
        self.write_u64(value.into());
    }

    #[inline(always)]
    fn write_u64(&mut self, value: u64) {
        self.0 = fold(self.0 ^ value, 0x9e37_79b9_7f4a_7c15);
    }

    #[inline(always)]
    #[allow(clippy::cast_possible_truncation)] // both halves are used
    fn write_u128(&mut self, value: u128) {
        self.write_u64(value as u64);
        self.write_u64((value >> 64) as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const B: Mac = Mac([2, 0, 0, 0, 0, 2]);

    fn told(address: u128, mac: Option<Mac>) -> NeighbourEvent {
        NeighbourEvent { interface: PortIdx(1), address, mac }
    }

    #[test]
    fn a_homes_word_counts_for_a_while_and_the_tables_for_ever() {
        let mut known = Neighbours::new(7);
        known.sync(&[(PortIdx(1), 10, A)], |_| true);
        known.hear(told(10, Some(B)), 0);
        known.hear(told(11, Some(B)), 0);
        assert_eq!(known.get(PortIdx(1), 10, 1_000_000), Some(A));
        assert_eq!((known.get(PortIdx(1), 11, 29), known.get(PortIdx(1), 11, 30)), (Some(B), None));
        assert_eq!(known.get(PortIdx(2), 11, 0), None, "another interface's");
        known.hear(told(11, None), 0);
        assert_eq!(known.get(PortIdx(1), 11, 0), None);
    }

    #[test]
    fn what_is_gone_from_the_tables_is_forgotten() {
        let mut known = Neighbours::new(7);
        known.sync(&[(PortIdx(1), 10, A)], |_| true);
        known.hear(told(11, Some(B)), 0);
        known.sync(&[], |port| port != PortIdx(1));
        assert_eq!((known.get(PortIdx(1), 10, 0), known.get(PortIdx(1), 11, 0)), (None, None));
    }

    #[test]
    fn more_than_there_is_room_for_is_not_remembered() {
        let mut known = Neighbours::new(7);
        for address in 0..MAX_TOLD as u128 + 10 {
            known.hear(told(address, Some(A)), 0);
        }
        assert_eq!(known.known.len(), MAX_TOLD);
        known.hear(told(u128::MAX, Some(A)), 100);
        assert_eq!(
            (known.known.len(), known.get(PortIdx(1), u128::MAX, 100)),
            (1, Some(A)),
            "the old make room"
        );
    }
}
