//! The rings between workers, and what each shows of itself: bounded single-producer queues for frames and for FDB
//! events, one a pair, and a waker for whoever sleeps.
//!
//! A ring that is full loses: frames are counted as `handoff_full`; events are made good by the next refresh.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

use crossbeam::queue::ArrayQueue;
use mio::{Poll, Waker};

use super::WAKER;
use crate::dataplane::Event;
use crate::dataplane::serve::Punt;
use crate::frame::Frame;
use crate::types::{PortIdx, WorkerIdx};

/// Frames that may wait between two workers.
const FRAMES: usize = 1024;
/// FDB events that may wait between two workers.
const EVENTS: usize = 8192;
/// Answers of the slow path that may wait for a worker.
const ANSWERS: usize = 4096;
/// FDB events that may wait for the control thread, which looks once a second.
const CONTROL_EVENTS: usize = 1 << 17;

/// What a worker shows of itself to others.
pub struct Link {
    waker: Waker,
    /// Something waits: a command, tables, frames, events.
    attention: AtomicBool,
    sleeping: AtomicBool,
    epoch: AtomicU64,
    load: [AtomicU64; 5],
}

/// How much a worker has done since its start.
#[derive(Clone, Copy, Default, Debug)]
pub struct Load {
    /// Turns of its loop.
    pub turns: u64,
    /// Turns that moved frames.
    pub busy_turns: u64,
    /// Frames moved.
    pub frames: u64,
    /// Cycles of the time stamp counter spent in busy turns.
    pub busy_cycles: u64,
    /// Small buffers that are free.
    pub free_buffers: u64,
}

impl Link {
    /// Makes the worker look at what waits for it, and wakes it if it sleeps. What it is to find must have been written
    /// before.
    pub fn wake(&self) {
        self.attention.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::SeqCst)
            && let Err(error) = self.waker.wake()
        {
            tracing::warn!(%error, "cannot wake a worker");
        }
    }

    /// Whether something waits; the worker then looks at all of it.
    #[inline(always)]
    pub(super) fn take_attention(&self) -> bool {
        self.attention.load(Ordering::Relaxed) && self.attention.swap(false, Ordering::Acquire)
    }

    /// Says that the worker is about to sleep; false when something waits already.
    pub(super) fn begin_sleep(&self) -> bool {
        self.sleeping.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        !self.attention.load(Ordering::Relaxed)
    }

    pub(super) fn end_sleep(&self) {
        self.sleeping.store(false, Ordering::SeqCst);
    }

    /// Whether the worker sleeps now.
    pub fn is_sleeping(&self) -> bool {
        self.sleeping.load(Ordering::Relaxed)
    }

    /// What it has done.
    pub fn load(&self) -> Load {
        let [turns, busy_turns, frames, busy_cycles, free_buffers] =
            self.load.each_ref().map(|figure| figure.load(Ordering::Relaxed));
        Load { turns, busy_turns, frames, busy_cycles, free_buffers }
    }

    pub(super) fn show(&self, load: Load) {
        let figures = [load.turns, load.busy_turns, load.frames, load.busy_cycles, load.free_buffers];
        for (shown, figure) in self.load.iter().zip(figures) {
            shown.store(figure, Ordering::Relaxed);
        }
    }

    /// Epoch of the tables that the worker uses.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    pub(super) fn set_epoch(&self, epoch: u64) {
        self.epoch.store(epoch, Ordering::Release);
    }
}

struct Inbox {
    /// By sender.
    frames: Vec<ArrayQueue<(PortIdx, Frame)>>,
    /// By sender.
    events: Vec<ArrayQueue<Event>>,
    /// From the slow path.
    answers: ArrayQueue<Punt>,
}

/// The rings of a switch with a number of workers; its control thread listens to events too.
pub struct Mesh {
    links: Vec<Link>,
    inboxes: Vec<Inbox>,
    control: Vec<ArrayQueue<Event>>,
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
                attention: AtomicBool::new(false),
                sleeping: AtomicBool::new(false),
                epoch: AtomicU64::new(0),
                load: Default::default(),
            })
        });
        let count = polls.len();
        let inbox = || Inbox {
            frames: (0..count).map(|_| ArrayQueue::new(FRAMES)).collect(),
            events: (0..count).map(|_| ArrayQueue::new(EVENTS)).collect(),
            answers: ArrayQueue::new(ANSWERS),
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

    /// Gives frames for `port` to the worker that owns it; gives the number of those that found no room.
    pub(super) fn hand_off(
        &self,
        from: WorkerIdx,
        to: WorkerIdx,
        port: PortIdx,
        frames: &mut Vec<Frame>,
    ) -> u64 {
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

    /// Gives an answer of the slow path to the worker of its port; false when too many wait there.
    pub fn answer(&self, to: WorkerIdx, answer: Punt) -> bool {
        let Some(inbox) = self.inboxes.get(to.index()) else { return false };
        let waits = inbox.answers.push(answer).is_ok();
        self.link(to).wake();
        waits
    }

    pub(super) fn receive_answers(&self, index: WorkerIdx, mut take: impl FnMut(Punt)) {
        let ring = &self.inboxes[index.index()].answers;
        // What comes in meanwhile waits for the next turn.
        for _ in 0..ring.len() {
            if let Some(answer) = ring.pop() {
                take(answer);
            }
        }
    }

    pub(super) fn receive_events(&self, index: WorkerIdx, mut take: impl FnMut(Event)) {
        for ring in &self.inboxes[index.index()].events {
            while let Some(event) = ring.pop() {
                take(event);
            }
        }
    }

    /// Events for the control thread.
    pub fn control_events(&self, mut take: impl FnMut(Event)) {
        for ring in &self.control {
            while let Some(event) = ring.pop() {
                take(event);
            }
        }
    }

    pub(super) fn tell(&self, from: WorkerIdx, event: Event) {
        for (to, inbox) in self.inboxes.iter().enumerate() {
            if to != from.index() {
                let _ = inbox.events[from.index()].push(event);
            }
        }
        let _ = self.control[from.index()].push(event);
    }

    /// Wakes the other workers for which worker `from` has put something into their rings.
    pub(super) fn wake_others(&self, from: WorkerIdx) {
        for (to, (link, inbox)) in self.links.iter().zip(&self.inboxes).enumerate() {
            let waits = || !inbox.frames[from.index()].is_empty() || !inbox.events[from.index()].is_empty();
            if to != from.index() && waits() {
                link.wake();
            }
        }
    }
}
