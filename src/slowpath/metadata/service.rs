//! Whose turn it is: frames and timers of all guests, a bounded piece of one guest's at a time.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwap;
use hmac::Mac as _;
use smoltcp::iface::SocketHandle;
use smoltcp::time::Instant;
use tokio::sync::{Notify, Semaphore};

use super::counters::{Counters, count};
use super::stack::{HTTP, Key, Stack, Taken};
use super::{Guest, Settings, http, limits, token};
use crate::services::packet::Packet;
use crate::services::{SERVICE_V4, SERVICE_V6, is_host};
use crate::types::PortIdx;
use crate::wire::{ethernet, ipv6, protocol};

/// Turns before everyone else on the thread has theirs.
const TURNS: usize = 32;

/// The metadata service. It lives on one thread, in a [`tokio::task::LocalSet`]; clones are the same service.
#[derive(Clone)]
pub struct Service(Rc<Inner>);

/// Where frames go.
type Send = dyn Fn(PortIdx, &[u8]);

pub(super) struct Inner {
    settings: Arc<ArcSwap<Settings>>,
    send: Box<Send>,
    pub(super) counters: Arc<Counters>,
    pub(super) clock: Clock,
    /// The key of tokens and sequence numbers, of this process alone.
    pub(super) secret: [u8; 32],
    /// Stacks that were made, so that each has numbers of its own.
    serial: Cell<u64>,
    slots: RefCell<HashMap<PortIdx, Rc<Slot>>>,
    ready: Rc<Ready>,
    timers: RefCell<BTreeSet<(Instant, PortIdx)>>,
    /// Bytes of frames that wait, of all guests.
    waiting: Cell<usize>,
    /// Connections of all guests.
    open: Cell<usize>,
    /// Requests that may be at Nova.
    pub(super) nova: Arc<Semaphore>,
}

/// The time since the service began. It stands still when tokio's does.
#[derive(Clone, Copy)]
pub(super) struct Clock(tokio::time::Instant);

impl Clock {
    pub(super) fn now(self) -> Instant {
        Instant::from_micros(i64::try_from(self.0.elapsed().as_micros()).unwrap_or(i64::MAX))
    }

    /// Whole seconds.
    pub(super) fn seconds(self) -> u64 {
        self.0.elapsed().as_secs()
    }

    fn at(self, instant: Instant) -> tokio::time::Instant {
        self.0 + std::time::Duration::from_micros(u64::try_from(instant.total_micros()).unwrap_or(0))
    }
}

/// Guests that have work, in order.
#[derive(Default)]
struct Ready {
    slots: RefCell<VecDeque<Rc<Slot>>>,
    more: Notify,
}

/// A guest with state.
pub(super) struct Slot {
    pub(super) port: PortIdx,
    pub(super) clock: Clock,
    pub(super) stack: RefCell<Stack>,
    /// Its requests that may be at Nova.
    pub(super) nova: Arc<Semaphore>,
    frames: RefCell<VecDeque<Vec<u8>>>,
    /// It is in `ready`.
    queued: Cell<bool>,
    ready: Rc<Ready>,
    timer: Cell<Option<Instant>>,
    /// Its connections that are in [`Inner::open`].
    counted: Cell<usize>,
}

impl Slot {
    /// Asks for a turn.
    pub(super) fn wake(self: &Rc<Self>) {
        if !self.queued.replace(true) {
            self.ready.slots.borrow_mut().push_back(Rc::clone(self));
            self.ready.more.notify_one();
        }
    }
}

impl Service {
    /// A service that works by `settings`, whatever they are at the time. `send` is given whole Ethernet frames for a port;
    /// `seed` makes its secrets and is to come from the system's entropy.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(
        settings: Arc<ArcSwap<Settings>>,
        send: impl Fn(PortIdx, &[u8]) + 'static,
        seed: [u8; 32],
        counters: Arc<Counters>,
    ) -> Service {
        Service(Rc::new(Inner {
            settings,
            send: Box::new(send),
            counters,
            clock: Clock(tokio::time::Instant::now()),
            secret: seed,
            serial: Cell::new(0),
            slots: RefCell::default(),
            ready: Rc::default(),
            timers: RefCell::default(),
            waiting: Cell::new(0),
            open: Cell::new(0),
            nova: Arc::new(Semaphore::new(limits::PROXY_REQUESTS_TOTAL)),
        }))
    }

    /// What the service counts.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.0.counters)
    }

    /// Guests with state, and their connections.
    pub fn load(&self) -> (usize, usize) {
        (self.0.slots.borrow().len(), self.0.open.get())
    }

    /// Takes in an untagged Ethernet frame of a guest, with whole checksums and no longer than [`limits::FRAME`]. Nothing
    /// is done with it before [`Service::run`] has the time; what is not for the service, and what is too much, is dropped
    /// and counted.
    pub fn receive(&self, port: PortIdx, frame: &[u8]) {
        let Inner { counters, waiting, .. } = &*self.0;
        count(&counters.frames_received);
        let settings = self.0.settings.load();
        let Some(guest) = settings.guests.get(&port) else { return count(&counters.dropped_unknown_guest) };
        let whole = Packet::parse(frame).ok().filter(|_| frame.len() <= limits::FRAME);
        let Some(packet) = whole else { return count(&counters.dropped_malformed) };
        if !is_ours(&packet) {
            return count(&counters.dropped_not_ours);
        }
        if waiting.get() + frame.len() > limits::WAITING_BYTES {
            return count(&counters.dropped_memory);
        }
        let Some(slot) = self.slot(port, guest) else { return count(&counters.dropped_guests) };
        let mut frames = slot.frames.borrow_mut();
        if frames.len() >= limits::WAITING_FRAMES {
            return count(&counters.dropped_queue_full);
        }
        waiting.set(waiting.get() + frame.len());
        frames.push_back(frame.to_vec());
        drop(frames);
        slot.wake();
    }

    fn slot(&self, port: PortIdx, guest: &Guest) -> Option<Rc<Slot>> {
        let Inner { slots, ready, clock, serial, secret, .. } = &*self.0;
        let mut slots = slots.borrow_mut();
        if let Some(slot) = slots.get(&port) {
            return Some(Rc::clone(slot));
        }
        if slots.len() >= limits::GUESTS {
            return None;
        }
        serial.set(serial.get().wrapping_add(1));
        let digest = token::mac(secret, &[b"stack", &serial.get().to_be_bytes()]).finalize().into_bytes();
        let seed = digest.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        let mtu = guest.nics.first().map_or(1500, |nic| nic.mtu);
        let slot = Rc::new(Slot {
            port,
            clock: *clock,
            stack: RefCell::new(Stack::new(mtu, seed, clock.now())),
            nova: Arc::new(Semaphore::new(limits::PROXY_REQUESTS)),
            frames: RefCell::default(),
            queued: Cell::new(false),
            ready: Rc::clone(ready),
            timer: Cell::new(None),
            counted: Cell::new(0),
        });
        slots.insert(port, Rc::clone(&slot));
        Some(slot)
    }

    /// Does the service's work, for ever, in a [`tokio::task::LocalSet`].
    pub async fn run(&self) {
        loop {
            self.fire();
            for _ in 0..TURNS {
                let next = self.0.ready.slots.borrow_mut().pop_front();
                let Some(slot) = next else { break };
                slot.queued.set(false);
                self.turn(&slot);
            }
            if !self.0.ready.slots.borrow().is_empty() {
                tokio::task::yield_now().await;
                continue;
            }
            let due = self.0.timers.borrow().first().map(|(due, _)| self.0.clock.at(*due));
            let more = self.0.ready.more.notified();
            match due {
                None => more.await,
                Some(due) => drop(tokio::time::timeout_at(due, more).await),
            }
        }
    }

    /// Gives a turn to the guests whose time has come.
    fn fire(&self) {
        let now = self.0.clock.now();
        let mut timers = self.0.timers.borrow_mut();
        while let Some(&(due, port)) = timers.first().filter(|(due, _)| *due <= now) {
            timers.remove(&(due, port));
            if let Some(slot) = self.0.slots.borrow().get(&port) {
                slot.timer.set(None);
                slot.wake();
            }
        }
    }

    /// A bounded number of a guest's frames, and all that is to be sent to it.
    fn turn(&self, slot: &Rc<Slot>) {
        let Inner { counters, clock, .. } = &*self.0;
        let now = clock.now();
        let mut send = |frame: &[u8]| {
            count(&counters.frames_sent);
            (self.0.send)(slot.port, frame);
        };
        let mut opened = Vec::new();
        // A panic within smoltcp costs this guest its connections, and nobody else theirs.
        let frames = AssertUnwindSafe(|| self.frames(slot, now, &mut opened, &mut send));
        let due = catch_unwind(frames).unwrap_or_else(|_| {
            count(&counters.stack_failures);
            slot.stack.borrow_mut().fail();
            None
        });
        for (key, handle) in opened {
            count(&counters.connections);
            tokio::task::spawn_local(http::serve(Rc::clone(&self.0), Rc::clone(slot), key.remote.0, handle));
        }
        self.settle(slot, due);
    }

    /// The stack's part of a turn; gives when its next is due.
    fn frames(
        &self,
        slot: &Slot,
        now: Instant,
        opened: &mut Vec<(Key, SocketHandle)>,
        send: &mut dyn FnMut(&[u8]),
    ) -> Option<Instant> {
        let Inner { counters, waiting, .. } = &*self.0;
        for _ in 0..limits::FRAMES_PER_TURN {
            let next = slot.frames.borrow_mut().pop_front();
            let Some(frame) = next else { break };
            waiting.set(waiting.get().saturating_sub(frame.len()));
            let Ok(packet) = Packet::parse(&frame) else { continue };
            let len = packet.header.len() + packet.payload.len();
            let bytes = frame.get(ethernet::HEADER..ethernet::HEADER + len).unwrap_or_default();
            match slot.stack.borrow_mut().receive(&packet, bytes, self.limit(), now, send) {
                Taken::In => {}
                Taken::Opened(key, handle) => opened.push((key, handle)),
                Taken::Refused => count(&counters.connections_refused),
            }
        }
        let mut stack = slot.stack.borrow_mut();
        stack.poll(now, send);
        stack.due(now)
    }

    /// Connections that a guest may have now.
    fn limit(&self) -> usize {
        if self.0.open.get() < limits::SHARED_CONNECTIONS {
            limits::CONNECTIONS
        } else {
            limits::ASSURED_CONNECTIONS
        }
    }

    /// After a turn: what is counted and timed of a guest, and whether there is anything left of it.
    fn settle(&self, slot: &Rc<Slot>, due: Option<Instant>) {
        let Inner { counters, timers, open, slots, .. } = &*self.0;
        let mut stack = slot.stack.borrow_mut();
        let ended = std::mem::take(&mut stack.ended);
        counters.connections_evicted.fetch_add(ended.evicted, std::sync::atomic::Ordering::Relaxed);
        counters.timeouts_tcp.fetch_add(ended.timed_out, std::sync::atomic::Ordering::Relaxed);
        open.set(open.get() + stack.len() - slot.counted.replace(stack.len()));
        let due = due.filter(|_| stack.len() > 0);
        let before = slot.timer.replace(due);
        if before != due {
            let mut timers = timers.borrow_mut();
            before.map(|before| timers.remove(&(before, slot.port)));
            due.map(|due| timers.insert((due, slot.port)));
        }
        if !slot.frames.borrow().is_empty() {
            slot.wake();
        } else if stack.len() == 0 && !slot.queued.get() {
            slots.borrow_mut().remove(&slot.port);
        }
    }
}

impl Inner {
    /// What a guest may learn now.
    pub(super) fn guest(&self, port: PortIdx) -> Option<Arc<Guest>> {
        self.settings.load().guests.get(&port).cloned()
    }

    /// The Nova of now.
    pub(super) fn proxy(&self) -> Option<Arc<super::Proxy>> {
        self.settings.load().proxy.clone()
    }
}

/// Whether a packet is for the service: TCP to its addresses and port, from a host, straight.
fn is_ours(packet: &Packet<'_>) -> bool {
    let address = packet.destination == SERVICE_V4 || packet.destination == SERVICE_V6;
    let straight = packet.destination.is_ipv4() || packet.header.len() == ipv6::HEADER;
    let source = is_host(packet.source) && packet.source != packet.destination;
    let macs = !packet.source_mac.is_group() && !packet.destination_mac.is_group();
    let port = Key::of(packet).is_some_and(|(key, port)| port == HTTP && key.remote.1 != 0);
    packet.protocol == protocol::TCP && address && straight && source && macs && port
}

#[cfg(test)]
impl Service {
    /// As if smoltcp had panicked over a frame of this guest's.
    pub(super) fn fail(&self, port: PortIdx) {
        let slots = self.0.slots.borrow();
        let Some(slot) = slots.get(&port) else { return };
        slot.stack.borrow_mut().fail();
        slot.wake();
    }
}
