//! THE PATH: what becomes of a frame. Pure: no file descriptor, thread, clock, randomness or logger; time comes in as an
//! argument. The same [`process`] serves the daemon, `nuswitch trace`, the fuzzers, the benches and every scenario test.
//!
//! ```text
//! burst ─▶ ingress: header, VLAN or tunnel, network ─▶ bridge: learn, look up ─▶ security ─▶ egress: MTU, tag or tunnel, offload ─▶ Out
//!              │ drop                                   │ ▲  flood: a copy a port    │ drop
//!              └ for the local VTEP: underlay           ▼ │
//!                                      router: header, FIB, NAT, TTL, neighbour
//!                                        │ └ for the router itself: gateway, at the interface's home
//!                                        └ for the switch itself, as from the bridge: serve: DHCP, or to the slow path
//! ```
//!
//! A burst passes ingress as a whole before the first frame passes the bridge, so that the FDB's cache lines are on
//! their way while other headers are read.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::panic))]

mod answer;
mod bridge;
pub mod check;
#[allow(clippy::indexing_slicing)]
// numbers are its own: they come from its index and lists, never from a packet
pub mod conntrack;
mod egress;
#[allow(clippy::indexing_slicing)] // table indices come from its own hash mask
pub mod fdb;
mod flow;
#[allow(clippy::indexing_slicing)] // indices are its own: slots, and classes of their weight
pub mod fragments;
pub mod gateway;
pub mod guard;
mod ingress;
pub mod nat;
pub mod out;
pub mod rewrite;
pub mod router;
pub mod security;
pub mod segment;
pub mod serve;
pub mod tally;
pub mod tracer;
pub mod tunnel;
pub mod underlay;

use arrayvec::ArrayVec;

use crate::frame::{BURST, Burst, Frame, Pool, take_each};
use crate::services::icmp::Bucket;
use crate::stats::DropReason;
use crate::tables::{PortEntry, Segments, Tables};
use crate::types::{Instant, NetIdx, PortIdx};
use crate::wire::ethernet::{ARP, HEADER, IPV6, RARP};
use crate::wire::protocol;
use fdb::{Fdb, FdbEvent, FdbKey};
use gateway::Gateways;
use ingress::{Classified, Stop};
use nat::Translator;
use out::Out;
use router::neighbours::{NeighbourEvent, Neighbours};
use router::{Context, Delivered, Leads};
use security::Security;
use serve::Punt;
use tally::Tally;
use tracer::Tracer;
use underlay::{Notes, Vtep};

/// Most events that wait to be told; more in one turn are lost, and made good by the next refresh.
const MAX_EVENTS: usize = 1024;

/// Echo requests for the service that are answered in a second, and at once.
const ECHO: (u32, u32) = (1000, 100);

/// Copies of frames that a port with port security may cause by flooding in a second, and at once.
const COPIES: (u32, u32) = (500_000, 100_000);
/// As how many copies a flooded frame counts at least, and one that asks for neighbours or tells of them, which no rule keeps
/// out: so no receiver gets more than 50 000 or 5 000 a second, and 10 000 or 1 000 at once.
const FLOODED: u32 = 10;
const ASKED: u32 = 100;

/// A byte of what is behind the inner Ethernet header in a tunnel packet over IPv4 and over IPv6, in both cases in the second
/// of the cache lines that the packet begins in.
const INNER: usize = 96;

/// What a worker remembers.
pub struct Shard {
    /// Its replica of the FDB.
    pub fdb: Fdb,
    /// Its buffers.
    pub pool: Pool,
    /// What it learned and has not yet told the other workers.
    pub events: Vec<Event>,
    /// What is for the slow path, until the turn's end.
    pub punts: Vec<Punt>,
    /// Why the last frame that was dropped was; for capture and trace.
    pub last_drop: Option<DropReason>,
    /// The local VTEP's own stack, with the worker that owns the underlay's device.
    pub vtep: Option<Vtep>,
    /// What the control thread should know.
    pub notes: Notes,
    /// Frames of ports without a device, not yet added to their counters.
    pub tally: Tally,
    /// What is known of routers' neighbours.
    pub neighbours: Neighbours,
    /// Connections of the routers that this worker translates for.
    pub nat: Option<Box<Translator>>,
    /// The routers' interfaces that this worker is the home of.
    pub gateways: Gateways,
    /// Connections of the guests whose ports this worker owns, where they have security groups.
    pub security: Option<Box<Security>>,
    /// Frames for routers, until the burst that they came with has passed the bridge.
    delivered: Box<Delivered>,
    /// An empty one that takes turns with it.
    spare: Option<Box<Delivered>>,
    /// Where addresses lead that packets were sent to lately: those of IPv4, and those of IPv6.
    leads: (Leads<u64>, Leads<(u128, u16)>),
    /// How many ICMP errors each router's interface may still cause.
    errors: Vec<Bucket>,
    /// How many frames each port may send to the slow path.
    punting: Vec<Bucket>,
    /// How many copies of frames each port with port security may still cause by flooding.
    flooding: Vec<Bucket>,
    /// Echo requests for the service that may be answered.
    echo: Bucket,
    /// When the burst came that is being decided on.
    now: Instant,
    fdb_epoch: u64,
    seed: u64,
}

impl Shard {
    /// An empty memory. `seed` keys the hash of the FDB and must be secret.
    pub fn new(pool: Pool, seed: u64) -> Shard {
        let events = Vec::with_capacity(MAX_EVENTS);
        Shard {
            fdb: Fdb::new(1024, 300, seed),
            pool,
            events,
            last_drop: None,
            vtep: None,
            notes: Notes::default(),
            tally: Tally::default(),
            neighbours: Neighbours::new(seed),
            nat: None,
            gateways: Gateways::default(),
            security: None,
            leads: (Leads::new(seed), Leads::new(seed)),
            delivered: Box::default(),
            spare: None,
            errors: Vec::new(),
            punts: Vec::new(),
            punting: Vec::new(),
            flooding: Vec::new(),
            echo: Bucket::new(ECHO.0, ECHO.1, Instant(0)),
            now: Instant(0),
            fdb_epoch: 0,
            seed,
        }
    }

    fn tell(&mut self, event: Event) {
        if self.events.len() < MAX_EVENTS {
            self.events.push(event);
        }
    }

    /// Whether one more ICMP error may be sent because of what came by this interface.
    fn may_tell(&mut self, interface: PortIdx, now: Instant) -> bool {
        self.errors.get_mut(interface.index()).is_some_and(|bucket| bucket.take(now))
    }

    /// Whether a port with port security may flood one more frame, to as many ports.
    fn may_flood(&mut self, port: PortIdx, frame: &Frame, ports: usize) -> bool {
        let least = if asks(frame.head()) { ASKED } else { FLOODED };
        let copies = u32::try_from(ports).unwrap_or(u32::MAX).max(least);
        // An exit without offloads makes each segment of it a frame.
        let segments = match u32::from(frame.offload.gso_size) {
            0 => 1,
            size => u32::try_from(frame.len()).unwrap_or(u32::MAX) / size + 1,
        };
        let copies = copies.saturating_mul(segments);
        self.flooding.get_mut(port.index()).is_some_and(|bucket| bucket.take_many(copies, self.now))
    }

    /// Whether it may send one more frame that asks for neighbours or tells of them, to one port.
    fn may_ask(&mut self, port: PortIdx) -> bool {
        self.flooding.get_mut(port.index()).is_some_and(|bucket| bucket.take_many(ASKED, self.now))
    }

    /// Brings the memory in line with newly published tables: forgets what is no longer there, takes over static MACs.
    pub fn sync(&mut self, tables: &Tables) {
        self.tally.make_room(tables);
        if !tables.routers.is_empty() && self.errors.len() < tables.ports.len() {
            let (rate, burst) = router::ERRORS;
            self.errors.resize(tables.ports.len(), Bucket::new(rate, burst, Instant(0)));
        }
        if self.punting.len() < tables.ports.len() {
            let (rate, burst) = serve::PUNTS;
            self.punting.resize(tables.ports.len(), Bucket::new(rate, burst, Instant(0)));
        }
        if self.flooding.len() < tables.ports.len() {
            self.flooding.resize(tables.ports.len(), Bucket::new(COPIES.0, COPIES.1, Instant(0)));
        }
        if self.fdb_epoch != tables.fdb_epoch {
            self.fdb_epoch = tables.fdb_epoch;
            sync_fdb(&mut self.fdb, tables);
            let is_there = |port| tables.port(port).is_some_and(|port| port.interface().is_some());
            self.neighbours.sync(&tables.known_hosts, is_there);
        }
    }
}

/// Whether a frame asks for neighbours or routers or tells of them, or of groups: ARP, RARP and ICMPv6. What of ICMPv6 is none
/// of these may count as such, too.
fn asks(head: &[u8]) -> bool {
    let kind =
        head.get(HEADER - 2..HEADER).and_then(<[u8]>::first_chunk).map(|kind| u16::from_be_bytes(*kind));
    match kind {
        Some(ARP | RARP) => true,
        // Reports of groups have a hop-by-hop header (RFC 3810, 5); behind another one, who knows.
        Some(IPV6) => !matches!(head.get(HEADER + 6), Some(&(protocol::TCP | protocol::UDP))),
        _ => false,
    }
}

/// Brings a replica of the FDB in line with newly published tables.
pub fn sync_fdb(fdb: &mut Fdb, tables: &Tables) {
    fdb.set_aging(tables.mac_aging_time);
    if fdb.capacity() < tables.fdb_capacity {
        *fdb = fdb.resized(tables.fdb_capacity);
    }
    fdb.retain(|entry| !entry.is_static && tables.is_member(entry.key.network(), entry.port));
    for &(network, mac, port) in &tables.static_macs {
        fdb.set_static(FdbKey::new(network, mac), port);
    }
}

/// What a worker learned and tells the others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// Where a MAC is.
    Fdb(FdbEvent),
    /// Which MAC a router's neighbour has.
    Neighbour(NeighbourEvent),
}

impl Shard {
    /// Takes over what another worker learned.
    pub fn hear(&mut self, tables: &Tables, event: Event, now: Instant) {
        match event {
            Event::Fdb(event) => hear(&mut self.fdb, tables, event),
            Event::Neighbour(event) => {
                self.neighbours.hear(event, u32::try_from(now.secs()).unwrap_or(u32::MAX));
            }
        }
    }
}

/// Takes over what another worker learned, into a replica that is in line with `tables`. What was learned under other tables
/// about a port that is not of the network any more (or not yet) is not taken: it would lead frames out of their network.
pub fn hear(fdb: &mut Fdb, tables: &Tables, event: FdbEvent) {
    if tables.is_member(event.key.network(), event.port) {
        fdb.apply(event);
    }
}

/// Decides on every frame of a burst that came from port `ingress`: it ends in `out`, or is dropped and counted.
/// `burst` is empty afterwards.
pub fn process(
    burst: &mut Burst,
    ingress: PortIdx,
    tables: &Tables,
    shard: &mut Shard,
    now: Instant,
    out: &mut Out,
    tracer: &mut impl Tracer,
) {
    let Some(port) = tables.port(ingress) else {
        burst.clear();
        return;
    };
    shard.now = now;
    let counters = &port.counters;
    counters.rx_frames.add(burst.len() as u64);
    counters.rx_bytes.add(burst.iter().map(|frame| frame.len() as u64).sum());
    if !port.up {
        counters.count_drop(DropReason::PortDown, burst.len() as u64);
        shard.last_drop = Some(DropReason::PortDown);
        burst.clear();
        return;
    }
    let mut classified: ArrayVec<Result<Classified, Stop>, BURST> = ArrayVec::new();
    match (&port.segments, &tables.underlay) {
        (Segments::Underlay, Some(underlay)) => {
            // The inner transport header lies behind the first cache line, which is on its way already.
            for frame in burst.iter() {
                frame.prefetch(INNER);
            }
            for frame in burst.iter_mut() {
                classified.push(ingress::classify_tunnel(
                    frame,
                    underlay,
                    tables,
                    (&shard.fdb, &mut shard.notes),
                    tracer,
                ));
            }
        }
        _ => {
            for frame in burst.iter_mut() {
                classified.push(ingress::classify(frame, (ingress, port), tables, &shard.fdb, tracer));
            }
            if let Some(guard) = &port.guard {
                guard::check_burst(burst, &mut classified, guard, tracer);
            }
        }
    }
    if let Some(security) = &mut shard.security {
        security.look(burst, &classified);
    }
    let seconds = u32::try_from(now.secs()).unwrap_or(u32::MAX);
    let mut learned = None;
    let mut ends = Ends::default();
    take_each(burst, |n, frame| {
        let Some(classified) = classified.get(n) else { return };
        let (tunnel, bytes) = (from_tunnel(classified), frame.len() as u64);
        let ended = match classified {
            Ok(classified) => match tables.network(classified.network) {
                None => Err(DropReason::VlanNotAllowed),
                Some(network) => {
                    if learned != Some(classified.source.key) {
                        bridge::learn(classified, tables, network, shard, seconds, tracer);
                        learned = Some(classified.source.key);
                    }
                    bridge::forward(frame, (classified, n), (tables, network), shard, out, tracer)
                }
            },
            Err(stop) => stopped(frame, *stop, ingress, (tables, shard), now, out, tracer),
        };
        if let Err(reason) = ended {
            tracer.say("drop", || format!("{}: {}", reason.name(), reason.meaning()));
            shard.last_drop = Some(reason);
        }
        match tunnel {
            None => ends.count(ended, port),
            Some((peer, network)) => {
                shard.tally.count_rx(peer, bytes, ended);
                shard.tally.count_tunnel_rx(network, bytes);
                if !matches!(ended, Ok(Sent::Forwarded | Sent::Flooded))
                    && let Some(peer) = tables.port(peer)
                {
                    Ends::default().count(ended, peer);
                }
                ends.consumed += 1;
            }
        }
    });
    ends.flush(port);
    // Fragments that waited may be a router's, and what a router sends may be what others waited for.
    security::release(tables, shard, out, tracer);
    while !shard.delivered.is_empty() {
        router::route(&mut Context::new(tables, shard, now, out, tracer));
        security::release(tables, shard, out, tracer);
    }
}

/// The tunnel port and the network of a frame that came out of a tunnel. It is consumed where it arrived and begins anew at
/// its peer's port.
#[inline(always)]
fn from_tunnel(classified: &Result<Classified, Stop>) -> Option<(PortIdx, NetIdx)> {
    match classified {
        Ok(classified) => classified.from_tunnel.then_some((classified.ingress, classified.network)),
        Err(Stop::DropInner(peer, network, _)) => Some((*peer, *network)),
        Err(_) => None,
    }
}

/// How a frame ended that was not dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sent {
    Forwarded,
    Flooded,
    Answered,
    Consumed,
}

/// What becomes of a frame that does not get to the bridge.
#[cold]
fn stopped(
    frame: Frame,
    stop: Stop,
    ingress: PortIdx,
    (tables, shard): (&Tables, &mut Shard),
    now: Instant,
    out: &mut Out,
    tracer: &mut impl Tracer,
) -> Result<Sent, DropReason> {
    match stop {
        Stop::Drop(reason) | Stop::DropInner(.., reason) => Err(reason),
        Stop::TooBig(network, mtu) => {
            answer::too_big(&frame, mtu, (ingress, network), (tables, shard), out, tracer)
        }
        Stop::Host => underlay::receive(&frame, tables, shard, now, out, tracer),
    }
}

/// How the frames of a burst ended.
#[derive(Default)]
struct Ends {
    forwarded: u64,
    flooded: u64,
    consumed: u64,
}

impl Ends {
    /// What is rare goes to the port's counters at once.
    #[inline(always)]
    fn count(&mut self, ended: Result<Sent, DropReason>, port: &PortEntry) {
        match ended {
            Ok(Sent::Forwarded) => self.forwarded += 1,
            Ok(Sent::Flooded) => self.flooded += 1,
            Ok(Sent::Answered) => port.counters.answered.add(1),
            Ok(Sent::Consumed) => self.consumed += 1,
            Err(reason) => port.counters.count_drop(reason, 1),
        }
    }

    /// Adds what was counted to the port's counters.
    #[inline(always)]
    fn flush(self, PortEntry { counters, .. }: &PortEntry) {
        counters.forwarded.add(self.forwarded);
        if self.flooded > 0 {
            counters.flooded.add(self.flooded);
        }
        if self.consumed > 0 {
            counters.consumed.add(self.consumed);
        }
    }
}
