//! Where frames stand after [`super::process`]: one queue a port, in the order in which they leave.

use crate::frame::Frame;
use crate::types::PortIdx;

/// Frames that are to be sent, by port.
#[derive(Default)]
pub struct Out {
    queues: Vec<Vec<Frame>>,
    active: Vec<PortIdx>,
    pending: usize,
}

impl Out {
    /// Makes place for ports up to `count`, so that the path need not.
    pub fn make_room(&mut self, count: usize) {
        if self.queues.len() < count {
            self.queues.resize_with(count, || Vec::with_capacity(2 * crate::frame::BURST));
            self.active.reserve(count);
        }
    }

    /// Puts a frame at the end of a port's queue; drops it where there is no such port.
    #[inline(always)]
    pub fn push(&mut self, port: PortIdx, frame: Frame) {
        let Some(queue) = self.queues.get_mut(port.index()) else { return };
        if queue.is_empty() {
            self.active.push(port);
        }
        queue.push(frame);
        self.pending += 1;
    }

    /// Takes all frames out of a port's queue.
    pub fn take(&mut self, port: PortIdx) -> Vec<Frame> {
        let Some(queue) = self.queues.get_mut(port.index()) else { return Vec::new() };
        self.pending -= queue.len();
        self.active.retain(|active| *active != port);
        std::mem::take(queue)
    }

    /// Takes all frames of one of the ports that `wanted` names; nothing: none of them has any.
    pub fn take_from(&mut self, wanted: impl Fn(PortIdx) -> bool) -> Option<(PortIdx, Vec<Frame>)> {
        let port = self.active.iter().copied().find(|port| wanted(*port))?;
        Some((port, self.take(port)))
    }

    /// Whether frames stand in a port's queue.
    #[inline(always)]
    pub fn holds(&self, port: PortIdx) -> bool {
        self.queues.get(port.index()).is_some_and(|queue| !queue.is_empty())
    }

    /// Frames in all queues.
    #[inline(always)]
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// Hands each queue that holds frames to `send`, which empties it; what it leaves is dropped.
    pub fn flush(&mut self, mut send: impl FnMut(PortIdx, &mut Vec<Frame>)) {
        for port in self.active.drain(..) {
            if let Some(queue) = self.queues.get_mut(port.index()) {
                send(port, queue);
                queue.clear();
            }
        }
        self.pending = 0;
    }
}
