//! The connection tracker alone: cycles per operation (of the time stamp counter) beside criterion's nanoseconds.
//!
//! `cargo bench --bench conntrack`. Packets come in bursts of 32, of random connections, as the router has them: all are
//! probed, then all entries are approached, then each is found and updated.

#![allow(clippy::cast_possible_truncation)] // small numbers

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use nuswitch::dataplane::conntrack::binding::{Inside, Slice};
use nuswitch::dataplane::conntrack::tcp::{ACK, SYN, Segment};
use nuswitch::dataplane::conntrack::{
    Bindings, Direction, Entry, Limits, New, Probe, Seen, Settings, Timeouts, Tracker, Tuple, Verdict, Why,
};
use nuswitch::sys::cycles;

const BURST: usize = 32;
const TIMEOUTS: Timeouts =
    Timeouts { tcp_transitory: 240, tcp_established: 7440, tcp_closing: 240, udp: 300, icmp: 60, other: 300 };
const SETTINGS: Settings = Settings { timeouts: TIMEOUTS, pick_up: false, inbound_refresh: false };
const NEW: New = New { guest: 1, inbound: false, epoch: 1, data: [0; 2], binding: None };
const ROUTER: u16 = 1;

fn v4(address: u32) -> u128 {
    0xffff_0000_0000 | u128::from(address)
}

/// The `n`th connection as it leaves its guest: of 16 guests, to 64 servers.
fn outgoing(protocol: u8, n: u32) -> Tuple {
    Tuple {
        zone: ROUTER,
        protocol,
        source: v4(0x0a00_0000 | n & 15 | n >> 20 << 8),
        destination: v4(0xc000_0200 | n >> 4 & 63),
        source_port: 1024 + (n >> 10) as u16,
        destination_port: 443,
    }
}

/// A tracker with its bindings, translating to sixty-four addresses.
struct Nat {
    tracker: Tracker,
    bindings: Bindings,
}

impl Nat {
    fn new(entries: u32) -> Nat {
        let mut bindings = Bindings::new(entries, 0x5eed);
        let pool: Vec<u32> = (0..64).map(|n| 0xc633_6400 | n).collect();
        bindings.set_pool(ROUTER, &pool, Slice::WHOLE);
        let tracker = Tracker::new(Limits { entries, per_guest: entries }, SETTINGS, 0x5eed);
        Nat { tracker, bindings }
    }

    /// A new session with its binding; its reply tuple.
    fn open(&mut self, probe: &Probe, seen: &Seen, now: u32) -> Tuple {
        let original = probe.tuple;
        let inside = Inside {
            zone: ROUTER,
            protocol: original.protocol,
            address: original.source as u32,
            port: original.source_port,
        };
        assert!(self.tracker.find(probe, now).is_none());
        let binding = self.bindings.acquire(&inside).expect("a port");
        let outside = self.bindings.outside(binding).expect("just bound");
        let reply =
            Tuple { destination: v4(outside.address), destination_port: outside.port, ..original.reversed() };
        let bindings = &mut self.bindings;
        let mut gone = |entry: &Entry, _: Why| {
            if let Some(binding) = entry.binding() {
                bindings.release(binding);
            }
        };
        let new = New { binding: Some(binding), ..NEW };
        self.tracker.insert(probe, &reply, &new, seen, now, &mut gone).expect("room");
        reply
    }

    fn sweep(&mut self, now: u32) -> bool {
        let bindings = &mut self.bindings;
        self.tracker.sweep(now, &mut |entry, _| {
            if let Some(binding) = entry.binding() {
                bindings.release(binding);
            }
        })
    }
}

/// Cycles per operation of each burst: their median is what a burst costs while nobody interrupts.
#[derive(Default)]
struct Samples(Vec<f32>);

impl Samples {
    fn add(&mut self, taken: u64, operations: usize) {
        self.0.push(taken as f32 / operations as f32);
    }

    fn report(mut self, name: &str) {
        if self.0.is_empty() {
            return; // criterion's filter left this bench out
        }
        self.0.sort_by(f32::total_cmp);
        let at = |share: f64| self.0[(self.0.len() as f64 * share) as usize];
        println!("{name}: {:.1} cycles (median; a tenth of the bursts below {:.1})", at(0.5), at(0.1));
    }
}

fn seen(protocol: u8, flags: u8, seq: u32, ack: u32) -> Seen {
    let segment = Segment { seq, ack, len: 0, window: 8192, flags, scale: None };
    Seen { bytes: 64, tcp: (protocol == 6).then_some(segment) }
}

/// A packet of an established connection: found, counted, refreshed.
fn established(c: &mut Criterion, protocol: u8, connections: u32) {
    let name =
        format!("established {}, {connections} connections", if protocol == 6 { "TCP" } else { "UDP" });
    let mut nat = Nat::new(connections);
    let mut now = 1000;
    let mut replies = Vec::new();
    for n in 0..connections {
        let probe = nat.tracker.probe(&outgoing(protocol, n));
        let reply = nat.open(&probe, &seen(protocol, SYN, 99, 0), now);
        let (at, _) = nat.tracker.find(&probe, now).expect("tracked");
        let answer = seen(protocol, SYN | ACK, 499, 100);
        assert_eq!(nat.tracker.update(at, Direction::Reply, &answer, now), Verdict::Pass);
        let last = seen(protocol, ACK, 100, 500);
        assert_eq!(nat.tracker.update(at, Direction::Original, &last, now), Verdict::Pass);
        replies.push(reply);
    }
    let (mut samples, mut random, mut bursts) = (Samples::default(), 1u32, 0u32);
    let mut group = c.benchmark_group("conntrack");
    group.throughput(Throughput::Elements(BURST as u64));
    group.bench_function(&name, |b| {
        b.iter(|| {
            let packets: [(Tuple, Seen); BURST] = std::array::from_fn(|_| {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let n = ((u64::from(random) * u64::from(connections)) >> 32) as u32;
                if random & 0x100 == 0 {
                    (outgoing(protocol, n), seen(protocol, ACK, 100, 500))
                } else {
                    (replies[n as usize], seen(protocol, ACK, 500, 100))
                }
            });
            bursts += 1;
            now += u32::from(bursts.is_multiple_of(20_000));
            let tracker = &mut nat.tracker;
            let before = cycles();
            let probes: [Probe; BURST] = std::array::from_fn(|n| tracker.probe(&packets[n].0));
            for probe in &probes {
                tracker.approach(probe);
            }
            let mut passed = 0;
            for (probe, (_, seen)) in probes.iter().zip(&packets) {
                if let Some((at, direction)) = tracker.find(probe, now)
                    && tracker.update(at, direction, seen, now) == Verdict::Pass
                {
                    passed += 1;
                }
            }
            samples.add(cycles() - before, BURST);
            assert_eq!(passed, BURST);
        });
    });
    group.finish();
    samples.report(&name);
}

/// A packet of no connection: what a scan costs before anything is decided.
fn unknown(c: &mut Criterion, connections: u32) {
    let name = format!("unknown, {connections} connections");
    let mut nat = Nat::new(connections);
    for n in 0..connections {
        let probe = nat.tracker.probe(&outgoing(17, n));
        nat.open(&probe, &seen(17, 0, 0, 0), 0);
    }
    let (mut samples, mut n) = (Samples::default(), connections);
    c.bench_function(&name, |b| {
        b.iter(|| {
            let tuples: [Tuple; BURST] = std::array::from_fn(|at| outgoing(6, n + at as u32));
            n = n.wrapping_add(BURST as u32) & 0xff_ffff;
            let before = cycles();
            let probes: [Probe; BURST] = std::array::from_fn(|at| nat.tracker.probe(&tuples[at]));
            let found = probes.iter().filter(|probe| nat.tracker.find(probe, 0).is_some()).count();
            samples.add(cycles() - before, BURST);
            assert_eq!(found, 0);
        });
    });
    samples.report(&name);
}

/// New sessions, each with a binding of its own, and what their end costs.
fn new_sessions(c: &mut Criterion, entries: u32) {
    let name = format!("new session with a binding, up to {entries}");
    let mut nat = Nat::new(entries);
    let (mut opened, mut ended) = (Samples::default(), Samples::default());
    let (mut n, mut now) = (0, 1000);
    c.bench_function(&name, |b| {
        b.iter(|| {
            if nat.tracker.len() as usize + BURST > entries as usize {
                now += 301;
                loop {
                    let (had, before) = (nat.tracker.len(), cycles());
                    let more = nat.sweep(now);
                    let taken = cycles() - before;
                    let gone = had - nat.tracker.len();
                    if gone > 0 {
                        ended.add(taken, gone as usize);
                    }
                    if !more {
                        break;
                    }
                }
                assert!(nat.tracker.is_empty() && nat.bindings.is_empty());
            }
            let tuples: [Tuple; BURST] = std::array::from_fn(|at| outgoing(17, n + at as u32));
            n = n.wrapping_add(BURST as u32) & 0xff_ffff;
            let before = cycles();
            let probes: [Probe; BURST] = std::array::from_fn(|at| nat.tracker.probe(&tuples[at]));
            for probe in &probes {
                nat.open(probe, &seen(17, 0, 0, 0), now);
            }
            opened.add(cycles() - before, BURST);
        });
    });
    opened.report(&name);
    ended.report(&format!("expiry with a binding, {entries} at once"));
}

fn conntrack(c: &mut Criterion) {
    for connections in [10_000, 1_000_000] {
        for protocol in [17, 6] {
            established(c, protocol, connections);
        }
        unknown(c, connections);
    }
    for entries in [10_016, 1_000_000] {
        new_sessions(c, entries);
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = conntrack
}
criterion_main!(benches);
