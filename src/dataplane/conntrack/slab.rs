//! Things by number, from 1: in one table that is as long as there were ever things at once, and lists that run through
//! them. Taking, giving back, linking and unlinking are constant time and never allocate.

use std::ops::{Index, IndexMut};

use crate::sys::table::Table;

/// What a slab holds.
pub(super) trait Item: Copy {
    /// What stands at a number that is not taken, with a word for the next such number.
    fn vacant(next: u32) -> Self;
    /// The word of a vacant one; none if it is taken.
    fn next_vacant(&self) -> Option<u32>;
}

/// See the module's documentation. The number 0 is nobody's.
pub(super) struct Slab<T: Item> {
    items: Table<T>,
    vacant: u32,
    taken: u32,
}

impl<T: Item> Slab<T> {
    /// Room for `capacity` things.
    pub(super) fn new(capacity: u32) -> Slab<T> {
        let mut items = Table::with_capacity(capacity as usize + 1);
        items.push(T::vacant(0));
        Slab { items, vacant: 0, taken: 0 }
    }

    /// Things that there are.
    pub(super) fn len(&self) -> u32 {
        self.taken
    }

    /// Whether there is no room for another one.
    pub(super) fn is_full(&self) -> bool {
        self.vacant == 0 && self.items.len() == self.items.capacity()
    }

    /// Bytes that it takes once all of it is in use.
    pub(super) fn bytes(&self) -> usize {
        self.items.capacity() * size_of::<T>()
    }

    /// A number for a thing; none when there are as many as there is room for.
    #[inline(always)]
    pub(super) fn take(&mut self, item: T) -> Option<u32> {
        let number = self.vacant;
        if let Some(next) = self.items[number as usize].next_vacant().filter(|_| number != 0) {
            self.vacant = next;
            self.items[number as usize] = item;
        } else {
            let number = u32::try_from(self.items.len()).ok()?;
            if !self.items.push(item) {
                return None;
            }
            self.taken += 1;
            return Some(number);
        }
        self.taken += 1;
        Some(number)
    }

    /// Gives a number back.
    pub(super) fn give_back(&mut self, number: u32) {
        self.items[number as usize] = T::vacant(self.vacant);
        self.vacant = number;
        self.taken -= 1;
    }

    /// The thing of a number, if it is taken.
    #[inline(always)]
    pub(super) fn get(&self, number: u32) -> Option<&T> {
        self.items.get(number as usize).filter(|item| item.next_vacant().is_none())
    }

    /// As [`Slab::get`], to change it.
    #[inline(always)]
    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        self.items.get_mut(number as usize).filter(|item| item.next_vacant().is_none())
    }

    /// One more than the largest number that was ever taken.
    pub(super) fn end(&self) -> u32 {
        u32::try_from(self.items.len()).unwrap_or(u32::MAX)
    }
}

impl<T: Item> Index<u32> for Slab<T> {
    type Output = T;

    #[inline(always)]
    fn index(&self, number: u32) -> &T {
        &self.items[number as usize]
    }
}

impl<T: Item> IndexMut<u32> for Slab<T> {
    #[inline(always)]
    fn index_mut(&mut self, number: u32) -> &mut T {
        &mut self.items[number as usize]
    }
}

/// The neighbours of a thing in a list; 0 at the ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Links {
    pub(super) prev: u32,
    pub(super) next: u32,
}

/// Which of a thing's links a list runs through.
pub(super) trait Chain<T> {
    fn links(item: &mut T) -> &mut Links;
}

/// A list through the things of a slab.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct List {
    pub(super) head: u32,
    pub(super) tail: u32,
}

impl List {
    /// Appends a thing that is in no list of this chain.
    pub(super) fn push<T: Item, C: Chain<T>>(&mut self, items: &mut Slab<T>, number: u32) {
        *C::links(&mut items[number]) = Links { prev: self.tail, next: 0 };
        match self.tail {
            0 => self.head = number,
            tail => C::links(&mut items[tail]).next = number,
        }
        self.tail = number;
    }

    /// Takes a thing out of this list.
    pub(super) fn unlink<T: Item, C: Chain<T>>(&mut self, items: &mut Slab<T>, number: u32) {
        let Links { prev, next } = std::mem::take(C::links(&mut items[number]));
        match prev {
            0 => self.head = next,
            prev => C::links(&mut items[prev]).next = next,
        }
        match next {
            0 => self.tail = prev,
            next => C::links(&mut items[next]).prev = prev,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy)]
    struct Thing(bool, Links);

    impl Item for Thing {
        fn vacant(next: u32) -> Thing {
            Thing(false, Links { prev: 0, next })
        }
        fn next_vacant(&self) -> Option<u32> {
            (!self.0).then_some(self.1.next)
        }
    }

    struct Only;
    impl Chain<Thing> for Only {
        fn links(item: &mut Thing) -> &mut Links {
            &mut item.1
        }
    }

    #[test]
    fn numbers_are_used_again_and_lists_keep_their_order() {
        let mut slab = Slab::new(4);
        let thing = Thing(true, Links::default());
        let numbers: Vec<u32> = (0..4).filter_map(|_| slab.take(thing)).collect();
        assert_eq!((numbers.as_slice(), slab.take(thing), slab.len()), (&[1, 2, 3, 4][..], None, 4));
        let mut list = List::default();
        for number in numbers {
            list.push::<_, Only>(&mut slab, number);
        }
        for number in [1, 3, 4] {
            list.unlink::<_, Only>(&mut slab, number);
            slab.give_back(number);
        }
        assert_eq!(
            (list, slab.get(3).is_none(), slab.get(2).is_some()),
            (List { head: 2, tail: 2 }, true, true)
        );
        assert_eq!([slab.take(thing), slab.take(thing), slab.take(thing)], [Some(4), Some(3), Some(1)]);
        assert_eq!((slab.take(thing).is_none(), slab.end()), (true, 5));
    }
}
