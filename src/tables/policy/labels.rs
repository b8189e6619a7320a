//! Which labels an address carries.
//!
//! Labels are numbers that were given to prefixes: a security group's to the addresses of its members, a list's to the
//! prefixes of a rule or an address group. An address carries the labels of all prefixes around it. Single addresses are
//! found by hash, wider prefixes by binary search for the longest one; each prefix knows the next wider one around it, so
//! what is kept is linear in what was given, however prefixes nest.

use std::fmt::Debug;
use std::hash::Hash;

use ipnet::IpNet;

use crate::tables::exact::{Exact, Key};
use crate::tables::fib::{Number, Ranges};

/// No place in a table.
pub(super) const NONE: u32 = u32::MAX;

/// A length as a place in a table; what does not fit is nowhere.
pub(super) fn place(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(NONE)
}

/// An address of one IP version, as a number.
pub(super) trait Address: Number + Hash + Debug {
    /// First and last address of a prefix, if it is of this version.
    fn range(net: &IpNet) -> Option<(Self, Self)>;

    /// All bits folded into one word, so that no two addresses of a usual plan of addresses give the same one.
    fn fold(self) -> u64;
}

impl Address for u32 {
    fn range(net: &IpNet) -> Option<(u32, u32)> {
        match net {
            IpNet::V4(net) => Some((net.network().to_bits(), net.broadcast().to_bits())),
            IpNet::V6(_) => None,
        }
    }

    #[inline(always)]
    fn fold(self) -> u64 {
        self.into()
    }
}

impl Address for u128 {
    fn range(net: &IpNet) -> Option<(u128, u128)> {
        match net {
            IpNet::V4(_) => None,
            IpNet::V6(net) => Some((net.network().to_bits(), net.broadcast().to_bits())),
        }
    }

    #[inline(always)]
    #[allow(clippy::cast_possible_truncation)] // a fold
    fn fold(self) -> u64 {
        let mixed = ((self >> 64) as u64).wrapping_mul(0xff51_afd7_ed55_8ccd) ^ self as u64;
        // The map looks at low bits only; subnets may differ in high ones.
        mixed ^ mixed >> 32
    }
}

/// A single address as a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Single<A>(A);

impl<A: Address> Key for Single<A> {
    #[inline(always)]
    fn bits(self) -> u64 {
        self.0.fold()
    }
}

/// Finds out which of the ranges that were seen is the narrowest around the next one. Ranges come in order of their first
/// number, wider ones first, and never overlap in part.
pub(super) struct Nesting<A> {
    open: Vec<(A, u32)>,
}

impl<A: Number> Nesting<A> {
    pub(super) fn new() -> Nesting<A> {
        Nesting { open: Vec::new() }
    }

    /// The range around all that is from `first` on, among those that were entered.
    pub(super) fn around(&mut self, first: A) -> u32 {
        while self.open.pop_if(|(last, _)| *last < first).is_some() {}
        self.open.last().map_or(NONE, |(_, place)| *place)
    }

    /// A range that ends with `last`, and its place; it begins with what [`Nesting::around`] was asked for last.
    pub(super) fn enter(&mut self, last: A, place: u32) {
        self.open.push((last, place));
    }
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub(super) struct Labels<A> {
    /// Places of sets.
    singles: Exact<Single<A>, u32>,
    /// Places of sets, plus 1; 0 is none.
    prefixes: Ranges<A>,
    sets: Vec<Set>,
    labels: Vec<u32>,
}

/// The labels of a prefix: a part of all labels, sorted.
#[derive(Clone, Copy, Debug)]
struct Set {
    from: u32,
    to: u32,
    /// The set of the next wider prefix.
    outer: u32,
}

impl<A: Address> Labels<A> {
    /// From first address, last address and label of prefixes.
    pub(super) fn new(mut given: Vec<(A, A, u32)>) -> Labels<A> {
        given.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)).then(a.2.cmp(&b.2)));
        given.dedup();
        let (mut singles, mut prefixes) = (Vec::new(), Vec::new());
        let (mut sets, mut labels) = (Vec::new(), Vec::with_capacity(given.len()));
        let mut nesting = Nesting::new();
        for same in given.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
            let Some(&(first, last, _)) = same.first() else { continue };
            let (from, at) = (place(labels.len()), place(sets.len()));
            labels.extend(same.iter().map(|(.., label)| *label));
            sets.push(Set { from, to: place(labels.len()), outer: nesting.around(first) });
            if first == last {
                singles.push((Single(first), at));
            } else {
                nesting.enter(last, at);
                prefixes.push((first, last, at.wrapping_add(1)));
            }
        }
        Labels { singles: Exact::new(singles.into_iter()), prefixes: Ranges::new(prefixes), sets, labels }
    }

    /// How many labels of prefixes are kept.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.labels.len()
    }

    /// The labels that an address carries, as of the narrowest prefix around it, then the next wider one, and so on.
    #[inline(always)]
    pub(super) fn of(&self, address: A) -> Carried<'_, A> {
        let at = match self.singles.get(Single(address)) {
            Some(at) => at,
            None => self.prefixes.find(address).wrapping_sub(1),
        };
        Carried { labels: self, at }
    }
}

impl<A: Address> Default for Labels<A> {
    fn default() -> Labels<A> {
        Labels::new(Vec::new())
    }
}

/// The labels that an address carries.
#[derive(Clone, Copy)]
pub(super) struct Carried<'l, A> {
    labels: &'l Labels<A>,
    at: u32,
}

impl<'l, A> Iterator for Carried<'l, A> {
    /// Sorted, each once.
    type Item = &'l [u32];

    #[inline(always)]
    fn next(&mut self) -> Option<&'l [u32]> {
        let set = self.labels.sets.get(self.at as usize)?;
        self.at = set.outer;
        self.labels.labels.get(set.from as usize..set.to as usize)
    }
}
