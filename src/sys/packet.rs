//! AF_PACKET (packet(7), Documentation/networking/packet_mmap.rst): a socket with a receive and a send ring of
//! TPACKET_V2, each frame with its virtio-net header, and a plain socket beside it for what is too long for a slot.
//!
//! Small frames pass by the rings, so one system call sends a burst and none receives it. A frame longer than a slot is
//! received whole: the kernel queues it on the socket (`PACKET_COPY_THRESH`) and marks its slot `TP_STATUS_COPY`, so
//! slots and queue are in the same order. The third version of the ring was left out: it hands over whole
//! blocks, which delays a lone frame by its timer (1 ms at least).
//!
//! Invariants: a slot whose status is `TP_STATUS_USER` (receive) or `TP_STATUS_AVAILABLE` (send) is ours alone, every
//! other is the kernel's. Offsets and lengths that the kernel writes are checked against the slot.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use libc::{c_int, c_void, socklen_t, tpacket2_hdr};

use crate::frame::Offload;

/// Bytes of a slot in either ring. Frames of an MTU of 1500 with two tags fit.
pub const SLOT: usize = 2048;
/// Where a frame's virtio-net header begins in a slot of the send ring: `TPACKET2_HDRLEN - sizeof(sockaddr_ll)`.
const SEND_OFFSET: usize = size_of::<tpacket2_hdr>().next_multiple_of(16);
/// The longest frame that a slot of the send ring takes, in bytes.
pub const SEND_MAX: usize = SLOT - SEND_OFFSET - Offload::LEN;
/// Bytes of large frames that wait for us before the kernel cuts further ones.
const RECEIVE_QUEUE: c_int = 8 << 20;
/// Bytes of frames that may be under way in the kernel.
const SEND_QUEUE: c_int = 4 << 20;
/// Most pieces of a frame in one `sendmsg`, the header not counted.
const MAX_PIECES: usize = 40;

const TPACKET_V2: c_int = 1;
const PACKET_IGNORE_OUTGOING: c_int = 23;

/// One place in a ring.
#[derive(Clone, Copy)]
struct Slot(NonNull<u8>);

impl Slot {
    fn status(&self) -> &AtomicU32 {
        // SAFETY: `tp_status` is the first word of the slot's header, aligned, and shared with the kernel as an atomic.
        unsafe { self.0.cast::<AtomicU32>().as_ref() }
    }
}

struct Ring {
    start: NonNull<u8>,
    slots: usize,
    at: usize,
}

impl Ring {
    #[inline(always)]
    fn current(&self) -> Slot {
        // SAFETY: `at < slots`, and the mapping holds `slots` slots from `start` on.
        Slot(unsafe { self.start.add(self.at * SLOT) })
    }

    fn before(&self) -> Slot {
        let at = self.at.checked_sub(1).unwrap_or(self.slots - 1);
        // SAFETY: as in `current`.
        Slot(unsafe { self.start.add(at * SLOT) })
    }

    fn retreat(&mut self) {
        self.at = self.at.checked_sub(1).unwrap_or(self.slots - 1);
    }

    #[inline(always)]
    fn advance(&mut self) {
        self.at += 1;
        if self.at == self.slots {
            self.at = 0;
        }
    }
}

/// Sockets and rings on one device.
pub struct PacketSocket {
    receive: Ring,
    send: Ring,
    mapped: usize,
    ring: OwnedFd,
    plain: OwnedFd,
    index: c_int,
    unsent: usize,
}

// SAFETY: the ring pointers name a mapping that only this value uses; nothing in it is tied to a thread.
unsafe impl Send for PacketSocket {}

/// A received frame in its slot. Dropping it gives the slot back to the kernel.
pub struct Received<'a> {
    slot: Slot,
    /// Checksum and segmentation work that is still to be done, offsets from the start of `data`.
    pub offload: Offload,
    /// The frame, or its beginning when it was too long for the slot.
    pub data: &'a [u8],
    /// The frame's own length in bytes.
    pub len: usize,
    /// The whole frame is next in the queue: call [`PacketSocket::receive_large`].
    pub queued: bool,
    /// A VLAN tag that the kernel took out of the frame: TPID and TCI.
    pub tag: Option<[u8; 4]>,
}

impl Drop for Received<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.slot.status().store(libc::TP_STATUS_KERNEL, Ordering::Release);
    }
}

impl PacketSocket {
    /// Opens a socket on the device with this index in the calling thread's namespace, promiscuous, with rings of
    /// `receive` and `send` slots of [`SLOT`] bytes (each a multiple of 2). What the device itself sends out is not
    /// received. Membership and rings go with the descriptor.
    ///
    /// # Errors
    /// `EPERM` without `CAP_NET_RAW`, `ENODEV` without the device, `ENOMEM`.
    pub fn open(index: u32, receive: usize, send: usize) -> io::Result<PacketSocket> {
        let index = c_int::try_from(index).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
        let (ring, plain) = (socket()?, socket()?);
        for fd in [&ring, &plain] {
            set(fd, libc::PACKET_VNET_HDR, &1)?;
            size_queue(fd, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, SEND_QUEUE);
        }
        // The other socket sends GSO frames, which the kernel must cut for a device that cannot: it does not for one that goes
        // past the queueing discipline, but drops it (`__dev_direct_xmit`).
        set(&ring, libc::PACKET_QDISC_BYPASS, &1)?;
        size_queue(&ring, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, RECEIVE_QUEUE);
        set(&ring, libc::PACKET_VERSION, &TPACKET_V2)?;
        set(&ring, libc::PACKET_COPY_THRESH, &1)?;
        set(&ring, libc::PACKET_LOSS, &1)?;
        set(&ring, PACKET_IGNORE_OUTGOING, &1)?;
        set(&ring, libc::PACKET_RX_RING, &layout(receive)?)?;
        set(&ring, libc::PACKET_TX_RING, &layout(send)?)?;
        let mapped = (receive + send) * SLOT;
        // SAFETY: a fresh mapping at an address of the kernel's choice touches nothing that exists.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                mapped,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                ring.as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(address.cast::<u8>()).ok_or_else(io::Error::last_os_error)?;
        // SAFETY: the send ring follows the receive ring in the mapping (packet_mmap.rst).
        let send_start = unsafe { start.add(receive * SLOT) };
        let socket = PacketSocket {
            receive: Ring { start, slots: receive, at: 0 },
            send: Ring { start: send_start, slots: send, at: 0 },
            mapped,
            ring,
            plain,
            index,
            unsent: 0,
        };
        // Not before the rings stand: what arrives earlier would wait in the queue, out of step with the slots.
        bind(&socket.ring, index, libc::ETH_P_ALL)?;
        bind(&socket.plain, index, 0)?;
        let membership = libc::packet_mreq {
            mr_ifindex: index,
            mr_type: u16::try_from(libc::PACKET_MR_PROMISC).unwrap_or_default(),
            mr_alen: 0,
            mr_address: [0; 8],
        };
        set(&socket.ring, libc::PACKET_ADD_MEMBERSHIP, &membership)?;
        Ok(socket)
    }

    /// The next received frame, or nothing when there is none now.
    #[inline]
    pub fn receive(&mut self) -> Option<Received<'_>> {
        let slot = self.receive.current();
        let status = slot.status().load(Ordering::Acquire);
        if status & libc::TP_STATUS_USER == 0 {
            return None;
        }
        self.receive.advance();
        // SAFETY: the slot is ours while its status says so, and begins with this header.
        let header = unsafe { slot.0.cast::<tpacket2_hdr>().read() };
        let (start, len) = (usize::from(header.tp_mac), header.tp_snaplen as usize);
        // A slot that says nonsense is read as an empty frame, which ingress counts.
        let sane = start >= size_of::<tpacket2_hdr>() + Offload::LEN && start + len <= SLOT;
        let (start, len) = if sane { (start, len) } else { (SLOT, 0) };
        let mut bytes = [0; Offload::LEN];
        // SAFETY: `SEND_OFFSET <= start - LEN` and `start + len <= SLOT`, as just checked; the kernel leaves the slot
        // alone until its status is given back, which `Received` does when dropped.
        let data = unsafe {
            if sane {
                slot.0
                    .add(start - Offload::LEN)
                    .copy_to_nonoverlapping(NonNull::from(&mut bytes).cast(), bytes.len());
            }
            std::slice::from_raw_parts(slot.0.add(start).as_ptr(), len)
        };
        let tag = (status & libc::TP_STATUS_VLAN_VALID != 0).then(|| {
            let known = status & libc::TP_STATUS_VLAN_TPID_VALID != 0;
            let [a, b] = if known { header.tp_vlan_tpid } else { 0x8100 }.to_be_bytes();
            let [c, d] = header.tp_vlan_tci.to_be_bytes();
            [a, b, c, d]
        });
        Some(Received {
            slot,
            offload: Offload::from_bytes(bytes),
            data,
            len: header.tp_len as usize,
            queued: status & libc::TP_STATUS_COPY != 0,
            tag,
        })
    }

    /// Takes the next large frame out of the queue into `to`; gives its own length, which is more than `to` holds when
    /// it was cut. An empty `to` throws it away.
    ///
    /// # Errors
    /// `EAGAIN` when none waits, `ENETDOWN` once after the device went down.
    pub fn receive_large(&self, offload: &mut Offload, to: &mut [u8]) -> io::Result<usize> {
        let mut header = [0; Offload::LEN];
        let mut parts = [IoSliceMut::new(&mut header), IoSliceMut::new(to)];
        // SAFETY: `msghdr` is plain data, for which zeros are a value.
        let mut message: libc::msghdr = unsafe { zeroed() };
        message.msg_iov = parts.as_mut_ptr().cast();
        message.msg_iovlen = parts.len();
        // SAFETY: the message names `parts` (laid out as `iovec`), which name memory borrowed for writing.
        let len = unsafe {
            libc::recvmsg(self.ring.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT | libc::MSG_TRUNC)
        };
        let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
        *offload = Offload::from_bytes(header);
        Ok(len.saturating_sub(Offload::LEN))
    }

    /// Writes a frame of at most [`SEND_MAX`] bytes into the send ring. False when it does not fit or the ring is full;
    /// [`PacketSocket::flush`] sends.
    #[inline]
    pub fn queue<'a>(
        &mut self,
        offload: Offload,
        len: usize,
        pieces: impl Iterator<Item = &'a [u8]>,
    ) -> bool {
        let slot = self.send.current();
        if len > SEND_MAX || slot.status().load(Ordering::Acquire) != libc::TP_STATUS_AVAILABLE {
            return false;
        }
        // The kernel copies `hdr_len` bytes into the packet itself and refers to the slot for the rest, which costs more
        // than the copy. So the "headers" of so short a frame are all of it.
        let whole = Offload { hdr_len: u16::try_from(len).unwrap_or_default(), ..offload };
        // SAFETY: the slot is ours while its status says so; `SEND_OFFSET + LEN + len <= SLOT`, as just checked, and
        // `piece` is cut to what is left of `len`.
        unsafe {
            let mut to = slot.0.add(SEND_OFFSET);
            to.copy_from_nonoverlapping(NonNull::from(&whole.to_bytes()).cast(), Offload::LEN);
            to = to.add(Offload::LEN);
            let mut room = len;
            for piece in pieces {
                let count = piece.len().min(room);
                to.as_ptr().copy_from_nonoverlapping(piece.as_ptr(), count);
                to = to.add(count);
                room -= count;
            }
            let header = slot.0.cast::<tpacket2_hdr>().as_ptr();
            (*header).tp_len = u32::try_from(Offload::LEN + len).unwrap_or_default();
        }
        slot.status().store(libc::TP_STATUS_SEND_REQUEST, Ordering::Release);
        self.send.advance();
        self.unsent += 1;
        true
    }

    /// Sends what stands in the send ring, with one system call, and gives how many of the last frames the kernel did
    /// not take, because the device is down, full or gone. Those are withdrawn: a frame that waited in the ring would
    /// hold up all behind it, and arrive late. Frames that the kernel finds malformed vanish (`PACKET_LOSS`).
    #[inline]
    pub fn flush(&mut self) -> usize {
        if self.unsent == 0 {
            return 0;
        }
        fence(Ordering::SeqCst);
        // SAFETY: no buffer is passed; the kernel reads the ring. Its result is read off the slots, because it tells of
        // an error only when nothing was sent before.
        unsafe { libc::send(self.ring.as_raw_fd(), std::ptr::null(), 0, libc::MSG_DONTWAIT) };
        let mut withdrawn = 0;
        while withdrawn < self.unsent {
            let last = self.send.before();
            // The kernel touches requests during the call alone, in order, so these are the last ones, and ours again.
            let status = last.status();
            if status.load(Ordering::Acquire) != libc::TP_STATUS_SEND_REQUEST {
                break;
            }
            status.store(libc::TP_STATUS_AVAILABLE, Ordering::Release);
            self.send.retreat();
            withdrawn += 1;
        }
        self.unsent = 0;
        withdrawn
    }

    /// Sends one frame of any length by a system call of its own. Order with the ring is the caller's matter.
    ///
    /// # Errors
    /// `EINVAL` and `EMSGSIZE` when the kernel refuses the frame, `ENETDOWN` when the device is down, `ENXIO` when it is
    /// gone, `EAGAIN` and `ENOBUFS` when it is full.
    pub fn send_large<'a>(&self, offload: Offload, pieces: impl Iterator<Item = &'a [u8]>) -> io::Result<()> {
        let header = offload.to_bytes();
        let mut parts = [IoSlice::new(&[]); MAX_PIECES + 1];
        parts[0] = IoSlice::new(&header);
        let mut count = 1;
        for piece in pieces {
            *parts.get_mut(count).ok_or_else(|| io::Error::from_raw_os_error(libc::EMSGSIZE))? =
                IoSlice::new(piece);
            count += 1;
        }
        // SAFETY: `msghdr` is plain data, for which zeros are a value.
        let mut message: libc::msghdr = unsafe { zeroed() };
        message.msg_iov = parts.as_mut_ptr().cast();
        message.msg_iovlen = count;
        // SAFETY: the message names `parts` (laid out as `iovec`), which name memory borrowed for reading.
        let sent = unsafe { libc::sendmsg(self.plain.as_raw_fd(), &raw const message, libc::MSG_DONTWAIT) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// True while the device that the socket was opened on exists in its namespace: the kernel unbinds the socket when
    /// it goes.
    pub fn is_bound(&self) -> bool {
        // SAFETY: `sockaddr_ll` is plain data, for which zeros are a value.
        let mut address: libc::sockaddr_ll = unsafe { zeroed() };
        let mut len = length::<libc::sockaddr_ll>();
        // SAFETY: the kernel writes at most `len` bytes to `address`.
        let result =
            unsafe { libc::getsockname(self.ring.as_raw_fd(), (&raw mut address).cast(), &raw mut len) };
        result == 0 && address.sll_ifindex == self.index
    }

    /// The descriptor, to poll: readable when a frame arrives or the device goes.
    pub fn fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

impl Drop for PacketSocket {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `open` with this length, and slices of it borrow `self`.
        unsafe { libc::munmap(self.receive.start.as_ptr().cast(), self.mapped) };
    }
}

fn socket() -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed. Protocol 0 receives nothing until `bind` says what.
    let fd = unsafe {
        libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new, nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn length<T>() -> socklen_t {
    socklen_t::try_from(size_of::<T>()).unwrap_or_default()
}

fn set<T>(fd: &OwnedFd, option: c_int, value: &T) -> io::Result<()> {
    set_at(fd, libc::SOL_PACKET, option, value)
}

fn set_at<T>(fd: &OwnedFd, level: c_int, option: c_int, value: &T) -> io::Result<()> {
    let value = std::ptr::from_ref(value).cast::<c_void>();
    // SAFETY: the kernel reads `size_of::<T>()` bytes of `value`; the callers pass the type that the option asks for.
    let result = unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, value, length::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Wants a queue of `bytes`, and takes what the system's limit gives where we may not pass it.
fn size_queue(fd: &OwnedFd, force: c_int, plain: c_int, bytes: c_int) {
    if set_at(fd, libc::SOL_SOCKET, force, &bytes).is_err() {
        let _ = set_at(fd, libc::SOL_SOCKET, plain, &bytes);
    }
}

fn layout(slots: usize) -> io::Result<libc::tpacket_req> {
    const BLOCK: usize = 4096;
    let bad = |_| io::Error::from_raw_os_error(libc::EINVAL);
    Ok(libc::tpacket_req {
        tp_block_size: u32::try_from(BLOCK).map_err(bad)?,
        tp_block_nr: u32::try_from(slots * SLOT / BLOCK).map_err(bad)?,
        tp_frame_size: u32::try_from(SLOT).map_err(bad)?,
        tp_frame_nr: u32::try_from(slots).map_err(bad)?,
    })
}

fn bind(fd: &OwnedFd, index: c_int, protocol: c_int) -> io::Result<()> {
    // SAFETY: `sockaddr_ll` is plain data, for which zeros are a value.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or_default();
    address.sll_protocol = u16::try_from(protocol).unwrap_or_default().to_be();
    address.sll_ifindex = index;
    // SAFETY: the kernel reads one `sockaddr_ll`.
    let result =
        unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length::<libc::sockaddr_ll>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
