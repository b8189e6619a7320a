//! The short way of simple packets. Whatever is not plain goes the long one ([`super::decide`]), so nothing here may change a
//! packet or a connection before it is known that the packet leaves.

use std::net::{IpAddr, Ipv4Addr};

use arrayvec::ArrayVec;

use super::decide::say_ends;
use super::leads::Lead;
use super::{At, Context, HEADER, address, clamp, load, next};
use crate::dataplane::check::{Header, Scope, check_v4, check_v6};
use crate::dataplane::conntrack::{Seen, V4Probe, V4Tuple, Verdict};
use crate::dataplane::fdb::{self, FdbKey};
use crate::dataplane::nat::carried::{Carried, carried, ports, segment};
use crate::dataplane::rewrite;
use crate::dataplane::router::neighbours::NeighbourRef;
use crate::dataplane::tracer::Tracer;
use crate::frame::{BURST, Frame};
use crate::stats::DropReason;
use crate::tables::fib::Route;
use crate::tables::tunnel::{key_address, v4_key};
use crate::types::{Mac, PortIdx, RouterIdx};
use crate::wire::ethernet::{IPV4, IPV6};
use crate::wire::protocol;

/// How far a packet got.
#[derive(Clone, Copy)]
pub(super) enum Step {
    /// It leaves by this interface: its MACs are written, and the FDB is asked for the second one.
    Leave(PortIdx, fdb::Probe),
    /// It is of a connection, if that is there.
    Connection,
    /// It is not simple: everything about it is to be decided.
    Decide,
    Drop(DropReason),
}

/// A packet whose connection is sought.
pub(super) struct Packet {
    /// Its place in the burst.
    pub(super) place: usize,
    pub(super) probe: V4Probe,
    interface: PortIdx,
    header: Header<Ipv4Addr>,
}

/// Packets whose connections are sought.
pub(super) type Packets = ArrayVec<Packet, BURST>;

/// The first look at a packet, which stands at `place` of its burst. One that is not translated is on its way then.
#[inline(always)]
pub(super) fn look(
    frame: &mut Frame,
    place: usize,
    at: &At<'_>,
    packets: &mut Packets,
    cx: &mut Context<'_, '_, impl Tracer>,
) -> Step {
    if !at.port.up {
        return Step::Decide;
    }
    let head = frame.head();
    let packet = head.get(HEADER..).unwrap_or_default();
    let len = frame.len() - HEADER.min(frame.len());
    match load::<2>(head, HEADER - 2).map(u16::from_be_bytes) {
        Some(IPV4) => {
            let Ok(header) = check_v4(packet, len) else { return Step::Decide };
            if !is_simple(&header) {
                return Step::Decide;
            }
            let Some(lead) = lead(v4_key(header.destination.to_bits()), frame, at, cx) else {
                return Step::Decide;
            };
            if lead == Lead::Translated {
                return connection(frame, place, header, at, packets, cx);
            }
            match leaves(lead, cx) {
                Some((to, _)) if to.interface.is_gateway && !at.interface.is_gateway => {
                    connection(frame, place, header, at, packets, cx)
                }
                Some((to, mac)) => plain(frame, &header, (at, &to), mac, rewrite::hop_v4, cx),
                None => Step::Decide,
            }
        }
        Some(IPV6) => {
            let Ok(header) = check_v6(packet, len) else { return Step::Decide };
            if !is_simple(&header) {
                return Step::Decide;
            }
            let lead = lead(header.destination.to_bits(), frame, at, cx);
            match lead.and_then(|lead| leaves(lead, cx)) {
                Some((to, mac)) => plain(frame, &header, (at, &to), mac, rewrite::hop_v6, cx),
                None => Step::Decide,
            }
        }
        _ => Step::Decide,
    }
}

/// Where an address leads; nothing: not to one neighbour that is known.
#[inline(always)]
fn lead(
    destination: u128,
    frame: &Frame,
    at: &At<'_>,
    cx: &mut Context<'_, '_, impl Tracer>,
) -> Option<Lead> {
    match cx.shard.leads.get(at.interface.router, destination, cx.epoch()) {
        Some(lead) => Some(lead),
        None => find_lead(destination, frame, at, cx),
    }
}

/// Asks the FIB and the neighbours, and keeps what they say.
#[inline(never)]
fn find_lead(
    destination: u128,
    frame: &Frame,
    at: &At<'_>,
    cx: &mut Context<'_, '_, impl Tracer>,
) -> Option<Lead> {
    let route = match key_address(destination) {
        IpAddr::V4(address) => at.router.fib.v4(address.to_bits()),
        IpAddr::V6(_) => at.router.fib.v6(destination),
    };
    let lead = if matches!(route, Some(Route::Translated)) {
        Lead::Translated
    } else {
        let (to, next) = next(route, destination, frame.head(), at, cx.tables, cx.tracer).ok()??;
        Lead::To(cx.shard.neighbours.find(to.index, next)?)
    };
    if !matches!(route, Some(Route::Via(hops)) if hops.len() > 1) {
        let epoch = cx.epoch();
        cx.shard.leads.keep(at.interface.router, destination, epoch, lead);
    }
    Some(lead)
}

/// The interface and the MAC that a lead is to; nothing: it is to none, or its MAC is not known now.
#[inline(always)]
fn leaves<'t>(lead: Lead, cx: &Context<'_, 't, impl Tracer>) -> Option<(At<'t>, Mac)> {
    let Lead::To(neighbour) = lead else { return None };
    let (to, mac) = cx.shard.neighbours.at(neighbour, cx.seconds())?;
    Some((At::new(to, cx.tables).filter(|to| to.port.up)?, mac?))
}

/// Whether a packet may be sent on, and is whole.
#[inline(always)]
fn is_simple<A>(header: &Header<A>) -> bool {
    header.scope == Scope::Routed && header.fragment.is_none() && header.hops > 1
}

/// A packet that is not translated.
#[inline(always)]
fn plain<A>(
    frame: &mut Frame,
    header: &Header<A>,
    (at, to): (&At<'_>, &At<'_>),
    mac: Mac,
    hop: impl FnOnce(&mut [u8]),
    cx: &mut Context<'_, '_, impl Tracer>,
) -> Step {
    if frame.len() > to.port.plain_len {
        return Step::Decide;
    }
    clamp(frame, header, at, to);
    hop(frame.head_mut().get_mut(HEADER..).unwrap_or_default());
    send(frame, to, mac, cx)
}

/// A packet whose connection is to be sought: only who translates for the router can.
#[inline(always)]
fn connection(
    frame: &Frame,
    place: usize,
    header: Header<Ipv4Addr>,
    at: &At<'_>,
    packets: &mut Packets,
    cx: &Context<'_, '_, impl Tracer>,
) -> Step {
    let Some(translator) = &cx.shard.nat else { return Step::Decide };
    let packet = frame.head().get(HEADER..).unwrap_or_default();
    let ports = match header.protocol {
        protocol::TCP | protocol::UDP => ports(packet, &header),
        _ => rare_ports(packet, &header, at.interface.router),
    };
    let Some(ports) = ports else { return Step::Decide };
    let addresses = (header.source.to_bits(), header.destination.to_bits());
    let tuple = V4Tuple::new(at.interface.router.0, header.protocol, addresses, ports);
    let probe = translator.tracker.probe_v4(tuple);
    packets.push(Packet { place, probe, interface: at.index, header });
    Step::Connection
}

#[cold]
fn rare_ports(packet: &[u8], header: &Header<Ipv4Addr>, router: RouterIdx) -> Option<(u16, u16)> {
    match carried(packet, header, router) {
        Ok(Carried::Flow { ports, .. }) => Some(ports),
        _ => None,
    }
}

/// Translates a packet whose connection says how, and where to.
#[inline(always)]
pub(super) fn follow(frame: &mut Frame, packet: &Packet, cx: &mut Context<'_, '_, impl Tracer>) -> Step {
    let (epoch, now) = (cx.epoch(), cx.seconds());
    let Some(translator) = &mut cx.shard.nat else { return Step::Decide };
    let tuple = &packet.probe.tuple;
    let Some(known) = translator.seek(&packet.probe, epoch, now) else { return Step::Decide };
    let neighbour = NeighbourRef::from_number(known.data());
    let Some((to, Some(mac))) = neighbour.and_then(|neighbour| cx.shard.neighbours.at(neighbour, now)) else {
        return Step::Decide;
    };
    let Some(to) = At::new(to, cx.tables).filter(|to| to.port.up && frame.len() <= to.port.plain_len) else {
        return Step::Decide;
    };
    let (place, direction, rewrite) = (known.at, known.direction, known.rewrite(tuple));
    let header = &packet.header;
    let mut seen = Seen { bytes: header.len, tcp: None };
    if header.protocol == protocol::TCP {
        seen.tcp = segment(frame.head().get(HEADER..).unwrap_or_default(), header);
        if seen.tcp.is_none() {
            return Step::Decide;
        }
    }
    match translator.tracker.update(place, direction, &seen, now) {
        Verdict::Pass | Verdict::Restarted => {}
        Verdict::Renew => return Step::Decide,
        Verdict::Invalid(_) => return Step::Drop(DropReason::ConntrackInvalid),
    }
    if let Some(at) = At::new(packet.interface, cx.tables) {
        clamp(frame, header, &at, &to);
    }
    let transport = usize::from(header.transport);
    let partial = rewrite.kind().is_partial(&frame.offload, HEADER + transport);
    let bytes = frame.head_mut().get_mut(HEADER..).unwrap_or_default();
    if let Err(reason) = rewrite.apply(bytes, transport, partial) {
        return Step::Drop(reason);
    }
    cx.tracer.say("nat", || say_ends(frame.head().get(HEADER..).unwrap_or_default(), transport));
    cx.tracer.say("router", || format!("its connection leads to the network of interface {}", to.port.name));
    send(frame, &to, mac, cx)
}

/// Writes the MACs.
#[inline(always)]
fn send(frame: &mut Frame, to: &At<'_>, mac: Mac, cx: &mut Context<'_, '_, impl Tracer>) -> Step {
    cx.tracer.say("router", || format!("the next hop has MAC {mac}"));
    address(frame.head_mut(), to.interface.mac, mac);
    Step::Leave(to.index, cx.shard.fdb.probe(FdbKey::new(to.interface.network, mac)))
}
