//! A worker: one thread, pinned to its CPU, that owns ports and all that is remembered about them. Its loop is the switch:
//!
//! ```text
//! turn: newest tables ─▶ commands ─▶ for each port with frames: rx ─▶ process ─▶ Out
//!                        frames from other workers ──────────────────────────▶ Out ─▶ tx, or hand-off
//! ```
//!
//! Run to completion, nothing shared but the [`mesh`]: packets travel between workers, locks don't. [`Worker::turn`]
//! takes the time as an argument and never sleeps; tests call it with a clock of their own. [`Worker::run`] adds the
//! clock and the idling.

mod attached;
pub mod capture;
pub mod inspect;
pub mod mesh;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Cache};
use crossbeam::channel::{Receiver, Sender};
use mio::{Events, Poll, Token};
use tokio::sync::mpsc::{self, UnboundedSender};

use crate::dataplane::out::Out;
use crate::dataplane::serve::{self, Punt};
use crate::dataplane::tracer::Silent;
use crate::dataplane::{Shard, gateway, process, security, underlay};
use crate::frame::{BURST, Burst, Frame, Pool, Region};
use crate::model::Idle;
use crate::ports::{PortIo, Remains, Rx, at_once};
use crate::stats::DropReason;
use crate::sys::cycles;
use crate::tables::Tables;
use crate::types::{Instant, PortIdx, WorkerIdx};
use attached::Attached;
use capture::CaptureTap;
use inspect::{Ask, Follower, LogSink};
use mesh::{Load, Mesh};

/// How long an adaptive worker looks for more after the last frame before it sleeps.
const SPIN: Duration = Duration::from_micros(50);
/// Longest sleep: what ages is looked at this often.
const TICK: Duration = Duration::from_secs(1);
/// Frames that may wait in [`Out`] before they are sent ahead of the turn's end.
const MAX_PENDING: usize = 8 * BURST;
/// Up to this many rings are looked at every turn; with more, the kernel's word is waited for.
const MAX_POLLED: usize = 32;
/// Turns between two looks at the kernel's word while there is other work.
const TURNS_PER_LOOK: u32 = 8;
/// Busy turns between two rounds of what devices have to do besides; an idle turn always makes one.
const TURNS_PER_CARE: u64 = 16;
/// Turns between two looks at the clock.
const TURNS_PER_CLOCK: u32 = 16;
/// Frames since the last sleep after which the kernel need not tell of more in rings.
const FRAMES_TO_DISARM: u64 = 256;
/// Up to this many ports are asked on after they had nothing, this often in a row.
const MAX_LINGERING: usize = 8;
const EMPTY_READS: u8 = 64;
const WAKER: Token = Token(usize::MAX);

/// What the control thread asks of a worker. Each is answered on its channel when it is done.
pub enum Command {
    /// Take over a device.
    Attach(PortIdx, Box<dyn PortIo>, Sender<()>),
    /// Close a device; every buffer returns.
    Detach(PortIdx, Sender<Remains>),
    /// Copy a port's frames to a capture from now on.
    Capture(PortIdx, CaptureTap, Sender<()>),
    /// Tell what happens to connections from now on.
    Follow(Follower, Sender<()>),
    /// Hand on what security groups log from now on.
    Log(LogSink, Sender<()>),
    /// Answer a question; the answer has a way of its own.
    Inspect(Box<Ask>),
    /// Close all devices and end.
    Stop,
}

/// What a worker tells the control thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Notice {
    /// The device of this port is gone.
    Gone(PortIdx),
    /// The underlay has something to say.
    Underlay(underlay::Note),
}

/// What a worker is made of.
pub struct Setup {
    /// Which one it is.
    pub index: WorkerIdx,
    /// Its memory.
    pub region: Arc<Region>,
    /// Secret seed of its hashes.
    pub seed: u64,
    /// The published tables.
    pub tables: Arc<ArcSwap<Tables>>,
    /// The rings between workers.
    pub mesh: Arc<Mesh>,
    /// Its sleep; the mesh holds its waker.
    pub poll: Poll,
    /// Where commands come from.
    pub commands: Receiver<Command>,
    /// Where notices go.
    pub notices: UnboundedSender<Notice>,
    /// Where frames for the slow path go.
    pub slow_path: mpsc::Sender<Punt>,
    /// When time began, for all workers alike.
    pub origin: std::time::Instant,
}

/// See the module's documentation.
pub struct Worker {
    tables: Cache<Arc<ArcSwap<Tables>>, Arc<Tables>>,
    core: Core,
    commands: Receiver<Command>,
    events: Events,
    origin: std::time::Instant,
    turns_since_look: u32,
    was_busy: bool,
    stop: bool,
}

/// What a turn works on beside the tables.
struct Core {
    index: WorkerIdx,
    shard: Shard,
    ports: Vec<Option<Attached>>,
    /// Ports with rings.
    rings: Vec<PortIdx>,
    /// Ports that may have frames, as far as the kernel told.
    ready: Vec<PortIdx>,
    out: Out,
    burst: Burst,
    mesh: Arc<Mesh>,
    poll: Poll,
    notices: UnboundedSender<Notice>,
    slow_path: mpsc::Sender<Punt>,
    /// Whether this turn put something into another worker's inbox.
    handed: bool,
    /// Who follows connections.
    followers: Vec<Follower>,
    /// Where what security groups log goes.
    log: Option<LogSink>,
    /// Devices attached.
    attached: usize,
    /// Whether the kernel tells of frames in all rings.
    armed: bool,
    /// Frames moved before the last sleep.
    woken_at: u64,
    load: Load,
}

impl Worker {
    /// A worker for the calling thread.
    pub fn new(setup: Setup) -> Worker {
        Worker {
            tables: Cache::new(setup.tables),
            core: Core {
                index: setup.index,
                shard: Shard::new(Pool::new(setup.region), setup.seed),
                ports: Vec::new(),
                rings: Vec::new(),
                ready: Vec::new(),
                out: Out::default(),
                burst: Burst::new(),
                mesh: setup.mesh,
                poll: setup.poll,
                notices: setup.notices,
                slow_path: setup.slow_path,
                handed: false,
                followers: Vec::new(),
                log: None,
                attached: 0,
                armed: true,
                woken_at: 0,
                load: Load::default(),
            },
            commands: setup.commands,
            events: Events::with_capacity(256),
            origin: setup.origin,
            turns_since_look: 0,
            was_busy: false,
            stop: false,
        }
    }

    /// Works until it is told to stop.
    ///
    /// # Errors
    /// The kernel's, when its sleep fails.
    pub fn run(&mut self) -> io::Result<()> {
        let origin = self.origin;
        let clock = || Instant::since(origin);
        let (mut now, mut age) = (clock(), 0);
        let mut last_work = now;
        while !self.stop {
            // Reading the clock costs as much as a packet, and nothing here needs it to the microsecond.
            age += 1;
            if age == TURNS_PER_CLOCK {
                (now, age) = (clock(), 0);
            }
            if self.turn(now) > 0 {
                last_work = now;
                continue;
            }
            match self.tables.load().idle {
                Idle::Poll => std::hint::spin_loop(),
                // Where a guest shares this CPU, what it does next is what we wait for.
                Idle::Adaptive if now < last_work.after(SPIN) => std::thread::yield_now(),
                Idle::Adaptive | Idle::Sleep => {
                    self.sleep(TICK)?;
                    (now, age) = (clock(), 0);
                }
            }
        }
        self.core.close_all();
        Ok(())
    }

    /// Takes what is there now from every port, once, and sends what comes of it. Gives the number of frames moved.
    pub fn turn(&mut self, now: Instant) -> usize {
        let before = cycles();
        let attention = self.core.mesh.link(self.core.index).take_attention();
        if attention {
            self.obey(now);
        }
        let tables = self.tables.load();
        let core = &mut self.core;
        core.follow(tables, now);
        let mut moved = if attention { core.receive_handed(tables, now) } else { 0 };
        let polled = core.is_polled();
        if !polled {
            core.arm(true);
        } else if core.load.frames > core.woken_at + FRAMES_TO_DISARM {
            core.arm(false);
        }
        self.turns_since_look += 1;
        let look = self.turns_since_look >= TURNS_PER_LOOK || (!self.was_busy && core.ready.is_empty());
        if look && (!polled || core.rings.len() < core.attached) {
            self.turns_since_look = 0;
            // A failed look is made good by the next one; `sleep` reports errors that stay.
            let _ = core.look(&mut self.events, Some(Duration::ZERO));
        }
        if polled {
            for at in 0..core.rings.len() {
                let port = core.rings[at];
                moved += core.receive(port, tables, now).1;
            }
        }
        for at in (0..core.ready.len()).rev() {
            let port = core.ready[at];
            let (rx, count) = core.receive(port, tables, now);
            moved += count;
            if rx == Rx::More || core.may_linger(port, rx, count) {
                continue;
            }
            core.ready.swap_remove(at);
            core.mark_ready(port, false);
        }
        if core.shard.vtep.is_some() {
            underlay::poll(tables, &mut core.shard, now, &mut core.out);
        }
        if !core.shard.gateways.is_empty() {
            gateway::poll(tables, &mut core.shard, now, &mut core.out);
        }
        core.flush(tables, now);
        if !core.followers.is_empty() {
            inspect::tell(&mut core.followers, &mut core.shard, tables, now);
        }
        inspect::log(core.log.as_ref(), &mut core.shard);
        core.tell(tables);
        self.was_busy = moved > 0;
        core.load.turns += 1;
        if moved > 0 {
            core.load.busy_turns += 1;
            core.load.frames += moved as u64;
            core.load.busy_cycles += cycles() - before;
        }
        if moved == 0 || core.load.turns.is_multiple_of(TURNS_PER_CARE) {
            core.care(tables, now);
        }
        moved
    }

    fn obey(&mut self, now: Instant) {
        while let Ok(command) = self.commands.try_recv() {
            let tables = self.tables.load();
            match command {
                Command::Attach(port, io, done) => {
                    self.core.attach(port, io);
                    let _ = done.send(());
                }
                Command::Detach(port, done) => {
                    self.core.flush(tables, now);
                    let _ = done.send(self.core.detach(port));
                }
                Command::Capture(port, tap, done) => {
                    if let Some(Some(attached)) = self.core.ports.get_mut(port.index()) {
                        attached.taps.push(tap);
                    }
                    let _ = done.send(());
                }
                Command::Follow(follower, done) => {
                    self.core.followers.push(follower);
                    inspect::tell(&mut self.core.followers, &mut self.core.shard, tables, now);
                    let _ = done.send(());
                }
                Command::Log(sink, done) => {
                    self.core.log = Some(sink);
                    let _ = done.send(());
                }
                Command::Inspect(ask) => {
                    // With the tables that the answer is about.
                    self.core.follow(tables, now);
                    inspect::answer(*ask, &mut self.core.shard, tables, now);
                    // One a turn; the rest waits for the next.
                    if !self.commands.is_empty() {
                        self.core.mesh.link(self.core.index).wake();
                    }
                    return;
                }
                Command::Stop => self.stop = true,
            }
        }
    }

    /// Sleeps until a descriptor, another worker or the control thread wakes it, or `timeout` passes.
    fn sleep(&mut self, timeout: Duration) -> io::Result<()> {
        self.core.arm(true);
        self.core.woken_at = self.core.load.frames;
        let mesh = self.core.mesh.clone();
        let link = mesh.link(self.core.index);
        let timeout = if link.begin_sleep() { timeout } else { Duration::ZERO };
        let slept = self.core.look(&mut self.events, Some(timeout));
        link.end_sleep();
        slept
    }

    /// What the worker remembers; for tests.
    pub fn shard(&mut self) -> &mut Shard {
        &mut self.core.shard
    }
}

impl Core {
    /// Moves on to newly published tables.
    fn follow(&mut self, tables: &Tables, now: Instant) {
        let link = self.mesh.link(self.index);
        if link.epoch() != tables.epoch {
            self.out.make_room(tables.ports.len());
            self.shard.sync(tables);
            if tables.underlay_worker() == Some(self.index) {
                underlay::configure(&mut self.shard, tables, now, &mut self.out);
            } else {
                underlay::close(&mut self.shard, tables, now);
            }
            let tracked = self.shard.nat.as_ref().map_or(0, |nat| nat.tracker.len());
            let of_guests = self.shard.security.as_ref().map_or(0, |security| security.tracker.len());
            gateway::configure(tables, &mut self.shard, self.index, now, &mut self.out);
            match &mut self.shard.nat {
                // One that is new is followed from its first connection on.
                Some(nat) => nat.tracker.keep_journal(!self.followers.is_empty()),
                // The tracker went with its journal.
                None => self.followers.iter().for_each(|follower| follower.miss(tracked.into())),
            }
            match &mut self.shard.security {
                Some(security) => security.tracker.keep_journal(!self.followers.is_empty()),
                None => self.followers.iter().for_each(|follower| follower.miss(of_guests.into())),
            }
            self.mesh.link(self.index).set_epoch(tables.epoch);
        }
    }

    /// Whether every ring is looked at every turn.
    fn is_polled(&self) -> bool {
        self.rings.len() <= MAX_POLLED
    }

    /// Lets the kernel tell of frames in rings, or no longer: while rings are looked at every turn, a note about each frame
    /// would cost its sender and us as much as the frame.
    fn arm(&mut self, wanted: bool) {
        if self.armed == wanted {
            return;
        }
        self.armed = wanted;
        for port in &self.rings {
            if let Some(Some(attached)) = self.ports.get_mut(port.index()) {
                attached.register(*port, self.poll.registry(), wanted);
            }
        }
    }

    /// Asks the kernel which descriptors have become readable.
    fn look(&mut self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        if let Err(error) = self.poll.poll(events, timeout)
            && error.kind() != io::ErrorKind::Interrupted
        {
            return Err(error);
        }
        for event in events.iter().filter(|event| event.token() != WAKER) {
            if let Ok(slot) = u16::try_from(event.token().0) {
                self.make_ready(PortIdx(slot));
            }
        }
        Ok(())
    }

    fn make_ready(&mut self, port: PortIdx) {
        let polled = self.is_polled();
        if let Some(Some(attached)) = self.ports.get_mut(port.index())
            && !attached.ready
            && !(polled && attached.io.is_ring())
        {
            attached.ready = true;
            self.ready.push(port);
        }
    }

    /// Whether a port that has nothing now is asked again next turn. While few ports are busy, that finds the next frame
    /// sooner, and for less, than asking the kernel about all of them.
    fn may_linger(&mut self, port: PortIdx, rx: Rx, count: usize) -> bool {
        let few = self.ready.len() <= MAX_LINGERING;
        let Some(Some(attached)) = self.ports.get_mut(port.index()) else { return false };
        attached.empty = if count > 0 { 0 } else { attached.empty.saturating_add(1) };
        few && rx == Rx::Drained && attached.empty < EMPTY_READS
    }

    fn mark_ready(&mut self, port: PortIdx, ready: bool) {
        if let Some(Some(attached)) = self.ports.get_mut(port.index()) {
            attached.ready = ready;
        }
    }

    fn attach(&mut self, port: PortIdx, io: Box<dyn PortIo>) {
        self.detach(port);
        if self.ports.len() <= port.index() {
            self.ports.resize_with(port.index() + 1, || None);
        }
        if io.is_ring() {
            self.rings.push(port);
        }
        self.out.make_room(port.index() + 1);
        self.attached += 1;
        self.ready.reserve(self.attached);
        let mut attached = Attached::new(io);
        if attached.io.is_ring() {
            self.armed = false;
        } else {
            attached.register(port, self.poll.registry(), true);
        }
        self.ports[port.index()] = Some(attached);
        self.make_ready(port);
    }

    fn detach(&mut self, port: PortIdx) -> Remains {
        let attached = self.ports.get_mut(port.index()).and_then(Option::take)?;
        self.attached -= 1;
        self.rings.retain(|ring| *ring != port);
        self.ready.retain(|ready| *ready != port);
        attached.close(port, self.poll.registry(), &mut self.shard.pool)
    }

    fn close_all(&mut self) {
        self.shard.vtep = None;
        self.followers.clear();
        let slots = (0..self.ports.len()).filter_map(|slot| u16::try_from(slot).ok());
        at_once(slots.map(|slot| self.detach(PortIdx(slot))).collect(), drop);
    }

    /// One burst from one port through the path.
    #[inline]
    fn receive(&mut self, port: PortIdx, tables: &Tables, now: Instant) -> (Rx, usize) {
        let Some(Some(attached)) = self.ports.get_mut(port.index()) else { return (Rx::Drained, 0) };
        let rx = attached.io.rx(&mut self.shard.pool, &mut self.burst);
        let count = self.burst.len();
        if rx == Rx::Gone && !attached.gone {
            attached.gone = true;
            let _ = self.notices.send(Notice::Gone(port));
        }
        if count == 0 {
            return (rx, 0);
        }
        if attached.taps.is_empty() {
            process(&mut self.burst, port, tables, &mut self.shard, now, &mut self.out, &mut Silent);
        } else {
            self.receive_captured(port, tables, now);
        }
        if self.out.pending() > MAX_PENDING {
            self.flush(tables, now);
        }
        (rx, count)
    }

    /// As `receive` goes on, for a port that is being captured: frame by frame, so that a dropped one is written with
    /// its reason. Only captured ports pay for it.
    #[cold]
    fn receive_captured(&mut self, port: PortIdx, tables: &Tables, now: Instant) {
        let mut one = Burst::new();
        for frame in std::mem::take(&mut self.burst) {
            let Some(Some(attached)) = self.ports.get(port.index()) else { return };
            let record = capture::Record::of(&frame, attached.reach());
            one.push(frame);
            self.shard.last_drop = None;
            process(&mut one, port, tables, &mut self.shard, now, &mut self.out, &mut Silent);
            if let Some(Some(attached)) = self.ports.get_mut(port.index()) {
                attached.record(record, capture::Direction::Rx, self.shard.last_drop);
            }
        }
    }

    /// Frames that other workers decided on and that leave by ports of this one.
    fn receive_handed(&mut self, tables: &Tables, now: Instant) -> usize {
        let Core { mesh, out, shard, index, .. } = self;
        let mut moved = 0;
        mesh.receive_answers(*index, |answer| {
            moved += 1;
            if let Err(reason) = serve::inject(&answer, (tables, shard), out)
                && let Some(port) = tables.port(answer.ingress)
            {
                port.counters.count_drop(reason, 1);
            }
        });
        mesh.receive(*index, |port, frame| {
            security::enter(frame, port, (tables, shard), now, out);
            moved += 1;
        });
        mesh.receive_events(*index, |event| shard.hear(tables, event, now));
        moved
    }

    /// Sends what stands in the queues.
    fn flush(&mut self, tables: &Tables, now: Instant) {
        if self.out.pending() == 0 {
            return;
        }
        if !self.shard.gateways.is_empty() {
            gateway::serve(tables, &mut self.shard, now, &mut self.out);
        }
        if let Some(underlay) = &tables.underlay
            && self.out.holds(underlay.resolver)
            && tables.underlay_worker() == Some(self.index)
        {
            underlay::resolve(tables, &mut self.shard, now, &mut self.out);
        }
        let Core { out, ports, shard, mesh, index, handed, .. } = self;
        out.flush(|port, frames| {
            let Some(entry) = tables.port(port) else { return };
            match ports.get_mut(port.index()) {
                Some(Some(attached)) => attached.send(frames, &mut shard.pool, &entry.counters),
                _ if entry.worker != *index => {
                    *handed = true;
                    let lost = mesh.hand_off(*index, entry.worker, port, frames);
                    entry.counters.count_drop_shared(DropReason::HandoffFull, lost);
                }
                _ => entry.counters.count_drop(DropReason::PortDown, frames.len() as u64),
            }
        });
    }

    /// What falls due besides frames: devices do their housekeeping (a busy one does it on its way), MACs age, and the
    /// worker shows what it has done.
    fn care(&mut self, tables: &Tables, now: Instant) {
        self.shard.fdb.sweep(now.0);
        self.shard.tally.flush(tables);
        if let Some(translator) = &mut self.shard.nat {
            translator.sweep(u32::try_from(now.secs()).unwrap_or(u32::MAX));
        }
        security::poll(tables, &mut self.shard, now, &mut self.out);
        self.shard.notes.take(now, |note| {
            let _ = self.notices.send(Notice::Underlay(note));
        });
        self.load.free_buffers = self.shard.pool.free_small() as u64;
        self.mesh.link(self.index).show(self.load);
        for port in &self.rings {
            if let Some(Some(attached)) = self.ports.get_mut(port.index()) {
                attached.io.turn(&mut self.shard.pool);
            }
        }
    }

    /// Tells the other workers and the control thread what was learned, and gives the slow path what is for it.
    fn tell(&mut self, tables: &Tables) {
        for punt in self.shard.punts.drain(..) {
            if let Err(refused) = self.slow_path.try_send(punt)
                && let Some(port) = tables.port(refused.into_inner().ingress)
            {
                port.counters.count_drop_shared(DropReason::SlowPathFull, 1);
            }
        }
        for event in self.shard.events.drain(..) {
            self.handed = true;
            self.mesh.tell(self.index, event);
        }
        if std::mem::take(&mut self.handed) {
            self.mesh.wake_others(self.index);
        }
    }
}

fn total_len(frames: &[Frame]) -> u64 {
    frames.iter().map(|frame| frame.len() as u64).sum()
}
