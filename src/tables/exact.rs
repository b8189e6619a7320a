//! A map for look-up on the path: built once, never changed, a look-up is one multiplication and one cache line almost
//! always.

use crate::types::Vni;

/// What can be looked up.
pub trait Key: Copy + Eq {
    /// All bits that tell it from others, in one word.
    fn bits(self) -> u64;
}

impl Key for Vni {
    #[inline(always)]
    fn bits(self) -> u64 {
        self.get().into()
    }
}

impl Key for u128 {
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation)] // a fold
    fn bits(self) -> u64 {
        (self >> 64) as u64 ^ self as u64
    }
}

/// See the module's documentation. Open addressing, at most a quarter full: what a look-up finds at its second try only costs a mispredicted branch.
#[derive(Clone, Debug)]
pub struct Exact<K, V> {
    slots: Box<[Option<(K, V)>]>,
}

impl<K: Key, V: Copy> Exact<K, V> {
    /// A map of these entries; of two with the same key the later one counts.
    pub fn new(entries: impl ExactSizeIterator<Item = (K, V)>) -> Exact<K, V> {
        let slots = vec![None; (entries.len() * 4).next_power_of_two()];
        let mut map = Exact { slots: slots.into() };
        for (key, value) in entries {
            let mut at = map.start(key);
            while map.slots[at].is_some_and(|(taken, _)| taken != key) {
                at = (at + 1) % map.slots.len();
            }
            map.slots[at] = Some((key, value));
        }
        map
    }

    #[inline(always)]
    #[allow(clippy::cast_possible_truncation)] // masked
    fn start(&self, key: K) -> usize {
        let mixed = key.bits().wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 32) as usize & (self.slots.len() - 1)
    }

    /// The value of a key.
    #[inline(always)]
    pub fn get(&self, key: K) -> Option<V> {
        let mut at = self.start(key);
        // Most slots are empty, so this ends.
        while let Some(Some((found, value))) = self.slots.get(at) {
            if *found == key {
                return Some(*value);
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
        None
    }

    /// All entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (K, V)> {
        self.slots.iter().flatten().copied()
    }
}

impl<K: Key, V: Copy> Default for Exact<K, V> {
    fn default() -> Exact<K, V> {
        Exact::new(std::iter::empty())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn finds_what_was_put_in_and_nothing_else(
            entries in prop::collection::hash_map(0u32..5000, any::<u16>(), 0..600),
            asked in prop::collection::vec(0u32..5000, 200),
        ) {
            let entries: HashMap<Vni, u16> =
                entries.into_iter().map(|(vni, value)| (Vni::new(vni).unwrap(), value)).collect();
            let map = Exact::new(entries.iter().map(|(key, value)| (*key, *value)));
            for key in asked.into_iter().map(|vni| Vni::new(vni).unwrap()).chain(entries.keys().copied()) {
                prop_assert_eq!(map.get(key), entries.get(&key).copied());
            }
            prop_assert_eq!(map.iter().collect::<HashMap<_, _>>(), entries);
        }
    }
}
