//! Where packets of a router to an address lead: what the FIB and the neighbours said the last time, for as long as that
//! holds. One line of memory then says what else takes two searches.
//!
//! A pair of places may be any address's, and has the two that came last; so it is bounded, and what a scan of addresses takes
//! from others is a few cycles a packet. Spread over several next hops, a destination is not kept.

use super::neighbours::NeighbourRef;
use crate::dataplane::fdb::fold;

/// Places: sixteen bytes each for IPv4, a third of a cache's first level.
const PLACES: usize = 1024;

/// A router and an address, as one thing.
pub(in crate::dataplane) trait Key: Copy + Eq + Default {
    /// All that tells it from others, folded.
    fn bits(self) -> u64;
}

/// An IPv4 address with its router above it.
impl Key for u64 {
    #[inline(always)]
    fn bits(self) -> u64 {
        self
    }
}

/// An IPv6 address with its router.
impl Key for (u128, u16) {
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation)] // a fold
    fn bits(self) -> u64 {
        self.0 as u64 ^ (self.0 >> 64) as u64 ^ u64::from(self.1) << 48
    }
}

/// Where an address leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lead {
    /// To what NAT gives to others.
    Translated,
    /// To a neighbour.
    To(NeighbourRef),
    /// To the world: what comes from inside is translated.
    Out(NeighbourRef),
}

/// Of a lead's number, the bit that says that it is to the world.
const OUT: u32 = 1 << 31;

#[derive(Clone, Copy, Default)]
struct Place<K> {
    key: K,
    epoch: u32,
    /// The neighbour's number, and [`OUT`]; 0: translated.
    lead: u32,
}

/// See the module's documentation.
pub(in crate::dataplane) struct Leads<K> {
    pairs: Vec<[Place<K>; 2]>,
    seed: u64,
}

impl<K: Key> Leads<K> {
    /// Takes no memory before the first lead. `seed` is secret.
    pub(in crate::dataplane) fn new(seed: u64) -> Leads<K> {
        Leads { pairs: Vec::new(), seed }
    }

    #[inline(always)]
    #[allow(clippy::cast_possible_truncation)] // a hash folds
    fn pair(&self, key: K) -> usize {
        (fold(key.bits() ^ self.seed, 0x9e37_79b9_7f4a_7c15) as usize) % (PLACES / 2)
    }

    /// Where the packets of a router to an address lead, if that is known since this epoch began.
    #[inline(always)]
    pub(super) fn get(&self, key: K, epoch: u32) -> Option<Lead> {
        let [newer, older] = self.pairs.get(self.pair(key))?;
        let place = if newer.key == key { newer } else { older };
        if (place.key != key) | (place.epoch != epoch) {
            return None;
        }
        let is_out = place.lead & OUT != 0;
        Some(match NeighbourRef::from_number(place.lead & !OUT) {
            None => Lead::Translated,
            Some(neighbour) if is_out => Lead::Out(neighbour),
            Some(neighbour) => Lead::To(neighbour),
        })
    }

    /// Keeps a lead, in the place of the older one of its pair.
    #[cold]
    pub(super) fn keep(&mut self, key: K, epoch: u32, lead: Lead) {
        // No packet is for address 0.
        self.pairs.resize(PLACES / 2, [Place::default(); 2]);
        let lead = match lead {
            Lead::Translated => 0,
            Lead::To(neighbour) => neighbour.number(),
            Lead::Out(neighbour) => neighbour.number() | OUT,
        };
        let at = self.pair(key);
        if let Some([newer, older]) = self.pairs.get_mut(at) {
            if newer.key != key {
                *older = *newer;
            }
            *newer = Place { key, epoch, lead };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(number: u32) -> Lead {
        Lead::To(NeighbourRef::from_number(number).unwrap())
    }

    #[test]
    fn a_lead_counts_for_its_router_and_its_epoch() {
        let mut leads = Leads::new(7);
        assert_eq!(leads.get((10, 1), 1), None);
        leads.keep((10, 1), 1, to(5));
        assert_eq!(leads.get((10, 1), 1), Some(to(5)));
        assert_eq!((leads.get((10, 2), 1), leads.get((11, 1), 1), leads.get((10, 1), 2)), (None, None, None));
        let out = Lead::Out(NeighbourRef::from_number(7).unwrap());
        leads.keep((12, 1), 1, out);
        assert_eq!(leads.get((12, 1), 1), Some(out));
        leads.keep((10u128, 1u16), 2, Lead::Translated);
        assert_eq!(leads.get((10, 1), 2), Some(Lead::Translated));
    }

    #[test]
    fn an_address_is_never_taken_for_another() {
        let mut leads = Leads::new(7);
        for address in 1..10_000u32 {
            leads.keep(u64::from(address), 1, to(address));
        }
        let kept = (1..10_000).filter(|address| {
            let lead = leads.get(u64::from(*address), 1);
            assert!(lead.is_none_or(|lead| lead == to(*address)));
            lead.is_some()
        });
        assert!((PLACES / 2..=PLACES).contains(&kept.count()));
    }
}
