//! The descriptor side of a TAP (linux/if_tun.h): the handful of `ioctl`s, and reads and writes with the virtio-net
//! header in front. What the kernel says of lengths is checked here; what a frame's header says is checked on ingress.
//!
//! Reads and writes go past the C library's functions, which in a process with threads are cancellation points and pay
//! for that with two atomic exchanges a call.

use std::ffi::c_ulong;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::{size_of_val, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use libc::c_int;

use crate::frame::Offload;

/// Most pieces of one frame that [`Tap::write`] hands over in one call, the header not counted: a jumbo frame of 64 KiB
/// in small chunks.
pub const MAX_PIECES: usize = 40;

/// A TAP's descriptor, non-blocking, with a virtio-net header of [`Offload::LEN`] bytes before each frame.
pub struct Tap {
    file: File,
}

/// What another process may do with a persistent TAP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Owner {
    /// User that may attach to it without `CAP_NET_ADMIN`.
    pub user: u32,
    /// Group whose members may, if any.
    pub group: Option<u32>,
}

impl Tap {
    /// Creates the TAP `name` in the namespace of the calling thread. It vanishes with the descriptor.
    ///
    /// # Errors
    /// `EBUSY` when a device of that name exists, `EPERM` without `CAP_NET_ADMIN`, `ENOENT` or `ENODEV` without the
    /// TUN driver, `EINVAL` for an impossible name.
    pub fn create(name: &str) -> io::Result<Tap> {
        Tap::open(name, libc::IFF_TUN_EXCL).map(|(tap, _)| tap)
    }

    /// Creates a TAP under a name that the kernel chooses, and gives the name.
    ///
    /// A TAP that shall live in another namespace is made here and moved there: its descriptor keeps alive the namespace
    /// that it was made in.
    ///
    /// # Errors
    /// As [`Tap::create`].
    pub fn create_any() -> io::Result<(Tap, String)> {
        Tap::open("tap%d", libc::IFF_TUN_EXCL)
    }

    /// Attaches to the TAP `name`, or creates it.
    ///
    /// # Errors
    /// As [`Tap::create`], but `EBUSY` says that another process is attached, and `EINVAL` also that the device is no
    /// TAP with a single queue.
    pub fn attach(name: &str) -> io::Result<Tap> {
        Tap::open(name, 0).map(|(tap, _)| tap)
    }

    fn open(name: &str, extra: c_int) -> io::Result<(Tap, String)> {
        let file =
            OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
        // SAFETY: `ifreq` is plain data, for which zeros are a value.
        let mut request: libc::ifreq = unsafe { zeroed() };
        if name.is_empty() || name.len() >= request.ifr_name.len() {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from.cast_signed();
        }
        let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | extra;
        #[allow(clippy::cast_possible_truncation)] // the flags are those of a u16
        {
            request.ifr_ifru.ifru_flags = flags as i16;
        }
        // SAFETY: TUNSETIFF reads and writes one `ifreq`, which outlives the call.
        check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
        let tap = Tap { file };
        let size = c_int::try_from(Offload::LEN).unwrap_or_default();
        // SAFETY: TUNSETVNETHDRSZ reads one int.
        check(unsafe { libc::ioctl(tap.fd(), libc::TUNSETVNETHDRSZ, &raw const size) })?;
        let name = request.ifr_name.iter().map(|byte| byte.cast_unsigned()).take_while(|&byte| byte != 0);
        Ok((tap, String::from_utf8_lossy(&name.collect::<Vec<u8>>()).into_owned()))
    }

    /// Tells the kernel that we take frames with unfinished checksums and GSO frames. True when UDP GSO frames are
    /// among them (Linux 6.2).
    ///
    /// # Errors
    /// The kernel's, when it knows not even TCP's.
    pub fn set_offloads(&self) -> io::Result<bool> {
        let tcp = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
        if self.set(libc::TUNSETOFFLOAD, c_ulong::from(tcp | libc::TUN_F_USO4 | libc::TUN_F_USO6)).is_ok() {
            return Ok(true);
        }
        self.set(libc::TUNSETOFFLOAD, c_ulong::from(tcp)).map(|()| false)
    }

    /// Makes the TAP outlive its descriptor, or not.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_persistent(&self, persistent: bool) -> io::Result<()> {
        self.set(libc::TUNSETPERSIST, c_ulong::from(persistent))
    }

    /// Says who else may attach. Without an owner anyone may who can open `/dev/net/tun`.
    ///
    /// # Errors
    /// `EINVAL` for an identity that does not exist in this user namespace.
    pub fn set_owner(&self, owner: Owner) -> io::Result<()> {
        self.set(libc::TUNSETOWNER, c_ulong::from(owner.user))?;
        owner.group.map_or(Ok(()), |group| self.set(libc::TUNSETGROUP, c_ulong::from(group)))
    }

    fn set(&self, request: libc::Ioctl, value: c_ulong) -> io::Result<()> {
        // SAFETY: the four requests of the callers take a number, not an address.
        check(unsafe { libc::ioctl(self.fd(), request, value) })
    }

    /// Reads one frame with its header in front into `pieces`, one after the other. Gives the number of bytes that were
    /// stored, header included; a longer frame is cut without a word, so make room enough.
    ///
    /// # Errors
    /// As [`Tap::read`].
    #[inline]
    pub fn read_whole(&self, pieces: [&mut [u8]; 2]) -> io::Result<usize> {
        let [first, second] = pieces;
        let count = 1 + usize::from(!second.is_empty());
        let mut parts = [IoSliceMut::new(first), IoSliceMut::new(second)];
        readv(self.fd(), &mut parts[..count])
    }

    /// Writes one frame that has its header ([`Offload::to_bytes`]) in front, in one piece: the cheapest way.
    ///
    /// # Errors
    /// As [`Tap::write`].
    #[inline]
    pub fn write_whole(&self, bytes: &[u8]) -> io::Result<()> {
        // SAFETY: the kernel reads `bytes.len()` bytes of `bytes`.
        let len = unsafe { libc::syscall(libc::SYS_write, self.fd(), bytes.as_ptr(), bytes.len()) };
        if len < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Reads one frame: its header into `offload`, its bytes into `pieces`, one after the other. Gives the number of its
    /// bytes that were stored; a longer frame is cut without a word, so make room enough.
    ///
    /// # Errors
    /// `EAGAIN` when there is none, `EBADFD` when the device is gone.
    #[inline]
    pub fn read(&self, offload: &mut Offload, pieces: [&mut [u8]; 2]) -> io::Result<usize> {
        let mut header = [0; Offload::LEN];
        let [first, second] = pieces;
        let count = 2 + usize::from(!second.is_empty());
        let mut parts = [IoSliceMut::new(&mut header), IoSliceMut::new(first), IoSliceMut::new(second)];
        let len = readv(self.fd(), &mut parts[..count])?;
        *offload = Offload::from_bytes(header);
        Ok(len.saturating_sub(Offload::LEN))
    }

    /// Writes one frame, given in pieces.
    ///
    /// # Errors
    /// `EAGAIN` when the kernel's backlog is full, `EINVAL` when it refuses the frame, `EIO` when the device is not up,
    /// `EBADFD` when it is gone.
    #[inline]
    pub fn write<'a>(&self, offload: Offload, pieces: impl Iterator<Item = &'a [u8]>) -> io::Result<()> {
        let header = offload.to_bytes();
        let mut parts = [IoSlice::new(&[]); MAX_PIECES + 1];
        parts[0] = IoSlice::new(&header);
        let mut count = 1;
        for piece in pieces {
            *parts.get_mut(count).ok_or_else(|| io::Error::from_raw_os_error(libc::EMSGSIZE))? =
                IoSlice::new(piece);
            count += 1;
        }
        writev(self.fd(), &parts[..count])
    }

    /// The descriptor, to poll.
    pub fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn check(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[inline]
fn readv(fd: RawFd, parts: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
    debug_assert!(size_of_val(parts) > 0);
    let count = c_int::try_from(parts.len()).unwrap_or(c_int::MAX);
    // SAFETY: `IoSliceMut` has the layout of `iovec` (std guarantees it), and each names memory borrowed for writing.
    let len = unsafe { libc::syscall(libc::SYS_readv, fd, parts.as_mut_ptr(), count) };
    usize::try_from(len).map_err(|_| io::Error::last_os_error())
}

#[inline]
fn writev(fd: RawFd, parts: &[IoSlice<'_>]) -> io::Result<()> {
    let count = c_int::try_from(parts.len()).unwrap_or(c_int::MAX);
    // SAFETY: `IoSlice` has the layout of `iovec` (std guarantees it), and each names memory borrowed for reading.
    let len = unsafe { libc::syscall(libc::SYS_writev, fd, parts.as_ptr(), count) };
    if len < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
