//! The router: frames that the bridge delivered to an interface's port, routed as a burst of their own once the burst that
//! they came with has passed the bridge.
//!
//! ```text
//! header ─▶ FIB ─▶ NAT, FIB ─▶ TTL, MTU ─▶ neighbour ─▶ MACs ─▶ the bridge of the network that it leaves by
//!   │        │                    │           └ not known: to the home of the interface that it leaves by
//!   │        │                    └ ICMP error
//!   │        ├ the router's own address, ARP, ND: to the home of the interface that it came by
//!   │        └ no route: ICMP error
//!   └ dropped
//! ```
//!
//! An interface's *home* is the worker of its port ([`super::gateway`] is what it does there); a frame gets there as to any
//! port, by [`Out`]. One that is still to be sent has the interface's own MAC as its source; any other was sent to it.
//!
//! Accounting: to the interface that a packet came by it is `tx`; to the one that it leaves by it is `rx`, and ends there as
//! the bridge says. What ends in the router itself ends at the interface that it came by.

pub(super) mod errors;
mod explain;
pub mod neighbours;

use std::net::Ipv4Addr;

use super::bridge;
use super::check::{Header, Scope, check_v4, check_v6};
use super::fdb::FdbKey;
use super::fragments::{Key, Outcome, Piece};
use super::ingress::Classified;
use super::nat::{self, Asked, Plan};
use super::out::Out;
use super::rewrite::Transport;
use super::tracer::{Look, Tracer};
use super::{Sent, Shard, flow, rewrite, segment};
use crate::frame::Frame;
use crate::services::icmp::Problem;
use crate::stats::DropReason;
use crate::tables::fib::{Hop, Route};
use crate::tables::router::{Interface, RouterEntry};
use crate::tables::tunnel::{key_address, v4_key};
use crate::tables::{PortEntry, Tables};
use crate::types::{Instant, Mac, PortIdx};
use crate::wire::ethernet::{ARP, HEADER, IPV4, IPV6};
use crate::wire::protocol;
use errors::tell;

/// Routers of ours that a packet passes in one go, at most.
const MAX_ROUTERS: usize = 16;
/// Bytes of a TCP header without options.
const TCP_HEADER: u16 = 20;
/// ICMP errors a second that an interface causes, and at once (RFC 1812, 4.3.2.8; RFC 4443, 2.4(f)).
pub(super) const ERRORS: (u32, u32) = (100, 50);

/// A frame that the bridge delivered to a router's interface.
pub(super) struct Delivered {
    pub(super) frame: Frame,
    pub(super) interface: PortIdx,
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

/// Routes all frames that were delivered to interfaces, and what that delivers to further ones.
pub(super) fn route(
    tables: &Tables,
    shard: &mut Shard,
    now: Instant,
    out: &mut Out,
    tracer: &mut impl Tracer,
) {
    for _ in 0..MAX_ROUTERS {
        for delivered in std::mem::take(&mut shard.delivered) {
            route_one(delivered, tables, shard, now, out, tracer);
        }
        if shard.delivered.is_empty() {
            return;
        }
    }
    for Delivered { interface, .. } in std::mem::take(&mut shard.delivered) {
        drop_at(interface, DropReason::RouterLoop, (tables, shard), tracer);
    }
}

#[inline(always)]
fn route_one(
    delivered: Delivered,
    tables: &Tables,
    shard: &mut Shard,
    now: Instant,
    out: &mut Out,
    tracer: &mut impl Tracer,
) {
    let Delivered { frame, interface } = delivered;
    let Some(at) = At::new(interface, tables) else { return };
    shard.tally.count_tx(interface, frame.len() as u64);
    if let Some(frame) = route_on(frame, &at, tables, shard, now, out, tracer) {
        tracer.say("router", || format!("for the home of interface {}", at.port.name));
        out.push(interface, frame);
    }
}

/// As any worker does, at the home of the interface that the packet came by. Gives back what is for the router itself.
pub(super) fn route_at_home(
    frame: Frame,
    at: &At<'_>,
    tables: &Tables,
    shard: &mut Shard,
    now: Instant,
    out: &mut Out,
) -> Option<Frame> {
    route_on(frame, at, tables, shard, now, out, &mut super::tracer::Silent)
}

/// Sends a packet on, or gives it back: it is for the home of the interface that it came by.
#[inline(always)]
fn route_on(
    mut frame: Frame,
    at: &At<'_>,
    tables: &Tables,
    shard: &mut Shard,
    now: Instant,
    out: &mut Out,
    tracer: &mut impl Tracer,
) -> Option<Frame> {
    let found = if at.port.up {
        way(&mut frame, at, None, tables, shard, now, tracer)
    } else {
        Err(DropReason::PortDown.into())
    };
    let found = match found {
        Ok(Way::Part(key, piece)) => {
            let gathered = gather(frame, (key, piece), at, (tables, shard), now, tracer);
            let left = gathered.and_then(|(mut frame, ports)| {
                let found = way(&mut frame, at, ports, tables, shard, now, tracer);
                go(frame, found, at, tables, shard, now, out, tracer)
            });
            release_fragments(tables, shard, now, out, tracer);
            return left;
        }
        found => found,
    };
    go(frame, found, at, tables, shard, now, out, tracer)
}

/// Goes the way that was found.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn go(
    frame: Frame,
    way: Result<Way<'_>, Stop>,
    at: &At<'_>,
    tables: &Tables,
    shard: &mut Shard,
    now: Instant,
    out: &mut Out,
    tracer: &mut impl Tracer,
) -> Option<Frame> {
    match way {
        // Only who has no ports yet is asked for them.
        Ok(Way::Part(..)) => drop_at(at.index, DropReason::FragmentLimit, (tables, shard), tracer),
        Ok(Way::Out(to, next)) => leave(frame, &to, next, tables, shard, now, out, tracer),
        Ok(Way::Home) => return Some(frame),
        Err(Stop::Drop(reason)) => drop_at(at.index, reason, (tables, shard), tracer),
        Err(Stop::Tell(problem, reason)) => {
            tell(&frame, problem, at, (tables, shard), now, out, tracer);
            drop_at(at.index, reason, (tables, shard), tracer);
        }
    }
    None
}

/// Where a packet goes.
enum Way<'t> {
    /// To the neighbour with this address, by this interface.
    Out(At<'t>, u128),
    /// It is a fragment that has to be translated: its packet's ports are to be found first.
    Part(Key, Piece),
    /// To the home of the interface that it came by.
    Home,
}

/// Finds the ports of a fragment's packet. Nothing: it waits, or was dropped.
#[cold]
fn gather(
    frame: Frame,
    (key, piece): (Key, Piece),
    at: &At<'_>,
    (tables, shard): (&Tables, &mut Shard),
    now: Instant,
    tracer: &mut impl Tracer,
) -> Option<(Frame, Option<(u16, u16)>)> {
    let translator = shard.nat.as_mut()?;
    match translator.fragments.track(key, piece, (frame, at.index), now) {
        Outcome::Pass(frame, ports) => Some((frame, ports)),
        Outcome::Held => {
            tracer.say("nat", || "a fragment that waits for the first one of its packet".to_owned());
            None
        }
        Outcome::Drop(_, reason) => {
            drop_at(at.index, reason, (tables, shard), tracer);
            None
        }
    }
}

/// Sends on, or drops, fragments that wait no longer.
#[cold]
pub(super) fn release_fragments(
    tables: &Tables,
    shard: &mut Shard,
    now: Instant,
    out: &mut Out,
    tracer: &mut impl Tracer,
) {
    while let Some((mut frame, interface, ports)) = shard.nat.as_mut().and_then(|nat| nat.fragments.pop()) {
        let Some(at) = At::new(interface, tables) else { continue };
        let found = match ports {
            Ok(ports) => way(&mut frame, &at, ports, tables, shard, now, tracer),
            Err(reason) => Err(reason.into()),
        };
        if go(frame, found, &at, tables, shard, now, out, tracer).is_some() {
            drop_at(interface, DropReason::NoService, (tables, shard), tracer);
        }
    }
}

/// Decides where a packet goes, translates it, and takes one from its TTL or hop limit.
#[inline(always)]
fn way<'t>(
    frame: &mut Frame,
    at: &At<'t>,
    ports: Option<(u16, u16)>,
    tables: &'t Tables,
    shard: &mut Shard,
    now: Instant,
    tracer: &mut impl Tracer,
) -> Result<Way<'t>, Stop> {
    let head = frame.head();
    let kind = load::<2>(head, HEADER - 2).map(u16::from_be_bytes);
    let packet = head.get(HEADER..).unwrap_or_default();
    let len = frame.len() - HEADER.min(frame.len());
    match kind {
        Some(IPV4) => {
            let header = check_v4(packet, len)?;
            let destination = header.destination.to_bits();
            let route = at.router.fib.v4(destination);
            may_go(header.scope, route, v4_key(destination), at)?
                .map_or_else(|| v4(frame, (&header, ports), route, at, tables, shard, now, tracer), Ok)
        }
        Some(IPV6) => {
            let header = check_v6(packet, len)?;
            let destination = header.destination.to_bits();
            let route = at.router.fib.v6(destination);
            if let Some(way) = may_go(header.scope, route, destination, at)? {
                return Ok(way);
            }
            let Some((to, next)) = next(route, destination, head, at, tables, tracer)? else {
                return Ok(Way::Home);
            };
            check_hop(frame, header.hops, &to)?;
            clamp(frame, &header, at, &to);
            rewrite::hop_v6(frame.head_mut().get_mut(HEADER..).unwrap_or_default());
            Ok(Way::Out(to, next))
        }
        Some(ARP) => Ok(Way::Home),
        _ => Err(DropReason::NotIp.into()),
    }
}

/// Whether a packet may leave its link; some are for the router itself on that link.
#[inline(always)]
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
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn v4<'t>(
    frame: &mut Frame,
    (header, ports): (&Header<Ipv4Addr>, Option<(u16, u16)>),
    route: Option<&'t Route>,
    at: &At<'t>,
    tables: &'t Tables,
    shard: &mut Shard,
    now: Instant,
    tracer: &mut impl Tracer,
) -> Result<Way<'t>, Stop> {
    let destination = v4_key(header.destination.to_bits());
    let to_nat = matches!(route, Some(Route::Translated));
    let mut found = if to_nat { None } else { next(route, destination, frame.head(), at, tables, tracer)? };
    if found.is_none() && !to_nat {
        return Ok(Way::Home);
    }
    let leads_out = found.as_ref().is_some_and(|(to, _)| to.interface.is_gateway);
    let from_world = at.interface.is_gateway;
    if !to_nat && (!leads_out || from_world) {
        let Some((to, next)) = found else { return Ok(Way::Home) };
        check_hop(frame, header.hops, &to)?;
        clamp(frame, header, at, &to);
        rewrite::hop_v4(frame.head_mut().get_mut(HEADER..).unwrap_or_default());
        return Ok(Way::Out(to, next));
    }
    // Who translates for the router is the home of all of its interfaces.
    let Some(translator) = &mut shard.nat else { return Ok(Way::Home) };
    let packet = frame.head().get(HEADER..).unwrap_or_default();
    let asked = Asked {
        packet,
        header,
        router: at.interface.router,
        rules: &at.router.nat,
        from_world,
        to_nat,
        ports,
        #[allow(clippy::cast_possible_truncation)] // told apart from the last ones only
        epoch: tables.epoch as u32,
        now: u32::try_from(now.secs()).unwrap_or(u32::MAX),
    };
    if header.fragment.is_some() && ports.is_none() {
        let (key, piece) = nat::piece(&asked)?;
        return Ok(Way::Part(key, piece));
    }
    if to_nat {
        tracer.say("router", || explain::route(at, destination, None));
    }
    tracer.look(|| translator.tuple_of(&asked).map(Look::Connection));
    tracer.say("conntrack", || translator.describe(&asked));
    let plan = translator.plan(&asked)?;
    let new_destination = match &plan {
        Plan::Local => return Ok(Way::Home),
        Plan::Plain => header.destination.to_bits(),
        Plan::Rewrite { destination, .. } => *destination,
        Plan::Error { destination, .. } => destination.to_bits(),
    };
    if to_nat || new_destination != header.destination.to_bits() {
        let route = at.router.fib.v4(new_destination);
        found = next(route, v4_key(new_destination), frame.head(), at, tables, tracer)?;
    }
    let Some((to, next)) = found else { return Ok(Way::Home) };
    check_hop(frame, header.hops, &to)?;
    clamp(frame, header, at, &to);
    let transport = usize::from(header.transport);
    let offload = frame.offload;
    let packet = frame.head_mut().get_mut(HEADER..).unwrap_or_default();
    match plan {
        Plan::Rewrite { rewrite, .. } => {
            if header.has_transport() {
                let partial = rewrite.kind().is_partial(&offload, HEADER + transport);
                rewrite.apply(packet, transport, partial)?;
            } else {
                rewrite.apply_later(packet)?;
            }
            tracer.say("nat", || explain::ends(packet, transport));
        }
        Plan::Error { source, destination, quoted } => {
            rewrite::error_v4(packet, transport, (source, destination), &quoted, offload.needs_csum())?;
            tracer.say("nat", || {
                "an ICMP error about a translated packet: translated with what it quotes".to_owned()
            });
        }
        Plan::Plain | Plan::Local => rewrite::hop_v4(packet),
    }
    Ok(Way::Out(to, next))
}

/// The interface and the next hop that a route leads to; nothing: the router itself.
#[inline(always)]
fn next<'t>(
    route: Option<&Route>,
    destination: u128,
    head: &[u8],
    at: &At<'t>,
    tables: &'t Tables,
    tracer: &mut impl Tracer,
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
fn clamp<A>(frame: &mut Frame, header: &Header<A>, at: &At<'_>, to: &At<'_>) {
    if at.router.mss_clamping && header.protocol == protocol::TCP && header.has_transport() {
        let transport = HEADER + usize::from(header.transport);
        let partial = Transport::Tcp.is_partial(&frame.offload, transport);
        let mtu = at.interface.mtu.min(to.interface.mtu);
        let mss = mtu.saturating_sub(header.transport).saturating_sub(TCP_HEADER);
        rewrite::clamp_mss(frame.head_mut().get_mut(transport..).unwrap_or_default(), mss, partial);
    }
}

/// Whether a packet has a hop left, and fits the network that it goes to.
#[inline(always)]
fn check_hop(frame: &Frame, hops: u8, to: &At<'_>) -> Result<(), Stop> {
    if hops <= 1 {
        return Err(Stop::Tell(Problem::HopsExceeded, DropReason::TtlExceeded));
    }
    if frame.len() > to.port.plain_len && segment::segment_len(frame) > to.port.plain_len {
        return Err(Stop::Tell(Problem::TooBig(to.interface.mtu), DropReason::MtuExceeded));
    }
    Ok(())
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
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn leave(
    mut frame: Frame,
    to: &At<'_>,
    next: u128,
    tables: &Tables,
    shard: &mut Shard,
    now: Instant,
    out: &mut Out,
    tracer: &mut impl Tracer,
) {
    let seconds = u32::try_from(now.secs()).unwrap_or(u32::MAX);
    let mac = shard.neighbours.get(to.index, next, seconds);
    tracer.look(|| Some(Look::Neighbour(to.index, next)));
    address(frame.head_mut(), to.interface.mac, mac.unwrap_or_default());
    if let Some(mac) = mac {
        tracer.say("router", || format!("{} has MAC {mac}", key_address(next)));
        emit(frame, to, tables, shard, out, tracer);
    } else {
        tracer.say("router", || {
            format!("the MAC of {} is to be found out: the packet waits", key_address(next))
        });
        out.push(to.index, frame);
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

/// Puts a frame of an interface into its network.
#[inline(always)]
pub(super) fn emit(
    frame: Frame,
    from: &At<'_>,
    tables: &Tables,
    shard: &mut Shard,
    out: &mut Out,
    tracer: &mut impl Tracer,
) {
    let bytes = frame.len() as u64;
    let destination = load(frame.head(), 0).map_or(0, u64::from_le_bytes) & Mac::MASK;
    let network = from.interface.network;
    let probe = shard.fdb.probe(FdbKey::from_bits(network, destination));
    let classified = Classified {
        ingress: from.index,
        from_tunnel: false,
        network,
        source: probe,
        destination: probe,
        is_group: destination & 1 != 0,
    };
    let ended = match tables.network(network) {
        Some(network) => bridge::forward(frame, &classified, (tables, network), shard, out, tracer),
        None => Err(DropReason::VlanNotAllowed),
    };
    shard.tally.count_rx(from.index, bytes, ended);
    match ended {
        Ok(Sent::Forwarded | Sent::Flooded) => {}
        Ok(Sent::Answered | Sent::Consumed) => from.port.counters.answered.add_shared(1),
        Err(reason) => drop_at(from.index, reason, (tables, shard), tracer),
    }
}

#[cold]
pub(super) fn drop_at(
    interface: PortIdx,
    reason: DropReason,
    (tables, shard): (&Tables, &mut Shard),
    tracer: &mut impl Tracer,
) {
    tracer.say("drop", || format!("{}: {}", reason.name(), reason.meaning()));
    shard.last_drop = Some(reason);
    if let Some(port) = tables.port(interface) {
        port.counters.count_drop_shared(reason, 1);
    }
}

#[inline(always)]
fn load<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}
