//! When entries end: a wheel of seconds. A packet only writes a new expiry into its entry; the wheel finds that out when it
//! comes by the place where the entry was put, and puts it further on. An entry whose expiry comes nearer is moved at once.
//!
//! Limits: a call of [`Wheel::next`] looks at a bounded number of places. An entry is looked at once a turn of the wheel,
//! about 17 minutes, however long it lives.

use super::entry::{ByTime, Entry};
use super::slab::{List, Slab};

const SECONDS: u32 = 1024;
/// Empty places that one call passes.
const STRIDE: u32 = 64;

pub(super) struct Wheel {
    places: Box<[List]>,
    /// All that ends up to here was dealt with.
    done: u32,
}

/// What [`Wheel::next`] found.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Due {
    /// This entry has ended.
    Ended(u32),
    /// One was put further on, or places were passed; there may be more.
    More,
    /// Nothing is left to do until the next second.
    Nothing,
}

impl Wheel {
    pub(super) fn new() -> Wheel {
        Wheel { places: vec![List::default(); SECONDS as usize].into(), done: 0 }
    }

    pub(super) fn bytes(&self) -> usize {
        self.places.len() * size_of::<List>()
    }

    /// Puts an entry where it ends, or as far from here as the wheel goes.
    #[allow(clippy::cast_possible_truncation)] // less than SECONDS
    pub(super) fn arm(&mut self, entries: &mut Slab<Entry>, number: u32) {
        let entry = &mut entries[number];
        let ahead = entry.expiry.saturating_sub(self.done).clamp(1, SECONDS - 1);
        let slot = self.done.wrapping_add(ahead) % SECONDS;
        entry.slot = slot as u16;
        self.places[slot as usize].push::<_, ByTime>(entries, number);
    }

    pub(super) fn disarm(&mut self, entries: &mut Slab<Entry>, number: u32) {
        let slot = usize::from(entries[number].slot);
        self.places[slot].unlink::<_, ByTime>(entries, number);
    }

    /// To be called when an entry was given an earlier expiry: moves it if the wheel would come too late.
    pub(super) fn hasten(&mut self, entries: &mut Slab<Entry>, number: u32) {
        let entry = &entries[number];
        // From 1 to SECONDS: the place of the second that is done comes last.
        let ahead = u32::from(entry.slot).wrapping_sub(self.done + 1) % SECONDS + 1;
        if entry.expiry < self.done.saturating_add(ahead) {
            self.disarm(entries, number);
            self.arm(entries, number);
        }
    }

    /// Goes on towards `now`, up to the next entry. One that has ended is still armed.
    pub(super) fn next(&mut self, entries: &mut Slab<Entry>, now: u32) -> Due {
        // After a long pause one turn is enough: it comes by every place.
        self.done = self.done.max(now.saturating_sub(SECONDS));
        for _ in 0..STRIDE {
            if self.done >= now {
                return Due::Nothing;
            }
            let number = self.places[((self.done + 1) % SECONDS) as usize].head;
            if number == 0 {
                self.done += 1;
            } else if entries[number].expiry <= now {
                return Due::Ended(number);
            } else {
                self.disarm(entries, number);
                self.arm(entries, number);
                return Due::More;
            }
        }
        Due::More
    }
}
