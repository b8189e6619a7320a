//! A device in a worker's hands, with its captures.

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use super::capture::{CaptureTap, Direction, Record};
use super::total_len;
use crate::frame::{Frame, Pool};
use crate::ports::{PortIo, Remains};
use crate::stats::{DropReason, PortCounters};
use crate::types::PortIdx;

pub(super) struct Attached {
    pub(super) io: Box<dyn PortIo>,
    /// Whether it stands in the worker's list of ready ports.
    pub(super) ready: bool,
    /// Receives in a row that gave nothing.
    pub(super) empty: u8,
    /// Whether the control thread was told that the device is gone.
    pub(super) gone: bool,
    /// Whether the kernel tells of its frames.
    registered: bool,
    pub(super) taps: Vec<CaptureTap>,
}

impl Attached {
    pub(super) fn new(io: Box<dyn PortIo>) -> Attached {
        Attached { io, ready: false, empty: 0, gone: false, registered: false, taps: Vec::new() }
    }

    /// Lets the kernel tell of frames, or no longer.
    pub(super) fn register(&mut self, port: PortIdx, registry: &Registry, wanted: bool) {
        if self.registered == wanted {
            return;
        }
        self.registered = wanted;
        for fd in self.io.fds() {
            let mut source = SourceFd(&fd);
            if !wanted {
                // The descriptor of a device that is gone may not be registered any more.
                let _ = registry.deregister(&mut source);
            } else if let Err(error) = registry.register(&mut source, Token(port.index()), Interest::READABLE)
            {
                // Then the port is heard of only while there is other traffic.
                tracing::warn!(%error, port = port.0, "cannot wait for the device");
            }
        }
    }

    pub(super) fn close(mut self, port: PortIdx, registry: &Registry, pool: &mut Pool) -> Remains {
        self.register(port, registry, false);
        self.io.close(pool)
    }

    /// Sends a queue; what the device does not take is dropped and counted.
    #[inline]
    pub(super) fn send(&mut self, frames: &mut Vec<Frame>, pool: &mut Pool, counters: &PortCounters) {
        let (count, bytes) = (frames.len() as u64, total_len(frames));
        if self.taps.is_empty() {
            self.io.tx(pool, frames);
        } else {
            self.send_captured(frames, pool);
        }
        let left = frames.len() as u64;
        counters.tx_frames.add(count - left);
        counters.tx_bytes.add(bytes - total_len(frames));
        if left > 0 {
            counters.count_drop(DropReason::TxFull, left);
        }
    }

    #[cold]
    fn send_captured(&mut self, frames: &mut Vec<Frame>, pool: &mut Pool) {
        let reach = self.reach();
        let records: Vec<Record> = frames.iter().map(|frame| Record::of(frame, reach)).collect();
        self.io.tx(pool, frames);
        // A device takes frames in order, so what is left is the end of the queue.
        let sent = records.len() - frames.len();
        for (at, record) in records.into_iter().enumerate() {
            self.record(record, Direction::Tx, (at >= sent).then_some(DropReason::TxFull));
        }
    }

    /// How many bytes of each frame its captures look at.
    pub(super) fn reach(&self) -> usize {
        self.taps.iter().map(CaptureTap::reach).max().unwrap_or(0)
    }

    /// Gives a record to every capture of this port, and ends those that nobody reads any more.
    pub(super) fn record(&mut self, record: Record, direction: Direction, dropped: Option<DropReason>) {
        self.taps.retain(|tap| tap.send(&record, direction, dropped));
    }
}
