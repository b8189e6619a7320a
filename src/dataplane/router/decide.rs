//! The long way of packets that are not simple: every turn that there is ([`super`] shows them).

use std::net::Ipv4Addr;

use super::errors::tell;
use super::fragment::Cut;
use super::{At, Context, HEADER, Stop, clamp, drop_at, explain, leave, load, next};
use crate::dataplane::check::{Header, Scope, check_v4, check_v6, wrong_option};
use crate::dataplane::fragments::{Key, Outcome, Piece};
use crate::dataplane::nat::carried::piece;
use crate::dataplane::nat::{Asked, Plan};
use crate::dataplane::tracer::{Look, Tracer};
use crate::dataplane::{rewrite, segment};
use crate::frame::{Frame, Offload};
use crate::services::icmp::Problem;
use crate::stats::DropReason;
use crate::tables::fib::Route;
use crate::tables::tunnel::v4_key;
use crate::wire::ethernet::{ARP, IPV4, IPV6};

/// Where a packet goes.
enum Way<'t> {
    /// To the neighbour with this address, by this interface.
    Out(At<'t>, u128),
    /// It is a fragment that has to be translated: its packet's ports are to be found first.
    Part(Key, Piece),
    /// To the home of the interface that it came by.
    Home,
}

/// Sends a packet on, or gives it back: it is for the home of the interface that it came by.
#[inline(never)]
pub(super) fn decide<'t>(
    mut frame: Frame,
    at: &At<'t>,
    cx: &mut Context<'_, 't, impl Tracer>,
) -> Option<Frame> {
    let found = if at.port.up { way(&mut frame, at, None, cx) } else { Err(DropReason::PortDown.into()) };
    match found {
        Ok(Way::Part(key, piece)) => {
            let gathered = gather(frame, (key, piece), at, cx);
            let left = gathered.and_then(|(mut frame, ports)| {
                let found = way(&mut frame, at, ports, cx);
                go(frame, found, at, cx)
            });
            release_fragments(cx);
            left
        }
        found => go(frame, found, at, cx),
    }
}

/// Goes the way that was found.
fn go(
    frame: Frame,
    way: Result<Way<'_>, Stop>,
    at: &At<'_>,
    cx: &mut Context<'_, '_, impl Tracer>,
) -> Option<Frame> {
    match way {
        // Only who has no ports yet is asked for them.
        Ok(Way::Part(..)) => drop_at(at.index, DropReason::FragmentLimit, cx),
        // What is too long here is to be cut: else its sender was told.
        Ok(Way::Out(to, next)) if is_long(&frame, &to) => {
            if let Err(reason) = cut(frame, (&to, next), cx) {
                drop_at(at.index, reason, cx);
            }
        }
        Ok(Way::Out(to, next)) => leave(frame, &to, next, cx),
        Ok(Way::Home) => return Some(frame),
        Err(Stop::Drop(reason)) => drop_at(at.index, reason, cx),
        Err(Stop::Tell(problem, reason)) => {
            tell(&frame, problem, at, cx);
            drop_at(at.index, reason, cx);
        }
    }
    None
}

/// Whether a packet, or each segment that it is to become, is too long for the network that it goes to.
fn is_long(frame: &Frame, to: &At<'_>) -> bool {
    frame.len() > to.port.plain_len && segment::segment_len(frame) > to.port.plain_len
}

/// Sends a packet on in parts; one of several segments (GSO) each segment of it.
#[cold]
fn cut(
    frame: Frame,
    (to, next): (&At<'_>, u128),
    cx: &mut Context<'_, '_, impl Tracer>,
) -> Result<(), DropReason> {
    let mtu = to.port.plain_len.saturating_sub(HEADER);
    cx.tracer.say("router", || {
        format!("longer than the {mtu} bytes that interface {} carries: cut", to.port.name)
    });
    let mut packets = Vec::new();
    if frame.offload.gso() == Offload::GSO_NONE {
        packets.push(frame);
    } else {
        segment::segment_into(frame, &mut cx.shard.pool, true, |segment| packets.push(segment))?;
    }
    for packet in packets {
        let mut cut = Cut::new(packet, mtu)?;
        while let Some(part) = cut.next(&mut cx.shard.pool) {
            leave(part?, to, next, cx);
        }
    }
    Ok(())
}

/// Finds the ports of a fragment's packet. Nothing: it waits, or was dropped.
#[cold]
fn gather(
    frame: Frame,
    (key, piece): (Key, Piece),
    at: &At<'_>,
    cx: &mut Context<'_, '_, impl Tracer>,
) -> Option<(Frame, Option<(u16, u16)>)> {
    let translator = cx.shard.nat.as_mut()?;
    match translator.fragments.track(key, piece, (frame, at.index), cx.now) {
        Outcome::Pass(frame, ports) => Some((frame, ports)),
        Outcome::Held => {
            cx.tracer.say("nat", || "a fragment that waits for the first one of its packet".to_owned());
            None
        }
        Outcome::Drop(_, reason) => {
            drop_at(at.index, reason, cx);
            None
        }
    }
}

/// Sends on, or drops, fragments that wait no longer.
#[cold]
pub(in crate::dataplane) fn release_fragments(cx: &mut Context<'_, '_, impl Tracer>) {
    while let Some((mut frame, interface, ports)) = cx.shard.nat.as_mut().and_then(|nat| nat.fragments.pop())
    {
        let Some(at) = At::new(interface, cx.tables) else { continue };
        let found = match ports {
            Ok(ports) => way(&mut frame, &at, ports, cx),
            Err(reason) => Err(reason.into()),
        };
        if go(frame, found, &at, cx).is_some() {
            drop_at(interface, DropReason::NoService, cx);
        }
    }
}

/// Decides where a packet goes, translates it, and takes one from its TTL or hop limit.
fn way<'t>(
    frame: &mut Frame,
    at: &At<'t>,
    ports: Option<(u16, u16)>,
    cx: &mut Context<'_, 't, impl Tracer>,
) -> Result<Way<'t>, Stop> {
    let head = frame.head();
    let kind = load::<2>(head, HEADER - 2).map(u16::from_be_bytes);
    let packet = head.get(HEADER..).unwrap_or_default();
    let len = frame.len() - HEADER.min(frame.len());
    match kind {
        Some(IPV4) => {
            let header = check_v4(packet, len).map_err(|reason| unsound(reason, packet))?;
            let destination = header.destination.to_bits();
            let route = at.router.fib.v4(destination);
            match may_go(header.scope, route, v4_key(destination), at)? {
                Some(way) => Ok(way),
                None => v4(frame, (&header, ports), route, at, cx),
            }
        }
        Some(IPV6) => {
            let header = check_v6(packet, len)?;
            let destination = header.destination.to_bits();
            let route = at.router.fib.v6(destination);
            if let Some(way) = may_go(header.scope, route, destination, at)? {
                return Ok(way);
            }
            let Some((to, next)) = next(route, destination, head, at, cx.tables, cx.tracer)? else {
                return Ok(Way::Home);
            };
            check_hop(frame, &header, &to)?;
            clamp_whole(frame, &header, at, &to);
            rewrite::hop_v6(frame.head_mut().get_mut(HEADER..).unwrap_or_default());
            Ok(Way::Out(to, next))
        }
        Some(ARP) => Ok(Way::Home),
        _ => Err(DropReason::NotIp.into()),
    }
}

/// Malformed options are told about (RFC 1812, 4.3.3.5); all else that is wrong with a header ends in silence.
#[cold]
fn unsound(reason: DropReason, packet: &[u8]) -> Stop {
    match reason {
        DropReason::IpOptions => {
            let at = u32::try_from(wrong_option(packet)).unwrap_or_default();
            Stop::Tell(Problem::WrongField(at), reason)
        }
        _ => reason.into(),
    }
}

/// Whether a packet may leave its link; some are for the router itself on that link.
fn may_go<'t>(
    scope: Scope,
    route: Option<&Route>,
    destination: u128,
    at: &At<'t>,
) -> Result<Option<Way<'t>>, Stop> {
    match scope {
        Scope::Routed => Ok(None),
        Scope::Group => Err(DropReason::NotUnicast.into()),
        // A neighbour's answers come from its link-local address.
        Scope::Link
            if destination == at.interface.link_local().to_bits()
                || matches!(route, Some(Route::Local | Route::Translated)) =>
        {
            Ok(Some(Way::Home))
        }
        Scope::Link => Err(DropReason::LinkLocal.into()),
    }
}

/// As [`way`], for a sound IPv4 packet that may leave its link.
fn v4<'t>(
    frame: &mut Frame,
    (header, ports): (&Header<Ipv4Addr>, Option<(u16, u16)>),
    route: Option<&'t Route>,
    at: &At<'t>,
    cx: &mut Context<'_, 't, impl Tracer>,
) -> Result<Way<'t>, Stop> {
    let destination = v4_key(header.destination.to_bits());
    let to_nat = matches!(route, Some(Route::Translated));
    let mut found =
        if to_nat { None } else { next(route, destination, frame.head(), at, cx.tables, cx.tracer)? };
    if found.is_none() && !to_nat {
        return Ok(Way::Home);
    }
    let leads_out = found.as_ref().is_some_and(|(to, _)| to.interface.is_gateway);
    let from_world = at.interface.is_gateway;
    if !to_nat && (!leads_out || from_world) {
        let Some((to, next)) = found else { return Ok(Way::Home) };
        check_hop(frame, header, &to)?;
        clamp_whole(frame, header, at, &to);
        rewrite::hop_v4(frame.head_mut().get_mut(HEADER..).unwrap_or_default());
        return Ok(Way::Out(to, next));
    }
    // Who translates for the router is the home of all of its interfaces.
    let (epoch, now) = (cx.epoch(), cx.seconds);
    let Some(translator) = &mut cx.shard.nat else { return Ok(Way::Home) };
    let packet = frame.head().get(HEADER..).unwrap_or_default();
    let asked = Asked {
        packet,
        header,
        router: at.interface.router,
        rules: &at.router.nat,
        from_world,
        to_nat,
        ports,
        is_partial: frame.offload.needs_csum(),
        epoch,
        now,
    };
    if header.fragment.is_some() && ports.is_none() {
        let (key, piece) = piece(&asked)?;
        return Ok(Way::Part(key, piece));
    }
    if to_nat {
        cx.tracer.say("router", || explain::route(at, destination, None));
    }
    cx.tracer.look(|| translator.tuple_of(&asked).map(Look::Connection));
    cx.tracer.say("conntrack", || translator.describe(&asked));
    let plan = translator.plan(&asked).map_err(|reason| refused(reason, from_world))?;
    let new_destination = match &plan {
        Plan::Local => return Ok(Way::Home),
        Plan::Plain => header.destination.to_bits(),
        Plan::Rewrite { destination, .. } => *destination,
        Plan::Error { destination, .. } => destination.to_bits(),
    };
    if to_nat || new_destination != header.destination.to_bits() {
        let route = at.router.fib.v4(new_destination);
        found = next(route, v4_key(new_destination), frame.head(), at, cx.tables, cx.tracer)?;
    }
    let Some((to, next)) = found else { return Ok(Way::Home) };
    check_hop(frame, header, &to)?;
    clamp_whole(frame, header, at, &to);
    let transport = usize::from(header.transport);
    let offload = frame.offload;
    let packet = frame.head_mut().get_mut(HEADER..).unwrap_or_default();
    match plan {
        Plan::Rewrite { rewrite, connection, .. } => {
            if header.has_transport() {
                let partial = rewrite.kind().is_partial(&offload, HEADER + transport);
                rewrite.apply(packet, transport, partial)?;
            } else {
                rewrite.apply_later(packet)?;
            }
            // From the next packet on one look-up says all of this.
            if let Some((connection, direction)) = connection
                && let Some(neighbour) = cx.shard.neighbours.find(to.index, next)
            {
                translator.tracker.keep(connection, direction, neighbour.number());
            }
            cx.tracer.say("nat", || explain::ends(packet, transport));
        }
        Plan::Error { source, destination, quoted } => {
            rewrite::error_v4(packet, transport, (source, destination), &quoted, offload.needs_csum())?;
            cx.tracer.say("nat", || {
                "an ICMP error about a translated packet: translated with what it quotes".to_owned()
            });
        }
        Plan::Plain | Plan::Local => rewrite::hop_v4(packet),
    }
    Ok(Way::Out(to, next))
}

/// As [`clamp`], if the packet has its transport header.
fn clamp_whole<A>(frame: &mut Frame, header: &Header<A>, at: &At<'_>, to: &At<'_>) {
    if at.router.mss_clamping && header.has_transport() {
        clamp(frame, (header.protocol, usize::from(header.transport)), at.interface, to.interface);
    }
}

/// A guest that finds no port is told that it may not send (RFC 5508, REQ-8).
#[cold]
fn refused(reason: DropReason, from_world: bool) -> Stop {
    match reason {
        DropReason::NatExhausted if !from_world => Stop::Tell(Problem::Prohibited, reason),
        _ => reason.into(),
    }
}

/// Whether a packet has a hop left, and fits the network that it goes to or may be cut for it.
fn check_hop<A>(frame: &Frame, header: &Header<A>, to: &At<'_>) -> Result<(), Stop> {
    if header.hops <= 1 {
        return Err(Stop::Tell(Problem::HopsExceeded, DropReason::TtlExceeded));
    }
    if is_long(frame, to) && !header.may_fragment {
        return Err(Stop::Tell(Problem::TooBig(to.interface.mtu), DropReason::MtuExceeded));
    }
    Ok(())
}
