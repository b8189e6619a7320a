//! What would become of a frame: the path itself, run on a copy of what the switch knows now. Nothing is sent, nothing is
//! learned, no counter moves.
//!
//! What the copy of a router looks for, a connection or a neighbour's MAC, is noted. Whoever traces asks the worker that has it
//! and runs the frame once more with it ([`Live`]), until there is nothing left to ask for: so a trace goes by the connections
//! and bindings that there are, and changes none.
//!
//! The copy has a local VTEP of its own that has just come up: it knows no neighbours, so it answers what it is asked
//! as the real one does, but does not tell what that one has found out, and asks a neighbour who it is where that one would
//! know.

use std::io;

use crate::control::hex;
use crate::control::view::{Trace, TraceOutput, TraceStep};
use crate::dataplane::conntrack::Entry;
use crate::dataplane::fdb::Fdb;
use crate::dataplane::nat::live::Found;
use crate::dataplane::out::Out;
use crate::dataplane::router::neighbours::NeighbourEvent;
use crate::dataplane::tracer::{Explain, Look};
use crate::dataplane::{Shard, gateway, process, underlay};
use crate::frame::{Burst, Pool};
use crate::stats::{DropReason, PortSnapshot};
use crate::tables::{PortEntry, Segments, Tables};
use crate::types::{Instant, Mac, PortIdx, WorkerIdx};

/// Connections that there is room for: the traced frame's.
const CONNECTIONS: u32 = 64;
/// Buffers for a traced frame and its copies.
const BUFFERS: (u32, u32) = (8192, 16);

/// What became of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traced {
    /// As [`crate::control::view::Trace::verdict`].
    pub verdict: String,
    /// Decisions in order.
    pub steps: Vec<TraceStep>,
    /// What would have been sent.
    pub outputs: Vec<TraceOutput>,
    /// What was looked for.
    pub looks: Vec<Look>,
}

impl Traced {
    /// As the control API has it.
    pub fn trace(self, port: &str) -> Trace {
        let Traced { verdict, steps, outputs, .. } = self;
        Trace { port: port.to_owned(), verdict, steps, outputs }
    }
}

/// What a worker has of what was looked for.
pub enum Known {
    /// A connection, or what would be made of one.
    Connection(Box<Found>),
    /// A guest's connection.
    Tracked(Box<Entry>),
    /// A neighbour's MAC.
    Mac(Mac),
}

/// What is known of the live switch besides its tables and its FDB.
#[derive(Default)]
pub struct Live(Vec<(Look, Option<Known>)>);

impl Live {
    /// Whether it was asked for.
    pub fn has(&self, look: &Look) -> bool {
        self.0.iter().any(|(known, _)| known == look)
    }

    /// Notes the answer; none: there is nothing.
    pub fn add(&mut self, look: Look, known: Option<Known>) {
        self.0.push((look, known));
    }

    fn import(&self, shard: &mut Shard, now: u32) {
        for (look, known) in &self.0 {
            match (look, known, &mut shard.nat) {
                (_, Some(Known::Connection(found)), Some(nat)) => nat.import(found),
                (_, Some(Known::Tracked(entry)), _) => {
                    if let Some(security) = &mut shard.security {
                        security.tracker.import(entry, None);
                    }
                }
                (&Look::Neighbour(interface, address), Some(Known::Mac(mac)), _) => {
                    shard.neighbours.hear(NeighbourEvent { interface, address, mac: Some(*mac) }, now);
                }
                _ => {}
            }
        }
    }
}

/// Runs `frame`, received on `port` now, through the path; none when the frame is too long.
///
/// # Errors
/// When the system has no memory for it.
pub fn trace(
    tables: &Tables,
    fdb: Fdb,
    port: PortIdx,
    frame: &[u8],
    now: Instant,
    live: &Live,
) -> io::Result<Option<Traced>> {
    let mut shard = Shard::new(Pool::with_chunks(BUFFERS.0, BUFFERS.1)?, 0);
    shard.fdb = fdb;
    let (mut out, mut explain) = (Out::default(), Explain::default());
    out.make_room(tables.ports.len());
    // What a VTEP says when it comes up is not this frame's doing. It finds no next hop in its tables' copy, so the frame
    // gets another one.
    underlay::configure(&mut shard, &tables.detached(), now, &mut out);
    out.flush(|_, frames| frames.clear());
    let mut tables = tables.detached();
    // Here is the home of all routers, and of all guests with security groups.
    let is_home = |port: &&mut PortEntry| port.interface().is_some() || port.policy().is_some();
    for port in tables.ports.iter_mut().flatten().filter(is_home) {
        port.worker = WorkerIdx(0);
    }
    tables.conntrack.max_entries = CONNECTIONS;
    shard.sync(&tables);
    gateway::configure(&tables, &mut shard, WorkerIdx(0), now, &mut out);
    out.flush(|_, frames| frames.clear());
    live.import(&mut shard, u32::try_from(now.secs()).unwrap_or(u32::MAX));
    let Some(frame) = shard.pool.frame_from(frame) else { return Ok(None) };
    let mut burst: Burst = [frame].into_iter().collect();
    shard.last_drop = None;
    process(&mut burst, port, &tables, &mut shard, now, &mut out, &mut explain);
    gateway::serve(&tables, &mut shard, now, &mut out);
    shard.tally.flush(&tables);
    let mut outputs = Vec::new();
    let resolver = tables.underlay.as_ref().map(|underlay| underlay.resolver);
    out.flush(|to, frames| {
        // It waits there, as its step says; nothing of it is on the wire.
        if resolver == Some(to) {
            frames.clear();
        }
        let name = tables.port(to).map_or_else(String::new, |port| port.name.to_string());
        outputs.extend(frames.drain(..).map(|frame| {
            let bytes = frame.segments().collect::<Vec<_>>().concat();
            TraceOutput { port: name.clone(), frame: hex::encode(&bytes) }
        }));
    });
    let looks = explain.looks;
    let steps =
        explain.steps.into_iter().map(|step| TraceStep { stage: step.stage, text: step.text }).collect();
    Ok(Some(Traced { verdict: verdict(&tables, port, shard.last_drop), steps, outputs, looks }))
}

/// How the frame ended at the port that it arrived on; what came out of a tunnel ended at its peer's port, and what was sent to
/// a router alone may have been dropped there.
fn verdict(tables: &Tables, arrived: PortIdx, last_drop: Option<DropReason>) -> String {
    let is_underlay = |port: &&PortEntry| matches!(port.segments, Segments::Underlay);
    let arrived = tables.port(arrived);
    let peers = tables.ports.iter().flatten().filter(|_| arrived.as_ref().is_some_and(is_underlay));
    let mut peers = peers.filter(|port| port.tunnel().is_some());
    let ended = peers.find(|peer| peer.counters.rx_frames.get() > 0).or(arrived);
    let counters = ended.map(|port| port.counters.snapshot()).unwrap_or_default();
    let PortSnapshot { forwarded, flooded, answered, .. } = counters;
    if let (1.., 0, Some(reason)) = (forwarded, flooded, last_drop) {
        return format!("dropped: {}", reason.name());
    }
    match (forwarded, flooded, answered, counters.drops.keys().next()) {
        (1.., ..) => "forwarded".to_owned(),
        (_, 1.., ..) => "flooded".to_owned(),
        (_, _, 1.., _) => "answered".to_owned(),
        (.., Some(reason)) => format!("dropped: {reason}"),
        _ => "consumed".to_owned(),
    }
}
