//! `bpf(2)`, the little of it that XDP needs: load a program, make a map, attach by a link.
//!
//! A program is attached by a link (`BPF_LINK_CREATE`, Linux 5.9) and not by netlink: the link is a descriptor, so the
//! program leaves the device when the process ends, however it ends.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use super::program::Insn;

/// How long a device's other program is waited for.
const OCCUPIED_FOR: Duration = Duration::from_millis(300);

// linux/bpf.h, enum bpf_cmd
const MAP_CREATE: u32 = 0;
const MAP_LOOKUP_ELEM: u32 = 1;
const MAP_UPDATE_ELEM: u32 = 2;
const PROG_LOAD: u32 = 5;
const PROG_TEST_RUN: u32 = 10;
const LINK_CREATE: u32 = 28;
// enum bpf_map_type, bpf_prog_type, bpf_attach_type
const MAP_TYPE_PERCPU_ARRAY: u32 = 6;
const MAP_TYPE_XSKMAP: u32 = 17;
const PROG_TYPE_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;
const F_XDP_HAS_FRAGS: u32 = 1 << 5;
// linux/if_link.h
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// `union bpf_attr`, filled field by field at the offsets of linux/bpf.h.
struct Attr {
    bytes: [u8; 96],
    len: usize,
}

impl Attr {
    fn new(len: usize) -> Attr {
        Attr { bytes: [0; 96], len }
    }

    fn u32(mut self, at: usize, value: u32) -> Attr {
        self.bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn fd(self, at: usize, fd: BorrowedFd<'_>) -> Attr {
        self.u32(at, fd.as_raw_fd().cast_unsigned())
    }

    fn u64(mut self, at: usize, value: u64) -> Attr {
        self.bytes[at..at + 8].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn name(mut self, at: usize, name: &str) -> Attr {
        let name = &name.as_bytes()[..name.len().min(15)];
        self.bytes[at..at + name.len()].copy_from_slice(name);
        self
    }

    /// # Safety
    /// Every address in the attributes must be valid for what `command` does with it.
    unsafe fn call(&mut self, command: u32) -> io::Result<libc::c_int> {
        // SAFETY: the attributes lie in `bytes`, `len` of them; what they point to is the caller's promise.
        let result = unsafe { libc::syscall(libc::SYS_bpf, command, self.bytes.as_mut_ptr(), self.len) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        libc::c_int::try_from(result).map_err(io::Error::other)
    }

    /// # Safety
    /// As for `call`; and `command` must be one that returns a new descriptor.
    unsafe fn open(&mut self, command: u32) -> io::Result<OwnedFd> {
        // SAFETY: the caller's promise; the descriptor is new and ours.
        unsafe { Ok(OwnedFd::from_raw_fd(self.call(command)?)) }
    }

    fn u32_at(&self, at: usize) -> u32 {
        let mut value = [0; 4];
        value.copy_from_slice(&self.bytes[at..at + 4]);
        u32::from_ne_bytes(value)
    }
}

/// A map. Its keys here are always queue or slot numbers.
pub struct Map(OwnedFd);

impl Map {
    fn create(kind: u32, value_size: u32, entries: u32) -> io::Result<Map> {
        let mut attr =
            Attr::new(72).u32(0, kind).u32(4, 4).u32(8, value_size).u32(12, entries).name(28, "nuswitch");
        // SAFETY: no address in these attributes.
        Ok(Map(unsafe { attr.open(MAP_CREATE)? }))
    }

    /// A map from rx queue to AF_XDP socket (`BPF_MAP_TYPE_XSKMAP`).
    ///
    /// # Errors
    /// EPERM without the privilege; EINVAL where the kernel has no AF_XDP.
    pub fn xsk(queues: u32) -> io::Result<Map> {
        Map::create(MAP_TYPE_XSKMAP, 4, queues)
    }

    /// `entries` 64-bit counters, each once per CPU.
    ///
    /// # Errors
    /// EPERM without the privilege.
    pub fn counters(entries: u32) -> io::Result<Map> {
        Map::create(MAP_TYPE_PERCPU_ARRAY, 8, entries)
    }

    /// Sends what arrives on `queue` to `socket`.
    ///
    /// # Errors
    /// The kernel's: E2BIG for a queue beyond the map.
    pub fn set_socket(&self, queue: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
        let value = socket.as_raw_fd();
        let mut attr = Attr::new(32)
            .fd(0, self.0.as_fd())
            .u64(8, std::ptr::from_ref(&queue) as u64)
            .u64(16, std::ptr::from_ref(&value) as u64);
        // SAFETY: key and value are 4 bytes each, as the map was made with, and live until the call returns.
        unsafe { attr.call(MAP_UPDATE_ELEM) }.map(drop)
    }

    /// The sum over all CPUs of counter `index` of a map made by [`Map::counters`].
    ///
    /// # Errors
    /// ENOENT for an index beyond the map; EINVAL for a map that is not one of counters.
    pub fn counter(&self, index: u32) -> io::Result<u64> {
        let mut values = vec![0u64; possible_cpus()?];
        let mut attr = Attr::new(32)
            .fd(0, self.0.as_fd())
            .u64(8, std::ptr::from_ref(&index) as u64)
            .u64(16, values.as_mut_ptr() as u64);
        // SAFETY: the kernel writes 8 bytes for each possible CPU, which is how long `values` is.
        unsafe { attr.call(MAP_LOOKUP_ELEM)? };
        Ok(values.iter().sum())
    }
}

impl AsFd for Map {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// One more than the highest CPU that may ever be there: the length of a per-CPU value.
fn possible_cpus() -> io::Result<usize> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/possible")?;
    let last = text.trim().rsplit(['-', ',']).next().and_then(|n| n.parse::<usize>().ok());
    last.map(|n| n + 1).ok_or_else(|| io::Error::other("no list of possible CPUs"))
}

/// A loaded XDP program.
pub struct Program {
    fd: OwnedFd,
    frags: bool,
}

impl Program {
    /// Loads a program; as one that takes frames in several buffers (`BPF_F_XDP_HAS_FRAGS`, Linux 5.18) where the
    /// kernel knows of that.
    ///
    /// # Errors
    /// EPERM without CAP_BPF and CAP_NET_ADMIN; EINVAL or EACCES with the verifier's words when it does not like the
    /// program.
    pub fn load(insns: &[Insn]) -> io::Result<Program> {
        match Program::load_with(insns, F_XDP_HAS_FRAGS) {
            Ok(fd) => Ok(Program { fd, frags: true }),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                Ok(Program { fd: Program::load_with(insns, 0)?, frags: false })
            }
            Err(error) => Err(error),
        }
    }

    fn load_with(insns: &[Insn], flags: u32) -> io::Result<OwnedFd> {
        let count = u32::try_from(insns.len()).map_err(io::Error::other)?;
        let attr = || {
            Attr::new(72)
                .u32(0, PROG_TYPE_XDP)
                .u32(4, count)
                .u64(8, insns.as_ptr() as u64)
                .u64(16, c"Dual MIT/GPL".as_ptr() as u64)
                .u32(44, flags)
                .name(48, "nuswitch")
                .u32(68, ATTACH_XDP)
        };
        // SAFETY: `insns` has `count` instructions of 8 bytes, the licence ends in a zero; both outlive the call.
        let error = match unsafe { attr().open(PROG_LOAD) } {
            Ok(fd) => return Ok(fd),
            Err(error) => error,
        };
        if error.raw_os_error() != Some(libc::EACCES) {
            return Err(error);
        }
        let mut log = vec![0u8; 64 << 10];
        let mut attr = attr().u32(24, 1).u32(28, 64 << 10).u64(32, log.as_mut_ptr() as u64);
        // SAFETY: as above, and the log is as long as said.
        match unsafe { attr.open(PROG_LOAD) } {
            Ok(fd) => Ok(fd),
            Err(_) => {
                let log = String::from_utf8_lossy(&log);
                Err(io::Error::other(format!("the verifier refused: {}", log.trim_matches(['\0', '\n']))))
            }
        }
    }

    /// Whether the program may be given frames in several buffers.
    pub fn takes_frags(&self) -> bool {
        self.frags
    }

    /// Attaches the program to a device of the calling thread's network namespace until the link is dropped: in the
    /// driver (`native`) or in the kernel's generic path. A program that is there is waited for a moment: one whose link was
    /// just closed stays for as long as another thread's child, between fork and exec, still holds that link.
    ///
    /// # Errors
    /// EBUSY when the device has a program, EEXIST when it has one in the other mode, EOPNOTSUPP when the driver has no
    /// XDP, ERANGE when its MTU is too long for it, ENODEV when there is no such device.
    pub fn attach(&self, ifindex: u32, native: bool) -> io::Result<Link> {
        let until = Instant::now() + OCCUPIED_FOR;
        loop {
            match self.attach_now(ifindex, native) {
                Err(error) if is_occupied(&error) && Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                result => return result,
            }
        }
    }

    fn attach_now(&self, ifindex: u32, native: bool) -> io::Result<Link> {
        let flags = if native { XDP_FLAGS_DRV_MODE } else { XDP_FLAGS_SKB_MODE };
        let mut attr = Attr::new(48).fd(0, self.fd.as_fd()).u32(4, ifindex).u32(8, ATTACH_XDP).u32(12, flags);
        // SAFETY: no address in these attributes.
        Ok(Link(unsafe { attr.open(LINK_CREATE)? }))
    }

    /// What the program returns for a frame of 14 bytes and more (`BPF_PROG_TEST_RUN`): one of `XDP_…`.
    ///
    /// # Errors
    /// EPERM without the privilege, EINVAL for a frame that is too short.
    pub fn test_run(&self, frame: &[u8]) -> io::Result<u32> {
        let len = u32::try_from(frame.len()).map_err(io::Error::other)?;
        let mut attr =
            Attr::new(80).fd(0, self.fd.as_fd()).u32(8, len).u64(16, frame.as_ptr() as u64).u32(32, 1);
        // SAFETY: `frame` is `len` bytes long, and no output buffer is given.
        unsafe { attr.call(PROG_TEST_RUN)? };
        Ok(attr.u32_at(4))
    }
}

/// True for an error that says that a device has a program.
pub fn is_occupied(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EEXIST))
}

/// A program on a device; dropped, the program is gone from it.
pub struct Link(#[allow(dead_code, reason = "held for what its closing does")] OwnedFd);
