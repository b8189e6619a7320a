//! A whole switch for a test: the model from TOML, compiled tables, real workers, ports in memory and a clock that the test
//! advances. No thread, no sleep, no root. What a scenario does not expect fails it: frames that nobody took, counters
//! that moved unsaid, chunks that did not come back.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use arc_swap::ArcSwap;
use crossbeam::channel::{self, Sender};
use mio::Poll;
use nuswitch::daemon::trace::{Known, Live, Traced, trace};
use nuswitch::dataplane::fdb::FdbKey;
use nuswitch::dataplane::nat::live::Filter;
use nuswitch::dataplane::out::Out;
use nuswitch::dataplane::security::logbook::Line;
use nuswitch::dataplane::serve::Punt;
use nuswitch::dataplane::tracer::{Explain, Look};
use nuswitch::dataplane::{Shard, process};
use nuswitch::frame::{Burst, Pool, Region};
use nuswitch::model::{self, AttachmentKey, Model};
use nuswitch::pcapng::CaptureRecord;
use nuswitch::ports::mem::{self, MemHandle};
use nuswitch::ports::{Caps, PortIo};
use nuswitch::stats::PortCounters;
use nuswitch::tables::Tables;
use nuswitch::tables::compile::{Device, Places, compile};
use nuswitch::types::{Instant, Mac, NetIdx, PortIdx, WorkerIdx};
use nuswitch::worker::capture::CaptureTap;
use nuswitch::worker::inspect::{Answer, Event, Facts, Follower, LogSink, Question};
use nuswitch::worker::mesh::Mesh;
use nuswitch::worker::{Command, Notice, Setup, Worker};
use tokio::sync::{mpsc, oneshot};

use super::frames::{IntoWire, Wire};

mod learned;

/// A device that carries everything, as a TAP does.
pub const ABLE: Caps = Caps { checksum: true, tso: true, uso: true, mtu: 1500 };
/// A device that carries finished frames only, as AF_XDP does.
pub const PLAIN: Caps = Caps { checksum: false, tso: false, uso: false, mtu: 1500 };

/// The underlay's device.
pub const VTEP_MAC: Mac = Mac([0x02, 0, 0, 0, 0xee, 1]);

type Counts = BTreeMap<String, BTreeMap<String, u64>>;

struct Hand {
    worker: Worker,
    commands: Sender<Command>,
    chunks: (usize, usize),
}

/// How a switch is to be made.
pub struct Build {
    text: String,
    caps: HashMap<String, Caps>,
    owners: HashMap<String, u16>,
    chunks: (u32, u32),
    depth: usize,
}

pub struct Switch {
    hands: Vec<Hand>,
    mesh: Arc<Mesh>,
    published: Arc<ArcSwap<Tables>>,
    model: Model,
    devices: HashMap<AttachmentKey, Device>,
    places: Places,
    handles: HashMap<String, MemHandle>,
    arrived: HashMap<String, VecDeque<Wire>>,
    held: Vec<nuswitch::frame::Frame>,
    holding: bool,
    notices: mpsc::UnboundedReceiver<Notice>,
    punts: mpsc::Receiver<Punt>,
    now: Instant,
    counted: Counts,
    build: Build,
}

/// Seconds.
pub fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

impl Build {
    pub fn from(text: &str) -> Build {
        Build {
            text: text.to_owned(),
            caps: HashMap::new(),
            owners: HashMap::new(),
            chunks: (2048, 32),
            depth: 4096,
        }
    }

    pub fn caps(mut self, port: &str, caps: Caps) -> Build {
        self.caps.insert(port.to_owned(), caps);
        self
    }

    pub fn worker(mut self, port: &str, worker: u16) -> Build {
        self.owners.insert(port.to_owned(), worker);
        self
    }

    pub fn chunks(mut self, small: u32, large: u32) -> Build {
        self.chunks = (small, large);
        self
    }

    /// Frames that fit into a device's queue.
    pub fn depth(mut self, depth: usize) -> Build {
        self.depth = depth;
        self
    }

    pub fn start(self) -> Switch {
        let model = parse(&self.text);
        let workers = model.switch.workers.len().max(1);
        let polls: Vec<Poll> = (0..workers).map(|_| Poll::new().unwrap()).collect();
        let mesh = Arc::new(Mesh::new(&polls).unwrap());
        let published = Arc::new(ArcSwap::from_pointee(Tables::default()));
        let (sender, notices) = mpsc::unbounded_channel();
        let (slow_path, punts) = mpsc::channel(4096);
        let hands = (0u16..).zip(polls).map(|(index, poll)| {
            let (commands, receiver) = channel::unbounded();
            let mut worker = Worker::new(Setup {
                index: WorkerIdx(index),
                region: Region::new(self.chunks.0, self.chunks.1).unwrap(),
                seed: 0x1234_5678 + u64::from(index),
                tables: published.clone(),
                mesh: mesh.clone(),
                poll,
                commands: receiver,
                notices: sender.clone(),
                slow_path: slow_path.clone(),
                origin: std::time::Instant::now(),
            });
            let chunks = worker.shard().pool.free_chunks();
            Hand { worker, commands, chunks }
        });
        let mut switch = Switch {
            hands: hands.collect(),
            mesh,
            published,
            model: Model {
                networks: Vec::new(),
                ports: Vec::new(),
                physical_networks: Vec::new(),
                ..model.clone()
            },
            devices: HashMap::new(),
            places: Places::default(),
            handles: HashMap::new(),
            arrived: HashMap::new(),
            held: Vec::new(),
            holding: false,
            notices,
            punts,
            now: Instant(1_000_000_000_000),
            counted: Counts::new(),
            build: self,
        };
        switch.apply(model);
        switch
    }
}

fn parse(text: &str) -> Model {
    model::load(text, "test.toml").unwrap_or_else(|errors| {
        panic!("{}", errors.iter().map(|error| error.render(text)).collect::<String>())
    })
}

fn name(key: &AttachmentKey) -> &str {
    match key {
        AttachmentKey::Port(name) | AttachmentKey::Physical(name) => name,
        _ => "overlay",
    }
}

impl Switch {
    /// What went to the slow path since the last time: the port's name and the frame.
    pub fn punts(&mut self) -> Vec<(String, Vec<u8>)> {
        let tables = self.published.load();
        let name = |port: PortIdx| tables.port(port).map_or(String::new(), |port| port.name.to_string());
        std::iter::from_fn(|| self.punts.try_recv().ok())
            .map(|punt| (name(punt.ingress), punt.frame))
            .collect()
    }

    /// What the slow path has to say to a port's station on a network.
    pub fn answer(&mut self, port: &str, network: &str, frame: &[u8]) {
        let network = NetIdx(self.places.networks.get(&network.to_owned()).unwrap());
        let (ingress, tables) = (self.index(port), self.published.load_full());
        let worker = tables.port(ingress).unwrap().worker;
        assert!(self.mesh.answer(worker, Punt { ingress, network, frame: frame.to_vec() }));
        self.settle();
    }

    /// A switch whose devices carry everything.
    pub fn from(text: &str) -> Switch {
        Build::from(text).start()
    }

    /// Goes over to another configuration, as a reload does.
    pub fn reload(&mut self, text: &str) {
        self.apply(parse(text));
    }

    fn apply(&mut self, model: Model) {
        let wanted: Vec<(AttachmentKey, u16)> =
            model.attachments().map(|device| (device.key, device.mtu)).collect();
        let gone: Vec<AttachmentKey> = self
            .devices
            .keys()
            .filter(|key| !wanted.iter().any(|(wanted, _)| wanted == *key))
            .cloned()
            .collect();
        for (key, mtu) in &wanted {
            if !self.devices.contains_key(key) {
                self.open(key, *mtu);
            }
        }
        for key in &gone {
            self.close(key);
            self.devices.remove(key);
        }
        self.model = model;
        self.publish();
        for (key, _) in &wanted {
            let known = self.places.ports.get(key).unwrap();
            assert!(self.published.load().port(PortIdx(known)).is_some(), "{key} has no entry");
        }
        let networks: Vec<String> = self.model.networks.iter().map(|network| network.name.clone()).collect();
        let (tunnels, interfaces) = (&self.places.tunnels, &self.places.interfaces);
        self.places.ports.release(|key| match key {
            AttachmentKey::Tunnel(remote) => tunnels.contains_key(remote),
            AttachmentKey::Resolver => true,
            AttachmentKey::Interface(router, mac) => interfaces.contains_key(&(router.clone(), *mac)),
            key => wanted.iter().any(|(wanted, _)| wanted == key),
        });
        self.places.networks.release(|name| networks.contains(name));
    }

    fn open(&mut self, key: &AttachmentKey, mtu: u16) {
        let caps = self.build.caps.get(name(key)).copied().unwrap_or(Caps { mtu, ..ABLE });
        let worker = WorkerIdx(self.build.owners.get(name(key)).copied().unwrap_or(0));
        let (port, handle) = mem::pair(name(key), self.build.depth, caps);
        let port: Box<dyn PortIo> = Box::new(port);
        let index = PortIdx(self.places.ports.assign(key));
        self.command(worker, |done| Command::Attach(index, port, done));
        self.handles.insert(name(key).to_owned(), handle);
        let counters = self.devices.get(key).map_or_else(Arc::default, |device| device.counters.clone());
        self.devices.insert(key.clone(), Device { worker, up: true, caps, mac: Some(VTEP_MAC), counters });
    }

    fn close(&mut self, key: &AttachmentKey) {
        let index = PortIdx(self.places.ports.get(key).unwrap());
        self.command(self.devices[key].worker, |done| Command::Detach(index, done));
        self.collect();
        self.handles.remove(name(key));
    }

    fn command<T>(&mut self, worker: WorkerIdx, command: impl FnOnce(Sender<T>) -> Command) {
        let (done, wait) = channel::bounded(1);
        let hand = &mut self.hands[worker.index()];
        hand.commands.send(command(done)).unwrap();
        self.mesh.link(worker).wake();
        hand.worker.turn(self.now);
        wait.try_recv().unwrap();
    }

    /// Puts tables out without letting any worker look at them.
    pub fn publish_only(&mut self) {
        let epoch = self.published.load().epoch + 1;
        let tables = compile(&self.model, &self.devices, &mut self.places, epoch);
        self.published.store(Arc::new(tables));
    }

    fn publish(&mut self) {
        self.publish_only();
        for hand in &mut self.hands {
            hand.worker.turn(self.now);
        }
    }

    /// As [`Switch::reload`] of a file with the same devices, up to the moment in which workers begin to see it.
    pub fn reload_only(&mut self, text: &str) {
        self.model = parse(text);
        self.publish_only();
    }

    /// Puts the tables out once more, changed as `change` says.
    pub fn publish_with(&mut self, change: impl FnOnce(&mut Tables)) {
        let epoch = self.published.load().epoch + 1;
        let mut tables = compile(&self.model, &self.devices, &mut self.places, epoch);
        change(&mut tables);
        tables.note_advertising();
        self.published.store(Arc::new(tables));
        for hand in &mut self.hands {
            hand.worker.turn(self.now);
        }
    }

    fn key(&self, port: &str) -> AttachmentKey {
        self.devices
            .keys()
            .find(|key| name(key) == port)
            .unwrap_or_else(|| panic!("no device {port}"))
            .clone()
    }

    pub fn index(&self, port: &str) -> PortIdx {
        PortIdx(self.places.ports.get(&self.key(port)).unwrap())
    }

    /// Takes a device down, or up again, as the daemon does when it hears of it.
    pub fn set_device(&mut self, port: &str, up: bool) {
        let key = self.key(port);
        self.devices.get_mut(&key).unwrap().up = up;
        self.publish();
    }

    /// The device vanishes, as the worker sees it.
    pub fn vanish(&mut self, port: &str) {
        drop(self.handles.remove(port).unwrap());
        self.settle();
    }

    /// What the daemon does after [`Switch::vanish`]: the port is down, its device closed.
    pub fn take_down(&mut self, port: &str) {
        let key = self.key(port);
        self.devices.get_mut(&key).unwrap().up = false;
        self.publish();
        self.close(&key);
    }

    /// The device is back.
    pub fn bring_back(&mut self, port: &str) {
        let (key, mtu) = (self.key(port), 1500);
        self.open(&key, mtu);
        self.publish();
    }

    /// Ports whose devices the workers gave up since the last look.
    pub fn gone(&mut self) -> Vec<String> {
        let mut gone = Vec::new();
        while let Ok(Notice::Gone(port)) = self.notices.try_recv() {
            gone.push(self.published.load().port(port).unwrap().name.to_string());
        }
        gone
    }

    /// Lets a port receive a frame, without a turn. False when there was no chunk or no room.
    pub fn queue(&mut self, port: &str, frame: impl IntoWire) -> bool {
        let wire = frame.wire();
        let worker = self.devices[&self.key(port)].worker;
        let pool = &mut self.hands[worker.index()].worker.shard().pool;
        let Some(mut frame) = pool.frame_from(&wire.bytes) else { return false };
        frame.offload = wire.offload;
        self.handles[port].send(frame).is_ok()
    }

    /// Lets a port receive a frame and the switch work until nothing moves.
    pub fn send(&mut self, port: &str, frame: impl IntoWire) {
        assert!(self.queue(port, frame), "no chunk, or {port} is full");
        self.settle();
    }

    /// One turn of one worker. Gives the number of frames moved.
    pub fn turn(&mut self, worker: usize) -> usize {
        let moved = self.hands[worker].worker.turn(self.now);
        self.collect();
        moved
    }

    /// Turns of all workers until nothing moves.
    pub fn settle(&mut self) {
        for _ in 0..1000 {
            if (0..self.hands.len()).map(|worker| self.turn(worker)).sum::<usize>() == 0 {
                return;
            }
        }
        panic!("frames go round and round");
    }

    /// Whether the devices take what is sent to them.
    pub fn hold(&mut self, hold: bool) {
        self.holding = hold;
        if !hold {
            self.held.clear();
        }
    }

    fn collect(&mut self) {
        for (port, handle) in &self.handles {
            while let Some(frame) = handle.receive() {
                let bytes = frame.segments().collect::<Vec<_>>().concat();
                let wire = Wire { bytes, offload: frame.offload };
                self.arrived.entry(port.clone()).or_default().push_back(wire);
                if self.holding {
                    self.held.push(frame);
                }
            }
        }
    }

    /// The next frame that was sent by a port.
    pub fn take(&mut self, port: &str) -> Wire {
        assert!(self.handles.contains_key(port), "no device {port}");
        let next = self.arrived.get_mut(port).and_then(VecDeque::pop_front);
        next.unwrap_or_else(|| panic!("nothing was sent by {port}"))
    }

    /// All frames that were sent by a port.
    pub fn take_all(&mut self, port: &str) -> Vec<Wire> {
        assert!(self.handles.contains_key(port), "no device {port}");
        self.arrived.remove(port).map_or_else(Vec::new, Vec::from)
    }

    /// The next frame that was sent by a port is this one.
    pub fn expect(&mut self, port: &str, frame: impl IntoWire) {
        let (got, expected) = (self.take(port), frame.wire());
        assert!(got == expected, "by {port} left\n  {got:?}\nand this was expected\n  {expected:?}");
    }

    pub fn expect_nothing(&mut self, port: &str) {
        assert!(self.handles.contains_key(port), "no device {port}");
        let first = self.arrived.get(port).and_then(VecDeque::front);
        assert!(first.is_none(), "{port} sent {first:?}");
    }

    /// Forgets what was sent by all ports and counted so far.
    pub fn forget(&mut self) {
        self.arrived.clear();
        self.counted = self.counts();
    }

    fn counts(&self) -> Counts {
        let of = |counters: &PortCounters| {
            let value = serde_json::to_value(counters.snapshot()).unwrap();
            let mut counts = BTreeMap::new();
            for (key, value) in value.as_object().unwrap() {
                match value.as_object() {
                    Some(drops) => counts.extend(drops.iter().map(|(k, v)| (k.clone(), v.as_u64().unwrap()))),
                    None => drop(counts.insert(key.clone(), value.as_u64().unwrap())),
                }
            }
            counts
        };
        let devices = self.devices.iter().map(|(key, device)| (name(key).to_owned(), of(&device.counters)));
        let tunnels = &self.places.tunnels;
        let tunnels = tunnels.iter().map(|(remote, place)| (remote.to_string(), of(&place.counters)));
        let tables = self.published.load();
        let interfaces = tables.ports.iter().flatten().filter(|port| port.interface().is_some());
        let interfaces = interfaces.map(|port| (port.name.to_string(), of(&port.counters)));
        devices.chain(tunnels).chain(interfaces).collect()
    }

    /// Exactly these counters moved, by this much, since the last look: `a: rx_frames 1, flooded 1; b: tx_frames 1`.
    #[track_caller]
    pub fn expect_counters(&mut self, expected: &str) {
        let now = self.counts();
        let mut moved = Counts::new();
        for (port, counts) in &now {
            for (counter, count) in counts {
                let before =
                    self.counted.get(port).and_then(|counts| counts.get(counter)).copied().unwrap_or(0);
                if *count != before {
                    moved.entry(port.clone()).or_default().insert(counter.clone(), count - before);
                }
            }
        }
        self.counted = now;
        let wanted = read_counts(expected);
        assert!(
            moved == wanted,
            "these counters moved:\n  {}\nand these should have:\n  {}",
            say(&moved),
            say(&wanted)
        );
    }

    pub fn counters(&self, port: &str) -> &PortCounters {
        &self.devices[&self.key(port)].counters
    }

    /// Lets time pass, with a turn of every worker afterwards.
    pub fn advance(&mut self, time: Duration) {
        self.now = self.now.after(time);
        for worker in 0..self.hands.len() {
            self.turn(worker);
        }
    }

    /// The port that worker 0 knows a MAC behind.
    pub fn knows(&mut self, network: &str, mac: Mac) -> Option<String> {
        self.worker_knows(0, network, mac)
    }

    pub fn worker_knows(&mut self, worker: usize, network: &str, mac: Mac) -> Option<String> {
        let network = NetIdx(self.places.networks.get(&network.to_owned()).unwrap());
        let port = self.hands[worker].worker.shard().fdb.get(FdbKey::new(network, mac))?;
        Some(
            self.published
                .load()
                .port(port)
                .map_or_else(|| "nowhere".to_owned(), |port| port.name.to_string()),
        )
    }

    /// Copies a port's frames to a capture.
    pub fn capture(&mut self, port: &str, snaplen: usize) -> mpsc::Receiver<CaptureRecord> {
        self.capture_inner(port, snaplen, None)
    }

    /// As [`Switch::capture`], of what is in tunnels on this UDP port.
    pub fn capture_inner(
        &mut self,
        port: &str,
        snaplen: usize,
        inner: Option<u16>,
    ) -> mpsc::Receiver<CaptureRecord> {
        let (sender, receiver) = mpsc::channel(16);
        let missed = Arc::new(AtomicU64::new(0));
        let tap = CaptureTap { interface: port.into(), snaplen, inner, sender, missed };
        let (worker, index) = (self.devices[&self.key(port)].worker, self.index(port));
        self.command(worker, |done| Command::Capture(index, tap, done));
        receiver
    }

    /// Asks worker 0 so many questions at once; gives the answers that one turn brings.
    pub fn ask_at_once(&mut self, questions: impl IntoIterator<Item = Question>) -> Vec<Option<Answer>> {
        let hand = &mut self.hands[0];
        let mut answers: Vec<_> = questions
            .into_iter()
            .map(|question| {
                let (reply, answer) = oneshot::channel();
                hand.commands.send(Command::Inspect(Box::new((question, reply)))).unwrap();
                answer
            })
            .collect();
        self.mesh.link(WorkerIdx(0)).wake();
        hand.worker.turn(self.now);
        answers.iter_mut().map(|answer| answer.try_recv().ok()).collect()
    }

    /// Asks worker 0.
    pub fn ask(&mut self, question: Question) -> Answer {
        self.ask_at_once([question]).pop().unwrap().unwrap()
    }

    /// Asks the worker of a port.
    pub fn ask_home(&mut self, port: &str, question: Question) -> Answer {
        let worker = self.devices[&self.key(port)].worker;
        let (reply, mut answer) = oneshot::channel();
        let hand = &mut self.hands[worker.index()];
        hand.commands.send(Command::Inspect(Box::new((question, reply)))).unwrap();
        self.mesh.link(worker).wake();
        hand.worker.turn(self.now);
        answer.try_recv().unwrap()
    }

    /// The lines that worker 0's security groups log from now on, as many as may wait; also gives the count of lost ones.
    pub fn log(&mut self, depth: usize) -> (mpsc::Receiver<Line>, Arc<AtomicU64>) {
        let (sender, lines) = mpsc::channel(depth);
        let missed = Arc::new(AtomicU64::new(0));
        let sink = LogSink { sender, missed: missed.clone() };
        self.command(WorkerIdx(0), |done| Command::Log(sink, done));
        (lines, missed)
    }

    /// The tables in force.
    pub fn tables(&self) -> Arc<Tables> {
        self.published.load_full()
    }

    /// Follows the connections of worker 0; also gives the count of lost events.
    pub fn follow(&mut self, filter: Filter, depth: usize) -> (mpsc::Receiver<Event>, Arc<AtomicU64>) {
        let (sender, receiver) = mpsc::channel(depth);
        let missed = Arc::new(AtomicU64::new(0));
        let follower = Follower { filter: Arc::new(filter), sender, missed: missed.clone() };
        self.command(WorkerIdx(0), |done| Command::Follow(follower, done));
        (receiver, missed)
    }

    /// Whether worker 0 notes nothing of connections for followers.
    pub fn keeps_no_journal(&mut self) -> bool {
        let shard = self.hands[0].worker.shard();
        shard.nat.as_mut().is_none_or(|nat| nat.tracker.journal().is_none())
            && shard.security.as_mut().is_none_or(|security| security.tracker.journal().is_none())
    }

    /// What the path says about a frame, on a copy of worker 0's state: a line a step, `stage: text`.
    pub fn trace(&mut self, port: &str, frame: impl IntoWire) -> String {
        let wire = frame.wire();
        let tables = self.published.load().detached();
        let mut shard = Shard::new(Pool::with_chunks(256, 16).unwrap(), 0);
        let fdb = &self.hands[0].worker.shard().fdb;
        shard.fdb = fdb.resized(fdb.capacity());
        let mut frame = shard.pool.frame_from(&wire.bytes).unwrap();
        frame.offload = wire.offload;
        let (mut out, mut explain) = (Out::default(), Explain::default());
        out.make_room(tables.ports.len());
        let mut burst: Burst = [frame].into_iter().collect();
        process(&mut burst, self.index(port), &tables, &mut shard, self.now, &mut out, &mut explain);
        explain.steps.iter().map(|step| format!("{}: {}\n", step.stage, step.text)).collect()
    }

    /// What `nuswitch trace` says about a frame, on a copy of worker 0's state.
    pub fn explain(&mut self, port: &str, frame: impl IntoWire) -> Traced {
        let index = self.index(port);
        let fdb = self.hands[0].worker.shard().fdb.clone();
        trace(&self.published.load(), fdb, index, &frame.wire().bytes, self.now, &Live::default())
            .unwrap()
            .unwrap()
    }

    /// As [`Switch::explain`], with what the switch knows of connections and neighbours.
    pub fn explain_live(&mut self, port: &str, frame: impl IntoWire) -> Traced {
        let (index, wire, mut live) = (self.index(port), frame.wire(), Live::default());
        loop {
            let fdb = self.hands[0].worker.shard().fdb.clone();
            let traced = trace(&self.published.load(), fdb, index, &wire.bytes, self.now, &live);
            let traced = traced.unwrap().unwrap();
            let Some(look) = traced.looks.iter().find(|look| !live.has(look)).copied() else { return traced };
            let question = match look {
                Look::Connection(tuple) => Question::Foresee(tuple),
                Look::Tracked(_, tuple) => Question::Tracked(tuple),
                Look::Neighbour(interface, address) => Question::Neighbour(interface, address),
            };
            let known = match self.ask(question).facts {
                Facts::Foreseen(found) => found.map(Known::Connection),
                Facts::Neighbour(mac) => mac.map(Known::Mac),
                Facts::Tracked(entry) => entry.map(Known::Tracked),
                _ => panic!("another answer"),
            };
            live.add(look, known);
        }
    }

    /// What is known of the way to a peer.
    pub fn way_to(&self, peer: &str) -> (Option<Mac>, Option<u16>) {
        let state = &self.places.tunnels[&peer.parse().unwrap()].state;
        (state.next_hop(), state.path_mtu())
    }

    /// Whether every worker uses the newest tables.
    pub fn is_current(&self) -> bool {
        let epoch = self.published.load().epoch;
        self.mesh.links().iter().all(|link| link.epoch() == epoch)
    }

    /// What every scenario ends with.
    fn finish(&mut self) {
        self.settle();
        for (port, frames) in &self.arrived {
            assert!(frames.is_empty(), "nobody expected what {port} sent: {frames:?}");
        }
        self.expect_counters("");
        self.held.clear();
        for (hand, link) in self.hands.iter_mut().zip(self.mesh.links()) {
            hand.commands.send(Command::Stop).unwrap();
            link.wake();
            hand.worker.turn(self.now);
            hand.worker.run().unwrap();
        }
        self.handles.clear();
        for hand in &mut self.hands {
            let free = hand.worker.shard().pool.free_chunks();
            assert_eq!(free, hand.chunks, "chunks that came back, small and large");
        }
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.finish();
        }
    }
}

fn read_counts(text: &str) -> Counts {
    let mut counts = Counts::new();
    for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
        let (port, list) =
            part.split_once(": ").unwrap_or_else(|| panic!("`{part}` is not `port: counter n, …`"));
        let of_port = counts.entry(port.to_owned()).or_default();
        for item in list.split(',') {
            let (counter, count) =
                item.trim().split_once(' ').unwrap_or_else(|| panic!("`{item}` is not `counter n`"));
            of_port.insert(counter.to_owned(), count.parse().unwrap());
        }
    }
    counts
}

fn say(counts: &Counts) -> String {
    let port = |(port, counts): (&String, &BTreeMap<String, u64>)| {
        let list: Vec<String> = counts.iter().map(|(counter, count)| format!("{counter} {count}")).collect();
        format!("{port}: {}", list.join(", "))
    };
    counts.iter().map(port).collect::<Vec<_>>().join("; ")
}
