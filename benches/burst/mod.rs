//! The path on frames in memory, as the benches of this folder have it: a burst is made, goes through `process`, and what
//! stands in `Out` goes back into the pool, so nothing but the path is measured.

#![allow(clippy::cast_possible_truncation, dead_code, unreachable_pub)] // small numbers; each bench has its part of this

use std::collections::HashMap;
use std::sync::Arc;

use nuswitch::dataplane::out::Out;
use nuswitch::dataplane::tracer::Silent;
use nuswitch::dataplane::{Shard, process};
use nuswitch::frame::{Burst, Pool};
use nuswitch::model::{self, AttachmentKey};
use nuswitch::ports::Caps;
use nuswitch::sys::cycles;
use nuswitch::tables::compile::{Device, Places, compile};
use nuswitch::tables::{Segments, Tables};
use nuswitch::types::{Instant, Mac, PortIdx, WorkerIdx};

pub const CAPS: Caps = Caps { checksum: true, tso: true, uso: true, mtu: 1500 };

/// The tables of a configuration whose devices all are one worker's and up.
pub fn tables_of(text: &str, mac: Mac) -> Tables {
    let model = model::load(text, "bench.toml").unwrap_or_else(|found| panic!("{}", found[0]));
    let device =
        || Device { worker: WorkerIdx(0), up: true, caps: CAPS, mac: Some(mac), counters: Arc::default() };
    let devices: HashMap<AttachmentKey, Device> =
        model.attachments().map(|attachment| (attachment.key, device())).collect();
    compile(&model, &devices, &mut Places::default(), 1)
}

/// The slot of a port.
pub fn port_of(tables: &Tables, name: &str) -> PortIdx {
    let at = tables.ports.iter().position(|p| p.as_ref().is_some_and(|p| *p.name == *name));
    PortIdx(at.expect("its port") as u16)
}

pub fn mac(side: u8, n: u32) -> Mac {
    let [_, a, b, c] = n.to_be_bytes();
    Mac([0x02, side, 0, a, b, c])
}

pub fn frame(destination: Mac, source: Mac, tag: bool) -> Vec<u8> {
    let mut bytes = [destination.0, source.0].concat();
    if tag {
        bytes.extend([0x81, 0, 0, 120]);
    }
    bytes.extend([0x08, 0x00]);
    bytes.resize(60, 0);
    bytes
}

/// The path with its memory, and the frames that go round in it.
pub struct Bench {
    pub tables: Tables,
    pub shard: Shard,
    pub out: Out,
    pub now: Instant,
    pub cycles: u64,
    /// Cycles per packet of each burst: their median is what a burst costs while nobody interrupts.
    pub samples: Vec<f32>,
}

impl Bench {
    pub fn new(tables: Tables) -> Bench {
        let pool = Pool::with_chunks(4096, 0).expect("memory");
        let mut shard = Shard::new(pool, 0x5eed);
        shard.sync(&tables);
        let mut out = Out::default();
        out.make_room(tables.ports.len());
        Bench { tables, shard, out, now: Instant(0), cycles: 0, samples: Vec::with_capacity(1 << 20) }
    }

    pub fn is_trunk(&self, port: PortIdx) -> bool {
        self.tables.port(port).is_some_and(|port| matches!(port.segments, Segments::Trunk { .. }))
    }

    pub fn send(&mut self, burst: &mut Burst, from: PortIdx) {
        let count = burst.len() as u64;
        let before = cycles();
        process(burst, from, &self.tables, &mut self.shard, self.now, &mut self.out, &mut Silent);
        let taken = cycles() - before;
        self.cycles += taken;
        if self.samples.len() < self.samples.capacity() {
            self.samples.push(taken as f32 / count as f32);
        }
    }

    pub fn collect(&mut self) {
        self.out.flush(|_, queue| queue.clear());
    }

    pub fn report(&mut self, name: &str) {
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
