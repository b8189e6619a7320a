//! The router on frames in memory: cycles per packet (of the time stamp counter) beside criterion's nanoseconds.
//!
//! `cargo bench --bench router`. Packets come in bursts of 32 of random connections, out and back by halves where they are
//! translated; all from bridging in to bridging out is counted.

#![allow(clippy::cast_possible_truncation)] // small numbers

mod burst;

use std::net::Ipv4Addr;
use std::time::Duration;

use burst::{Bench, port_of, tables_of};
use criterion::{Criterion, criterion_group, criterion_main};
use nuswitch::dataplane::tracer::Silent;
use nuswitch::dataplane::{gateway, process};
use nuswitch::frame::{BURST, Burst};
use nuswitch::types::{Instant, Mac, PortIdx, WorkerIdx};
use nuswitch::wire::checksum::Sum;

const GUESTS: u32 = 16;
const WORLD: Mac = Mac([2, 0, 0, 0, 0xff, 1]);
const LAB: &str = r#"
[conntrack]
max_entries = ENTRIES
max_entries_per_guest = ENTRIES

[[physical_network]]
name = "provider"
interface = "eth1"

[[network]]
name = "public"
network_type = "flat"
physical_network = "provider"
external = true

[[subnet]]
name = "public-v4"
network = "public"
cidr = "203.0.113.0/24"
gateway_ip = "203.0.113.1"

[[network]]
name = "blue"

[[subnet]]
name = "blue-v4"
network = "blue"
cidr = "10.0.0.0/24"

[[network]]
name = "green"

[[subnet]]
name = "green-v4"
network = "green"
cidr = "10.0.1.0/24"

[[router]]
name = "edge"
interfaces = ["blue-v4", "green-v4"]
[router.external_gateway]
network = "public"
external_fixed_ips = [SNAT]
"#;

/// Entries where none are configured, which is what has less.
const DEFAULT: u32 = 262_144;
/// SNAT addresses: a protocol has some 64 000 ports at each.
const POOL: u32 = 32;

/// Sixteen guests on each of two networks of a router, with a neighbour that is the world.
struct Lab {
    bench: Bench,
    router: Mac,
    gateway: Mac,
}

#[derive(Clone, Copy)]
struct Packet {
    source: Ipv4Addr,
    destination: Ipv4Addr,
    ports: (u16, u16),
}

fn guest(network: u8, n: u32) -> Mac {
    Mac([2, network, 0, 0, 0, n as u8 + 10])
}

fn address(network: u8, n: u32) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, network, n as u8 + 10)
}

impl Lab {
    fn new(floating: bool, connections: u32) -> Lab {
        let pool: Vec<String> = (0..POOL).map(|n| format!("\"203.0.113.{}\"", 100 + n)).collect();
        let mut text =
            LAB.replace("SNAT", &pool.join(", ")).replace("ENTRIES", &connections.max(DEFAULT).to_string());
        for (network, name) in [(0, "blue"), (1, "green")] {
            for n in 0..GUESTS {
                text += &format!(
                    "[[port]]\nname = \"{name}{n}\"\nnetwork = \"{name}\"\nfixed_ips = [\"{}\"]\nmac_address = \"{}\"\n\
                     interface = {{ kind = \"tap\", name = \"{name}{n}\" }}\n",
                    address(network, n),
                    guest(network, n),
                );
                if floating && network == 0 {
                    text += &format!(
                        "[[floating_ip]]\nfloating_network = \"public\"\nport = \"{name}{n}\"\nfloating_ip_address = \"203.0.113.{}\"\n",
                        10 + n
                    );
                }
            }
        }
        let mut lab = Lab::of(&text);
        for network in [0, 1] {
            for n in 0..GUESTS {
                let hello = burst::frame(Mac::BROADCAST, guest(network, n), false);
                lab.one(&hello, lab.port(network, n));
            }
        }
        lab
    }

    /// A configuration's, whose neighbour is known.
    fn of(text: &str) -> Lab {
        let tables = tables_of(text, WORLD);
        let mac = |name: &str| {
            let port = tables.ports.iter().flatten().find(|port| *port.name == *name).expect("an interface");
            port.interface().expect("a router's").mac
        };
        let (router, gateway) = (mac("edge/blue-v4"), mac("edge/public-v4"));
        let mut lab = Lab { bench: Bench::new(tables), router, gateway };
        lab.with_shard(|tables, shard, out| gateway::configure(tables, shard, WorkerIdx(0), Instant(0), out));
        lab.bench.collect();
        // The world's router says where it is.
        let mut arp = [Mac::BROADCAST.0, WORLD.0].concat();
        arp.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
        arp.extend([&WORLD.0[..], &[203, 0, 113, 1], &lab.gateway.0, &[203, 0, 113, 100]].concat());
        arp[..6].copy_from_slice(&lab.gateway.0);
        arp.resize(60, 0);
        lab.one(&arp, lab.world());
        lab
    }

    fn with_shard(
        &mut self,
        mut act: impl FnMut(
            &nuswitch::tables::Tables,
            &mut nuswitch::dataplane::Shard,
            &mut nuswitch::dataplane::out::Out,
        ),
    ) {
        let bench = &mut self.bench;
        act(&bench.tables, &mut bench.shard, &mut bench.out);
        bench.shard.events.clear();
    }

    fn world(&self) -> PortIdx {
        port_of(&self.bench.tables, "provider")
    }

    fn port(&self, network: u8, n: u32) -> PortIdx {
        port_of(&self.bench.tables, &format!("{}{n}", if network == 0 { "blue" } else { "green" }))
    }

    /// A frame of its own; what the switch sends for it is lost.
    fn one(&mut self, bytes: &[u8], from: PortIdx) {
        let mut burst: Burst = self.bench.shard.pool.frame_from(bytes).into_iter().collect();
        self.with_shard(|tables, shard, out| {
            process(&mut burst, from, tables, shard, Instant(0), out, &mut Silent);
            gateway::serve(tables, shard, Instant(0), out);
        });
        self.bench.collect();
    }

    fn udp(&self, packet: &Packet, from: Mac, to: Mac) -> Vec<u8> {
        let mut bytes = [to.0, from.0].concat();
        let mut ip = vec![8, 0, 0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, 17, 0, 0];
        ip.extend([packet.source.octets(), packet.destination.octets()].concat());
        let sum = Sum::of(&ip[2..]).checksum().to_be_bytes();
        ip[12..14].copy_from_slice(&sum);
        bytes.extend(ip);
        bytes.extend(
            [packet.ports.0.to_be_bytes(), packet.ports.1.to_be_bytes(), [0, 26], [0x12, 0x34]].concat(),
        );
        bytes.resize(60, 0);
        bytes
    }

    /// From a blue guest.
    fn out(&self, packet: &Packet) -> Vec<u8> {
        self.udp(packet, guest(0, u32::from(packet.source.octets()[3]) - 10), self.router)
    }

    /// To the world's side of the router.
    fn back(&self, packet: &Packet) -> Vec<u8> {
        self.udp(packet, WORLD, self.gateway)
    }

    /// The answer to what left for the world.
    fn answer(&mut self, packet: &Packet) -> Packet {
        let bytes = self.out(packet);
        let from = self.port(0, u32::from(packet.source.octets()[3]) - 10);
        let mut burst: Burst = self.bench.shard.pool.frame_from(&bytes).into_iter().collect();
        let world = self.world();
        let mut sent = None;
        self.with_shard(|tables, shard, out| {
            process(&mut burst, from, tables, shard, Instant(0), out, &mut Silent);
            sent = out.take(world).pop();
        });
        self.bench.collect();
        let sent = sent.unwrap_or_else(|| panic!("dropped: {:?}", self.bench.shard.last_drop));
        let head = sent.head();
        let ip = |at: usize| Ipv4Addr::from(*head[at..].first_chunk::<4>().expect("a header"));
        let port = |at: usize| u16::from_be_bytes(*head[at..].first_chunk().expect("a header"));
        Packet { source: ip(30), destination: ip(26), ports: (port(36), port(34)) }
    }
}

/// The `n`th connection: of sixteen guests, to servers all over the world.
fn connection(n: u32) -> Packet {
    Packet {
        source: address(0, n % GUESTS),
        destination: Ipv4Addr::from_bits(0x0808_0000 + (n >> 4 & 0xff)),
        ports: (1024 + (n >> 12) as u16 % 60_000, 443),
    }
}

/// Mappings of one guest: at most so many as it may have.
const MAPPINGS: u32 = 32_000;

struct Random(u32);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((u64::from(self.0) * u64::from(bound)) >> 32) as u32
    }
}

/// Sends bursts that `make` fills. What criterion's filter leaves out is not even set up.
fn run<S>(
    c: &mut Criterion,
    (setup, lab): (impl Fn() -> S, impl Fn(&mut S) -> &mut Lab),
    name: &str,
    mut make: impl FnMut(&mut S) -> (PortIdx, Vec<Vec<u8>>),
) {
    let mut state = None;
    c.bench_function(name, |b| {
        let state = state.get_or_insert_with(&setup);
        b.iter(|| {
            let (from, packets) = make(state);
            let bench = &mut lab(state).bench;
            let mut frames: Burst =
                packets.iter().filter_map(|bytes| bench.shard.pool.frame_from(bytes)).collect();
            bench.send(&mut frames, from);
            assert_eq!(bench.out.pending(), packets.len(), "{:?}", bench.shard.last_drop);
            bench.shard.events.clear();
            bench.collect();
        });
    });
    if let Some(state) = &mut state {
        lab(state).bench.report(name);
    }
}

fn routed(c: &mut Criterion) {
    let mut random = Random(1);
    run(c, (|| Lab::new(false, 0), |lab| lab), "routed", |lab| {
        let n = random.below(GUESTS);
        let of = |to| Packet { source: address(0, n), destination: address(1, to), ports: (7, 7) };
        let packets = (0..BURST).map(|_| lab.out(&of(random.below(GUESTS)))).collect();
        (lab.port(0, n), packets)
    });
}

/// A lab with connections that packets have passed both ways.
struct Established {
    lab: Lab,
    answers: Vec<Packet>,
    ports: Vec<PortIdx>,
}

impl Established {
    fn new(floating: bool, connections: u32) -> Established {
        let mut lab = Lab::new(floating, connections);
        let answers: Vec<Packet> = (0..connections).map(|n| lab.answer(&connection(n))).collect();
        for answer in &answers {
            let back = lab.back(answer);
            lab.one(&back, lab.world());
        }
        let ports = (0..GUESTS).map(|n| lab.port(0, n)).collect();
        Established { lab, answers, ports }
    }
}

fn established(c: &mut Criterion, floating: bool, connections: u32) {
    let kind = if floating { "floating IP" } else { "SNAT" };
    let setup = || Established::new(floating, connections);
    fn lab(state: &mut Established) -> &mut Lab {
        &mut state.lab
    }
    let mut random = Random(1);
    run(c, (setup, lab), &format!("{kind} out, {connections} connections"), |state| {
        let guest = random.below(GUESTS);
        let of = |n: u32| connection(n / GUESTS * GUESTS + guest);
        let packets = (0..BURST).map(|_| state.lab.out(&of(random.below(connections)))).collect();
        (state.ports[guest as usize], packets)
    });
    run(c, (setup, lab), &format!("{kind} back, {connections} connections"), |state| {
        let answer = |n: u32| state.lab.back(&state.answers[n as usize]);
        let packets = (0..BURST).map(|_| answer(random.below(connections))).collect();
        (state.lab.world(), packets)
    });
}

fn new_sessions(c: &mut Criterion) {
    let mut n = 0;
    run(c, (|| Lab::new(false, MAPPINGS * GUESTS), |lab| lab), "SNAT, new sessions", |lab| {
        let translator = lab.bench.shard.nat.as_mut().expect("a translator");
        if translator.tracker.len() > MAPPINGS * GUESTS - BURST as u32 {
            translator.flush(|_| true);
            n = 0;
        }
        // Each with an inside endpoint of its own, so each needs a mapping.
        let (burst, guest) = (n / GUESTS, n % GUESTS);
        n += 1;
        let of = |at: u32| Packet {
            source: address(0, guest),
            destination: Ipv4Addr::new(8, 8, 8, 8),
            ports: (1024 + (burst * BURST as u32 + at) as u16, 53),
        };
        let packets = (0..BURST as u32).map(|at| lab.out(&of(at))).collect();
        (lab.port(0, guest), packets)
    });
}

/// Guests of [`crowd`], and how many connections stand in the end; room for four times as many.
const CROWD: (u32, u32) = (1000, 1 << 20);

/// A thousand guests behind one port, and tables for four million connections that nobody has touched yet.
fn crowd() -> Lab {
    let pool: Vec<String> = (0..64).map(|n| format!("\"203.0.113.{}\"", 100 + n)).collect();
    let text = LAB.replace("SNAT", &pool.join(", ")).replace("ENTRIES", &(CROWD.1 * 4).to_string());
    let text = text.replace("10.0.0.0/24", "198.18.0.0/16");
    let port =
        "[[port]]\nname = \"blue0\"\nnetwork = \"blue\"\ninterface = { kind = \"tap\", name = \"blue0\" }\n";
    let mut lab = Lab::of(&(text + port));
    lab.one(&burst::frame(Mac::BROADCAST, guest(0, 0), false), lab.port(0, 0));
    lab
}

/// As on the wire: each guest in turn begins a connection, to a server of its own, until a million stand. First touches of
/// memory are counted, so the mean says more than the median.
fn crowded(c: &mut Criterion) {
    let name = "SNAT, new sessions of 1000 guests, cold tables";
    let (mut lab, mut n, mut samples) = (None, 0, Vec::new());
    c.bench_function(name, |b| {
        b.iter(|| {
            if n + BURST as u32 > CROWD.1 {
                samples.append(&mut lab.take().map_or(Vec::new(), |lab: Lab| lab.bench.samples));
                n = 0;
            }
            let lab = lab.get_or_insert_with(crowd);
            let of = |n: u32| {
                let (guest, at) = (n % CROWD.0, n / CROWD.0);
                let [.., high, low] = (256 + guest).to_be_bytes();
                Packet {
                    source: Ipv4Addr::new(198, 18, high, low),
                    destination: Ipv4Addr::new(198, 19, high, low),
                    ports: (1024 + ((at + guest * 61) % 64_512) as u16, 9),
                }
            };
            let packets: Vec<_> =
                (n..n + BURST as u32).map(|n| lab.udp(&of(n), guest(0, 0), lab.router)).collect();
            n += BURST as u32;
            let from = lab.port(0, 0);
            let bench = &mut lab.bench;
            let mut frames: Burst =
                packets.iter().filter_map(|bytes| bench.shard.pool.frame_from(bytes)).collect();
            bench.send(&mut frames, from);
            assert_eq!(bench.out.pending(), packets.len(), "{:?}", bench.shard.last_drop);
            bench.collect();
        });
    });
    if let Some(mut lab) = lab {
        lab.bench.samples.append(&mut samples);
        let samples = &lab.bench.samples;
        println!(
            "{name}: mean {:.1} cycles",
            samples.iter().map(|s| f64::from(*s)).sum::<f64>() / samples.len() as f64
        );
        lab.bench.report(name);
    }
}

fn router(c: &mut Criterion) {
    routed(c);
    for floating in [false, true] {
        for connections in [10_000, 1_000_000] {
            established(c, floating, connections);
        }
    }
    new_sessions(c);
    crowded(c);
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = router
}
criterion_main!(benches);
