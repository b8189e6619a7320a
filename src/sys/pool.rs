//! The memory that frames live in: one [`Region`] a worker, cut into chunks, and the [`Pool`] that hands them out.
//!
//! A region has two sizes of chunk: many of [`CHUNK`] bytes, which are also the worker's AF_XDP UMEM (so a frame goes
//! from socket to socket as a descriptor), and a few of [`LARGE_CHUNK`] for GSO frames of up to 64 KiB.
//!
//! Invariants, upheld here and nowhere else:
//! - A chunk is in exactly one place: a free list, one [`Frame`] (as its head or in its chain), or *posted* to a device's
//!   ring, and then `Local::posted` names the device.
//! - The free lists are touched by the owner's thread only. A frame dropped elsewhere returns through `Shared::remote`.
//! - `Shared` outlives every frame: a pool that is dropped while frames are out leaks its region rather than pull it
//!   from under them.

use std::cell::UnsafeCell;
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arrayvec::ArrayVec;
use crossbeam::queue::ArrayQueue;

use crate::frame::Offload;

/// Bytes of a small chunk; a power of two, as the kernel's aligned chunk mode asks (`xdp_umem_reg`).
pub const CHUNK: usize = 2048;
/// Bytes before the data of a frame that we allocate, and what the kernel leaves before those that it receives
/// (`XDP_PACKET_HEADROOM`): room for VLAN tags, tunnel headers and AF_XDP tx metadata.
pub const HEADROOM: usize = 256;
/// Bytes of a large chunk: the longest GSO frame (65 535 bytes of packet, Ethernet header, two tags) and headroom.
pub const LARGE_CHUNK: usize = 17 * 4096;
/// Data that fits in one small chunk behind the headroom.
pub const CHUNK_DATA: usize = CHUNK - HEADROOM;
/// The longest frame that the switch carries, GSO frames included, in bytes.
pub const MAX_FRAME: usize = LARGE_CHUNK - HEADROOM;

const NONE: u32 = u32::MAX;
const UNPOSTED: u16 = 0;

/// A mapped region of memory for frames. Shared with AF_XDP sockets, which register its small chunks as their UMEM.
pub struct Region {
    base: NonNull<u8>,
    mapped: usize,
    small: u32,
    large: u32,
    huge: bool,
    taken: AtomicBool,
}

// SAFETY: a region is an address range; access to its bytes goes through frames, of which each owns its chunk.
unsafe impl Send for Region {}
// SAFETY: as above; the shared methods only read the immutable description.
unsafe impl Sync for Region {}

impl Region {
    /// Maps `small` chunks of [`CHUNK`] and `large` ones of [`LARGE_CHUNK`] bytes: on huge pages where the system has
    /// some reserved, on plain pages (with a hint for transparent huge ones) where not.
    ///
    /// # Errors
    /// The kernel's, when there is no memory.
    pub fn new(small: u32, large: u32) -> io::Result<Arc<Region>> {
        const HUGE: usize = 2 << 20;
        let len = small as usize * CHUNK + large as usize * LARGE_CHUNK;
        let mapped = len.next_multiple_of(HUGE).max(HUGE);
        let map = |flags| {
            // SAFETY: a fresh anonymous mapping at an address of the kernel's choice touches nothing that exists.
            unsafe {
                libc::mmap(
                    std::ptr::null_mut(),
                    mapped,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags,
                    -1,
                    0,
                )
            }
        };
        let mut address = map(libc::MAP_HUGETLB);
        let huge = address != libc::MAP_FAILED;
        if !huge {
            address = map(0);
            if address == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            // SAFETY: advice about the mapping just made; failing it changes nothing.
            unsafe { libc::madvise(address, mapped, libc::MADV_HUGEPAGE) };
        }
        let base = NonNull::new(address.cast::<u8>()).ok_or_else(io::Error::last_os_error)?;
        Ok(Arc::new(Region { base, mapped, small, large, huge, taken: AtomicBool::new(false) }))
    }

    /// Start of the small chunks, for UMEM registration.
    pub fn umem_start(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// Length of the small chunks together, in bytes.
    pub fn umem_len(&self) -> usize {
        self.small as usize * CHUNK
    }

    /// Small chunks in this region.
    pub fn small_chunks(&self) -> u32 {
        self.small
    }

    /// Whether the region lies on reserved huge pages.
    pub fn is_huge(&self) -> bool {
        self.huge
    }

    #[inline(always)]
    fn chunk_offset(&self, chunk: u32) -> usize {
        if chunk < self.small {
            chunk as usize * CHUNK
        } else {
            self.small as usize * CHUNK + (chunk - self.small) as usize * LARGE_CHUNK
        }
    }

    #[inline(always)]
    fn chunk_len(&self, chunk: u32) -> usize {
        if chunk < self.small { CHUNK } else { LARGE_CHUNK }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this length; whoever still uses it holds an `Arc` of it.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.mapped) };
    }
}

/// What a chunk in a chain behind a frame's head holds.
#[derive(Clone, Copy)]
struct Segment {
    offset: u32,
    len: u32,
    next: u32,
}

struct Local {
    small: Vec<u32>,
    large: Vec<u32>,
    /// Per small chunk: the device it is posted to, plus one; `UNPOSTED` otherwise.
    posted: Vec<u16>,
}

struct Shared {
    region: Arc<Region>,
    owner: AtomicU64,
    local: UnsafeCell<Local>,
    /// Chunks of frames that were dropped on other threads; holds every chunk at once, so it never overflows.
    remote: ArrayQueue<u32>,
    chain: Box<[UnsafeCell<Segment>]>,
}

thread_local! {
    static THREAD: u64 = {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        NEXT.fetch_add(1, Ordering::Relaxed)
    };
}

#[inline(always)]
fn this_thread() -> u64 {
    THREAD.try_with(|id| *id).unwrap_or(0)
}

impl Shared {
    #[inline(always)]
    fn is_local(&self) -> bool {
        self.owner.load(Ordering::Relaxed) == this_thread()
    }

    #[inline(always)]
    fn free(&self, chunk: u32) {
        if self.is_local() {
            // SAFETY: this is the owner's thread, the only one that touches `local`, and no other borrow is alive.
            let local = unsafe { &mut *self.local.get() };
            if chunk < self.region.small { local.small.push(chunk) } else { local.large.push(chunk) }
        } else {
            let full = self.remote.push(chunk);
            debug_assert!(full.is_ok(), "the return queue holds every chunk");
        }
    }

    #[inline(always)]
    fn segment(&self, chunk: u32) -> Segment {
        // SAFETY: the entry belongs to whoever holds the chunk, here the frame whose chain it is in.
        unsafe { *self.chain[chunk as usize].get() }
    }

    fn set_segment(&self, chunk: u32, segment: Segment) {
        // SAFETY: as in `segment`.
        unsafe { *self.chain[chunk as usize].get() = segment }
    }

    #[inline(always)]
    fn at(&self, chunk: u32, offset: usize) -> NonNull<u8> {
        debug_assert!(offset <= self.region.chunk_len(chunk));
        // SAFETY: `chunk` is one of the region's and `offset` lies within it, so the sum lies within the mapping.
        unsafe { self.region.base.add(self.region.chunk_offset(chunk) + offset) }
    }
}

/// Hands out the chunks of one region as [`Frame`]s. Belongs to the thread that made it.
pub struct Pool {
    shared: NonNull<Shared>,
}

impl Pool {
    /// Takes over a region for the calling thread.
    ///
    /// # Panics
    /// When the region has a pool already: that would hand out its chunks twice.
    pub fn new(region: Arc<Region>) -> Pool {
        assert!(!region.taken.swap(true, Ordering::AcqRel), "a region has one pool");
        let (small, large) = (region.small, region.large);
        let total = (small + large) as usize;
        let local = Local {
            small: (0..small).rev().collect(),
            large: (small..small + large).rev().collect(),
            posted: vec![UNPOSTED; small as usize],
        };
        let empty = Segment { offset: 0, len: 0, next: NONE };
        let shared = Box::new(Shared {
            region,
            owner: AtomicU64::new(this_thread()),
            local: UnsafeCell::new(local),
            remote: ArrayQueue::new(total.max(1)),
            chain: (0..total).map(|_| UnsafeCell::new(empty)).collect(),
        });
        Pool { shared: NonNull::from(Box::leak(shared)) }
    }

    /// A pool over a fresh region; for tests, tools and benches.
    ///
    /// # Errors
    /// The kernel's, when there is no memory.
    pub fn with_chunks(small: u32, large: u32) -> io::Result<Pool> {
        Ok(Pool::new(Region::new(small, large)?))
    }

    #[inline(always)]
    fn shared(&self) -> &Shared {
        // SAFETY: freed by `drop` only.
        unsafe { self.shared.as_ref() }
    }

    #[inline(always)]
    fn local(&mut self) -> &mut Local {
        // SAFETY: a pool is not `Send`, so this is the owner's thread; the borrow ends before any other begins,
        // because `Shared::free` is never called while one is held.
        unsafe { &mut *self.shared().local.get() }
    }

    /// The region below.
    pub fn region(&self) -> &Arc<Region> {
        &self.shared().region
    }

    /// Chunks that are free now: (small, large). Counts those that other threads gave back.
    pub fn free_chunks(&mut self) -> (usize, usize) {
        self.collect();
        (self.local().small.len(), self.local().large.len())
    }

    /// Small chunks that are free now, without those that other threads gave back lately.
    #[inline(always)]
    pub fn free_small(&mut self) -> usize {
        self.local().small.len()
    }

    /// Whether `frame` lies in a small chunk of this pool, whole: what an AF_XDP socket on it can send as it is.
    pub fn owns_small(&self, frame: &Frame) -> bool {
        frame.shared == self.shared && frame.chunk < self.shared().region.small
    }

    #[cold]
    fn collect(&mut self) {
        while let Some(chunk) = self.shared().remote.pop() {
            let small = self.shared().region.small;
            let local = self.local();
            if chunk < small { local.small.push(chunk) } else { local.large.push(chunk) }
        }
    }

    fn frame(&self, chunk: u32) -> Frame {
        let data = self.shared().at(chunk, HEADROOM);
        Frame { shared: self.shared, data, chunk, head: 0, len: 0, next: NONE, offload: Offload::NONE }
    }

    /// An empty frame in a small chunk, or nothing when all are in use.
    #[inline]
    pub fn alloc(&mut self) -> Option<Frame> {
        let chunk = match self.local().small.pop() {
            Some(chunk) => chunk,
            None => {
                self.collect();
                self.local().small.pop()?
            }
        };
        Some(self.frame(chunk))
    }

    /// An empty frame in a large chunk, or nothing when all are in use.
    pub fn alloc_large(&mut self) -> Option<Frame> {
        let chunk = match self.local().large.pop() {
            Some(chunk) => chunk,
            None => {
                self.collect();
                self.local().large.pop()?
            }
        };
        Some(self.frame(chunk))
    }

    /// An empty frame with room for `len` bytes in one piece, or nothing when no such chunk is free.
    #[inline]
    pub fn alloc_for(&mut self, len: usize) -> Option<Frame> {
        if len <= CHUNK_DATA {
            self.alloc()
        } else if len <= MAX_FRAME {
            self.alloc_large()
        } else {
            None
        }
    }

    /// A frame with these bytes, or nothing when no chunk for them is free.
    pub fn frame_from(&mut self, bytes: &[u8]) -> Option<Frame> {
        let mut frame = self.alloc_for(bytes.len())?;
        frame.append(bytes)?;
        Some(frame)
    }

    /// A copy of `frame` in one piece in this pool, offload included, or nothing when no chunk for it is free.
    #[inline]
    pub fn copy(&mut self, frame: &Frame) -> Option<Frame> {
        let mut copy = self.alloc_for(frame.len())?;
        for part in frame.segments() {
            copy.append(part)?;
        }
        copy.offload = frame.offload;
        Some(copy)
    }

    /// A copy of `frame` in a chain of this pool's small chunks, so that an AF_XDP socket can send it.
    pub fn copy_small(&mut self, frame: &Frame) -> Option<Frame> {
        let mut copy = self.alloc()?;
        copy.offload = frame.offload;
        for part in frame.segments() {
            let mut rest = part;
            if copy.next == NONE {
                let fits = rest.len().min(copy.tailroom());
                let (now, later) = rest.split_at(fits);
                copy.append(now)?;
                rest = later;
            }
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(CHUNK_DATA));
                let mut link = self.alloc()?;
                link.append(now)?;
                copy.chain(link)?;
                rest = later;
            }
        }
        Some(copy)
    }

    /// Gives a free small chunk to device `slot` to receive into: its offset in the UMEM. Nothing when all are in use.
    #[inline]
    pub fn post_free(&mut self, slot: u16) -> Option<u64> {
        let chunk = match self.local().small.pop() {
            Some(chunk) => chunk,
            None => {
                self.collect();
                self.local().small.pop()?
            }
        };
        self.local().posted[chunk as usize] = slot + 1;
        Some(u64::from(chunk) * CHUNK as u64)
    }

    /// Gives a frame to device `slot` to send. `descriptor` is called for each piece with its offset in the UMEM, its
    /// length in bytes, and whether another piece follows. The chunks come back through [`Pool::complete`].
    ///
    /// # Panics
    /// When the frame is not [`Pool::owns_small`].
    #[inline]
    pub fn post(&mut self, frame: Frame, slot: u16, mut descriptor: impl FnMut(u64, u32, bool)) {
        assert!(self.owns_small(&frame), "only chunks of this UMEM can be posted");
        let frame = std::mem::ManuallyDrop::new(frame);
        let base = self.shared().region.base.addr().get();
        let address = (frame.data.addr().get() - base) as u64;
        self.local().posted[frame.chunk as usize] = slot + 1;
        descriptor(address, frame.head, frame.next != NONE);
        let mut next = frame.next;
        while next != NONE {
            let segment = self.shared().segment(next);
            let address = (self.shared().region.chunk_offset(next) + segment.offset as usize) as u64;
            self.local().posted[next as usize] = slot + 1;
            descriptor(address, segment.len, segment.next != NONE);
            next = segment.next;
        }
    }

    #[inline(always)]
    fn unpost(&mut self, address: u64, slot: u16) -> Option<u32> {
        let chunk = u32::try_from(address / CHUNK as u64).ok()?;
        let posted = self.local().posted.get_mut(chunk as usize)?;
        if *posted != slot + 1 {
            return None;
        }
        *posted = UNPOSTED;
        Some(chunk)
    }

    /// Takes back a chunk that device `slot` received `len` bytes into, at `address` in the UMEM. Nothing when the
    /// device does not hold that chunk or the range leaves it: then the kernel's word is not believed.
    #[inline]
    pub fn receive(&mut self, address: u64, len: u32, slot: u16) -> Option<Frame> {
        let offset = usize::try_from(address).ok()? % CHUNK;
        if offset + len as usize > CHUNK {
            return None;
        }
        let chunk = self.unpost(address, slot)?;
        let data = self.shared().at(chunk, offset);
        Some(Frame { shared: self.shared, data, chunk, head: len, len, next: NONE, offload: Offload::NONE })
    }

    /// Takes back a chunk that device `slot` has sent. False when the device does not hold that chunk.
    #[inline]
    pub fn complete(&mut self, address: u64, slot: u16) -> bool {
        let Some(chunk) = self.unpost(address, slot) else { return false };
        self.local().small.push(chunk);
        true
    }

    /// Takes back all that device `slot` still holds, after its sockets are closed; gives their number.
    pub fn reclaim(&mut self, slot: u16) -> usize {
        let local = self.local();
        let mut count = 0;
        for (chunk, posted) in (0u32..).zip(&mut local.posted) {
            if *posted == slot + 1 {
                *posted = UNPOSTED;
                local.small.push(chunk);
                count += 1;
            }
        }
        count
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let (small, large) = self.free_chunks();
        let region = self.region();
        if small == region.small as usize && large == region.large as usize {
            // SAFETY: made by `Box::leak` in `new`. Every chunk is back, so no frame points here any more.
            drop(unsafe { Box::from_raw(self.shared.as_ptr()) });
        }
    }
}

/// An Ethernet frame in a chunk of a [`Pool`], or in a chain of chunks when it is a jumbo frame off AF_XDP. It can be
/// moved, not copied, and returns to its pool when dropped, on whichever thread.
pub struct Frame {
    shared: NonNull<Shared>,
    data: NonNull<u8>,
    chunk: u32,
    head: u32,
    len: u32,
    next: u32,
    /// Checksum and segmentation work that is still to be done.
    pub offload: Offload,
}

/// Takes all frames out of a burst, in order, with their places in it. As `drain`, but a frame never becomes an
/// `Option<Frame>` on its way: the compiler copies that in other pieces than it then reads, and such a read waits until
/// the stores before it are done. When `take` panics, the rest leaks.
#[inline(always)]
pub fn take_each<const N: usize>(burst: &mut ArrayVec<Frame, N>, mut take: impl FnMut(usize, Frame)) {
    let len = burst.len();
    // SAFETY: zero elements are in use from here on, so that nothing else reads or drops those that are read below.
    unsafe { burst.set_len(0) };
    for n in 0..len {
        // SAFETY: the element was in use when the burst came in, and is read once.
        let frame = unsafe { burst.as_ptr().add(n).read() };
        take(n, frame);
    }
}

/// Puts a frame at the end of a burst; false, and the frame is dropped, where there is no room. As `push`, but for the same
/// reason as [`take_each`].
#[inline(always)]
pub fn put<const N: usize>(burst: &mut ArrayVec<Frame, N>, frame: Frame) -> bool {
    let room = !burst.is_full();
    if room {
        // SAFETY: there is room for one more.
        unsafe { burst.push_unchecked(frame) };
    }
    room
}

// SAFETY: a frame owns its chunks, and its pool's `Shared` outlives it; giving them back elsewhere goes by `remote`.
unsafe impl Send for Frame {}

#[allow(clippy::cast_possible_truncation)] // lengths are at most MAX_FRAME
impl Frame {
    #[inline(always)]
    fn shared(&self) -> &Shared {
        // SAFETY: `Shared` outlives its frames.
        unsafe { self.shared.as_ref() }
    }

    /// Length of the whole frame in bytes, without FCS.
    #[inline(always)]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// The first piece of the frame: all of it, unless it is a chain. Headers are looked for here only.
    #[inline(always)]
    pub fn head(&self) -> &[u8] {
        // SAFETY: `data .. data + head` lies in a chunk that this frame owns.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr(), self.head as usize) }
    }

    /// Brings the cache line of a byte of the first piece near.
    #[inline(always)]
    pub fn prefetch(&self, at: usize) {
        self.head().get(at).into_iter().for_each(super::prefetch);
    }

    /// As [`Frame::head`], to write.
    #[inline(always)]
    pub fn head_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `head`, and `self` is borrowed for writing.
        unsafe { std::slice::from_raw_parts_mut(self.data.as_ptr(), self.head as usize) }
    }

    /// True when the frame is in one piece.
    #[inline(always)]
    pub fn is_linear(&self) -> bool {
        self.next == NONE
    }

    /// The pieces of the frame in order, the head first.
    pub fn segments(&self) -> impl Iterator<Item = &[u8]> {
        let mut next = self.next;
        std::iter::once(self.head()).chain(std::iter::from_fn(move || {
            if next == NONE {
                return None;
            }
            let segment = self.shared().segment(next);
            let start = self.shared().at(next, segment.offset as usize);
            next = segment.next;
            // SAFETY: the segment lies in a chunk of this frame's chain.
            Some(unsafe { std::slice::from_raw_parts(start.as_ptr(), segment.len as usize) })
        }))
    }

    /// Copies the frame's bytes from `offset` on into `to`, as many as there are; gives their number.
    pub fn copy_to(&self, offset: usize, to: &mut [u8]) -> usize {
        let (mut skip, mut done) = (offset, 0);
        for part in self.segments() {
            let Some(part) = part.get(skip..) else {
                skip -= part.len();
                continue;
            };
            skip = 0;
            let n = part.len().min(to.len() - done);
            to[done..done + n].copy_from_slice(&part[..n]);
            done += n;
            if done == to.len() {
                break;
            }
        }
        done
    }

    fn chunk_start(&self) -> NonNull<u8> {
        self.shared().at(self.chunk, 0)
    }

    /// Free bytes before the data.
    #[inline]
    pub fn headroom(&self) -> usize {
        self.data.addr().get() - self.chunk_start().addr().get()
    }

    /// Free bytes behind the head.
    #[inline]
    pub fn tailroom(&self) -> usize {
        self.shared().region.chunk_len(self.chunk) - self.headroom() - self.head as usize
    }

    /// Makes the frame longer by `count` bytes at its front, whose content is then undefined; the offload's offsets move
    /// along. Nothing changes, and `None` comes back, where the headroom is too small.
    #[inline]
    pub fn prepend(&mut self, count: usize) -> Option<()> {
        if count > self.headroom() {
            return None;
        }
        // SAFETY: the new start lies within the same chunk, as just checked.
        self.data = unsafe { self.data.sub(count) };
        self.head += count as u32;
        self.len += count as u32;
        self.offload.shift_right(count as u16);
        Some(())
    }

    /// Cuts `count` bytes off the front; the offload's offsets move along. `None` when the head is shorter than that.
    #[inline(always)]
    pub fn trim_front(&mut self, count: usize) -> Option<()> {
        if count > self.head as usize {
            return None;
        }
        // SAFETY: the new start lies within the same chunk, as just checked.
        self.data = unsafe { self.data.add(count) };
        self.head -= count as u32;
        self.len -= count as u32;
        self.offload.shift_left(count as u16);
        Some(())
    }

    /// Adds bytes behind the head of a frame in one piece; `None` where it is a chain or they do not fit.
    #[inline]
    pub fn append(&mut self, bytes: &[u8]) -> Option<()> {
        let at = self.head as usize;
        self.extend(bytes.len())?;
        self.head_mut()[at..].copy_from_slice(bytes);
        Some(())
    }

    /// Makes a frame in one piece longer by `count` bytes, whose content is then undefined (but some earlier frame's,
    /// never memory from elsewhere). `None` where it is a chain or they do not fit.
    #[inline]
    pub fn extend(&mut self, count: usize) -> Option<()> {
        if !self.is_linear() || count > self.tailroom() {
            return None;
        }
        self.head += count as u32;
        self.len += count as u32;
        Some(())
    }

    /// Cuts a frame in one piece to `len` bytes; no effect when it is shorter or a chain.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        if self.is_linear() && len < self.head as usize {
            self.head = len as u32;
            self.len = len as u32;
        }
    }

    /// Hangs `link`, a frame in one piece out of the same pool, behind this one. `None` (and `link` is freed) when it is
    /// neither, or the sum would pass [`MAX_FRAME`].
    pub fn chain(&mut self, link: Frame) -> Option<()> {
        if link.shared != self.shared || !link.is_linear() || self.len() + link.len() > MAX_FRAME {
            return None;
        }
        let link = std::mem::ManuallyDrop::new(link);
        let offset = link.headroom() as u32;
        self.shared().set_segment(link.chunk, Segment { offset, len: link.head, next: NONE });
        if self.next == NONE {
            self.next = link.chunk;
        } else {
            let mut last = self.next;
            loop {
                let segment = self.shared().segment(last);
                if segment.next == NONE {
                    self.shared().set_segment(last, Segment { next: link.chunk, ..segment });
                    break;
                }
                last = segment.next;
            }
        }
        self.len += link.len;
        Some(())
    }
}

impl Drop for Frame {
    #[inline]
    fn drop(&mut self) {
        let shared = self.shared();
        let mut next = self.next;
        while next != NONE {
            let following = shared.segment(next).next;
            shared.free(next);
            next = following;
        }
        shared.free(self.chunk);
    }
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Frame({} bytes, {:?})", self.len, self.offload)
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation)] // small numbers
mod tests {
    use super::*;

    #[test]
    fn every_chunk_comes_back() {
        let mut pool = Pool::with_chunks(8, 2).unwrap();
        let mut frames: Vec<Frame> = std::iter::from_fn(|| pool.alloc()).collect();
        assert_eq!(frames.len(), 8);
        assert_eq!(pool.free_chunks(), (0, 2));
        let other = frames.pop().unwrap();
        std::thread::spawn(move || drop(other)).join().unwrap();
        drop(frames);
        assert_eq!(pool.free_chunks(), (8, 2));
    }

    #[test]
    fn a_burst_gives_each_frame_once_and_in_order() {
        let mut pool = Pool::with_chunks(8, 2).unwrap();
        let mut burst: ArrayVec<Frame, 8> = (0..5).filter_map(|n| pool.frame_from(&[n; 60])).collect();
        let mut seen = Vec::new();
        take_each(&mut burst, |n, frame| seen.push((n, frame.head()[0])));
        assert_eq!(seen, [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4)]);
        assert!(burst.is_empty());
        drop(burst);
        assert_eq!(pool.free_chunks(), (8, 2));
    }

    #[test]
    fn a_chain_reads_as_one_frame_and_returns_whole() {
        let mut pool = Pool::with_chunks(8, 2).unwrap();
        let bytes: Vec<u8> = (0..5000u32).map(|i| i as u8).collect();
        let large = pool.frame_from(&bytes).unwrap();
        let chain = pool.copy_small(&large).unwrap();
        assert!(!chain.is_linear());
        assert_eq!(chain.segments().collect::<Vec<_>>().concat(), bytes);
        let mut part = [0; 3000];
        assert_eq!(chain.copy_to(1900, &mut part), 3000);
        assert_eq!(part[..], bytes[1900..4900]);
        assert_eq!(pool.copy(&chain).unwrap().head(), bytes);
        drop((large, chain));
        assert_eq!(pool.free_chunks(), (8, 2));
    }

    #[test]
    fn what_the_kernel_never_got_is_not_taken_back() {
        let mut pool = Pool::with_chunks(4, 0).unwrap();
        let address = pool.post_free(3).unwrap();
        assert!(pool.receive(address + 256, 60, 2).is_none(), "another device's");
        assert!(pool.receive(address + 2000, 60, 3).is_none(), "leaves its chunk");
        assert!(!pool.complete(1 << 40, 3), "outside of the region");
        let frame = pool.receive(address + 256, 60, 3).unwrap();
        assert_eq!((frame.len(), frame.headroom()), (60, 256));
        assert!(pool.receive(address + 256, 60, 3).is_none(), "twice");
        drop(frame);
        pool.post_free(3).unwrap();
        assert_eq!(pool.reclaim(3), 1);
        assert_eq!(pool.free_chunks(), (4, 0));
    }

    #[test]
    fn a_pool_dropped_early_leaves_its_frames_alive() {
        let mut pool = Pool::with_chunks(4, 0).unwrap();
        let frame = pool.frame_from(b"still here").unwrap();
        drop(pool);
        assert_eq!(frame.head(), b"still here");
    }
}
