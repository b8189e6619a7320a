//! Copies of a port's frames for `nuswitch capture`. A full channel loses records, never frames.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

use crate::dataplane::tunnel::peek::{OUTER_MOST, peek};
use crate::frame::Frame;
pub use crate::pcapng::{CaptureRecord, Direction, InTunnel};
use crate::stats::DropReason;

/// One reader of one port's frames.
pub struct CaptureTap {
    /// The port's name.
    pub interface: Arc<str>,
    /// Most bytes of each frame.
    pub snaplen: usize,
    /// The UDP port of tunnels: only their packets, each as its inner frame. None: every frame as it is.
    pub inner: Option<u16>,
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
    /// How many bytes of each frame it looks at.
    pub(super) fn reach(&self) -> usize {
        self.snaplen.saturating_add(self.inner.map_or(0, |_| OUTER_MOST))
    }

    /// What this capture is to have of a frame.
    fn cut(
        &self,
        record: &Record,
        direction: Direction,
        dropped: Option<DropReason>,
    ) -> Option<CaptureRecord> {
        let (part, tunnel) = match self.inner {
            None => (0..record.len, None),
            Some(udp_port) => {
                let packet = peek(&record.bytes, udp_port)?;
                let remote = if direction == Direction::Rx { packet.from } else { packet.to };
                let end = packet.inner.end.min(record.len);
                (packet.inner.start.min(end)..end, Some(InTunnel { remote, vni: packet.vni }))
            }
        };
        let end = part.end.min(part.start.saturating_add(self.snaplen)).min(record.bytes.len());
        Some(CaptureRecord {
            at: record.at,
            direction,
            original_len: part.len(),
            bytes: record.bytes.get(part.start..end).unwrap_or_default().to_vec(),
            dropped,
            tunnel,
            interface: self.interface.clone(),
        })
    }

    /// False when nobody reads any more.
    pub(super) fn send(&self, record: &Record, direction: Direction, dropped: Option<DropReason>) -> bool {
        let Some(record) = self.cut(record, direction, dropped) else { return !self.sender.is_closed() };
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
