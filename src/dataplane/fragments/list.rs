//! Doubly linked lists through the slots of a slab: constant time for everything, and no memory of their own.

/// No slot.
pub(super) const NONE: u32 = u32::MAX;

/// A slot's place in one list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    prev: u32,
    next: u32,
}

impl Link {
    pub(super) const UNLINKED: Link = Link { prev: NONE, next: NONE };
}

/// Something with places in `N` kinds of lists, in at most one list of each kind.
pub(super) trait Linked<const N: usize> {
    fn links(&mut self) -> &mut [Link; N];
}

/// The ends of a list of kind `KIND`.
#[derive(Clone, Copy, Debug)]
pub(super) struct List<const KIND: usize> {
    first: u32,
    last: u32,
}

impl<const KIND: usize> List<KIND> {
    pub(super) const EMPTY: List<KIND> = List { first: NONE, last: NONE };

    /// The slot that stands there longest.
    pub(super) fn first(&self) -> Option<u32> {
        (self.first != NONE).then_some(self.first)
    }

    /// The slot behind one that stands in this list.
    pub(super) fn after<const N: usize>(slots: &mut [impl Linked<N>], slot: u32) -> Option<u32> {
        let next = slots[slot as usize].links()[KIND].next;
        (next != NONE).then_some(next)
    }

    pub(super) fn push<const N: usize>(&mut self, slots: &mut [impl Linked<N>], slot: u32) {
        slots[slot as usize].links()[KIND] = Link { prev: self.last, next: NONE };
        match self.last {
            NONE => self.first = slot,
            last => slots[last as usize].links()[KIND].next = slot,
        }
        self.last = slot;
    }

    /// Takes out a slot that stands in this list.
    pub(super) fn remove<const N: usize>(&mut self, slots: &mut [impl Linked<N>], slot: u32) {
        let Link { prev, next } = std::mem::replace(&mut slots[slot as usize].links()[KIND], Link::UNLINKED);
        match prev {
            NONE => self.first = next,
            prev => slots[prev as usize].links()[KIND].next = next,
        }
        match next {
            NONE => self.last = prev,
            next => slots[next as usize].links()[KIND].prev = prev,
        }
    }
}

/// Slots that are used again: never more than a given number of them.
#[derive(Debug)]
pub(super) struct Slab<T> {
    pub(super) slots: Vec<T>,
    free: Vec<u32>,
    capacity: usize,
}

impl<T> Slab<T> {
    pub(super) fn new(capacity: usize) -> Slab<T> {
        Slab { slots: Vec::with_capacity(capacity), free: Vec::with_capacity(capacity), capacity }
    }

    pub(super) fn is_full(&self) -> bool {
        self.used() >= self.capacity
    }

    pub(super) fn used(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Puts `value` into a free slot; nothing when there is none.
    pub(super) fn insert(&mut self, value: T) -> Option<u32> {
        if let Some(slot) = self.free.pop() {
            self.slots[slot as usize] = value;
            return Some(slot);
        }
        let slot = u32::try_from(self.slots.len()).ok().filter(|_| self.slots.len() < self.capacity)?;
        self.slots.push(value);
        Some(slot)
    }

    /// Gives a slot back. What is in it stays until it is used again.
    pub(super) fn free(&mut self, slot: u32) {
        self.free.push(slot);
    }
}

/// Which slot has a key, by chains that begin at its hash.
#[derive(Debug)]
pub(super) struct Index {
    heads: Vec<u32>,
}

/// Something with a place in an [`Index`].
pub(super) trait Chained {
    type Key: PartialEq;
    fn key(&self) -> &Self::Key;
    fn chain(&mut self) -> &mut u32;
    fn next(&self) -> u32;
}

impl Index {
    /// For as many slots as `capacity`, half filled then.
    pub(super) fn new(capacity: usize) -> Index {
        Index { heads: vec![NONE; (capacity * 2).next_power_of_two()] }
    }

    #[allow(clippy::cast_possible_truncation)] // masked below
    fn place(&self, hash: u64) -> usize {
        hash as usize & (self.heads.len() - 1)
    }

    pub(super) fn find<T: Chained>(&self, slots: &[T], hash: u64, key: &T::Key) -> Option<u32> {
        let mut at = self.heads[self.place(hash)];
        while at != NONE && slots[at as usize].key() != key {
            at = slots[at as usize].next();
        }
        (at != NONE).then_some(at)
    }

    pub(super) fn insert<T: Chained>(&mut self, slots: &mut [T], hash: u64, slot: u32) {
        let place = self.place(hash);
        *slots[slot as usize].chain() = std::mem::replace(&mut self.heads[place], slot);
    }

    pub(super) fn remove<T: Chained>(&mut self, slots: &mut [T], hash: u64, slot: u32) {
        let place = self.place(hash);
        let next = slots[slot as usize].next();
        let mut at = self.heads[place];
        if at == slot {
            self.heads[place] = next;
            return;
        }
        while at != NONE {
            let after = slots[at as usize].chain();
            if *after == slot {
                *after = next;
                return;
            }
            at = *after;
        }
    }
}

/// Owners by what they have, in classes of powers of two: the heaviest is found at once, give or take a factor of two.
#[derive(Debug)]
pub(super) struct Classes<const KIND: usize> {
    lists: [List<KIND>; 65],
    /// Which lists have someone in them.
    some: u128,
}

/// The class of a weight: 0 for nothing.
fn class(weight: u64) -> usize {
    (u64::BITS - weight.leading_zeros()) as usize
}

impl<const KIND: usize> Classes<KIND> {
    pub(super) fn new() -> Classes<KIND> {
        Classes { lists: [List::EMPTY; 65], some: 0 }
    }

    /// Moves an owner from what it had to what it has; who has nothing stands nowhere.
    pub(super) fn moved<const N: usize>(
        &mut self,
        owners: &mut [impl Linked<N>],
        owner: u32,
        had: u64,
        has: u64,
    ) {
        let (from, to) = (class(had), class(has));
        if from == to {
            return;
        }
        if from > 0 {
            self.lists[from].remove(owners, owner);
            if self.lists[from].first().is_none() {
                self.some &= !(1 << from);
            }
        }
        if to > 0 {
            self.lists[to].push(owners, owner);
            self.some |= 1 << to;
        }
    }

    /// One of those that have most.
    pub(super) fn heaviest(&self) -> Option<u32> {
        let class = u128::BITS.checked_sub(self.some.leading_zeros() + 1)?;
        self.lists[class as usize].first()
    }
}
