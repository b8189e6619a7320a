//! A large array for look-ups at random places: on huge pages where the system gives them, because a miss of the TLB costs
//! as much as one of the cache.

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

const HUGE: usize = 2 << 20;

/// A slice of `T` in a mapping of its own, aligned to huge pages if it is that large.
pub struct Table<T: Copy> {
    start: NonNull<T>,
    len: usize,
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
        let bytes =
            size_of::<T>().checked_mul(len).filter(|bytes| *bytes > 0).expect("a table has entries and fits");
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
        for at in 0..len {
            // SAFETY: `len` entries fit behind `start`, which is aligned for them.
            unsafe { start.add(at).write(value) };
        }
        Table { start, len, mapping, mapped }
    }
}

impl<T: Copy> Deref for Table<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: `filled` wrote `len` entries there, and the mapping lives as long as `self`.
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
        let mut copy = Table::filled(self[0], self.len);
        copy.copy_from_slice(self);
        copy
    }
}

impl<T: Copy> Drop for Table<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `filled` with this length, and entries need no drop.
        unsafe { libc::munmap(self.mapping.as_ptr().cast(), self.mapped) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
