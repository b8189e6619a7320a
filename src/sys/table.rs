//! A large array for look-ups at random places: on huge pages where the system gives them, because a miss of the TLB costs
//! as much as one of the cache. Memory is taken from the system when it is first written, so that a table may be made for
//! as many entries as there may ever be.

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

const HUGE: usize = 2 << 20;

/// A slice of `T` in a mapping of its own, aligned to huge pages if it is that large.
pub struct Table<T: Copy> {
    start: NonNull<T>,
    /// Entries that were written; those behind are not there yet.
    len: usize,
    capacity: usize,
    mapping: NonNull<u8>,
    mapped: usize,
}

// SAFETY: the table owns its mapping, as a boxed slice would.
unsafe impl<T: Copy + Send> Send for Table<T> {}
// SAFETY: as above.
unsafe impl<T: Copy + Sync> Sync for Table<T> {}

impl<T: Copy> Table<T> {
    /// `len` copies of `value`.
    ///
    /// # Panics
    /// When there is no memory, as a vector does.
    pub fn filled(value: T, len: usize) -> Table<T> {
        let mut table = Table::with_capacity(len);
        for _ in 0..len {
            table.push(value);
        }
        table
    }

    /// No entries yet, and room for `capacity`. Room that is not used costs addresses, not memory.
    ///
    /// # Panics
    /// When there is no memory, as a vector does.
    pub fn with_capacity(capacity: usize) -> Table<T> {
        let bytes = size_of::<T>()
            .checked_mul(capacity)
            .filter(|bytes| *bytes > 0)
            .expect("a table has entries and fits");
        let slack = if bytes >= HUGE { HUGE } else { 0 };
        let mapped = bytes + slack;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice touches nothing that exists.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                mapped,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        let mapping = NonNull::new(address.cast::<u8>()).filter(|_| address != libc::MAP_FAILED);
        let mapping = mapping.expect("memory for a table");
        let skip =
            if slack > 0 { mapping.addr().get().next_multiple_of(HUGE) - mapping.addr().get() } else { 0 };
        // SAFETY: at most `slack` bytes into a mapping that is longer by that.
        let start = unsafe { mapping.add(skip) };
        if slack > 0 {
            // SAFETY: advice about the mapping just made; failing it changes nothing.
            unsafe { libc::madvise(start.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE) };
        }
        let start = start.cast::<T>();
        assert!(start.is_aligned(), "a page is aligned for every entry");
        Table { start, len: 0, capacity, mapping, mapped }
    }

    /// Appends an entry; false when the table has as many as it was made for. Nothing moves.
    #[inline(always)]
    pub fn push(&mut self, value: T) -> bool {
        let room = self.len < self.capacity;
        if room {
            // SAFETY: `capacity` entries fit behind `start`, which is aligned for them, and `len` is less.
            unsafe { self.start.add(self.len).write(value) };
            self.len += 1;
        }
        room
    }

    /// Entries that there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }
}

/// A cache line of sixteen words: the building block of hash indexes.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Line(pub [u32; Line::WORDS]);

impl Line {
    /// Words in a line.
    pub const WORDS: usize = 16;

    /// Which words are `want` in the bits of `mask`: bit n for word n.
    #[inline(always)]
    pub fn matching(&self, mask: u32, want: u32) -> u32 {
        #[cfg(target_arch = "x86_64")]
        {
            use core::arch::x86_64::{
                __m128i, _mm_and_si128, _mm_cmpeq_epi32, _mm_load_si128, _mm_movemask_epi8, _mm_packs_epi16,
                _mm_packs_epi32, _mm_set1_epi32,
            };
            let words = self.0.as_ptr().cast::<__m128i>();
            // SAFETY: SSE2 is part of x86-64; four aligned loads of 16 bytes are the 64 bytes of an aligned line.
            let bits = unsafe {
                let (mask, want) = (_mm_set1_epi32(mask.cast_signed()), _mm_set1_epi32(want.cast_signed()));
                let quarter =
                    |at: usize| _mm_cmpeq_epi32(_mm_and_si128(_mm_load_si128(words.add(at)), mask), want);
                let low = _mm_packs_epi32(quarter(0), quarter(1));
                let high = _mm_packs_epi32(quarter(2), quarter(3));
                _mm_movemask_epi8(_mm_packs_epi16(low, high))
            };
            bits.cast_unsigned()
        }
        #[cfg(not(target_arch = "x86_64"))]
        self.matching_plainly(mask, want)
    }

    #[cfg(any(test, not(target_arch = "x86_64")))]
    fn matching_plainly(&self, mask: u32, want: u32) -> u32 {
        self.0.iter().rev().fold(0, |bits, word| bits << 1 | u32::from(word & mask == want))
    }
}

impl Table<Line> {
    /// `len` lines of zeroes, which take no memory before they are written.
    ///
    /// # Panics
    /// When there is no memory, as a vector does.
    pub fn zeroed(len: usize) -> Table<Line> {
        let mut table = Table::with_capacity(len);
        // A fresh anonymous mapping reads as zeroes, and any bits are a line: all of them count as written.
        table.len = len;
        table
    }
}

impl<T: Copy> Deref for Table<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: `push` wrote `len` entries there, and the mapping lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T: Copy> DerefMut for Table<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and `self` is borrowed for writing.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl<T: Copy> Clone for Table<T> {
    fn clone(&self) -> Table<T> {
        let mut copy = Table::with_capacity(self.capacity);
        for entry in self.iter() {
            copy.push(*entry);
        }
        copy
    }
}

impl<T: Copy> Drop for Table<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `with_capacity` with this length, and entries need no drop.
        unsafe { libc::munmap(self.mapping.as_ptr().cast(), self.mapped) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_in_place_up_to_its_capacity() {
        let mut table = Table::with_capacity(3);
        assert!(table.is_empty() && table.push(1u32) && table.push(2));
        let first = table.as_ptr();
        assert!(table.push(3) && !table.push(4));
        assert_eq!((&table[..], table.as_ptr(), table.clone().len()), (&[1, 2, 3][..], first, 3));
    }

    #[test]
    fn words_of_a_line_are_compared_all_at_once() {
        let mut lines = Table::zeroed(70_000);
        assert_eq!(lines[69_999].matching(u32::MAX, 0), 0xffff);
        let mut random = 1u32;
        for round in 0..10_000 {
            for word in &mut lines[round].0 {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *word = random >> 3 & 0x8000_0007;
            }
            for (mask, want) in [(u32::MAX, 0x8000_0003), (7, 5), (0x8000_0000, 0x8000_0000), (1 << 31, 0)] {
                let line = &lines[round];
                assert_eq!(line.matching(mask, want), line.matching_plainly(mask, want));
            }
        }
    }

    #[test]
    fn holds_what_is_written_and_clones_apart() {
        for len in [1, 1000, 300_000] {
            let mut table = Table::filled(7u64, len);
            table[len - 1] = 8;
            let copy = table.clone();
            table[0] = 9;
            assert_eq!((table.len(), table[0], copy[len - 1]), (len, 9, 8));
            assert!(copy.iter().take(len - 1).all(|entry| *entry == 7));
        }
    }
}
