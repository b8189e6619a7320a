//! A hash index of numbers: from the hash of a key to the number of what has the key.
//!
//! A bucket is a cache line of fifteen slots and a count. A slot is a number with as much of the key's hash as fits beside
//! it, so what a look-up finds is almost always what it seeks. A number stands in the *home* bucket of its hash or, when
//! that was full, in its *other*; the home counts those, so that one line is enough to know that a key is not there.
//!
//! Nothing is rehashed. An insertion that finds both buckets full moves one number to its other bucket; when none can move
//! it is refused, which at the loads used here takes a hash that the attacker knows. It is keyed.

pub(super) use crate::sys::prefetch;
use crate::sys::table::{Line, Table};

const WAYS: usize = Line::WORDS - 1;
/// The word that counts numbers of this home which stand elsewhere.
const AWAY: usize = WAYS;
const SLOTS: u32 = (1 << WAYS) - 1;

/// See the module's documentation.
pub(super) struct Index {
    lines: Table<Line>,
    buckets: u64,
    /// Of a slot, the bits that are the number.
    number: u32,
}

/// Both buckets are full, and nothing in them can move.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Crowded;

impl Index {
    /// An index for `capacity` numbers, each from 1 to `largest`. `load`, in percent, is how full it is then.
    pub(super) fn new(capacity: usize, largest: u32, load: usize) -> Index {
        let buckets = (capacity * 100).div_ceil(WAYS * load).max(2);
        let number = u32::MAX >> largest.leading_zeros();
        Index { lines: Table::zeroed(buckets), buckets: buckets as u64, number }
    }

    /// Bytes that it takes once all of it is in use.
    pub(super) fn bytes(&self) -> usize {
        self.lines.len() * size_of::<Line>()
    }

    #[inline(always)]
    #[allow(clippy::cast_possible_truncation)] // less than the number of buckets, which is in memory
    fn home(&self, hash: u64) -> usize {
        (((hash >> 32) * self.buckets) >> 32) as usize
    }

    /// Never the home.
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation)] // as above
    fn other(&self, hash: u64) -> usize {
        let (home, far) = (self.home(hash), 1 + (((hash & 0xffff_ffff) * (self.buckets - 1)) >> 32) as usize);
        let sum = home + far;
        if sum >= self.lines.len() { sum - self.lines.len() } else { sum }
    }

    /// The part of a slot that is of the hash: bits that the home depends on least.
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation)] // the middle of the hash is what is wanted
    fn tag(&self, hash: u64) -> u32 {
        ((hash >> 32) as u32).wrapping_mul(0x9e37_79b1) & !self.number
    }

    /// Brings the home of a hash near.
    #[inline(always)]
    pub(super) fn prefetch(&self, hash: u64) {
        if let Some(line) = self.lines.get(self.home(hash)) {
            prefetch(line);
        }
    }

    /// The first number in the home of a hash that may be the one: for a prefetch of what it counts.
    #[inline(always)]
    pub(super) fn guess(&self, hash: u64) -> Option<u32> {
        let line = &self.lines[self.home(hash)];
        let ways = line.matching(!self.number, self.tag(hash)) & SLOTS;
        // An empty slot matches a tag of zero; its number is 0 then, which counts nothing.
        (ways != 0).then(|| line.0[ways.trailing_zeros() as usize & AWAY] & self.number)
    }

    /// The number of a hash that `is` the one.
    #[inline(always)]
    pub(super) fn find(&self, hash: u64, mut is: impl FnMut(u32) -> bool) -> Option<u32> {
        let home = &self.lines[self.home(hash)];
        if let Some(found) = self.find_in(home, hash, &mut is) {
            return Some(found);
        }
        if home.0[AWAY] == 0 {
            return None;
        }
        self.find_in(&self.lines[self.other(hash)], hash, &mut is)
    }

    #[inline(always)]
    fn find_in(&self, line: &Line, hash: u64, is: &mut impl FnMut(u32) -> bool) -> Option<u32> {
        let mut ways = line.matching(!self.number, self.tag(hash)) & SLOTS;
        while ways != 0 {
            let number = line.0[ways.trailing_zeros() as usize & AWAY] & self.number;
            if number != 0 && is(number) {
                return Some(number);
            }
            ways &= ways - 1;
        }
        None
    }

    fn free_way(&self, bucket: usize) -> Option<usize> {
        let free = self.lines[bucket].matching(u32::MAX, 0) & SLOTS;
        (free != 0).then(|| free.trailing_zeros() as usize)
    }

    /// Adds a number under its hash. `hash_of` gives the hash of a number that is there already.
    ///
    /// # Errors
    /// No room near the hash; see the module's documentation.
    pub(super) fn insert(
        &mut self,
        hash: u64,
        number: u32,
        hash_of: impl Fn(u32) -> u64,
    ) -> Result<(), Crowded> {
        debug_assert!(number != 0 && number & !self.number == 0);
        let slot = self.tag(hash) | number;
        let (home, other) = (self.home(hash), self.other(hash));
        let (bucket, way) = match self.free_way(home) {
            Some(way) => (home, way),
            None => match self.free_way(other) {
                Some(way) => (other, way),
                None => self.make_room([home, other], hash_of).ok_or(Crowded)?,
            },
        };
        self.lines[bucket].0[way] = slot;
        if bucket != home {
            self.lines[home].0[AWAY] += 1;
        }
        Ok(())
    }

    /// Moves a number out of one of two full buckets to the other place where it may stand, if there is room.
    #[cold]
    fn make_room(&mut self, full: [usize; 2], hash_of: impl Fn(u32) -> u64) -> Option<(usize, usize)> {
        for (bucket, way) in full.into_iter().flat_map(|bucket| (0..WAYS).map(move |way| (bucket, way))) {
            let slot = self.lines[bucket].0[way];
            let hash = hash_of(slot & self.number);
            let home = self.home(hash);
            let to = if home == bucket { self.other(hash) } else { home };
            if let Some(to_way) = self.free_way(to) {
                self.lines[to].0[to_way] = slot;
                self.lines[bucket].0[way] = 0;
                let away = &mut self.lines[home].0[AWAY];
                *away = if home == bucket { *away + 1 } else { *away - 1 };
                return Some((bucket, way));
            }
        }
        None
    }

    /// Takes out a number that was added under this hash.
    pub(super) fn remove(&mut self, hash: u64, number: u32) {
        let slot = self.tag(hash) | number;
        let (home, other) = (self.home(hash), self.other(hash));
        for bucket in [home, other] {
            let ways = self.lines[bucket].matching(u32::MAX, slot) & SLOTS;
            if ways != 0 {
                self.lines[bucket].0[ways.trailing_zeros() as usize] = 0;
                if bucket != home {
                    self.lines[home].0[AWAY] -= 1;
                }
                return;
            }
        }
        debug_assert!(false, "number {number} was not there");
    }
}

/// Keys of a hash, from a secret seed (splitmix64).
pub(super) fn keys<const N: usize>(seed: u64) -> [u64; N] {
    let mut state = seed;
    std::array::from_fn(|_| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    })
}

/// The two halves of a product, one over the other.
#[inline(always)]
#[allow(clippy::cast_possible_truncation)] // a hash folds
pub(super) fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product >> 64) as u64 ^ product as u64
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation)] // small numbers
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn hash(number: u32) -> u64 {
        let [a, b] = keys(7);
        fold(fold(u64::from(number) ^ a, b), 0xd6e8_feb8_6659_fd93)
    }

    #[test]
    fn fills_up_to_its_capacity_and_empties_again() {
        for load in [60, 80] {
            let count = 300_000;
            let mut index = Index::new(count as usize, count, load);
            for number in 1..=count {
                assert_eq!(index.insert(hash(number), number, hash), Ok(()));
            }
            assert!((1..=count).all(|number| index.find(hash(number), |n| n == number) == Some(number)));
            let first = (1..=count).filter(|n| index.guess(hash(*n)) == Some(*n)).count();
            assert!(first as u32 > count / 100 * 70, "{first} of {count} are found at once");
            for number in 1..=count {
                index.remove(hash(number), number);
            }
            assert!(index.lines.iter().all(|line| line.0 == [0; 16]), "no number and no count is left");
        }
    }

    #[test]
    fn refuses_when_there_is_no_room_and_loses_nothing() {
        let mut index = Index::new(1, 1000, 100);
        let taken: Vec<u32> = (1..100).filter(|n| index.insert(hash(*n), *n, hash).is_ok()).collect();
        assert_eq!(taken.len(), 2 * WAYS, "two buckets are full");
        assert!(taken.iter().all(|n| index.find(hash(*n), |found| found == *n).is_some()));
    }

    proptest! {
        #[test]
        fn behaves_as_a_map(steps in proptest::collection::vec((1u32..90, any::<bool>()), 1..600)) {
            // Four buckets: crowded, so that numbers move.
            let mut index = Index::new(54, 100, 90);
            let mut model: HashMap<u32, ()> = HashMap::new();
            for (number, add) in steps {
                if add && !model.contains_key(&number) {
                    if index.insert(hash(number), number, hash).is_ok() {
                        model.insert(number, ());
                    }
                } else if model.remove(&number).is_some() {
                    index.remove(hash(number), number);
                }
                for n in 1..90 {
                    prop_assert_eq!(index.find(hash(n), |found| found == n).is_some(), model.contains_key(&n));
                }
            }
        }
    }
}
