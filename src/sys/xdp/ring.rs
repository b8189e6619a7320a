//! The rings that AF_XDP shares with the kernel (`struct xdp_ring`, net/xdp/xsk_queue.h): a power of two of entries, a
//! producer and a consumer index that only grow (modulo 2³²), and a word of flags.
//!
//! Each side keeps copies of both indices and touches the shared ones once a burst: [`Producer::submit`] and
//! [`Consumer::release`] are one release store each. The kernel's index is checked whenever it is read: one that lies
//! outside of what is possible is not believed, and the ring then looks full (or empty).

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// A mapping that rings live in; unmapped on drop.
struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping is an address range, of no thread in particular.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(len: usize, flags: libc::c_int, fd: libc::c_int, offset: libc::off_t) -> io::Result<Mapping> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice touches nothing that exists.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), len, access, flags, fd, offset) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or_else(io::Error::last_os_error)?;
        Ok(Mapping { base, len })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: made by `new` with this length; the ring that owns the mapping holds the only pointers into it.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// Where the parts of a ring lie in its mapping, in bytes (`struct xdp_ring_offset`).
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// The producer's index.
    pub producer: usize,
    /// The consumer's index.
    pub consumer: usize,
    /// The flags.
    pub flags: usize,
    /// The first entry.
    pub entries: usize,
}

/// A piece of a frame in the UMEM (`struct xdp_desc`).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Descriptor {
    /// Offset of its first byte in the UMEM.
    pub addr: u64,
    /// Its length in bytes.
    pub len: u32,
    /// `XDP_PKT_CONTD`: another piece follows; `XDP_TX_METADATA`: metadata lies before the data.
    pub options: u32,
}

impl Descriptor {
    /// Another piece of the same frame follows (`XDP_PKT_CONTD`).
    pub const CONTINUED: u32 = libc::XDP_PKT_CONTD;
    /// Transmit metadata lies directly before the data (`XDP_TX_METADATA`).
    pub const METADATA: u32 = libc::XDP_TX_METADATA;
}

mod entry {
    /// Any bits are a valid value, so that whatever the kernel writes may be read.
    pub trait Entry: Copy {}
    impl Entry for u64 {}
    impl Entry for super::Descriptor {}
}
use entry::Entry;

struct Ring<T> {
    _mapping: Mapping,
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    entries: NonNull<T>,
    size: u32,
    _owns: PhantomData<T>,
}

// SAFETY: the pointers go into the ring's own mapping; all access through them takes the ring.
unsafe impl<T: Send> Send for Ring<T> {}

impl<T: Entry> Ring<T> {
    fn new(mapping: Mapping, layout: Layout, size: u32) -> io::Result<Ring<T>> {
        let bad = || io::Error::new(io::ErrorKind::InvalidData, "the kernel's ring does not fit its mapping");
        let fits = |offset: usize, len: usize, align: usize| {
            offset.is_multiple_of(align) && offset.checked_add(len).is_some_and(|end| end <= mapping.len)
        };
        let words = [layout.producer, layout.consumer, layout.flags];
        let ring = size as usize * size_of::<T>();
        if !size.is_power_of_two()
            || !words.iter().all(|&at| fits(at, 4, 4))
            || !fits(layout.entries, ring, align_of::<T>())
        {
            return Err(bad());
        }
        let base = mapping.base;
        // SAFETY: each offset was just checked to lie in the mapping with room for what is there.
        unsafe {
            Ok(Ring {
                producer: base.add(layout.producer).cast(),
                consumer: base.add(layout.consumer).cast(),
                flags: base.add(layout.flags).cast(),
                entries: base.add(layout.entries).cast(),
                _mapping: mapping,
                size,
                _owns: PhantomData,
            })
        }
    }

    fn map(fd: BorrowedFd<'_>, offset: libc::off_t, layout: Layout, size: u32) -> io::Result<Ring<T>> {
        let len = layout.entries + size as usize * size_of::<T>();
        let mapping = Mapping::new(len, libc::MAP_SHARED | libc::MAP_POPULATE, fd.as_raw_fd(), offset)?;
        Ring::new(mapping, layout, size)
    }

    #[inline(always)]
    fn producer(&self) -> &AtomicU32 {
        // SAFETY: in the mapping and aligned, as `new` checked; shared with the kernel as an atomic.
        unsafe { self.producer.as_ref() }
    }

    #[inline(always)]
    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as for `producer`.
        unsafe { self.consumer.as_ref() }
    }

    #[inline(always)]
    fn slot(&self, index: u32) -> *mut T {
        // SAFETY: the mask keeps the index below `size`, and `size` entries lie in the mapping, as `new` checked.
        unsafe { self.entries.add((index & (self.size - 1)) as usize).as_ptr() }
    }
}

/// Our end of a ring that the kernel takes from: fill and tx.
pub struct Producer<T> {
    ring: Ring<T>,
    /// The next entry to write; the kernel sees it after `submit`.
    head: u32,
    /// Where the ring is full, as of the last look at the kernel's index.
    limit: u32,
}

impl<T: Entry> Producer<T> {
    /// Maps the ring of `size` entries that lies at `offset` of a socket.
    pub(super) fn map(
        fd: BorrowedFd<'_>,
        offset: libc::off_t,
        at: Layout,
        size: u32,
    ) -> io::Result<Producer<T>> {
        Ok(Producer::over(Ring::map(fd, offset, at, size)?))
    }

    fn over(ring: Ring<T>) -> Producer<T> {
        let head = ring.producer().load(Ordering::Relaxed);
        let limit = head;
        Producer { ring, head, limit }
    }

    /// Entries that may be pushed now; looks at the kernel's index only if fewer than `want` are known of.
    #[inline(always)]
    pub fn room(&mut self, want: u32) -> u32 {
        let known = self.limit.wrapping_sub(self.head);
        if known >= want {
            return known;
        }
        let consumer = self.ring.consumer().load(Ordering::Acquire);
        if self.head.wrapping_sub(consumer) > self.ring.size {
            return known;
        }
        self.limit = consumer.wrapping_add(self.ring.size);
        self.limit.wrapping_sub(self.head)
    }

    /// Writes an entry; false when there is no room that [`Producer::room`] told of.
    #[inline(always)]
    pub fn push(&mut self, entry: T) -> bool {
        if self.head == self.limit {
            return false;
        }
        // SAFETY: the slot lies in the ring; the kernel does not read it before `submit` and is through with what was
        // there, as its index said.
        unsafe { self.ring.slot(self.head).write(entry) };
        self.head = self.head.wrapping_add(1);
        true
    }

    /// Shows the kernel what was pushed.
    #[inline(always)]
    pub fn submit(&mut self) {
        self.ring.producer().store(self.head, Ordering::Release);
    }

    /// Entries that were submitted and that the kernel has not taken yet.
    #[inline]
    pub fn waiting(&self) -> u32 {
        self.head.wrapping_sub(self.ring.consumer().load(Ordering::Relaxed))
    }

    /// Whether the kernel wants a system call before it looks at the ring (`XDP_RING_NEED_WAKEUP`).
    #[inline(always)]
    pub fn needs_wakeup(&self) -> bool {
        // SAFETY: in the mapping and aligned, as `Ring::new` checked.
        let flags = unsafe { self.ring.flags.as_ref() }.load(Ordering::Relaxed);
        flags & libc::XDP_RING_NEED_WAKEUP != 0
    }
}

/// Our end of a ring that the kernel puts into: rx and completion.
pub struct Consumer<T> {
    ring: Ring<T>,
    /// The next entry to read; its place is the kernel's again after `release`.
    tail: u32,
    /// Where the ring is empty, as of the last look at the kernel's index.
    limit: u32,
}

impl<T: Entry> Consumer<T> {
    /// Maps the ring of `size` entries that lies at `offset` of a socket.
    pub(super) fn map(
        fd: BorrowedFd<'_>,
        offset: libc::off_t,
        at: Layout,
        size: u32,
    ) -> io::Result<Consumer<T>> {
        Ok(Consumer::over(Ring::map(fd, offset, at, size)?))
    }

    fn over(ring: Ring<T>) -> Consumer<T> {
        let tail = ring.consumer().load(Ordering::Relaxed);
        Consumer { ring, tail, limit: tail }
    }

    /// Entries that may be popped now; looks at the kernel's index only if fewer than `want` are known of.
    #[inline(always)]
    pub fn available(&mut self, want: u32) -> u32 {
        let known = self.limit.wrapping_sub(self.tail);
        if known >= want {
            return known;
        }
        let producer = self.ring.producer().load(Ordering::Acquire);
        let count = producer.wrapping_sub(self.tail);
        if count > self.ring.size {
            return known;
        }
        self.limit = producer;
        count
    }

    /// The next of the entries that [`Consumer::available`] told of.
    #[inline(always)]
    pub fn pop(&mut self) -> Option<T> {
        if self.tail == self.limit {
            return None;
        }
        // SAFETY: the slot lies in the ring, the kernel wrote it before it moved its index, which `available` acquired,
        // and any bits are a value of `T`.
        let entry = unsafe { self.ring.slot(self.tail).read() };
        self.tail = self.tail.wrapping_add(1);
        Some(entry)
    }

    /// Gives the places of what was popped back to the kernel.
    #[inline(always)]
    pub fn release(&mut self) {
        self.ring.consumer().store(self.tail, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    const AT: Layout = Layout { producer: 0, consumer: 64, flags: 68, entries: 128 };

    /// Both ends of one ring in anonymous shared memory, indices at `start`.
    fn both<T: Entry>(size: u32, start: u32) -> (Producer<T>, Consumer<T>) {
        let len = 4096;
        let memory = Mapping::new(len, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0).unwrap();
        // SAFETY: duplicates a shared mapping (`old_size` 0, mremap(2)) to an address of the kernel's choice.
        let twin = unsafe { libc::mremap(memory.base.as_ptr().cast(), 0, len, libc::MREMAP_MAYMOVE) };
        assert_ne!(twin, libc::MAP_FAILED);
        let twin = Mapping { base: NonNull::new(twin.cast()).unwrap(), len };
        let ring = Ring::new(memory, AT, size).unwrap();
        ring.producer().store(start, Ordering::Relaxed);
        ring.consumer().store(start, Ordering::Relaxed);
        (Producer::over(ring), Consumer::over(Ring::new(twin, AT, size).unwrap()))
    }

    #[test]
    fn entries_show_only_after_submit_and_places_only_after_release() {
        let (mut producer, mut consumer) = both::<u64>(4, u32::MAX - 1);
        assert_eq!(producer.room(1), 4);
        for n in 0..4 {
            assert!(producer.push(n));
        }
        assert!(!producer.push(4), "full");
        assert_eq!(consumer.available(1), 0);
        producer.submit();
        assert_eq!(producer.waiting(), 4);
        assert_eq!(consumer.available(8), 4);
        assert_eq!((consumer.pop(), consumer.pop()), (Some(0), Some(1)));
        assert_eq!(producer.room(1), 0);
        consumer.release();
        assert_eq!((producer.room(1), producer.waiting()), (2, 2));
    }

    #[test]
    fn an_impossible_index_is_not_believed() {
        let (mut producer, mut consumer) = both::<Descriptor>(4, 0);
        consumer.ring.consumer().store(3, Ordering::Relaxed);
        assert_eq!(producer.room(1), 0, "consumed what was never produced");
        consumer.ring.producer().store(100, Ordering::Relaxed);
        assert_eq!((consumer.available(1), consumer.pop()), (0, None));
    }

    #[test]
    fn a_layout_outside_of_the_mapping_is_refused() {
        for (layout, size) in [
            (Layout { entries: 4090, ..AT }, 4),
            (Layout { flags: 4095, ..AT }, 4),
            (Layout { producer: usize::MAX - 3, ..AT }, 4),
            (AT, 3),
        ] {
            let memory = Mapping::new(4096, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0).unwrap();
            assert!(Ring::<u64>::new(memory, layout, size).is_err(), "{layout:?} {size}");
        }
    }

    #[test]
    fn the_wakeup_flag_is_the_kernels() {
        let (producer, consumer) = both::<u64>(4, 0);
        assert!(!producer.needs_wakeup());
        // SAFETY: in the mapping, as `Ring::new` checked.
        unsafe { consumer.ring.flags.as_ref() }.store(libc::XDP_RING_NEED_WAKEUP, Ordering::Relaxed);
        assert!(producer.needs_wakeup());
    }

    proptest! {
        #[test]
        fn a_ring_is_a_bounded_queue(start: u32, moves in prop::collection::vec((any::<bool>(), 0u32..12), 0..200)) {
            let (mut producer, mut consumer) = both::<u64>(8, start);
            let (mut model, mut next) = (VecDeque::new(), 0u64);
            for (push, n) in moves {
                if push {
                    for _ in 0..producer.room(n).min(n) {
                        prop_assert!(producer.push(next));
                        model.push_back(next);
                        next += 1;
                    }
                    producer.submit();
                    prop_assert!(model.len() <= 8);
                } else {
                    for _ in 0..consumer.available(n).min(n) {
                        prop_assert_eq!(consumer.pop(), model.pop_front());
                    }
                    consumer.release();
                }
            }
            prop_assert_eq!(consumer.available(u32::MAX) as usize, model.len());
        }
    }
}
