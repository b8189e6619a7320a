//! Which place in the tables a name has, over reloads.
//!
//! A name keeps its slot for as long as it is in use. A slot is freed by [`Slots::release`] only, after every worker has
//! moved on from the tables that still named it, so that nothing learned about the old owner is taken for the new one's.

use std::collections::HashMap;
use std::hash::Hash;

/// Slots by name: numbers from 0, as few as possible.
#[derive(Clone, Debug)]
pub struct Slots<K> {
    used: HashMap<K, u16>,
    free: Vec<u16>,
    next: u16,
}

impl<K> Default for Slots<K> {
    fn default() -> Slots<K> {
        Slots { used: HashMap::new(), free: Vec::new(), next: 0 }
    }
}

impl<K: Hash + Eq + Clone> Slots<K> {
    /// The slot of `name`, a fresh one if it has none. The model's limits keep the numbers within 16 bits.
    pub fn assign(&mut self, name: &K) -> u16 {
        if let Some(&slot) = self.used.get(name) {
            return slot;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            let slot = self.next;
            self.next += 1;
            slot
        });
        self.used.insert(name.clone(), slot);
        slot
    }

    /// The slot of `name`, if it has one.
    pub fn get(&self, name: &K) -> Option<u16> {
        self.used.get(name).copied()
    }

    /// Frees the slots of all names for which `keep` is false.
    pub fn release(&mut self, keep: impl Fn(&K) -> bool) {
        let free = &mut self.free;
        self.used.retain(|name, slot| {
            let kept = keep(name);
            if !kept {
                free.push(*slot);
            }
            kept
        });
    }

    /// One more than the highest slot ever given.
    pub fn len(&self) -> usize {
        self.next.into()
    }

    /// Whether no slot was ever given.
    pub fn is_empty(&self) -> bool {
        self.next == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_slot_and_a_freed_one_is_used_again() {
        let mut slots = Slots::default();
        assert_eq!((slots.assign(&"a"), slots.assign(&"b"), slots.assign(&"a")), (0, 1, 0));
        slots.release(|name| *name != "a");
        assert_eq!((slots.get(&"a"), slots.assign(&"c"), slots.assign(&"d")), (None, 0, 2));
    }
}
