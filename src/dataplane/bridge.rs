//! Second stage: learns where the sender is and decides where the frame goes: to the one port that its destination is
//! behind, or to all others of its network.

use super::egress::{self, Exit, NO_LOOK, Refused};
use super::fdb::{FdbEvent, Learned, Limits};
use super::ingress::Classified;
use super::out::Out;
use super::tracer::Tracer;
use super::{Event, Sent, Shard, answer, security, serve};
use crate::frame::Frame;
use crate::stats::DropReason;
use crate::tables::{NetEntry, PortEntry, Serves, Tables};
use crate::types::PortIdx;

/// Why copies of a flooded frame were lost. Empty almost always, and then without memory of its own.
type Lost = Vec<DropReason>;

/// Learns the source. Other workers hear of what is new.
#[inline(always)]
pub(super) fn learn(
    classified: &Classified,
    tables: &Tables,
    network: &NetEntry,
    shard: &mut Shard,
    now: u32,
    tracer: &mut impl Tracer,
) {
    let ingress = classified.ingress;
    let Some(port) = tables.port(ingress) else { return };
    let limits = Limits { network: network.mac_limit, port: port.mac_limit };
    let learned = shard.fdb.learn(classified.source, ingress, now, limits);
    if learned == Learned::Known {
        return;
    }
    let key = classified.source.key;
    if matches!(learned, Learned::New | Learned::Moved(_) | Learned::Refreshed) {
        shard.tell(Event::Fdb(FdbEvent { key, port: ingress, seen: now }));
    }
    tracer.say("bridge", || match learned {
        Learned::New => format!("learns {} behind port {}", key.mac(), port.name),
        Learned::Moved(_) => format!("{} moved to port {}", key.mac(), port.name),
        Learned::Static => format!("{} is configured behind another port; not learned here", key.mac()),
        Learned::Refused => format!("{} not learned: a mac_limit is reached", key.mac()),
        Learned::Known | Learned::Refreshed => format!("{} is known behind port {}", key.mac(), port.name),
    });
}

/// Sends a frame to the port it is for, or floods it. `look`: its place in the burst.
#[inline(always)]
pub(super) fn forward(
    frame: Frame,
    (classified, look): (&Classified, usize),
    (tables, network): (&Tables, &NetEntry),
    shard: &mut Shard,
    out: &mut Out,
    tracer: &mut impl Tracer,
) -> Result<Sent, DropReason> {
    if !classified.is_group
        && let Some(to) = shard.fdb.lookup(classified.destination)
    {
        tracer.say("bridge", || {
            let name = tables.port(to).map_or("?", |port| &port.name);
            format!("{} is behind port {name}", classified.destination.key.mac())
        });
        let exit = Exit { look, ..exit(to, classified, network) };
        return send_to(frame, &exit, (tables, shard), out, tracer);
    }
    // What costs others something, each of them or the switch, is bounded; it is never on the way of a connection.
    if tables.port(classified.ingress).is_some_and(|port| port.guard.is_some())
        && !shard.may_flood(classified.ingress, &frame, network.members.len())
    {
        return Err(DropReason::FloodLimit);
    }
    if classified.is_group
        && !network.hosts.is_empty()
        && let Some(sent) =
            answer::neighbour(&frame, classified, &network.hosts, (tables, shard), out, tracer)
    {
        return sent;
    }
    if classified.is_group && network.serves != Serves::default() && serve::takes(&frame, classified, tables)
    {
        return serve::receive(frame, (classified.ingress, classified.network), (tables, shard), out, tracer);
    }
    tracer.say("bridge", || {
        let mac = classified.destination.key.mac();
        if classified.is_group {
            format!("{mac} is a group address: to all ports of network {}", network.name)
        } else {
            format!("{mac} is unknown: to all ports of network {}", network.name)
        }
    });
    let is_told = classified.is_group
        && !network.routers_advertising.is_empty()
        && answer::solicitation(&frame, classified, network, (tables, shard), out, tracer);
    match flood(frame, classified, (tables, network), shard, out, tracer) {
        // There are no other routers to ask.
        Err(_) if is_told => Ok(Sent::Answered),
        ended => ended,
    }
}

#[inline(always)]
fn exit<'t>(to: PortIdx, classified: &Classified, network: &'t NetEntry) -> Exit<'t> {
    Exit {
        to,
        ingress: classified.ingress,
        index: classified.network,
        network,
        from_tunnel: classified.from_tunnel,
        look: NO_LOOK,
    }
}

/// Sends a frame to the one port that it is for.
#[inline(always)]
pub(super) fn send_to<T: Tracer>(
    frame: Frame,
    exit: &Exit<'_>,
    (tables, shard): (&Tables, &mut Shard),
    out: &mut Out,
    tracer: &mut T,
) -> Result<Sent, DropReason> {
    if exit.to == exit.ingress {
        return Err(DropReason::SamePort);
    }
    match egress::admit(&frame, exit, tables) {
        Ok(port) => {
            if let Some(security) = &mut shard.security {
                let at = (tables, shard.now);
                let known = if T::HEARS { None } else { security.known(&frame, exit, port, at) };
                match known {
                    Some(known) => known?,
                    None => return judge(frame, exit, port, (tables, shard), out, tracer),
                }
            }
            egress::send(frame, exit, port, (tables, shard), out, tracer)
        }
        Err(Refused::Drop(reason)) => Err(reason),
        Err(Refused::TooBig(mtu)) => {
            answer::too_big(&frame, mtu, (exit.ingress, exit.index), (tables, shard), out, tracer)
        }
    }
}

/// Sends a frame to the one port that it is for, if security groups let it.
#[inline(never)]
fn judge(
    frame: Frame,
    exit: &Exit<'_>,
    port: &PortEntry,
    (tables, shard): (&Tables, &mut Shard),
    out: &mut Out,
    tracer: &mut impl Tracer,
) -> Result<Sent, DropReason> {
    match security::pass(frame, exit, port, (tables, shard), tracer)? {
        Some(frame) => egress::send(frame, exit, port, (tables, shard), out, tracer),
        None => Ok(Sent::Forwarded),
    }
}

/// Copies the frame to every port of the network that is up, but the one it came from, and into tunnels unless it came out
/// of one. It counts as sent when one copy was; copies that were not count as drops besides. When none was, the frame is
/// dropped, for the last copy's reason.
fn flood(
    frame: Frame,
    classified: &Classified,
    (tables, network): (&Tables, &NetEntry),
    shard: &mut Shard,
    out: &mut Out,
    tracer: &mut impl Tracer,
) -> Result<Sent, DropReason> {
    security::leave(&frame, (classified.ingress, classified.network), (tables, shard), tracer)?;
    let destination = classified.destination.key.mac();
    let is_up = |port: &PortIdx| {
        tables
            .port(*port)
            .is_some_and(|port| port.up && (classified.is_group || security::is_its_own(port, destination)))
    };
    let tunnels =
        network.tunnels.iter().filter(|_| !classified.from_tunnel).flat_map(|tunnels| &tunnels.flood);
    let mut exits = network
        .members
        .iter()
        .chain(tunnels)
        .copied()
        .filter(|port| *port != classified.ingress && is_up(port))
        .peekable();
    let (mut sent, mut lost, mut too_big, mut refused) = (false, Lost::default(), None, None);
    let mut frame = Some(frame);
    while let Some(to) = exits.next() {
        let exit = exit(to, classified, network);
        let result = match frame.as_ref().map(|frame| egress::admit(frame, &exit, tables)) {
            Some(Ok(port)) => {
                if let Some(frame) = &frame
                    && let Err(reason) = security::may_enter(frame, &exit, port, (tables, shard), tracer)
                {
                    port.counters.count_drop_shared(reason, 1);
                    refused = Some(reason);
                    continue;
                }
                let copy = match exits.peek() {
                    None if too_big.is_none() => frame.take(),
                    _ => frame.as_ref().and_then(|frame| shard.pool.copy(frame)),
                };
                copy.ok_or(DropReason::NoBuffer)
                    .and_then(|copy| egress::send(copy, &exit, port, (tables, shard), out, tracer))
            }
            Some(Err(Refused::TooBig(mtu))) => {
                too_big = Some(too_big.map_or(mtu, |least: u16| least.min(mtu)));
                continue;
            }
            Some(Err(Refused::Drop(reason))) => Err(reason),
            None => Err(DropReason::NoBuffer),
        };
        match result {
            Ok(_) => sent = true,
            Err(reason) => {
                tracer.say("egress", || format!("this copy is dropped: {}", reason.meaning()));
                lost.push(reason);
            }
        }
    }
    if let (Some(mtu), Some(frame)) = (too_big, &frame) {
        let back = (classified.ingress, classified.network);
        match answer::too_big(frame, mtu, back, (tables, shard), out, tracer) {
            Ok(answered) if !sent => return Ok(answered),
            Ok(_) => {}
            Err(reason) => lost.push(reason),
        }
    }
    if !sent {
        return Err(lost.pop().or(refused).unwrap_or(DropReason::NoReceiver));
    }
    if let Some(port) = tables.port(classified.ingress) {
        for reason in lost {
            port.counters.count_drop(reason, 1);
        }
    }
    Ok(Sent::Flooded)
}
