//! The path alone, on frames in memory: cycles per packet (of the time stamp counter) beside criterion's nanoseconds.
//!
//! `cargo bench --bench path`. A burst is made once, goes through `process`, and what stands in `Out` goes into the next
//! burst, so nothing but the path is measured.

#![allow(clippy::cast_possible_truncation)] // small numbers

use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use nuswitch::dataplane::out::Out;
use nuswitch::dataplane::tracer::Silent;
use nuswitch::dataplane::{Shard, process};
use nuswitch::frame::{Burst, Pool};
use nuswitch::ports::Caps;
use nuswitch::stats::PortCounters;
use nuswitch::sys::cycles;
use nuswitch::tables::{NetEntry, PortEntry, Tables, Segments};
use nuswitch::types::{Instant, Mac, NetIdx, PortIdx, VlanId, WorkerIdx};

const CAPS: Caps = Caps { checksum: true, tso: true, uso: true, mtu: 1500 };

fn port(name: &str, segments: Segments) -> Option<PortEntry> {
    Some(PortEntry {
        name: name.into(),
        worker: WorkerIdx(0),
        up: true,
        segments,
        caps: CAPS,
        plain_len: 1514,
        mac_limit: u32::MAX,
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
        name: "blue".into(),
        vlan: VlanId::new(120),
        members,
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

fn mac(side: u8, n: u32) -> Mac {
    let [_, a, b, c] = n.to_be_bytes();
    Mac([0x02, side, 0, a, b, c])
}

fn frame(destination: Mac, source: Mac, tag: bool) -> Vec<u8> {
    let mut bytes = [destination.0, source.0].concat();
    if tag {
        bytes.extend([0x81, 0, 0, 120]);
    }
    bytes.extend([0x08, 0x00]);
    bytes.resize(60, 0);
    bytes
}

/// The path with its memory, and the frames that go round in it.
struct Bench {
    tables: Tables,
    shard: Shard,
    out: Out,
    cycles: u64,
    /// Cycles per packet of each burst: their median is what a burst costs while nobody interrupts.
    samples: Vec<f32>,
}

impl Bench {
    fn new(tables: Tables) -> Bench {
        let pool = Pool::with_chunks(4096, 0).expect("memory");
        let mut shard = Shard::new(pool, 0x5eed);
        shard.sync(&tables);
        let mut out = Out::default();
        out.make_room(tables.ports.len());
        Bench { tables, shard, out, cycles: 0, samples: Vec::with_capacity(1 << 20) }
    }

    fn is_trunk(&self, port: PortIdx) -> bool {
        self.tables.port(port).is_some_and(|port| matches!(port.segments, Segments::Trunk { .. }))
    }

    fn send(&mut self, burst: &mut Burst, from: PortIdx) {
        let count = burst.len() as u64;
        let before = cycles();
        process(burst, from, &self.tables, &mut self.shard, Instant(0), &mut self.out, &mut Silent);
        let taken = cycles() - before;
        self.cycles += taken;
        if self.samples.len() < self.samples.capacity() {
            self.samples.push(taken as f32 / count as f32);
        }
    }

    fn collect(&mut self) {
        self.out.flush(|_, queue| queue.clear());
    }

    fn report(&mut self, name: &str) {
        if self.samples.is_empty() {
            return; // criterion's filter left this bench out
        }
        self.samples.sort_by(f32::total_cmp);
        let at = |share: f64| self.samples[(self.samples.len() as f64 * share) as usize];
        println!(
            "{name}: {:.1} cycles per packet (median; a tenth of the bursts below {:.1})",
            at(0.5),
            at(0.1)
        );
    }
}

/// Half of `macs` stations on each side (at least one), every one talking to its opposite.
/// Stations on trunks are tagged.
fn unicast(c: &mut Criterion, name: &str, tables: fn() -> Tables, macs: u32, burst: usize) {
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

fn path(c: &mut Criterion) {
    let plain = || tables(vec![access("a"), access("b")]);
    for burst in [1, 32] {
        for macs in [1, 1_000, 100_000] {
            unicast(c, "known unicast", plain, macs, burst);
        }
        unicast(c, "vlan push", || tables(vec![access("a"), trunk("b")]), 1_000, burst);
        unicast(c, "vlan pop", || tables(vec![trunk("a"), access("b")]), 1_000, burst);
    }
    flood(c);
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = path
}
criterion_main!(benches);
