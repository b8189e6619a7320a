//! The router: frames that the bridge delivered to an interface's port, routed as a burst of their own once the burst that
//! they came with has passed the bridge.
//!
//! ```text
//! look: header ─▶ FIB ─▶ connection ─▶ TTL, MTU ─▶ neighbour ─▶ MACs ─▶ the bridge of the network that it leaves by
//!         │        │         │             │           └ not known: to the home of the interface that it leaves by
//!         │        │         │             └ ICMP error, or cut in parts
//!         │        │         └ a new one, or one that was decided under other tables: NAT, FIB
//!         │        ├ the router's own address, ARP, ND: to the home of the interface that it came by
//!         │        └ no route: ICMP error
//!         └ dropped
//! ```
//!
//! Nearly all packets are simple: they are sound and whole, their route leads to a neighbour whose MAC is known, and if they are
//! translated their connection is tracked, with where it leads to. [`look`] sees those through, step by step for the burst as a
//! whole, so that the memory which one step names is near when the next one reads it. For any other packet [`decide`] begins
//! anew, takes every turn that there is, and leaves with the connection what the next packet can look up.
//!
//! An interface's *home* is the worker of its port ([`super::gateway`] is what it does there); a frame gets there as to any
//! port, by [`Out`]. One that is still to be sent has the interface's own MAC as its source; any other was sent to it.
//!
//! Accounting: to the interface that a packet came by it is `tx`; to the one that it leaves by it is `rx`, and ends there as
//! the bridge says. What ends in the router itself ends at the interface that it came by.

mod begin;
mod decide;
pub(super) mod errors;
mod explain;
mod fragment;
mod leads;
mod look;
pub mod neighbours;

use arrayvec::ArrayVec;

use super::bridge;
use super::egress::{Exit, NO_LOOK};
use super::fdb::FdbKey;
use super::ingress::Classified;
use super::out::Out;
use super::rewrite::{self, Transport};
use super::tally::Tally;
use super::tracer::{Look, Tracer};
use super::{Sent, Shard, flow, serve};
use crate::frame::{BURST, Burst, Frame, put, take_each};
use crate::services::icmp::Problem;
use crate::stats::DropReason;
use crate::tables::fib::{Hop, Route};
use crate::tables::router::{Interface, RouterEntry};
use crate::tables::tunnel::key_address;
use crate::tables::{PortEntry, Tables};
use crate::types::{Instant, Mac, NetIdx, PortIdx};
use crate::wire::ethernet::HEADER;
use crate::wire::protocol;
pub(super) use decide::release_fragments;
pub(super) use leads::Leads;
use look::Step;
use neighbours::NeighbourRef;

/// Routers of ours that a packet passes in one go, at most.
const MAX_ROUTERS: usize = 16;
/// Bytes of a TCP header without options.
const TCP_HEADER: usize = 20;
/// ICMP errors a second that an interface causes, and at once (RFC 1812, 4.3.2.8; RFC 4443, 2.4(f)).
pub(super) const ERRORS: (u32, u32) = (100, 50);

/// What everything in the router has at hand.
pub(super) struct Context<'a, 't, T> {
    pub(super) tables: &'t Tables,
    pub(super) shard: &'a mut Shard,
    pub(super) now: Instant,
    /// The same in seconds.
    pub(super) seconds: u32,
    pub(super) out: &'a mut Out,
    pub(super) tracer: &'a mut T,
}

impl<'a, 't, T> Context<'a, 't, T> {
    #[inline(always)]
    pub(super) fn new(
        tables: &'t Tables,
        shard: &'a mut Shard,
        now: Instant,
        out: &'a mut Out,
        tracer: &'a mut T,
    ) -> Context<'a, 't, T> {
        let seconds = u32::try_from(now.secs()).unwrap_or(u32::MAX);
        Context { tables, shard, now, seconds, out, tracer }
    }

    /// What a decision about a connection is taken under: it changes with the tables, and when neighbours change places.
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation)] // told apart from the last ones only
    pub(super) fn epoch(&self) -> u32 {
        (self.tables.epoch as u32).wrapping_add(self.shard.neighbours.era())
    }
}

/// Frames that the bridge delivered to routers' interfaces, with the interface of each, and the port that it came from.
#[derive(Default)]
pub(super) struct Delivered {
    frames: Burst,
    interfaces: ArrayVec<PortIdx, BURST>,
    ingresses: ArrayVec<PortIdx, BURST>,
}

impl Delivered {
    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Counts the frames at their interfaces. Most often all are one interface's.
    fn count(&self, tally: &mut Tally) {
        let mut frames = self.frames.iter();
        for same in self.interfaces.chunk_by(|a, b| a == b) {
            let bytes = frames.by_ref().take(same.len()).map(|frame| frame.len() as u64).sum();
            if let Some(interface) = same.first() {
                tally.count_tx(*interface, same.len() as u64, bytes);
            }
        }
    }

    /// Whether there is no room for another frame.
    pub(super) fn is_full(&self) -> bool {
        self.frames.is_full()
    }

    /// Puts a frame at the end.
    ///
    /// # Errors
    /// [`DropReason::NoBuffer`]: there is no room.
    #[inline(always)]
    pub(super) fn push(
        &mut self,
        frame: Frame,
        interface: PortIdx,
        ingress: PortIdx,
    ) -> Result<(), DropReason> {
        if !put(&mut self.frames, frame) {
            return Err(DropReason::NoBuffer);
        }
        self.interfaces.push(interface);
        self.ingresses.push(ingress);
        Ok(())
    }
}

/// Where a packet is, and in whose hands.
#[derive(Clone, Copy)]
pub(super) struct At<'t> {
    pub(super) index: PortIdx,
    pub(super) port: &'t PortEntry,
    pub(super) interface: &'t Interface,
    pub(super) router: &'t RouterEntry,
}

impl<'t> At<'t> {
    #[inline(always)]
    pub(super) fn new(index: PortIdx, tables: &'t Tables) -> Option<At<'t>> {
        let port = tables.port(index)?;
        let interface = port.interface()?;
        Some(At { index, port, interface, router: tables.router(interface.router)? })
    }
}

/// Why a packet goes no further.
enum Stop {
    Drop(DropReason),
    /// Its sender is told.
    Tell(Problem, DropReason),
}

impl From<DropReason> for Stop {
    fn from(reason: DropReason) -> Stop {
        Stop::Drop(reason)
    }
}

/// Routes all frames that were delivered to interfaces, and what that delivers to further ones. What is for a router itself
/// goes to its interface's home.
pub(super) fn route(cx: &mut Context<'_, '_, impl Tracer>) {
    for _ in 0..MAX_ROUTERS {
        if cx.shard.delivered.is_empty() {
            return;
        }
        // Two take turns, so that nothing but their addresses moves.
        let spare = cx.shard.spare.take().unwrap_or_default();
        let mut burst = std::mem::replace(&mut cx.shard.delivered, spare);
        burst.count(&mut cx.shard.tally);
        pass(&mut burst, cx, |frame, at, ingress, cx| {
            if serve::is_for_service(frame.head()) {
                return serve::at_router(frame, ingress, at, cx);
            }
            cx.tracer.say("router", || format!("for the home of interface {}", at.port.name));
            if frame.head().get(6..12) == Some(&at.interface.mac.0[..]) {
                // There, it would be taken for one of the router's own that is still to be sent.
                drop_at(at.index, DropReason::OwnMac, cx);
            } else {
                cx.out.push(at.index, frame);
            }
        });
        cx.shard.spare = Some(burst);
    }
    let Delivered { frames, interfaces, ingresses } = &mut *cx.shard.delivered;
    frames.clear();
    ingresses.clear();
    for interface in std::mem::take(interfaces) {
        drop_at(interface, DropReason::RouterLoop, cx);
    }
}

/// Routes a burst that was counted; `own` gets what is for the router itself, with the port that it came from.
pub(super) fn pass<T: Tracer>(
    burst: &mut Delivered,
    cx: &mut Context<'_, '_, T>,
    mut own: impl FnMut(Frame, &At<'_>, PortIdx, &mut Context<'_, '_, T>),
) {
    let mut steps: ArrayVec<Step, BURST> = ArrayVec::new();
    let mut packets = look::Packets::new();
    let mut last = None;
    for (place, (frame, interface)) in burst.frames.iter_mut().zip(&burst.interfaces).enumerate() {
        if last.is_none_or(|at: At<'_>| at.index != *interface) {
            last = At::new(*interface, cx.tables);
        }
        steps.push(match &last {
            Some(at) => look::look(frame, place, at, &mut packets, cx),
            None => Step::Decide,
        });
    }
    if let Some(translator) = &cx.shard.nat {
        for packet in &mut packets {
            packet.guess = translator.tracker.approach_v4(&packet.probe);
        }
    }
    let mut begins = false;
    for packet in &packets {
        if let (Some(frame), Some(step)) = (burst.frames.get_mut(packet.place), steps.get_mut(packet.place)) {
            *step = look::follow(frame, packet, cx);
            begins |= matches!(step, Step::Begin);
        }
    }
    if begins {
        begin::begin(&mut burst.frames, &packets, &mut steps, cx);
    }
    take_each(&mut burst.frames, |n, frame| {
        let (Some(step), Some(interface)) = (steps.get(n), burst.interfaces.get(n)) else { return };
        match step {
            Step::Leave(neighbour) => emit_to(frame, *neighbour, cx),
            Step::Drop(reason) => drop_at(*interface, *reason, cx),
            Step::Connection | Step::Begin | Step::Decide => {
                if let Some(at) = At::new(*interface, cx.tables)
                    && let Some(frame) = decide::decide(frame, &at, cx)
                {
                    own(frame, &at, burst.ingresses.get(n).copied().unwrap_or(*interface), cx);
                }
            }
        }
    });
    burst.interfaces.clear();
    burst.ingresses.clear();
}

/// The interface and the next hop that a route leads to; nothing: the router itself.
#[inline(always)]
fn next<'t, T: Tracer>(
    route: Option<&Route>,
    destination: u128,
    head: &[u8],
    at: &At<'t>,
    tables: &'t Tables,
    tracer: &mut T,
) -> Result<Option<(At<'t>, u128)>, Stop> {
    let (interface, next) = match route {
        Some(Route::Connected(interface)) => (*interface, destination),
        Some(Route::Via(hops)) => {
            let Hop { interface, address } = hop(hops, head).ok_or(DropReason::NoRoute)?;
            (interface, address)
        }
        own_or_none => {
            tracer.say("router", || explain::route(at, destination, None));
            return match own_or_none {
                Some(Route::Broadcast) => Err(DropReason::DirectedBroadcast.into()),
                Some(_) => Ok(None),
                None => Err(Stop::Tell(Problem::NoRoute, DropReason::NoRoute)),
            };
        }
    };
    let to = At::new(interface, tables).filter(|to| to.port.up).ok_or(DropReason::PortDown)?;
    tracer.say("router", || explain::route(at, destination, Some((&to, next))));
    Ok(Some((to, next)))
}

/// Lowers the MSS that a TCP end announces to what the networks on its way here carry, where the router does that.
#[inline(always)]
fn clamp(frame: &mut Frame, (protocol, transport): (u8, usize), at: &Interface, to: &Interface) {
    if protocol == protocol::TCP {
        let partial = Transport::Tcp.is_partial(&frame.offload, HEADER + transport);
        let mtu = usize::from(at.mtu.min(to.mtu));
        let mss = u16::try_from(mtu.saturating_sub(transport + TCP_HEADER)).unwrap_or(u16::MAX);
        let segment = frame.head_mut().get_mut(HEADER + transport..).unwrap_or_default();
        rewrite::clamp_mss(segment, mss, partial);
    }
}

/// One of several next hops, the same for all packets of a flow.
#[inline(always)]
pub(super) fn hop(hops: &[Hop], head: &[u8]) -> Option<Hop> {
    match hops {
        [hop] => Some(*hop),
        hops => {
            let spread = u128::from(flow::hash(head)) * hops.len() as u128;
            hops.get(usize::try_from(spread >> 64).unwrap_or(0)).copied()
        }
    }
}

/// Sends a packet to a neighbour on the network of an interface, if its MAC is known here, or else to the interface's home.
fn leave(mut frame: Frame, to: &At<'_>, next: u128, cx: &mut Context<'_, '_, impl Tracer>) {
    let mac = cx.shard.neighbours.get(to.index, next, cx.seconds);
    cx.tracer.look(|| Some(Look::Neighbour(to.index, next)));
    address(frame.head_mut(), to.interface.mac, mac.unwrap_or_default());
    if let Some(mac) = mac {
        cx.tracer.say("router", || format!("{} has MAC {mac}", key_address(next)));
        emit(frame, to, cx);
    } else {
        cx.tracer.say("router", || {
            format!("the MAC of {} is to be found out: the packet waits", key_address(next))
        });
        cx.out.push(to.index, frame);
    }
}

/// Writes both MACs.
#[inline(always)]
pub(super) fn address(head: &mut [u8], source: Mac, destination: Mac) {
    if let Some(macs) = head.first_chunk_mut::<12>() {
        let [d0, d1, d2, d3, d4, d5] = destination.0;
        let [s0, s1, s2, s3, s4, s5] = source.0;
        *macs = [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5];
    }
}

/// Sends a frame, whose MACs are written, to a neighbour.
#[inline(always)]
fn emit_to(frame: Frame, neighbour: NeighbourRef, cx: &mut Context<'_, '_, impl Tracer>) {
    let generation = cx.shard.fdb.generation();
    let Some((interface, exit)) = cx.shard.neighbours.exit(neighbour, generation) else { return };
    if let Some((index, to)) = exit
        && let Some(network) = cx.tables.network(index)
    {
        let bytes = frame.len() as u64;
        let exit = Exit { to, ingress: interface, index, network, from_tunnel: false, look: NO_LOOK };
        let ended = bridge::send_to(frame, &exit, (cx.tables, cx.shard), cx.out, cx.tracer);
        return ends(ended, bytes, interface, cx);
    }
    let Some(from) = At::new(interface, cx.tables) else { return };
    let network = from.interface.network;
    let destination = load(frame.head(), 0).map_or(0, u64::from_le_bytes) & Mac::MASK;
    if let Some(port) = cx.shard.fdb.get(FdbKey::from_bits(network, destination)) {
        cx.shard.neighbours.keep_exit(neighbour, (network, port), generation);
    }
    emit(frame, &from, cx);
}

/// Puts a frame of an interface into its network.
#[inline(always)]
pub(super) fn emit(frame: Frame, from: &At<'_>, cx: &mut Context<'_, '_, impl Tracer>) {
    emit_into(frame, from.index, from.interface.network, cx);
}

/// As [`emit`], for an interface that need not be there any more.
#[inline(never)]
pub(super) fn emit_into(frame: Frame, from: PortIdx, network: NetIdx, cx: &mut Context<'_, '_, impl Tracer>) {
    let destination = load(frame.head(), 0).map_or(0, u64::from_le_bytes) & Mac::MASK;
    let probe = cx.shard.fdb.probe(FdbKey::from_bits(network, destination));
    let bytes = frame.len() as u64;
    let classified = Classified {
        ingress: from,
        from_tunnel: false,
        network,
        source: probe,
        destination: probe,
        is_group: destination & 1 != 0,
    };
    let ended = match cx.tables.network(network) {
        Some(network) => {
            bridge::forward(frame, (&classified, NO_LOOK), (cx.tables, network), cx.shard, cx.out, cx.tracer)
        }
        None => Err(DropReason::VlanNotAllowed),
    };
    ends(ended, bytes, from, cx);
}

/// Counts how a frame of an interface ended.
#[inline(always)]
fn ends(ended: Result<Sent, DropReason>, bytes: u64, from: PortIdx, cx: &mut Context<'_, '_, impl Tracer>) {
    cx.shard.tally.count_rx(from, bytes, ended);
    match ended {
        Ok(Sent::Forwarded | Sent::Flooded) => {}
        Ok(Sent::Answered | Sent::Consumed) => {
            if let Some(port) = cx.tables.port(from) {
                port.counters.answered.add_shared(1);
            }
        }
        Err(reason) => drop_at(from, reason, cx),
    }
}

#[cold]
pub(super) fn drop_at(interface: PortIdx, reason: DropReason, cx: &mut Context<'_, '_, impl Tracer>) {
    cx.tracer.say("drop", || format!("{}: {}", reason.name(), reason.meaning()));
    cx.shard.last_drop = Some(reason);
    if let Some(port) = cx.tables.port(interface) {
        port.counters.count_drop_shared(reason, 1);
    }
}

#[inline(always)]
fn load<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}
