//! Where packets of a router to an address lead: what the FIB and the neighbours said the last time, for as long as that
//! holds. One line of memory then says what else takes two searches.
//!
//! A place may be any address's, and has the one that came last; so it is bounded, and what a scan of addresses takes from
//! others is a few cycles a packet. Spread over several next hops, a destination is not kept.

use super::neighbours::NeighbourRef;
use crate::dataplane::fdb::fold;
use crate::types::RouterIdx;

/// Places: as many as fit the first two levels of a cache beside all else.
const PLACES: usize = 2048;

/// Where an address leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lead {
    /// To what NAT gives to others.
    Translated,
    /// To a neighbour.
    To(NeighbourRef),
}

#[derive(Clone, Copy)]
struct Place {
    /// By [`crate::tables::tunnel::address_key`].
    destination: u128,
    router: RouterIdx,
    epoch: u32,
    lead: Lead,
}

/// See the module's documentation.
pub(in crate::dataplane) struct Leads {
    places: Vec<Place>,
    seed: u64,
}

impl Leads {
    /// Takes no memory before the first lead. `seed` is secret.
    pub(in crate::dataplane) fn new(seed: u64) -> Leads {
        Leads { places: Vec::new(), seed }
    }

    #[inline(always)]
    #[allow(clippy::cast_possible_truncation)] // a hash folds
    fn place(&self, router: RouterIdx, destination: u128) -> usize {
        let bits = destination as u64 ^ (destination >> 64) as u64 ^ u64::from(router.0) << 48;
        (fold(bits ^ self.seed, 0x9e37_79b9_7f4a_7c15) as usize) % PLACES
    }

    /// Where the packets of a router to an address lead, if that is known since this epoch began.
    #[inline(always)]
    pub(super) fn get(&self, router: RouterIdx, destination: u128, epoch: u32) -> Option<Lead> {
        let place = self.places.get(self.place(router, destination))?;
        let same = place.destination == destination && place.router == router && place.epoch == epoch;
        same.then_some(place.lead)
    }

    /// Keeps a lead, in the place of an older one.
    #[cold]
    pub(super) fn keep(&mut self, router: RouterIdx, destination: u128, epoch: u32, lead: Lead) {
        if self.places.is_empty() {
            // No packet is for address 0.
            let none = Place { destination: 0, router, epoch, lead: Lead::Translated };
            self.places = vec![none; PLACES];
        }
        let at = self.place(router, destination);
        if let Some(place) = self.places.get_mut(at) {
            *place = Place { destination, router, epoch, lead };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lead_counts_for_its_router_and_its_epoch() {
        let mut leads = Leads::new(7);
        let (one, other) = (RouterIdx(1), RouterIdx(2));
        assert_eq!(leads.get(one, 10, 1), None);
        let lead = Lead::To(NeighbourRef::from_number(5).unwrap());
        leads.keep(one, 10, 1, lead);
        assert_eq!(leads.get(one, 10, 1), Some(lead));
        assert_eq!(
            (leads.get(other, 10, 1), leads.get(one, 11, 1), leads.get(one, 10, 2)),
            (None, None, None)
        );
        leads.keep(one, 10, 2, Lead::Translated);
        assert_eq!(leads.get(one, 10, 2), Some(Lead::Translated));
    }

    #[test]
    fn an_address_is_never_taken_for_another() {
        let mut leads = Leads::new(7);
        for address in 1..10_000 {
            leads.keep(
                RouterIdx(1),
                address,
                1,
                Lead::To(NeighbourRef::from_number(1 + address as u32).unwrap()),
            );
        }
        let kept = (1..10_000).filter(|address| {
            let lead = leads.get(RouterIdx(1), *address, 1);
            lead.inspect(|lead| {
                assert_eq!(*lead, Lead::To(NeighbourRef::from_number(1 + *address as u32).unwrap()));
            });
            lead.is_some()
        });
        assert!((PLACES / 2..=PLACES).contains(&kept.count()));
    }
}
