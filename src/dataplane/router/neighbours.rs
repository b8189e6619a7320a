//! What a worker knows of the neighbours of routers' interfaces: those that the tables name, and those that an interface's
//! home has found and told. What was told counts for a while only; then the home is asked again, by a packet that goes its
//! way, and so learns that the neighbour is still wanted.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};

use crate::dataplane::fdb::fold;
use crate::types::{Mac, NetIdx, PortIdx};

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

/// A neighbour's place. Good while [`Neighbours::era`] stays the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NeighbourRef(u32);

impl NeighbourRef {
    /// As a number, which is never 0.
    #[inline(always)]
    pub fn number(self) -> u32 {
        self.0 + 1
    }

    /// The inverse of [`NeighbourRef::number`].
    #[inline(always)]
    pub fn from_number(number: u32) -> Option<NeighbourRef> {
        Some(NeighbourRef(number.checked_sub(1)?))
    }
}

#[derive(Clone, Copy, Debug)]
struct Known {
    key: Key,
    mac: Mac,
    /// Second from which it counts no longer.
    until: u32,
    /// The network and the port that it is behind, as the FDB of this generation says.
    exit: Option<((NetIdx, PortIdx), u32)>,
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
    places: HashMap<Key, NeighbourRef, Seeded>,
    known: Vec<Known>,
    era: u32,
}

impl Neighbours {
    /// Knows nobody. `seed` is secret.
    pub fn new(seed: u64) -> Neighbours {
        Neighbours { places: HashMap::with_hasher(Seeded(seed)), known: Vec::new(), era: 0 }
    }

    /// Counts up whenever neighbours change places.
    #[inline(always)]
    pub fn era(&self) -> u32 {
        self.era
    }

    /// Where a neighbour is kept, if it is.
    #[inline(always)]
    pub fn find(&self, interface: PortIdx, address: u128) -> Option<NeighbourRef> {
        self.places.get(&Key { address, interface }).copied()
    }

    /// The interface that a neighbour is on, and its MAC if that is known now.
    #[inline(always)]
    pub fn at(&self, place: NeighbourRef, now: u32) -> Option<(PortIdx, Option<Mac>)> {
        let known = self.known.get(place.0 as usize)?;
        Some((known.key.interface, (now < known.until).then_some(known.mac)))
    }

    /// The interface that a neighbour is on, and the network and the port that it is behind, if the FDB has not changed since
    /// that was found.
    #[inline(always)]
    pub(super) fn exit(
        &self,
        place: NeighbourRef,
        generation: u32,
    ) -> Option<(PortIdx, Option<(NetIdx, PortIdx)>)> {
        let known = self.known.get(place.0 as usize)?;
        let exit = known.exit.filter(|(_, found)| *found == generation);
        Some((known.key.interface, exit.map(|(exit, _)| exit)))
    }

    /// Keeps which port a neighbour is behind.
    pub(super) fn keep_exit(&mut self, place: NeighbourRef, exit: (NetIdx, PortIdx), generation: u32) {
        if let Some(known) = self.known.get_mut(place.0 as usize) {
            known.exit = Some((exit, generation));
        }
    }

    /// The MAC of a neighbour, if it is known now.
    #[inline(always)]
    pub fn get(&self, interface: PortIdx, address: u128, now: u32) -> Option<Mac> {
        self.at(self.find(interface, address)?, now)?.1
    }

    /// Takes over what a home tells.
    pub fn hear(&mut self, event: NeighbourEvent, now: u32) {
        let key = Key { address: event.address, interface: event.interface };
        let until = now.saturating_add(TOLD);
        match (self.find(event.interface, event.address), event.mac) {
            (Some(place), mac) => {
                let Some(known) = self.known.get_mut(place.0 as usize) else { return };
                if known.until != FOR_EVER {
                    *known = Known {
                        mac: mac.unwrap_or_default(),
                        until: mac.map_or(0, |_| until),
                        exit: known.exit.filter(|_| mac == Some(known.mac)),
                        ..*known
                    };
                }
            }
            (None, Some(mac)) => {
                if self.known.len() >= MAX_TOLD {
                    self.retain(|known| now < known.until);
                }
                if self.known.len() < MAX_TOLD {
                    self.add(Known { key, mac, until, exit: None });
                }
            }
            (None, None) => {}
        }
    }

    fn add(&mut self, known: Known) {
        let Ok(place) = u32::try_from(self.known.len()) else { return };
        self.places.insert(known.key, NeighbourRef(place));
        self.known.push(known);
    }

    /// Forgets all others. Those that stay change places.
    fn retain(&mut self, stays: impl Fn(&Known) -> bool) {
        let old = std::mem::take(&mut self.known);
        if !old.is_empty() {
            self.era = self.era.wrapping_add(1);
        }
        self.places.clear();
        old.into_iter().filter(stays).for_each(|known| self.add(known));
    }

    /// Takes over the tables' known hosts, and forgets neighbours of interfaces that `is_there` denies.
    pub(in crate::dataplane) fn sync(
        &mut self,
        hosts: &[(PortIdx, u128, Mac)],
        is_there: impl Fn(PortIdx) -> bool,
    ) {
        self.retain(|known| known.until != FOR_EVER && is_there(known.key.interface));
        for &(interface, address, mac) in hosts {
            let known = Known { key: Key { address, interface }, mac, until: FOR_EVER, exit: None };
            match self.find(interface, address).and_then(|place| self.known.get_mut(place.0 as usize)) {
                Some(told) => *told = known,
                None => self.add(known),
            }
        }
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
