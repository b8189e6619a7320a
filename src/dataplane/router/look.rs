//! The short way of simple packets. Whatever is not plain goes the long one ([`super::decide`]), so nothing here may change a
//! packet or a connection before it is known that the packet leaves.

use std::net::Ipv4Addr;

use super::{At, Context, HEADER, address, clamp, load, next};
use crate::dataplane::check::{Header, Scope, check_v4, check_v6};
use crate::dataplane::conntrack::{self, Seen, Tuple, Verdict};
use crate::dataplane::fdb::{self, FdbKey};
use crate::dataplane::nat::carried::{Carried, carried};
use crate::dataplane::nat::tuple;
use crate::dataplane::rewrite;
use crate::dataplane::router::neighbours::NeighbourRef;
use crate::dataplane::tracer::Tracer;
use crate::frame::Frame;
use crate::stats::DropReason;
use crate::tables::fib::Route;
use crate::tables::tunnel::v4_key;
use crate::types::{Mac, PortIdx};
use crate::wire::ethernet::{IPV4, IPV6};

/// How far a packet got.
pub(super) enum Step {
    /// It leaves by this interface: its MACs are written, and the FDB is asked for the second one.
    Leave(PortIdx, fdb::Probe),
    /// It is of a connection, if that is there.
    Connection(Packet),
    /// It is not simple: everything about it is to be decided.
    Decide,
    Drop(DropReason),
}

/// A packet whose connection is sought.
pub(super) struct Packet {
    pub(super) probe: conntrack::Probe,
    seen: Seen,
    interface: PortIdx,
    header: Header<Ipv4Addr>,
}

/// The first look at a packet. One that is not translated is on its way then.
#[inline(always)]
pub(super) fn look(frame: &mut Frame, interface: PortIdx, cx: &mut Context<'_, '_, impl Tracer>) -> Step {
    let Some(at) = At::new(interface, cx.tables).filter(|at| at.port.up) else { return Step::Decide };
    let head = frame.head();
    let packet = head.get(HEADER..).unwrap_or_default();
    let len = frame.len() - HEADER.min(frame.len());
    match load::<2>(head, HEADER - 2).map(u16::from_be_bytes) {
        Some(IPV4) => {
            let Ok(header) = check_v4(packet, len) else { return Step::Decide };
            if !is_simple(&header) {
                return Step::Decide;
            }
            let destination = header.destination.to_bits();
            let route = at.router.fib.v4(destination);
            if matches!(route, Some(Route::Translated)) {
                return connection(frame, header, &at, cx);
            }
            let Ok(Some((to, next))) = next(route, v4_key(destination), head, &at, cx.tables, cx.tracer)
            else {
                return Step::Decide;
            };
            if to.interface.is_gateway && !at.interface.is_gateway {
                return connection(frame, header, &at, cx);
            }
            plain(frame, &header, (&at, &to), next, rewrite::hop_v4, cx)
        }
        Some(IPV6) => {
            let Ok(header) = check_v6(packet, len) else { return Step::Decide };
            if !is_simple(&header) {
                return Step::Decide;
            }
            let destination = header.destination.to_bits();
            let route = at.router.fib.v6(destination);
            let Ok(Some((to, next))) = next(route, destination, head, &at, cx.tables, cx.tracer) else {
                return Step::Decide;
            };
            plain(frame, &header, (&at, &to), next, rewrite::hop_v6, cx)
        }
        _ => Step::Decide,
    }
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
    next: u128,
    hop: impl FnOnce(&mut [u8]),
    cx: &mut Context<'_, '_, impl Tracer>,
) -> Step {
    let mac = cx.shard.neighbours.get(to.index, next, cx.seconds());
    let Some(mac) = mac.filter(|_| frame.len() <= to.port.plain_len) else { return Step::Decide };
    clamp(frame, header, at, to);
    hop(frame.head_mut().get_mut(HEADER..).unwrap_or_default());
    send(frame, to, mac, cx)
}

/// A packet whose connection is to be sought: only who translates for the router can.
#[inline(always)]
fn connection(
    frame: &Frame,
    header: Header<Ipv4Addr>,
    at: &At<'_>,
    cx: &Context<'_, '_, impl Tracer>,
) -> Step {
    let Some(translator) = &cx.shard.nat else { return Step::Decide };
    let packet = frame.head().get(HEADER..).unwrap_or_default();
    let Ok(Carried::Flow { ports, tcp, .. }) = carried(packet, &header, at.interface.router) else {
        return Step::Decide;
    };
    let probe = translator.tracker.probe(&tuple(&header, at.interface.router, ports));
    let seen = Seen { bytes: header.len, tcp };
    Step::Connection(Packet { probe, seen, interface: at.index, header })
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
    match translator.tracker.update(place, direction, &packet.seen, now) {
        Verdict::Pass | Verdict::Restarted => {}
        Verdict::Renew => return Step::Decide,
        Verdict::Invalid(_) => return Step::Drop(DropReason::ConntrackInvalid),
    }
    if let Some(at) = At::new(packet.interface, cx.tables) {
        clamp(frame, &packet.header, &at, &to);
    }
    let transport = usize::from(packet.header.transport);
    let partial = rewrite.kind().is_partial(&frame.offload, HEADER + transport);
    let bytes = frame.head_mut().get_mut(HEADER..).unwrap_or_default();
    if let Err(reason) = rewrite.apply(bytes, transport, partial) {
        return Step::Drop(reason);
    }
    say_translated(frame, tuple, &to, cx);
    send(frame, &to, mac, cx)
}

#[inline(always)]
fn say_translated(frame: &Frame, tuple: &Tuple, to: &At<'_>, cx: &mut Context<'_, '_, impl Tracer>) {
    let transport = match tuple.is_v4() {
        true => frame.head().get(HEADER).map_or(0, |first| usize::from(first & 15) * 4),
        false => 0,
    };
    let bytes = frame.head().get(HEADER..).unwrap_or_default();
    cx.tracer.say("nat", || super::decide::say_ends(bytes, transport));
    cx.tracer.say("router", || format!("its connection leads to the network of interface {}", to.port.name));
}

/// Writes the MACs.
#[inline(always)]
fn send(frame: &mut Frame, to: &At<'_>, mac: Mac, cx: &mut Context<'_, '_, impl Tracer>) -> Step {
    cx.tracer.say("router", || format!("the next hop has MAC {mac}"));
    address(frame.head_mut(), to.interface.mac, mac);
    Step::Leave(to.index, cx.shard.fdb.probe(FdbKey::new(to.interface.network, mac)))
}
