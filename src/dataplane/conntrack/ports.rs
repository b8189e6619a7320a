//! The ports of an outside address: which worker's they are, which are free, and whose they are.
//!
//! Ports go to workers in turn, by pairs of an even and an odd one, so that each worker can keep a port's parity. Whose a
//! port is follows from its number alone, and so does the worker that a reply belongs to.
//!
//! A free port is found in constant time: a bit a port, and a bit for each word of those that has one.

/// A worker's share of all ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slice {
    worker: u16,
    workers: u16,
}

/// Pairs of ports that there are.
const PAIRS: u16 = 1 << 15;
/// The pairs of ports below 1024.
const LOW_PAIRS: u16 = 512;

impl Slice {
    /// The share of a worker, counted from 0, of so many. None if there is no such worker, or more than there are pairs.
    pub fn new(worker: u16, workers: u16) -> Option<Slice> {
        (worker < workers && workers <= LOW_PAIRS).then_some(Slice { worker, workers })
    }

    /// All ports.
    pub const WHOLE: Slice = Slice { worker: 0, workers: 1 };

    /// The worker that a port is of.
    #[inline]
    pub fn owner(self, port: u16) -> u16 {
        port / 2 % self.workers
    }

    /// The worker that a protocol without ports is of: one host inside can have it, whichever worker that host's is.
    pub fn owner_of_protocol(self, protocol: u8) -> u16 {
        u16::from(protocol) % self.workers
    }

    /// The worker whose share this is.
    pub fn worker(self) -> u16 {
        self.worker
    }

    /// The pairs of this share among the first `pairs` of all.
    fn pairs(self, pairs: u16) -> u16 {
        (pairs - self.worker).div_ceil(self.workers)
    }

    fn pair_of(self, port: u16) -> Option<u16> {
        (self.owner(port) == self.worker).then(|| port / 2 / self.workers)
    }

    fn port_of(self, pair: u16, parity: u16) -> u16 {
        (pair * self.workers + self.worker) * 2 + parity
    }
}

/// A set of small numbers.
struct Bits {
    words: Vec<u64>,
    /// Which words are not zero.
    summary: Vec<u64>,
}

impl Bits {
    /// The numbers below `len`.
    fn all(len: u16) -> Bits {
        let words = usize::from(len).div_ceil(64);
        let mut bits = Bits { words: vec![0; words], summary: vec![0; words.div_ceil(64)] };
        for number in 0..len {
            bits.add(number);
        }
        bits
    }

    fn has(&self, number: u16) -> bool {
        self.words[usize::from(number / 64)] >> (number % 64) & 1 == 1
    }

    fn add(&mut self, number: u16) {
        let word = usize::from(number / 64);
        self.words[word] |= 1 << (number % 64);
        self.summary[word / 64] |= 1 << (word % 64);
    }

    fn remove(&mut self, number: u16) {
        let word = usize::from(number / 64);
        self.words[word] &= !(1 << (number % 64));
        if self.words[word] == 0 {
            self.summary[word / 64] &= !(1 << (word % 64));
        }
    }

    /// The first number from `from` on and below `end`.
    #[allow(clippy::cast_possible_truncation)] // numbers are below 2^16
    fn next(&self, from: u16, end: u16) -> Option<u16> {
        if from >= end {
            return None;
        }
        let word = usize::from(from / 64);
        let mut found = self.words[word] & u64::MAX << (from % 64);
        let mut at = word;
        if found == 0 {
            at = next_bit(&self.summary, word + 1)?;
            found = self.words[at];
        }
        let number = at as u32 * 64 + found.trailing_zeros();
        (number < u32::from(end)).then_some(number as u16)
    }

    /// A number from `start` on or, where there is none, from the beginning of the range on.
    fn next_around(&self, (low, high): (u16, u16), start: u16) -> Option<u16> {
        self.next(start, high).or_else(|| self.next(low, start))
    }
}

/// The first bit that is set from `from` on.
fn next_bit(words: &[u64], from: usize) -> Option<usize> {
    let word = from / 64;
    let first = words.get(word)? & u64::MAX << (from % 64);
    if first != 0 {
        return Some(word * 64 + first.trailing_zeros() as usize);
    }
    let rest = words.iter().enumerate().skip(word + 1);
    let (word, bits) = rest.into_iter().find(|(_, bits)| **bits != 0)?;
    Some(word * 64 + bits.trailing_zeros() as usize)
}

/// The ports of an address and protocol that are a worker's.
pub(super) struct Space {
    slice: Slice,
    /// ICMP identifiers: 0 is like any other, and none is privileged.
    identifiers: bool,
    /// By parity.
    free: [Bits; 2],
    /// Who has a port, by pair and parity; 0 is nobody.
    owners: Vec<u32>,
    used: u32,
}

impl Space {
    pub(super) fn new(slice: Slice, identifiers: bool) -> Space {
        let pairs = slice.pairs(PAIRS);
        let mut space = Space {
            slice,
            identifiers,
            free: [Bits::all(pairs), Bits::all(pairs)],
            owners: vec![0; usize::from(pairs) * 2],
            used: 0,
        };
        if let Some(zero) = slice.pair_of(0).filter(|_| !identifiers) {
            space.free[0].remove(zero);
        }
        space
    }

    pub(super) fn bytes(&self) -> usize {
        let bits = |bits: &Bits| (bits.words.capacity() + bits.summary.capacity()) * 8;
        self.owners.capacity() * 4 + self.free.iter().map(bits).sum::<usize>()
    }

    /// Ports in use, and ports that there are.
    pub(super) fn usage(&self) -> (u32, u32) {
        let zero = self.slice.pair_of(0).is_some() && !self.identifiers;
        (self.used, u32::from(self.slice.pairs(PAIRS)) * 2 - u32::from(zero))
    }

    fn is_free(&self, port: u16) -> bool {
        self.slice.pair_of(port).is_some_and(|pair| self.free[usize::from(port % 2)].has(pair))
    }

    /// A free port in place of `wanted`: the same if it can be, else one of the same range (below 1024 or not: RFC 4787,
    /// REQ-3a) and parity (REQ-4), else of the other parity. Only a privileged port may leave its range, if that is full.
    /// Where the search begins is for `random` to say (RFC 6056, section 3.3.1).
    pub(super) fn choose(&self, wanted: u16, random: u64) -> Option<u16> {
        if self.is_free(wanted) {
            return Some(wanted);
        }
        let (low, all) = (self.slice.pairs(LOW_PAIRS), self.slice.pairs(PAIRS));
        let ranges: &[(u16, u16)] = match (self.identifiers, wanted < 1024) {
            (true, _) => &[(0, all)],
            (false, true) => &[(0, low), (low, all)],
            (false, false) => &[(low, all)],
        };
        let parity = wanted % 2;
        let mut places = ranges.iter().flat_map(|range| [(*range, parity), (*range, 1 - parity)]);
        places.find_map(|(range, parity)| {
            let pair = self.free[usize::from(parity)].next_around(range, start(range, random))?;
            Some(self.slice.port_of(pair, parity))
        })
    }

    fn place(&self, port: u16) -> Option<(usize, u16)> {
        let pair = self.slice.pair_of(port)?;
        Some((usize::from(pair) * 2 + usize::from(port % 2), pair))
    }

    pub(super) fn take(&mut self, port: u16, owner: u32) {
        if let Some((place, pair)) = self.place(port) {
            self.owners[place] = owner;
            self.free[usize::from(port % 2)].remove(pair);
            self.used += 1;
        }
    }

    pub(super) fn give_back(&mut self, port: u16) {
        if let Some((place, pair)) = self.place(port) {
            self.owners[place] = 0;
            self.free[usize::from(port % 2)].add(pair);
            self.used -= 1;
        }
    }

    /// Who has a port.
    #[inline]
    pub(super) fn owner(&self, port: u16) -> Option<u32> {
        let (place, _) = self.place(port)?;
        Some(self.owners[place]).filter(|owner| *owner != 0)
    }

    /// Everybody who has a port.
    pub(super) fn owners(&self) -> impl Iterator<Item = u32> {
        self.owners.iter().copied().filter(|owner| *owner != 0)
    }
}

/// A random place in a range.
#[allow(clippy::cast_possible_truncation)] // less than the range's length
fn start((low, high): (u16, u16), random: u64) -> u16 {
    low + ((u128::from(random) * u128::from(high - low)) >> 64) as u16
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_port_has_one_owner_and_each_share_both_parities() {
        for workers in [1, 2, 3, 7, 16] {
            let spaces: Vec<Space> =
                (0..workers).map(|n| Space::new(Slice::new(n, workers).unwrap(), true)).collect();
            for port in 0..=u16::MAX {
                let slice = spaces[0].slice;
                for space in &spaces {
                    assert_eq!(space.is_free(port), space.slice.worker == slice.owner(port));
                }
                assert_eq!(slice.owner(port), slice.owner(port ^ 1));
            }
            assert_eq!(spaces.iter().map(|space| space.usage().1).sum::<u32>(), 65536);
        }
        assert!(Slice::new(2, 2).is_none() && Slice::new(0, 0).is_none());
    }

    #[test]
    fn a_share_is_used_up_to_its_last_port() {
        for (worker, workers) in [(0, 1), (0, 3), (2, 3)] {
            let slice = Slice::new(worker, workers).unwrap();
            let mut space = Space::new(slice, false);
            let (mut taken, mut random) = (HashSet::new(), 1u64);
            while let Some(port) = space.choose(40_000, random) {
                assert!(port >= 1024 && slice.owner(port) == worker && taken.insert(port));
                let even_left = space.free[0].next(slice.pairs(LOW_PAIRS), slice.pairs(PAIRS)).is_some();
                assert!(port % 2 == 0 || !even_left, "parity is kept while it can be");
                space.take(port, 7);
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            }
            while let Some(port) = space.choose(500, random) {
                assert!(port < 1024 && port != 0 && taken.insert(port));
                space.take(port, 8);
            }
            let (used, all) = space.usage();
            assert_eq!((used, used as usize, space.owners().count()), (all, taken.len(), taken.len()));
            for port in taken {
                space.give_back(port);
            }
            assert_eq!((space.usage().0, space.owners().count()), (0, 0));
        }
    }

    #[test]
    fn privileged_ports_overflow_upwards_and_others_not_downwards() {
        let mut space = Space::new(Slice::WHOLE, false);
        assert_ne!(space.choose(0, 5), Some(0), "port 0 is nobody's");
        for _ in 1..1024 {
            let port = space.choose(1023, 99).unwrap();
            assert!(port < 1024);
            space.take(port, 1);
        }
        assert!(space.choose(80, 1).is_some_and(|port| port >= 1024 && port % 2 == 0));
    }

    proptest! {
        #[test]
        fn bits_are_a_set(numbers in proptest::collection::vec(0u16..20_000, 0..300), from in 0u16..20_000, end in 0u16..20_000) {
            let mut bits = Bits::all(20_000);
            for number in 0..20_000 { bits.remove(number); }
            for (n, number) in numbers.iter().enumerate() {
                if n % 4 == 3 { bits.remove(*number) } else { bits.add(*number) }
            }
            let expected = (from..end).find(|n| bits.has(*n));
            prop_assert_eq!(bits.next(from, end), expected);
        }
    }
}
