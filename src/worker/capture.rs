//! Copies of a port's frames for `nuswitch capture`. A full channel loses records, never frames.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

use crate::frame::Frame;
pub use crate::pcapng::{CaptureRecord, Direction};
use crate::stats::DropReason;

/// One reader of one port's frames.
pub struct CaptureTap {
    /// The port's name.
    pub interface: Arc<str>,
    /// Most bytes of each frame.
    pub snaplen: usize,
    /// Where records go.
    pub sender: Sender<CaptureRecord>,
    /// Counts the records that found the channel full.
    pub missed: Arc<AtomicU64>,
}

/// A frame's bytes, taken before the path changes them.
pub(super) struct Record {
    at: u64,
    len: usize,
    bytes: Vec<u8>,
}

impl Record {
    pub(super) fn of(frame: &Frame, snaplen: usize) -> Record {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut bytes = vec![0; frame.len().min(snaplen)];
        frame.copy_to(0, &mut bytes);
        Record { at: u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX), len: frame.len(), bytes }
    }
}

impl CaptureTap {
    /// False when nobody reads any more.
    pub(super) fn send(&self, record: &Record, direction: Direction, dropped: Option<DropReason>) -> bool {
        let bytes = record.bytes.get(..self.snaplen).unwrap_or(&record.bytes).to_vec();
        let interface = self.interface.clone();
        let record =
            CaptureRecord { at: record.at, direction, original_len: record.len, bytes, dropped, interface };
        match self.sender.try_send(record) {
            Ok(()) => true,
            Err(TrySendError::Closed(_)) => false,
            Err(TrySendError::Full(_)) => {
                self.missed.fetch_add(1, Ordering::Relaxed);
                true
            }
        }
    }
}
