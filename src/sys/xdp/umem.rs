//! A [`Region`] as UMEM: one for all sockets of a worker, over all its devices and queues.
//!
//! The first socket registers the region; each later one is bound with `XDP_SHARED_UMEM` and the descriptor of a live
//! socket. A shared bind takes over the other's way of working (copy or zero-copy, multi-buffer or not), so sockets of
//! another way, or of a device that refuses to share, register the same memory once more. That is safe, and frames still
//! move between all of them by descriptor: the kernel keeps no account of who holds a chunk, our pool does.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::sys::pool::Region;

/// How a socket works with its UMEM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Way {
    /// The device reads and writes the UMEM itself.
    pub zero_copy: bool,
    /// Frames in several chunks (`XDP_USE_SG`).
    pub multi_buffer: bool,
    /// Bytes of metadata before the data of a frame to send; 0: none.
    pub tx_metadata: u32,
}

/// A region that AF_XDP sockets share. Cheap to clone by its [`Arc`]; sockets keep it alive.
pub struct Umem {
    region: Arc<Region>,
    live: Mutex<Vec<(Weak<OwnedFd>, Way)>>,
    opening: Mutex<()>,
}

impl Umem {
    /// A region for sockets to share; nothing is registered before the first of them opens.
    pub fn new(region: Arc<Region>) -> Arc<Umem> {
        Arc::new(Umem { region, live: Mutex::new(Vec::new()), opening: Mutex::new(()) })
    }

    /// The memory.
    pub fn region(&self) -> &Arc<Region> {
        &self.region
    }

    /// Whose turn it is to open a socket: one at a time, as the first one registers the region for all.
    pub(super) fn turn(&self) -> MutexGuard<'_, ()> {
        self.opening.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a bound socket.
    pub(super) fn add(&self, socket: &Arc<OwnedFd>, way: Way) {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.retain(|(fd, _)| fd.strong_count() > 0);
        live.push((Arc::downgrade(socket), way));
    }

    /// A live socket that works this way (whatever its metadata).
    pub(super) fn find(&self, zero_copy: bool, multi_buffer: bool) -> Option<(Arc<OwnedFd>, Way)> {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |way: &Way| way.zero_copy == zero_copy && way.multi_buffer == multi_buffer;
        live.iter().filter(|(_, way)| fits(way)).find_map(|(fd, way)| Some((fd.upgrade()?, *way)))
    }
}
