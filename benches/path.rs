//! The path alone, on frames in memory: cycles per packet (of the time stamp counter) beside criterion's nanoseconds.
//!
//! `cargo bench --bench path`.

#![allow(clippy::cast_possible_truncation)] // small numbers

mod burst;

use std::collections::HashMap;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use burst::{Bench, CAPS, frame, mac, port_of, tables_of};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use nuswitch::dataplane::process;
use nuswitch::dataplane::tracer::Silent;
use nuswitch::frame::Burst;
use nuswitch::stats::PortCounters;
use nuswitch::sys::cycles;
use nuswitch::tables::security::{Claims, Guard, Station};
use nuswitch::tables::{NetEntry, PortEntry, Segments, Tables};
use nuswitch::types::{Instant, Mac, NetIdx, PortIdx, VlanId, WorkerIdx};
use nuswitch::wire::checksum::Sum;

fn port(name: &str, segments: Segments) -> Option<PortEntry> {
    Some(PortEntry {
        name: name.into(),
        worker: WorkerIdx(0),
        up: true,
        segments,
        caps: CAPS,
        plain_len: 1514,
        mac_limit: u32::MAX,
        guest: None,
        guard: None,
        counters: Arc::new(PortCounters::default()),
    })
}

fn access(name: &str) -> Option<PortEntry> {
    port(name, Segments::Access(NetIdx(0)))
}

fn trunk(name: &str) -> Option<PortEntry> {
    let mut by_id = vec![None; 4096].into_boxed_slice();
    by_id[120] = Some(NetIdx(0));
    port(name, Segments::Trunk { native: None, by_id })
}

fn tables(ports: Vec<Option<PortEntry>>) -> Tables {
    let members = (0..ports.len() as u16).map(PortIdx).collect();
    let network = NetEntry {
        hosts: HashMap::new(),
        name: "blue".into(),
        vlan: VlanId::new(120),
        members,
        belongs: vec![u64::MAX; 1],
        serves: Default::default(),
        routers_advertising: Vec::new(),
        tunnels: None,
        mtu: 1500,
        plain_len: 1514,
        mac_limit: u32::MAX,
    };
    let networks = vec![Some(network)];
    Tables {
        epoch: 1,
        fdb_epoch: 1,
        ports,
        networks,
        mac_aging_time: 300,
        fdb_capacity: 1 << 17,
        ..Tables::default()
    }
}

/// An IPv4 packet of the guest that [`guarded`] knows.
fn packet(destination: Mac, source: Mac, tag: bool) -> Vec<u8> {
    let mut bytes = frame(destination, source, tag);
    bytes[14..30].copy_from_slice(&[0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 5]);
    bytes
}

/// As [`packet`], of IPv6.
fn packet6(destination: Mac, source: Mac, tag: bool) -> Vec<u8> {
    let mut bytes = frame(destination, source, tag);
    bytes[12..22].copy_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, 6, 64]);
    bytes.resize(74, 0);
    bytes[22..38].copy_from_slice(&ADDRESS6.octets());
    bytes
}

const ADDRESS6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 5);

/// Two ports, the first of them with port security for one MAC and address.
fn guarded() -> Tables {
    let mut ports = vec![access("a"), access("b")];
    let v4 = vec!["10.0.0.5/32".parse().expect("an address")];
    let station = Station { mac: mac(1, 0), v4, v6: vec![ADDRESS6.into()] };
    let claims = Claims { stations: vec![station], any_address: false };
    if let Some(port) = &mut ports[0] {
        port.guard = Some(Arc::new(Guard { claims, policy: None }));
    }
    tables(ports)
}

/// Makes a frame to a MAC from another, tagged or not.
type Make = fn(Mac, Mac, bool) -> Vec<u8>;

/// Half of `macs` stations on each side (at least one), every one talking to its opposite.
/// Stations on trunks are tagged.
fn unicast(c: &mut Criterion, name: &str, (tables, frame): (fn() -> Tables, Make), macs: u32, burst: usize) {
    let pairs = (macs / 2).max(1);
    let mut bench = Bench::new(tables());
    let now = Instant(0);
    for n in 0..pairs {
        for (side, from) in [(1, PortIdx(0)), (2, PortIdx(1))] {
            let bytes = frame(mac(3 - side, n), mac(side, n), bench.is_trunk(from));
            let mut one: Burst = bench.shard.pool.frame_from(&bytes).into_iter().collect();
            process(&mut one, from, &bench.tables, &mut bench.shard, now, &mut bench.out, &mut Silent);
            bench.collect();
        }
        bench.shard.events.clear();
    }
    let tag = bench.is_trunk(PortIdx(0));
    let mut n = 0u32;
    let mut step = |bench: &mut Bench| {
        let mut frames = Burst::new();
        for _ in 0..burst {
            n = (n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223)) % pairs.next_power_of_two();
            let n = if n >= pairs { n - pairs } else { n };
            frames.extend(bench.shard.pool.frame_from(&frame(mac(2, n), mac(1, n), tag)));
        }
        bench.send(&mut frames, PortIdx(0));
        bench.shard.events.clear();
        bench.collect();
    };
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Elements(burst as u64));
    group.bench_function(BenchmarkId::new(format!("{macs} MACs"), format!("burst {burst}")), |b| {
        b.iter_custom(|iterations| {
            let before = bench.cycles;
            let (start, t0) = (Clock::now(), cycles());
            for _ in 0..iterations {
                step(&mut bench);
            }
            // Only the path's share of the time.
            let all = (cycles() - t0).max(1);
            start.elapsed().mul_f64((bench.cycles - before) as f64 / all as f64).max(Duration::from_nanos(1))
        });
    });
    group.finish();
    let flooded = bench.tables.port(PortIdx(0)).map(|port| port.counters.flooded.get());
    assert_eq!(
        flooded,
        Some(u64::from(pairs)),
        "a first frame is flooded, as its destination has not spoken yet"
    );
    bench.report(&format!("{name}, {macs} MACs, burst {burst}"));
}

fn flood(c: &mut Criterion) {
    let ports = (0..9).map(|n| access(&format!("p{n}"))).collect();
    let mut bench = Bench::new(tables(ports));
    let bytes = frame(Mac::BROADCAST, mac(1, 1), false);
    c.bench_function("flood to 8, burst 32", |b| {
        b.iter(|| {
            let mut frames: Burst = (0..32).filter_map(|_| bench.shard.pool.frame_from(&bytes)).collect();
            bench.send(&mut frames, PortIdx(0));
            bench.collect();
        });
    });
    bench.report("flood to 8, burst 32");
}

/// Networks in tunnels, a port each, and ten peers that have all of them.
struct Overlay {
    bench: Bench,
    networks: u32,
    /// Remote MACs of each network.
    macs: u32,
}

const VTEP: Mac = Mac([2, 0, 0, 0, 0xee, 1]);
const PEERS: u32 = 10;

/// The slot of the underlay's device: devices come before ports.
fn underlay_port(tables: &Tables) -> PortIdx {
    tables.underlay.as_ref().expect("an underlay").port
}

impl Overlay {
    fn new(networks: u32, macs: u32) -> Overlay {
        let peers: Vec<String> = (0..PEERS).map(|n| format!("\"192.0.2.{}\"", 100 + n)).collect();
        let mut text = format!(
            "[overlay]\ninterface = \"u\"\nlocal_ip = \"192.0.2.10/24\"\npeers = [{}]\n",
            peers.join(", ")
        );
        for n in 0..networks {
            text += &format!(
                "[[network]]\nname = \"n{n}\"\nnetwork_type = \"vxlan\"\nsegmentation_id = {}\nmac_limit = 131072\n\
                 [[port]]\nname = \"p{n}\"\nnetwork = \"n{n}\"\ninterface = {{ kind = \"tap\", name = \"t{n}\" }}\n\
                 mac_address = \"{}\"\n",
                1000 + n * 7,
                Overlay::local(n)
            );
        }
        let tables = tables_of(&text, VTEP);
        for tunnel in tables.ports.iter().flatten().filter_map(PortEntry::tunnel) {
            tunnel.state.set_next_hop(Some(Mac([2, 0, 0, 0, 0xee, 2])));
        }
        let mut overlay = Overlay { bench: Bench::new(tables), networks, macs: macs / networks };
        for network in 0..networks {
            for n in 0..overlay.macs {
                let packet = overlay.packet(network, n);
                overlay.one(packet);
            }
        }
        overlay
    }

    fn local(network: u32) -> Mac {
        mac(1, network)
    }

    /// An inner frame: IPv4, UDP, a flow of its own for each MAC.
    fn inner(to: Mac, from: Mac, flow: u32) -> Vec<u8> {
        let mut bytes = frame(to, from, false);
        bytes[14..24].copy_from_slice(&[0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, 17]);
        bytes[26..30].copy_from_slice(&flow.to_be_bytes());
        bytes
    }

    /// What the peer sends that has the `n`th remote MAC of a network.
    fn packet(&self, network: u32, n: u32) -> Vec<u8> {
        let inner = Overlay::inner(Overlay::local(network), mac(2, network << 12 | n), n);
        let peer = 100 + (n % PEERS) as u8;
        let vni = (1000 + network * 7) << 8;
        let mut ip = vec![0x45, 0, 0, 96, 0, 0, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, peer, 192, 0, 2, 10];
        let sum = Sum::of(&ip).checksum().to_be_bytes();
        ip[10..12].copy_from_slice(&sum);
        let udp = [0xc0, n as u8, 0x12, 0xb5, 0, 76, 0, 0, 8, 0, 0, 0];
        [&VTEP.0[..], &[2, 0, 0, 0, 0xee, 2, 8, 0], &ip, &udp, &vni.to_be_bytes(), &inner].concat()
    }

    fn port(&self, network: u32) -> PortIdx {
        port_of(&self.bench.tables, &format!("p{network}"))
    }

    fn one(&mut self, packet: Vec<u8>) {
        let mut burst: Burst = self.bench.shard.pool.frame_from(&packet).into_iter().collect();
        let port = underlay_port(&self.bench.tables);
        let bench = &mut self.bench;
        process(&mut burst, port, &bench.tables, &mut bench.shard, Instant(0), &mut bench.out, &mut Silent);
        bench.collect();
        bench.shard.events.clear();
    }

    fn run(mut self, c: &mut Criterion, name: &str, burst: usize, encapsulate: bool) {
        let ports: Vec<PortIdx> = (0..self.networks).map(|network| self.port(network)).collect();
        let (mut n, total) = (0u32, self.networks * self.macs);
        let mut next = move || {
            n = n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (n >> 8) % total
        };
        let label = format!("{name}, {} networks, {total} remote MACs, burst {burst}", self.networks);
        c.bench_function(&label, |b| {
            b.iter(|| {
                let first = next();
                let mut frames = Burst::new();
                let from = if encapsulate {
                    ports[(first / self.macs) as usize]
                } else {
                    underlay_port(&self.bench.tables)
                };
                for _ in 0..burst {
                    let at = next();
                    let (network, n) = (at / self.macs, at % self.macs);
                    let bytes = if encapsulate {
                        let network = first / self.macs;
                        Overlay::inner(mac(2, network << 12 | n), Overlay::local(network), n)
                    } else {
                        self.packet(network, n)
                    };
                    frames.extend(self.bench.shard.pool.frame_from(&bytes));
                }
                self.bench.send(&mut frames, from);
                self.bench.shard.events.clear();
                self.bench.collect();
            });
        });
        if !self.bench.samples.is_empty() {
            self.bench.shard.tally.flush(&self.bench.tables);
            let all: u64 = self.bench.tables.ports.iter().flatten().map(|p| p.counters.forwarded.get()).sum();
            assert!(all > 0, "frames pass");
            for port in self.bench.tables.ports.iter().flatten().filter(|_| encapsulate) {
                assert_eq!(port.counters.flooded.get(), 0, "every destination is known");
            }
        }
        self.bench.report(&label);
    }
}

fn path(c: &mut Criterion) {
    let plain: fn() -> Tables = || tables(vec![access("a"), access("b")]);
    let push: fn() -> Tables = || tables(vec![access("a"), trunk("b")]);
    let pop: fn() -> Tables = || tables(vec![trunk("a"), access("b")]);
    for burst in [1, 32] {
        for macs in [1, 1_000, 100_000] {
            unicast(c, "known unicast", (plain, frame), macs, burst);
        }
        unicast(c, "known unicast of IPv4", (plain, packet), 1, burst);
        unicast(c, "known unicast with port security", (guarded, packet), 1, burst);
        unicast(c, "known unicast of IPv6 with port security", (guarded, packet6), 1, burst);
        unicast(c, "vlan push", (push, frame), 1_000, burst);
        unicast(c, "vlan pop", (pop, frame), 1_000, burst);
    }
    flood(c);
    for (networks, macs) in [(1, 1_000), (1_000, 100_000)] {
        Overlay::new(networks, macs).run(c, "vxlan encapsulation", 32, true);
        Overlay::new(networks, macs).run(c, "vxlan decapsulation", 32, false);
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = path
}
criterion_main!(benches);
