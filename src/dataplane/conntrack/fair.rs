//! Who has how many entries, and which one goes when room is needed.
//!
//! A guest's entries stand in two queues: those that nobody has agreed to yet or that are over, and the assured ones. The
//! first of the first queue goes first. An assured entry that was used since it was queued has a second chance, a few times
//! per eviction, so that a busy connection outlives idle ones, however old it is.
//!
//! Guests stand in classes by how many entries they have, eight classes to the octave. The guest that has most is one of the
//! highest class: nobody has an eighth more. All is constant time.

use super::entry::{ByGuest, Entry};
use super::slab::{List, Slab};

/// Second chances that one eviction gives.
const CHANCES: u32 = 8;
const CLASSES: usize = 256;
const NOBODY: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Guest {
    /// Transitory entries, then assured ones; by the time that they came to be so.
    queues: [List; 2],
    count: u32,
    /// Neighbours in its class.
    prev: u32,
    next: u32,
}

const ABSENT: Guest = Guest { queues: [List { head: 0, tail: 0 }; 2], count: 0, prev: NOBODY, next: NOBODY };

pub(super) struct Guests {
    guests: Vec<Guest>,
    /// The first guest of each class; class 0 has no list.
    classes: [u32; CLASSES],
    /// Which classes have guests.
    used: [u64; CLASSES / 64],
}

/// The class of a count: with three bits behind the leading one. Grows with the count, and never skips back.
fn class(count: u32) -> usize {
    if count < 8 {
        return count as usize;
    }
    let octave = count.ilog2();
    ((octave - 2) * 8 + (count >> (octave - 3) & 7)) as usize
}

impl Guests {
    pub(super) fn new() -> Guests {
        Guests { guests: Vec::new(), classes: [NOBODY; CLASSES], used: [0; CLASSES / 64] }
    }

    pub(super) fn bytes(&self) -> usize {
        self.guests.capacity() * size_of::<Guest>() + size_of::<Guests>()
    }

    pub(super) fn count(&self, guest: u16) -> u32 {
        self.guests.get(usize::from(guest)).map_or(0, |guest| guest.count)
    }

    /// Notes a new entry of its guest.
    pub(super) fn add(&mut self, entries: &mut Slab<Entry>, number: u32) {
        let entry = &entries[number];
        let (at, queue) = (usize::from(entry.guest()), usize::from(entry.state.is_assured()));
        if self.guests.len() <= at {
            self.guests.resize(at + 1, ABSENT);
        }
        self.guests[at].queues[queue].push::<_, ByGuest>(entries, number);
        self.set_count(entries[number].guest(), self.guests[at].count + 1);
    }

    /// Notes that an entry goes.
    pub(super) fn remove(&mut self, entries: &mut Slab<Entry>, number: u32) {
        let entry = &entries[number];
        let (guest, queue) = (entry.guest(), usize::from(entry.state.is_assured()));
        let at = usize::from(guest);
        self.guests[at].queues[queue].unlink::<_, ByGuest>(entries, number);
        self.set_count(guest, self.guests[at].count - 1);
    }

    /// Notes that an entry has become assured, or has ceased to be.
    pub(super) fn requeue(&mut self, entries: &mut Slab<Entry>, number: u32) {
        let entry = &mut entries[number];
        let (at, queue) = (usize::from(entry.guest()), usize::from(entry.state.is_assured()));
        entry.take_used();
        let queues = &mut self.guests[at].queues;
        queues[1 - queue].unlink::<_, ByGuest>(entries, number);
        queues[queue].push::<_, ByGuest>(entries, number);
    }

    fn set_count(&mut self, guest: u16, count: u32) {
        let at = usize::from(guest);
        let (from, to) = (class(self.guests[at].count), class(count));
        self.guests[at].count = count;
        if from == to {
            return;
        }
        if from != 0 {
            let Guest { prev, next, .. } = self.guests[at];
            match prev {
                NOBODY => self.set_first(from, next),
                prev => self.guests[prev as usize].next = next,
            }
            if next != NOBODY {
                self.guests[next as usize].prev = prev;
            }
        }
        if to != 0 {
            let next = self.classes[to];
            if next != NOBODY {
                self.guests[next as usize].prev = guest.into();
            }
            (self.guests[at].prev, self.guests[at].next) = (NOBODY, next);
            self.set_first(to, guest.into());
        }
    }

    fn set_first(&mut self, class: usize, guest: u32) {
        self.classes[class] = guest;
        let bit = 1 << (class % 64);
        let used = &mut self.used[class / 64];
        *used = if guest == NOBODY { *used & !bit } else { *used | bit };
    }

    /// The guest that has most entries, of about as many `guest` itself if it is one of them.
    #[allow(clippy::cast_possible_truncation)] // guests come in as u16
    pub(super) fn richest(&self, guest: u16) -> Option<u16> {
        let word = self.used.iter().rposition(|word| *word != 0)?;
        let highest = word * 64 + self.used[word].ilog2() as usize;
        if class(self.count(guest)) == highest { Some(guest) } else { Some(self.classes[highest] as u16) }
    }

    /// The entry that a guest loses when it must lose one.
    pub(super) fn victim(&mut self, entries: &mut Slab<Entry>, guest: u16) -> Option<u32> {
        let [transitory, assured] = &mut self.guests.get_mut(usize::from(guest))?.queues;
        if transitory.head != 0 {
            return Some(transitory.head);
        }
        for _ in 0..CHANCES {
            let oldest = assured.head;
            if oldest == 0 || !entries[oldest].take_used() {
                break;
            }
            assured.unlink::<_, ByGuest>(entries, oldest);
            assured.push::<_, ByGuest>(entries, oldest);
        }
        (assured.head != 0).then_some(assured.head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_grow_with_the_count_and_are_an_eighth_wide() {
        let mut last = 0;
        for count in 0..2_000_000 {
            let class = class(count);
            assert!(class == last || class == last + 1, "{count}");
            last = class;
        }
        assert!(class(1 << 24) < CLASSES);
        for count in 1..100_000 {
            let highest = (count..).take_while(|n| class(*n) == class(count)).last().unwrap();
            assert!(highest - count <= count / 8, "{count} and {highest} are alike");
        }
    }
}
