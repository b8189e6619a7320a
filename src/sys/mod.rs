//! The only unsafe code of the switch: memory shared with the kernel, rings, `ioctl`, `bpf(2)`. Each module shows a
//! safe interface to the rest; what the kernel hands us (lengths, indices, addresses) is checked in release builds too.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

pub mod child;
pub mod packet;
pub mod pool;
pub mod table;
pub mod tap;
pub mod xdp;

/// A descriptor that the current asynchronous runtime waits to become readable.
///
/// # Errors
/// The kernel's.
pub fn readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` always gives the same descriptor, which stays open until it is dropped.
    let waiting = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    waiting.map_err(io::Error::from)
}

/// Asks the processor to bring the cache line of `place` near, for a look-up that follows. Never faults, has no effect
/// that a program could see.
#[inline(always)]
pub fn prefetch<T>(place: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing architecturally; the address is that of a live reference.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(
            std::ptr::from_ref(place).cast(),
        );
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

/// The processor's time stamp counter, for benches that count cycles; 0 where there is none.
#[inline]
pub fn cycles() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: `rdtsc` exists on every x86-64 processor and has no precondition.
    unsafe {
        core::arch::x86_64::_rdtsc()
    }
    #[cfg(not(target_arch = "x86_64"))]
    0
}
