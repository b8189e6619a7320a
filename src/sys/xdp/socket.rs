//! An AF_XDP socket on one queue of a device, with its four rings.
//!
//! Opening tries the best first: zero-copy, then copy; multi-buffer, then not; with transmit metadata, then without.
//! A queue that was closed a moment ago may still be busy, as the kernel frees it from a work queue: that is waited for.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ring::{Consumer, Descriptor, Layout, Producer};
use super::umem::{Umem, Way};
use crate::sys::pool::CHUNK;

/// How long a busy queue is waited for.
const BUSY_FOR: Duration = Duration::from_secs(2);
/// Bytes of transmit metadata that we ask for: flags, and a request for a checksum (`struct xsk_tx_metadata`).
pub const TX_METADATA: u32 = 16;
/// `XDP_TXMD_FLAGS_CHECKSUM` (linux/if_xdp.h).
pub const TX_METADATA_CHECKSUM: u64 = libc::XDP_TXMD_FLAGS_CHECKSUM as u64;
/// Bytes of frames that the kernel may have on their way out of a socket in copy mode. The default of about 200 KiB is
/// less than a ring of small frames.
const SEND_BUFFER: libc::c_int = 16 << 20;

/// What is wanted of a socket.
#[derive(Clone, Copy, Debug)]
pub struct SocketConfig {
    /// Index of the device, in the calling thread's network namespace.
    pub ifindex: u32,
    /// The queue.
    pub queue: u32,
    /// Entries of each ring, a power of two.
    pub ring: u32,
    /// Whether zero-copy may be tried.
    pub zero_copy: bool,
    /// Whether frames in several chunks are wanted, where the kernel can.
    pub multi_buffer: bool,
    /// Busy polling in the worker's time (`SO_PREFER_BUSY_POLL`).
    pub busy_poll: bool,
}

/// Frames that the kernel lost on a socket (`XDP_STATISTICS`), since it was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Losses {
    /// Too long for what the socket takes, or otherwise not deliverable.
    pub dropped: u64,
    /// No place in the rx ring.
    pub ring_full: u64,
    /// No chunk in the fill ring.
    pub no_chunk: u64,
    /// Descriptors to send that the kernel refused.
    pub bad_tx: u64,
}

impl Losses {
    /// Frames that were not deliverable for another reason than a lack of room. In copy mode the kernel counts a frame
    /// that finds the fill ring empty twice, as `rx_fill_ring_empty_descs` and as `rx_dropped` (`__xsk_rcv`); in
    /// zero-copy mode the driver asks for chunks, and only the first moves.
    pub fn too_long(&self, zero_copy: bool) -> u64 {
        if zero_copy { self.dropped } else { self.dropped.saturating_sub(self.no_chunk) }
    }

    /// Frames that found no chunk or no place in the rx ring.
    pub fn no_room(&self) -> u64 {
        self.ring_full + self.no_chunk
    }
}

#[cfg(test)]
mod loss_tests {
    use super::Losses;

    #[test]
    fn a_frame_that_found_no_chunk_is_lost_once() {
        let starved = Losses { dropped: 14, no_chunk: 14, ..Losses::default() };
        assert_eq!((starved.too_long(false), starved.no_room()), (0, 14));
        let mixed = Losses { dropped: 17, no_chunk: 14, ring_full: 2, bad_tx: 0 };
        assert_eq!((mixed.too_long(false), mixed.no_room()), (3, 16));
        assert_eq!(
            mixed.too_long(true),
            17,
            "a zero-copy driver's own requests are no frames that were dropped"
        );
    }
}

/// What became of a request to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kick {
    /// The kernel worked on the ring.
    Done,
    /// The kernel worked on the ring, and the device had no room for a frame of it: on a veth, the receiver is behind.
    Full,
    /// The kernel worked on the ring, and a frame of it was refused by the device.
    Refused,
    /// The kernel cannot go on just now, or the device is down.
    Again,
    /// The device is gone.
    Gone,
}

/// A bound socket. Dropping it frees the queue: first the rings are unmapped, then the descriptor is closed, as the
/// kernel keeps the queue until both are gone.
pub struct Socket {
    /// Frames received.
    pub rx: Consumer<Descriptor>,
    /// Frames to send.
    pub tx: Producer<Descriptor>,
    /// Chunks to receive into.
    pub fill: Producer<u64>,
    /// Chunks that were sent.
    pub completion: Consumer<u64>,
    fd: Arc<OwnedFd>,
    umem: Arc<Umem>,
    way: Way,
}

pub(super) fn set_option<T>(
    socket: &impl AsRawFd,
    level: libc::c_int,
    name: libc::c_int,
    value: &T,
) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: the kernel reads `len` bytes of `value`, which is that long.
    match unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), len) }
    {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Reads an option whose structure is all integers, so that any bytes are a value of it.
///
/// # Safety
/// All-zero bytes, and any that the kernel writes, must be a valid `T`.
unsafe fn get_option<T>(socket: &impl AsRawFd, level: libc::c_int, name: libc::c_int) -> io::Result<T> {
    // SAFETY: the caller's promise.
    let mut value: T = unsafe { std::mem::zeroed() };
    let mut len = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    let to = std::ptr::from_mut(&mut value).cast();
    // SAFETY: the kernel writes at most `len` bytes to `value`, which is that long.
    match unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, to, &raw mut len) } {
        0 => Ok(value),
        _ => Err(io::Error::last_os_error()),
    }
}

fn layout(offset: &libc::xdp_ring_offset) -> io::Result<Layout> {
    let at = |value| usize::try_from(value).map_err(io::Error::other);
    Ok(Layout {
        producer: at(offset.producer)?,
        consumer: at(offset.consumer)?,
        flags: at(offset.flags)?,
        entries: at(offset.desc)?,
    })
}

/// True for an answer that means "not this way": another one may do.
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP | libc::EBADF | libc::ENOPROTOOPT))
}

impl Socket {
    /// Opens a socket on a queue in the best way that kernel and device allow.
    ///
    /// # Errors
    /// EBUSY when another socket has the queue, EINVAL when the device has no such queue, ENETDOWN when it is down,
    /// EPERM without CAP_NET_RAW, ENOBUFS when the UMEM passes `RLIMIT_MEMLOCK`.
    pub fn open(umem: &Arc<Umem>, config: &SocketConfig) -> io::Result<Socket> {
        let until = Instant::now() + BUSY_FOR;
        loop {
            match Socket::open_best(umem, config) {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                result => return result,
            }
        }
    }

    fn open_best(umem: &Arc<Umem>, config: &SocketConfig) -> io::Result<Socket> {
        let _turn = umem.turn();
        let mut last = io::Error::from_raw_os_error(libc::EOPNOTSUPP);
        for zero_copy in [true, false] {
            for multi_buffer in [true, false] {
                if (zero_copy && !config.zero_copy) || (multi_buffer && !config.multi_buffer) {
                    continue;
                }
                let shared = umem.find(zero_copy, multi_buffer).map(Some);
                for share in shared.into_iter().chain([None]) {
                    match Socket::open_one_way(umem, config, zero_copy, multi_buffer, share) {
                        Err(error) if is_refusal(&error) => last = error,
                        result => return result,
                    }
                }
            }
        }
        Err(last)
    }

    fn open_one_way(
        umem: &Arc<Umem>,
        config: &SocketConfig,
        zero_copy: bool,
        multi_buffer: bool,
        share: Option<(Arc<OwnedFd>, Way)>,
    ) -> io::Result<Socket> {
        // SAFETY: makes a descriptor, which is then ours.
        let fd = unsafe {
            match libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) {
                fd if fd < 0 => return Err(io::Error::last_os_error()),
                fd => OwnedFd::from_raw_fd(fd),
            }
        };
        let tx_metadata = match &share {
            Some((_, way)) => way.tx_metadata,
            None => register(&fd, umem)?,
        };
        let rings =
            [libc::XDP_UMEM_FILL_RING, libc::XDP_UMEM_COMPLETION_RING, libc::XDP_RX_RING, libc::XDP_TX_RING];
        for ring in rings {
            set_option(&fd, libc::SOL_XDP, ring, &config.ring)?;
        }
        // SAFETY: a structure of integers.
        let offsets: libc::xdp_mmap_offsets =
            unsafe { get_option(&fd, libc::SOL_XDP, libc::XDP_MMAP_OFFSETS)? };
        let (fill_at, completion_at) = (libc::XDP_UMEM_PGOFF_FILL_RING, libc::XDP_UMEM_PGOFF_COMPLETION_RING);
        let offset = |value| libc::off_t::try_from(value).map_err(io::Error::other);
        let size = config.ring;
        let rx = Consumer::map(fd.as_fd(), libc::XDP_PGOFF_RX_RING, layout(&offsets.rx)?, size)?;
        let tx = Producer::map(fd.as_fd(), libc::XDP_PGOFF_TX_RING, layout(&offsets.tx)?, size)?;
        let fill = Producer::map(fd.as_fd(), offset(fill_at)?, layout(&offsets.fr)?, size)?;
        let completion = Consumer::map(fd.as_fd(), offset(completion_at)?, layout(&offsets.cr)?, size)?;

        // Best effort: without it the kernel takes fewer frames at once, and says so by EAGAIN.
        let _ = set_option(&fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &SEND_BUFFER);
        let flags = match &share {
            Some(_) => libc::XDP_SHARED_UMEM,
            None => {
                let copy = if zero_copy { libc::XDP_ZEROCOPY } else { libc::XDP_COPY };
                copy | libc::XDP_USE_NEED_WAKEUP | if multi_buffer { libc::XDP_USE_SG } else { 0 }
            }
        };
        bind(&fd, config, flags, share.as_ref().map(|(other, _)| other.as_raw_fd()))?;
        if config.busy_poll {
            busy_poll(&fd)?;
        }
        // What the kernel says, not what was asked for.
        // SAFETY: a structure of integers.
        let options: libc::xdp_options = unsafe { get_option(&fd, libc::SOL_XDP, libc::XDP_OPTIONS)? };
        let zero_copy = options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0;
        let way = Way { zero_copy, multi_buffer, tx_metadata };
        let fd = Arc::new(fd);
        umem.add(&fd, way);
        Ok(Socket { rx, tx, fill, completion, fd, umem: umem.clone(), way })
    }

    /// How the socket works.
    pub fn way(&self) -> Way {
        self.way
    }

    /// The UMEM that it is bound over.
    pub fn umem(&self) -> &Arc<Umem> {
        &self.umem
    }

    /// Its descriptor, for polling.
    pub fn raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Makes the kernel send what was submitted to `tx`: in copy mode up to 32 frames, before it returns.
    #[inline]
    pub fn kick_tx(&self) -> Kick {
        // SAFETY: no address is given.
        let sent = unsafe {
            libc::sendto(self.raw_fd(), std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0)
        };
        if sent >= 0 { Kick::Done } else { Socket::kick_failed(&io::Error::last_os_error()) }
    }

    #[cold]
    fn kick_failed(error: &io::Error) -> Kick {
        match error.raw_os_error() {
            Some(libc::EBUSY | libc::ENOBUFS) => Kick::Full,
            // A device that is down is still there, and may come up again.
            Some(libc::EAGAIN | libc::EINTR | libc::ENETDOWN) => Kick::Again,
            Some(libc::ENXIO | libc::EBADF) => Kick::Gone,
            _ => Kick::Refused,
        }
    }

    /// Makes the kernel look at the fill ring, and poll the device's queue where busy polling is on.
    #[inline]
    pub fn kick_rx(&self) {
        // SAFETY: no address is given. The result says nothing that `pending_error` would not.
        unsafe {
            let none = std::ptr::null_mut();
            libc::recvfrom(self.raw_fd(), none, 0, libc::MSG_DONTWAIT, none.cast(), none.cast());
        }
    }

    /// True, once, when the device has gone from under the socket (`SO_ERROR`).
    pub fn pending_error(&self) -> bool {
        // SAFETY: an integer.
        let code = unsafe { get_option::<libc::c_int>(&*self.fd, libc::SOL_SOCKET, libc::SO_ERROR) };
        !matches!(code, Ok(0))
    }

    /// What the kernel lost so far; nothing where it does not say.
    pub fn losses(&self) -> Losses {
        // SAFETY: a structure of integers.
        match unsafe { get_option::<libc::xdp_statistics>(&*self.fd, libc::SOL_XDP, libc::XDP_STATISTICS) } {
            Ok(n) => Losses {
                dropped: n.rx_dropped,
                ring_full: n.rx_ring_full,
                no_chunk: n.rx_fill_ring_empty_descs,
                bad_tx: n.tx_invalid_descs,
            },
            Err(_) => Losses::default(),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Registers the region's small chunks; gives the bytes of transmit metadata that the kernel agreed to.
fn register(fd: &OwnedFd, umem: &Umem) -> io::Result<u32> {
    let region = umem.region();
    let chunk_size = u32::try_from(CHUNK).map_err(io::Error::other)?;
    let mut last = None;
    for tx_metadata_len in [TX_METADATA, 0] {
        let registration = libc::xdp_umem_reg {
            addr: region.umem_start() as u64,
            len: region.umem_len() as u64,
            chunk_size,
            headroom: 0,
            flags: if tx_metadata_len > 0 { libc::XDP_UMEM_TX_METADATA_LEN } else { 0 },
            tx_metadata_len,
        };
        match set_option(fd, libc::SOL_XDP, libc::XDP_UMEM_REG, &registration) {
            Ok(()) => return Ok(tx_metadata_len),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(io::Error::last_os_error))
}

fn bind(fd: &OwnedFd, config: &SocketConfig, flags: u16, share: Option<RawFd>) -> io::Result<()> {
    let family = u16::try_from(libc::AF_XDP).map_err(io::Error::other)?;
    let address = libc::sockaddr_xdp {
        sxdp_family: family,
        sxdp_flags: flags,
        sxdp_ifindex: config.ifindex,
        sxdp_queue_id: config.queue,
        sxdp_shared_umem_fd: share.map_or(0, i32::cast_unsigned),
    };
    let len = libc::socklen_t::try_from(size_of_val(&address)).map_err(io::Error::other)?;
    // SAFETY: `address` is a `sockaddr_xdp`, `len` bytes long.
    match unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn busy_poll(fd: &OwnedFd) -> io::Result<()> {
    const MICROSECONDS: libc::c_int = 20;
    const BUDGET: libc::c_int = 64;
    set_option(fd, libc::SOL_SOCKET, libc::SO_PREFER_BUSY_POLL, &1)?;
    set_option(fd, libc::SOL_SOCKET, libc::SO_BUSY_POLL, &MICROSECONDS)?;
    set_option(fd, libc::SOL_SOCKET, libc::SO_BUSY_POLL_BUDGET, &BUDGET)
}
