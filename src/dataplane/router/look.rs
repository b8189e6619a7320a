//! The short way of simple packets. Whatever is not plain goes the long one ([`super::decide`]), so nothing here may change a
//! packet or a connection before it is known that the packet leaves.

use std::net::IpAddr;

use arrayvec::ArrayVec;

use super::leads::Lead;
use super::{At, Context, HEADER, address, clamp, load, next};
use crate::dataplane::check::{SIMPLE_TRANSPORT, Scope, Simple, check_v6, simple_v4};
use crate::dataplane::conntrack::{Guess, Seen, V4Probe, V4Tuple, Verdict};
use crate::dataplane::nat::carried;
use crate::dataplane::rewrite::{self, Rewrite};
use crate::dataplane::router::neighbours::NeighbourRef;
use crate::dataplane::tracer::Tracer;
use crate::frame::{BURST, Frame};
use crate::stats::DropReason;
use crate::tables::fib::Route;
use crate::tables::router::Interface;
use crate::tables::tunnel::{key_address, v4_key};
use crate::types::{Mac, PortIdx, RouterIdx};
use crate::wire::ethernet::{IPV4, IPV6};
use crate::wire::protocol;

/// Bytes before the transport header, as packets count them.
#[allow(clippy::cast_possible_truncation)] // 20
const TRANSPORT: u32 = SIMPLE_TRANSPORT as u32;

/// How far a packet got. No more than fits a register: it is read at once after it is written.
#[derive(Clone, Copy)]
pub(super) enum Step {
    /// It leaves for this neighbour: its MACs are written.
    Leave(NeighbourRef),
    /// It is of a connection, if that is there.
    Connection,
    /// It is of none, and may begin one.
    Begin,
    /// It is not simple: everything about it is to be decided.
    Decide,
    Drop(DropReason),
}

/// A packet whose connection is sought.
pub(super) struct Packet {
    /// Its place in the burst.
    pub(super) place: usize,
    pub(super) probe: V4Probe,
    /// What the index gave for it when the entry was brought near.
    pub(super) guess: Option<Guess>,
    /// The number of the neighbour that it leads to, if that is the world's and the packet came from inside; else 0.
    out: u32,
    router: RouterIdx,
    pub(super) interface: PortIdx,
    /// Its router lowers the MSS of SYNs.
    clamps: bool,
    len: u32,
}

impl Packet {
    /// The world's neighbour that it leads to from inside.
    #[inline(always)]
    pub(super) fn out(&self) -> Option<NeighbourRef> {
        NeighbourRef::from_number(self.out)
    }
}

/// Packets whose connections are sought.
pub(super) type Packets = ArrayVec<Packet, BURST>;

/// The first look at a packet, which stands at `place` of its burst. One that is not translated is on its way then.
#[inline(always)]
pub(super) fn look<T: Tracer>(
    frame: &mut Frame,
    place: usize,
    at: &At<'_>,
    packets: &mut Packets,
    cx: &mut Context<'_, '_, T>,
) -> Step {
    if T::HEARS || !at.port.up {
        return Step::Decide;
    }
    let head = frame.head();
    let packet = head.get(HEADER..).unwrap_or_default();
    let len = frame.len() - HEADER.min(frame.len());
    match load::<2>(head, HEADER - 2).map(u16::from_be_bytes) {
        Some(IPV4) => {
            let Some(simple) = simple_v4(packet, len) else { return Step::Decide };
            let known = cx.shard.leads.0.get(v4_lead(at, simple.destination), cx.epoch());
            let lead = known.or_else(|| find_lead(v4_key(simple.destination), frame, at, cx));
            let Some(lead) = lead else { return Step::Decide };
            let neighbour = match lead {
                Lead::Translated => return connection(frame, place, (simple, None), at, packets, cx),
                Lead::Out(neighbour) if !at.interface.is_gateway => {
                    return connection(frame, place, (simple, Some(neighbour)), at, packets, cx);
                }
                Lead::Out(neighbour) | Lead::To(neighbour) => neighbour,
            };
            plain(frame, (simple.protocol, SIMPLE_TRANSPORT), at, neighbour, rewrite::hop_v4, cx)
        }
        Some(IPV6) => v6(frame, at, cx),
        _ => Step::Decide,
    }
}

/// As [`look`], for IPv6.
#[inline(never)]
fn v6(frame: &mut Frame, at: &At<'_>, cx: &mut Context<'_, '_, impl Tracer>) -> Step {
    let len = frame.len() - HEADER.min(frame.len());
    let Ok(header) = check_v6(frame.head().get(HEADER..).unwrap_or_default(), len) else {
        return Step::Decide;
    };
    if header.scope != Scope::Routed || header.fragment.is_some() || header.hops <= 1 {
        return Step::Decide;
    }
    let destination = header.destination.to_bits();
    let known = cx.shard.leads.1.get(v6_lead(at, destination), cx.epoch());
    match known.or_else(|| find_lead(destination, frame, at, cx)) {
        Some(Lead::To(neighbour) | Lead::Out(neighbour)) => {
            let transport = (header.protocol, usize::from(header.transport));
            plain(frame, transport, at, neighbour, rewrite::hop_v6, cx)
        }
        _ => Step::Decide,
    }
}

/// What a lead of the router to an IPv4 address is kept by.
#[inline(always)]
fn v4_lead(at: &At<'_>, destination: u32) -> u64 {
    u64::from(at.interface.router.0) << 32 | u64::from(destination)
}

/// As [`v4_lead`], for IPv6.
#[inline(always)]
fn v6_lead(at: &At<'_>, destination: u128) -> (u128, u16) {
    (destination, at.interface.router.0)
}

/// Asks the FIB and the neighbours where an address leads, and keeps it if it is so for all packets; nothing: not to one
/// neighbour that is known.
#[inline(never)]
fn find_lead(
    destination: u128,
    frame: &Frame,
    at: &At<'_>,
    cx: &mut Context<'_, '_, impl Tracer>,
) -> Option<Lead> {
    let address = key_address(destination);
    let route = match address {
        IpAddr::V4(address) => at.router.fib.v4(address.to_bits()),
        IpAddr::V6(_) => at.router.fib.v6(destination),
    };
    let lead = if matches!(route, Some(Route::Translated)) {
        Lead::Translated
    } else {
        let (to, next) = next(route, destination, frame.head(), at, cx.tables, cx.tracer).ok()??;
        let neighbour = cx.shard.neighbours.find(to.index, next)?;
        if to.interface.is_gateway { Lead::Out(neighbour) } else { Lead::To(neighbour) }
    };
    let spreads = matches!(route, Some(Route::Via(hops)) if hops.len() > 1);
    if !spreads {
        let epoch = cx.epoch();
        let (v4, v6) = &mut cx.shard.leads;
        match address {
            IpAddr::V4(address) => v4.keep(v4_lead(at, address.to_bits()), epoch, lead),
            IpAddr::V6(_) => v6.keep(v6_lead(at, destination), epoch, lead),
        }
    }
    Some(lead)
}

/// A packet that is not translated.
#[inline(always)]
fn plain(
    frame: &mut Frame,
    transport: (u8, usize),
    at: &At<'_>,
    neighbour: NeighbourRef,
    hop: impl FnOnce(&mut [u8]),
    cx: &mut Context<'_, '_, impl Tracer>,
) -> Step {
    let Some((to, mac)) = leaves(frame, neighbour, cx) else { return Step::Decide };
    if at.router.mss_clamping {
        clamp(frame, transport, at.interface, to);
    }
    hop(frame.head_mut().get_mut(HEADER..).unwrap_or_default());
    send(frame, to, (neighbour, mac))
}

/// The interface and the MAC of a neighbour; nothing: that is not known now, or the frame is too long for it.
#[inline(always)]
pub(super) fn leaves<'t>(
    frame: &Frame,
    neighbour: NeighbourRef,
    cx: &Context<'_, 't, impl Tracer>,
) -> Option<(&'t Interface, Mac)> {
    let (to, mac) = cx.shard.neighbours.at(neighbour, cx.seconds)?;
    let port = cx.tables.port(to).filter(|port| port.up && frame.len() <= port.plain_len)?;
    Some((port.interface()?, mac?))
}

/// A packet whose connection is to be sought: only who translates for the router can.
#[inline(always)]
fn connection(
    frame: &Frame,
    place: usize,
    (simple, out): (Simple, Option<NeighbourRef>),
    at: &At<'_>,
    packets: &mut Packets,
    cx: &Context<'_, '_, impl Tracer>,
) -> Step {
    let Some(translator) = &cx.shard.nat else { return Step::Decide };
    let transport = frame.head().get(HEADER + SIMPLE_TRANSPORT..).unwrap_or_default();
    let Some(ports) = carried::flow(transport, simple.protocol) else { return Step::Decide };
    let addresses = (simple.source, simple.destination);
    let tuple = V4Tuple::new(at.interface.router.0, simple.protocol, addresses, ports);
    let probe = translator.tracker.probe_v4(tuple);
    packets.push(Packet {
        place,
        probe,
        guess: None,
        out: out.map_or(0, NeighbourRef::number),
        router: at.interface.router,
        interface: at.index,
        clamps: at.router.mss_clamping,
        len: simple.len,
    });
    Step::Connection
}

/// Translates a packet whose connection says how, and where to.
#[inline(always)]
pub(super) fn follow(frame: &mut Frame, packet: &Packet, cx: &mut Context<'_, '_, impl Tracer>) -> Step {
    let (epoch, now) = (cx.epoch(), cx.seconds);
    let Some(translator) = &cx.shard.nat else { return Step::Decide };
    let tuple = &packet.probe.tuple;
    let Some(known) = translator.seek(&packet.probe, packet.guess) else {
        translator.expect(packet.router, tuple);
        return if packet.out != 0 { Step::Begin } else { Step::Decide };
    };
    if !known.counts(epoch, now) {
        return Step::Decide;
    }
    let Some(neighbour) = NeighbourRef::from_number(known.data()) else { return Step::Decide };
    let rewrite = known.rewrite(tuple);
    let (place, direction) = (known.at, known.direction);
    let Some((to, mac)) = leaves(frame, neighbour, cx) else { return Step::Decide };
    let Some(seen) = seen(frame, packet) else { return Step::Decide };
    let Some(translator) = &mut cx.shard.nat else { return Step::Decide };
    match translator.tracker.update(place, direction, &seen, now) {
        Verdict::Pass | Verdict::Restarted => {}
        Verdict::Renew => return Step::Decide,
        Verdict::Invalid(_) => return Step::Drop(DropReason::ConntrackInvalid),
    }
    depart(frame, packet, &rewrite, to, (neighbour, mac), cx)
}

/// What the tracker needs of a packet; nothing: it has less.
#[inline(always)]
pub(super) fn seen(frame: &Frame, packet: &Packet) -> Option<Seen> {
    let mut seen = Seen { bytes: packet.len, tcp: None };
    if packet.probe.tuple.protocol() == protocol::TCP {
        let transport = frame.head().get(HEADER + SIMPLE_TRANSPORT..).unwrap_or_default();
        seen.tcp = Some(carried::segment(transport, packet.len.saturating_sub(TRANSPORT))?);
    }
    Some(seen)
}

/// Translates a packet, and addresses it to its neighbour.
#[inline(always)]
pub(super) fn depart(
    frame: &mut Frame,
    packet: &Packet,
    rewrite: &Rewrite,
    to: &Interface,
    neighbour: (NeighbourRef, Mac),
    cx: &Context<'_, '_, impl Tracer>,
) -> Step {
    if packet.clamps
        && let Some(at) = At::new(packet.interface, cx.tables)
    {
        clamp(frame, (packet.probe.tuple.protocol(), SIMPLE_TRANSPORT), at.interface, to);
    }
    let transport = SIMPLE_TRANSPORT;
    let partial = rewrite.kind().is_partial(&frame.offload, HEADER + transport);
    let bytes = frame.head_mut().get_mut(HEADER..).unwrap_or_default();
    if let Err(reason) = rewrite.apply(bytes, transport, partial) {
        return Step::Drop(reason);
    }
    send(frame, to, neighbour)
}

/// Writes the MACs.
#[inline(always)]
fn send(frame: &mut Frame, to: &Interface, (neighbour, mac): (NeighbourRef, Mac)) -> Step {
    address(frame.head_mut(), to.mac, mac);
    Step::Leave(neighbour)
}
