//! A router's short way and its long way are the same. A packet that is traced goes the long way, any other the short one if it
//! is simple. Two switches that differ in nothing but that get the same bursts: the same frames must leave by the same ports,
//! in the same order, with the same counters and connections.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use nuswitch::dataplane::conntrack::journal::Happened;
use nuswitch::dataplane::conntrack::{Direction, State, Stats, Tuple};
use nuswitch::dataplane::out::Out;
use nuswitch::dataplane::tracer::{Explain, Silent, Tracer};
use nuswitch::dataplane::{Shard, gateway, process};
use nuswitch::frame::{BURST, Burst, Caps, Pool};
use nuswitch::model::{self, AttachmentKey};
use nuswitch::stats::PortSnapshot;
use nuswitch::tables::Tables;
use nuswitch::tables::compile::{Device, Places, compile};
use nuswitch::types::{Instant, PortIdx, WorkerIdx};
use proptest::prelude::*;

use super::frames::{Wire, spec};
use super::input::Input;
use super::ipv4::{framed, header_len, seal, seal_transport, word};
use super::router::{GUESTS, frame, macs, text};

const CHUNKS: (u32, u32) = (2048, 16);
/// The port to the world.
const WORLD: usize = 3;

/// What left in answer to something, by port.
type Left = [Vec<Wire>; 4];
/// Counters of all ports and routers' interfaces.
type Sums = BTreeMap<String, PortSnapshot>;
/// A connection: ends of both directions, state, expiry, and packets and bytes of both.
type Connection = ([Tuple; 2], State, u32, [(u64, u64); 2]);
/// Connections, how many bindings they have, and what happened to others.
type Tracked = (Vec<Connection>, u32, Stats);

/// A switch whose frames are traced by a tracer of this kind.
struct Path<T> {
    devices: HashMap<AttachmentKey, Device>,
    tables: Tables,
    shard: Shard,
    out: Out,
    ports: [PortIdx; 4],
    now: Instant,
    tracer: fn() -> T,
}

impl<T: Tracer> Path<T> {
    fn new(choice: u8, (entries, per_guest): (u32, u32), tracer: fn() -> T) -> Path<T> {
        let (text, _) = text(choice);
        let mut model = model::load(&text, "test.toml").unwrap_or_else(|errors| panic!("{}", errors[0]));
        (model.conntrack.max_entries, model.conntrack.max_entries_per_guest) = (entries, per_guest);
        let devices: HashMap<AttachmentKey, Device> = model
            .attachments()
            .map(|device| {
                let able = device.key == AttachmentKey::Port("a".to_owned());
                let caps = Caps { checksum: able, tso: able, uso: able, mtu: 1500 };
                let counters = Arc::default();
                (device.key, Device { worker: WorkerIdx(0), up: true, caps, mac: None, counters })
            })
            .collect();
        let mut places = Places::default();
        let tables = compile(&model, &devices, &mut places, 1);
        let port = |name: &str| PortIdx(places.ports.get(&AttachmentKey::Port(name.to_owned())).unwrap());
        let mut path = Path {
            ports: GUESTS.map(|(name, ..)| port(name)),
            devices,
            shard: Shard::new(Pool::with_chunks(CHUNKS.0, CHUNKS.1).unwrap(), 7),
            tables,
            out: Out::default(),
            now: Instant(1_000_000_000_000),
            tracer,
        };
        path.out.make_room(path.tables.ports.len());
        path.shard.sync(&path.tables);
        gateway::configure(&path.tables, &mut path.shard, WorkerIdx(0), path.now, &mut path.out);
        path.left();
        if let Some(nat) = &mut path.shard.nat {
            nat.tracker.keep_journal(true);
        }
        path
    }

    /// What leaves, once the interfaces' homes have done their work.
    fn left(&mut self) -> Left {
        gateway::serve(&self.tables, &mut self.shard, self.now, &mut self.out);
        let mut left = Left::default();
        let ports = self.ports;
        self.out.flush(|to, frames| {
            let port = ports.iter().position(|port| *port == to).unwrap();
            left[port].extend(frames.drain(..).map(|frame| Wire {
                bytes: frame.segments().collect::<Vec<_>>().concat(),
                offload: frame.offload,
            }));
        });
        left
    }

    fn send(&mut self, from: usize, frames: &[Wire]) -> Left {
        let mut burst = Burst::new();
        for wire in frames {
            let mut frame = self.shard.pool.frame_from(&wire.bytes).unwrap();
            frame.offload = wire.offload;
            burst.push(frame);
        }
        let port = self.ports[from];
        let mut tracer = (self.tracer)();
        process(&mut burst, port, &self.tables, &mut self.shard, self.now, &mut self.out, &mut tracer);
        self.left()
    }

    fn pass(&mut self, seconds: u64) -> Left {
        self.now = Instant(self.now.0 + seconds * 1_000_000_000);
        let now = u32::try_from(self.now.secs()).unwrap();
        while self.shard.nat.as_mut().is_some_and(|nat| nat.sweep(now)) {}
        self.shard.fdb.sweep(self.now.0);
        self.shard.events.clear();
        gateway::poll(&self.tables, &mut self.shard, self.now, &mut self.out);
        self.left()
    }

    fn sums(&mut self) -> Sums {
        self.shard.tally.flush(&self.tables);
        let devices = self.devices.iter().map(|(key, device)| (key.to_string(), device.counters.snapshot()));
        let interfaces = self.tables.ports.iter().flatten().filter(|port| port.interface().is_some());
        let interfaces = interfaces.map(|port| (port.name.to_string(), port.counters.snapshot()));
        devices.chain(interfaces).collect()
    }

    /// Which connections began and ended. In a burst, those that are simple may come before others, so that there are other states
    /// between.
    fn events(&mut self) -> Vec<String> {
        let mut events = Vec::new();
        if let Some(journal) = self.shard.nat.as_mut().and_then(|nat| nat.tracker.journal()) {
            let lost = journal.drain(|what, entry| {
                let ends = [Direction::Original, Direction::Reply].map(|direction| entry.tuple(direction));
                if what != Happened::Changed {
                    events.push(format!("{what:?} {ends:?}"));
                }
            });
            assert_eq!(lost, 0);
        }
        events.sort();
        events
    }

    fn tracked(&self) -> Option<Tracked> {
        let nat = self.shard.nat.as_ref()?;
        let (mut connections, both) = (Vec::new(), [Direction::Original, Direction::Reply]);
        nat.tracker.walk(0, u32::MAX, |_, entry| {
            let counts = both.map(|direction| (entry.packets(direction), entry.bytes(direction)));
            connections.push((
                both.map(|direction| entry.tuple(direction)),
                entry.state(),
                entry.expiry(),
                counts,
            ));
        });
        Some((connections, nat.bindings.len(), nat.tracker.stats()))
    }
}

/// A SYN may say how long the segments are that its sender takes: longer ones than any network here carries.
fn with_mss(mut frame: Wire) -> Wire {
    let bytes = &mut frame.bytes;
    let is_v4 = bytes.len() >= 54 && word(bytes, 12) == 0x0800 && bytes[14] == 0x45;
    if is_v4
        && bytes[23] == 6
        && bytes[46] == 0x50
        && word(bytes, 20) & 0x1fff == 0
        && frame.offload.is_done()
    {
        assert_eq!(header_len(&bytes[14..]), 20);
        bytes.splice(54..54, [2, 4, 0x23, 0]);
        bytes[46] = 0x60;
        let len = word(bytes, 16).wrapping_add(4);
        bytes[16..18].copy_from_slice(&len.to_be_bytes());
        seal(&mut bytes[14..]);
        seal_transport(&mut bytes[14..]);
    }
    frame
}

/// Where the world's router is.
fn world() -> Wire {
    let (w, edge) = macs(WORLD);
    spec(&format!("eth src={w} dst={edge} arp reply 203.0.113.1 is-at {w} to=203.0.113.100"))
}

/// Sends the same by both ways, or lets time pass; gives what left, which is the same, as all else is.
fn both(
    short: &mut Path<Silent>,
    long: &mut Path<Explain>,
    from: usize,
    frames: &[Wire],
    input: &mut Input<'_>,
) -> Left {
    let (left, wanted) = if frames.is_empty() {
        let seconds = input.one_of(&[1, 1, 5, 61, 300]);
        (short.pass(seconds), long.pass(seconds))
    } else {
        (short.send(from, frames), long.send(from, frames))
    };
    assert_eq!(left, wanted, "after {frames:?} by {from}");
    assert_eq!(short.sums(), long.sums(), "after {frames:?} by {from}");
    assert_eq!(short.tracked(), long.tracked(), "after {frames:?} by {from}");
    assert_eq!(short.events(), long.events(), "after {frames:?} by {from}");
    left
}

/// Most likely the first packet of a connection: of few hosts and ports, so that two are of the same one, or want the same
/// port outside.
fn first(input: &mut Input<'_>, from: usize, port: Option<u16>) -> Wire {
    let (own, router) = macs(from);
    let mut source = GUESTS[from].2;
    source[3] += input.one_of(&[0, 0, 20, 21, 22]);
    let [high, low] = port.unwrap_or(1024 + u16::from(input.byte() % 8)).to_be_bytes();
    let ports = [high, low, 0, 53];
    let (protocol, flags) = input.one_of(&[
        (17, 0),
        (17, 0),
        (17, 0),
        (6, 2),
        (6, 2),
        (6, 0x10),
        (6, 4),
        (1, 0),
        (33, 0),
        (47, 0),
    ]);
    // Without ports two packets would be of one connection.
    let protocol = if port.is_some() && protocol == 47 { 17 } else { protocol };
    let transport = match protocol {
        6 => [&ports[..], &[0, 0, 0, 9, 0, 0, 0, 7, 0x50, flags, 32, 0, 0, 0, 0, 0]].concat(),
        17 => [&ports[..], &[0, 12, 0, 0, 1, 2, 3, 4]].concat(),
        1 => vec![8, 0, 0, 0, high, low, 0, 1],
        _ => [&ports[..], &[0; 12]].concat(),
    };
    let len = 20 + u8::try_from(transport.len()).unwrap();
    // Not simple; of TCP, which has states, it would change places with others of its connection.
    let ttl = if protocol == 6 { 64 } else { input.one_of(&[64, 64, 64, 64, 64, 64, 64, 1]) };
    let mut packet = vec![0x45, 0, 0, len, 0, 1, 0, 0, ttl, protocol, 0, 0];
    packet.extend([source, [198, 51, 100, input.byte() % 4]].concat());
    packet.extend(transport);
    seal(&mut packet);
    if matches!(protocol, 1 | 6 | 17) {
        seal_transport(&mut packet);
    }
    framed(own, router, &packet)
}

/// Bursts in which connections begin, `each` one with a port of its own or some with several packets; a host has at most so
/// many bindings.
fn compare_first(data: &[u8], each: bool, most: u32, limits: (u32, u32)) {
    let mut input = Input::new(data);
    let choice = input.byte() % 24;
    let mut short = Path::new(choice, limits, || Silent);
    let mut long = Path::new(choice, limits, Explain::default);
    for nat in [&mut short.shard.nat, &mut long.shard.nat].into_iter().flatten() {
        nat.bindings.set_host_limit(most);
    }
    both(&mut short, &mut long, WORLD, &[world()], &mut input);
    let mut ports = 1024..;
    while !input.is_empty() {
        let from = usize::from(input.byte() % 3);
        let count = input.one_of(&[0, 1, 2, 3, 8, BURST, BURST]);
        let port = |_| if each { ports.next() } else { None };
        let frames: Vec<Wire> = (0..count).map(port).map(|port| first(&mut input, from, port)).collect();
        both(&mut short, &mut long, from, &frames, &mut input);
    }
}

/// Bursts as the bytes of `data` choose: `burst` frames at most.
fn compare(data: &[u8], burst: usize, limits: (u32, u32)) {
    let mut input = Input::new(data);
    let choice = input.byte() % 24;
    let mut short = Path::new(choice, limits, || Silent);
    let mut long = Path::new(choice, limits, Explain::default);
    let arp = world();
    let (mut last, mut sent): ([Vec<u8>; 4], [Vec<Wire>; 4]) = Default::default();
    let mut step = Some((WORLD, vec![arp]));
    while let Some((from, frames)) = step {
        let left = both(&mut short, &mut long, from, &frames, &mut input);
        for (port, left) in left.into_iter().enumerate() {
            if let Some(frame) = left.into_iter().last() {
                last[port] = frame.bytes;
            }
        }
        step = (!input.is_empty()).then(|| {
            let from = usize::from(input.byte() % 4);
            let count = input.one_of(&[1, 2, 3, 5, 8, BURST, 0]).min(burst);
            let mut frames = Vec::new();
            while frames.len() < count {
                let again = sent[from].len().min(8);
                if again > 0 && input.flag() {
                    // What was sent already: most likely it is of a connection.
                    let at = sent[from].len() - 1 - usize::from(input.byte()) % again;
                    frames.push(sent[from][at].clone());
                } else {
                    let (bytes, offload) = frame(&mut input, from, &last);
                    let frame = Wire { bytes, offload };
                    let frame = if input.flag() { with_mss(frame) } else { frame };
                    sent[from].push(frame.clone());
                    frames.push(frame);
                }
            }
            (from, frames)
        });
    }
    let free = [short.shard.pool.free_chunks(), long.shard.pool.free_chunks()];
    assert_eq!(free[0], free[1], "chunks");
}

/// A translator with room for all, and bursts.
const ROOM: (u32, u32) = (1024, 256);
/// One in which connections often go for others. Which do hangs on the order of all packets before, so those come one by one.
const LITTLE: (u32, u32) = (16, 4);

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 500, ..ProptestConfig::default() })]

    #[test]
    fn bursts_fare_the_same_on_both_ways(data in prop::collection::vec(any::<u8>(), 0..6000)) {
        compare(&data, BURST, ROOM);
    }

    #[test]
    fn connections_begin_the_same_on_both_ways(
        data in prop::collection::vec(any::<u8>(), 0..4000),
        most in prop::sample::select(vec![3, u32::MAX]),
    ) {
        compare_first(&data, false, most, ROOM);
    }

    #[test]
    fn connections_begin_the_same_on_both_ways_where_room_is_little(
        data in prop::collection::vec(any::<u8>(), 0..2000),
        entries in 16u32..80,
    ) {
        compare_first(&data, true, u32::MAX, (entries, entries));
    }

    #[test]
    fn packets_fare_the_same_on_both_ways_where_room_is_little(
        data in prop::collection::vec(any::<u8>(), 0..6000),
    ) {
        compare(&data, 1, LITTLE);
    }
}
