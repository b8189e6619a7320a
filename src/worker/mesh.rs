//! The rings between workers, and what each shows of itself: bounded single-producer queues for frames and for FDB
//! events, one a pair, and a waker for whoever sleeps.
//!
//! A ring that is full loses: frames are counted as `handoff_full`; events are made good by the next refresh.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

use crossbeam::queue::ArrayQueue;
use mio::{Poll, Waker};

use super::WAKER;
use crate::dataplane::fdb::FdbEvent;
use crate::frame::Frame;
use crate::stats::Counter;
use crate::types::{PortIdx, WorkerIdx};

/// Frames that may wait between two workers.
const FRAMES: usize = 1024;
/// FDB events that may wait between two workers.
const EVENTS: usize = 8192;
/// FDB events that may wait for the control thread, which looks once a second.
const CONTROL_EVENTS: usize = 1 << 17;

/// What a worker shows of itself to others.
pub struct Link {
    waker: Waker,
    pub(super) sleeping: AtomicBool,
    epoch: AtomicU64,
    /// Turns so far.
    pub turns: Counter,
    /// Turns that moved frames.
    pub busy_turns: Counter,
    /// Frames moved.
    pub frames: Counter,
    free: AtomicU64,
}

impl Link {
    /// Wakes the worker if it sleeps. What it is woken for must have been written before.
    pub fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::SeqCst)
            && let Err(error) = self.waker.wake()
        {
            tracing::warn!(%error, "cannot wake a worker");
        }
    }

    /// Whether the worker sleeps now.
    pub fn is_sleeping(&self) -> bool {
        self.sleeping.load(Ordering::Relaxed)
    }

    /// Small buffers that were free at the end of the last turn.
    pub fn free_buffers(&self) -> u64 {
        self.free.load(Ordering::Relaxed)
    }

    /// Epoch of the tables that the worker uses.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    pub(super) fn set_epoch(&self, epoch: u64) {
        self.epoch.store(epoch, Ordering::Release);
    }

    #[inline(always)]
    pub(super) fn count_turn(&self, moved: u64, free: u64) {
        self.free.store(free, Ordering::Relaxed);
        self.turns.add(1);
        if moved > 0 {
            self.busy_turns.add(1);
            self.frames.add(moved);
        }
    }
}

struct Inbox {
    /// By sender.
    frames: Vec<ArrayQueue<(PortIdx, Frame)>>,
    /// By sender.
    events: Vec<ArrayQueue<FdbEvent>>,
}

/// The rings of a switch with a number of workers; its control thread listens to events too.
pub struct Mesh {
    links: Vec<Link>,
    inboxes: Vec<Inbox>,
    control: Vec<ArrayQueue<FdbEvent>>,
}

impl Mesh {
    /// Rings between as many workers as there are sleeps.
    ///
    /// # Errors
    /// The kernel's, when no waker can be had.
    pub fn new(polls: &[Poll]) -> io::Result<Mesh> {
        let links = polls.iter().map(|poll| {
            Ok(Link {
                waker: Waker::new(poll.registry(), WAKER)?,
                sleeping: AtomicBool::new(false),
                epoch: AtomicU64::new(0),
                turns: Counter::default(),
                busy_turns: Counter::default(),
                frames: Counter::default(),
                free: AtomicU64::new(0),
            })
        });
        let count = polls.len();
        let inbox = || Inbox {
            frames: (0..count).map(|_| ArrayQueue::new(FRAMES)).collect(),
            events: (0..count).map(|_| ArrayQueue::new(EVENTS)).collect(),
        };
        Ok(Mesh {
            links: links.collect::<io::Result<_>>()?,
            inboxes: (0..count).map(|_| inbox()).collect(),
            control: (0..count).map(|_| ArrayQueue::new(CONTROL_EVENTS)).collect(),
        })
    }

    /// What worker `index` shows.
    pub fn link(&self, index: WorkerIdx) -> &Link {
        &self.links[index.index()]
    }

    /// What all workers show.
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// Whether anything waits for worker `index`.
    pub(super) fn has_work_for(&self, index: WorkerIdx) -> bool {
        let inbox = &self.inboxes[index.index()];
        inbox.frames.iter().any(|ring| !ring.is_empty()) || inbox.events.iter().any(|ring| !ring.is_empty())
    }

    /// Gives frames for `port` to the worker that owns it; gives the number of those that found no room.
    pub(super) fn hand_off(&self, from: WorkerIdx, to: WorkerIdx, port: PortIdx, frames: &mut Vec<Frame>) -> u64 {
        let Some(ring) = self.inboxes.get(to.index()).and_then(|inbox| inbox.frames.get(from.index())) else {
            return frames.len() as u64;
        };
        let mut lost = 0;
        for frame in frames.drain(..) {
            if ring.push((port, frame)).is_err() {
                lost += 1;
            }
        }
        lost
    }

    pub(super) fn receive(&self, index: WorkerIdx, mut take: impl FnMut(PortIdx, Frame)) {
        for ring in &self.inboxes[index.index()].frames {
            // What comes in meanwhile waits for the next turn.
            for _ in 0..ring.len() {
                if let Some((port, frame)) = ring.pop() {
                    take(port, frame);
                }
            }
        }
    }

    pub(super) fn receive_events(&self, index: WorkerIdx, mut take: impl FnMut(FdbEvent)) {
        for ring in &self.inboxes[index.index()].events {
            while let Some(event) = ring.pop() {
                take(event);
            }
        }
    }

    /// Events for the control thread.
    pub fn control_events(&self, mut take: impl FnMut(FdbEvent)) {
        for ring in &self.control {
            while let Some(event) = ring.pop() {
                take(event);
            }
        }
    }

    pub(super) fn tell(&self, from: WorkerIdx, event: FdbEvent) {
        for (to, inbox) in self.inboxes.iter().enumerate() {
            if to != from.index() {
                let _ = inbox.events[from.index()].push(event);
            }
        }
        let _ = self.control[from.index()].push(event);
    }

    /// Wakes the other workers for which something waits.
    pub(super) fn wake_sleepers(&self, from: WorkerIdx) {
        fence(Ordering::SeqCst);
        for (to, link) in self.links.iter().enumerate() {
            if to != from.index() && link.is_sleeping() {
                let inbox = &self.inboxes[to];
                if !inbox.frames[from.index()].is_empty() || !inbox.events[from.index()].is_empty() {
                    link.wake();
                }
            }
        }
    }
}
