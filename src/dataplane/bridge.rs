//! Second stage: learns where the sender is and decides where the frame goes: to the one port that its destination is
//! behind, or to all others of its network.

use super::Shard;
use super::egress;
use super::fdb::{FdbEvent, Learned, Limits};
use super::ingress::Classified;
use super::out::Out;
use super::tracer::Tracer;
use crate::frame::Frame;
use crate::stats::DropReason;
use crate::tables::{NetEntry, PortEntry, Tables};
use crate::types::PortIdx;

/// Why copies of a flooded frame were lost. Empty almost always, and then without memory of its own.
type Lost = Vec<DropReason>;

/// How a frame left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sent {
    Forwarded,
    Flooded,
}

/// Learns the source. Other workers hear of what is new.
#[inline(always)]
pub(super) fn learn(
    classified: &Classified,
    (ingress, port): (PortIdx, &PortEntry),
    network: &NetEntry,
    shard: &mut Shard,
    now: u32,
    tracer: &mut impl Tracer,
) {
    let limits = Limits { network: network.mac_limit, port: port.mac_limit };
    let learned = shard.fdb.learn(classified.source, ingress, now, limits);
    if learned == Learned::Known {
        return;
    }
    let key = classified.source.key;
    if matches!(learned, Learned::New | Learned::Moved(_) | Learned::Refreshed) {
        shard.tell(FdbEvent { key, port: ingress, seen: now });
    }
    tracer.say("bridge", || match learned {
        Learned::New => format!("learns {} behind port {}", key.mac(), port.name),
        Learned::Moved(_) => format!("{} moved to port {}", key.mac(), port.name),
        Learned::Static => format!("{} is configured behind another port; not learned here", key.mac()),
        Learned::Refused => format!("{} not learned: a mac_limit is reached", key.mac()),
        Learned::Known | Learned::Refreshed => format!("{} is known behind port {}", key.mac(), port.name),
    });
}

/// Sends a frame to the port it is for, or floods it.
#[inline(always)]
pub(super) fn forward(
    frame: Frame,
    classified: &Classified,
    ingress: (PortIdx, &PortEntry),
    (tables, network): (&Tables, &NetEntry),
    shard: &mut Shard,
    out: &mut Out,
    tracer: &mut impl Tracer,
) -> Result<Sent, DropReason> {
    if !classified.is_group
        && let Some(to) = shard.fdb.lookup(classified.destination)
    {
        if to == ingress.0 {
            return Err(DropReason::SamePort);
        }
        tracer.say("bridge", || {
            let name = tables.port(to).map_or("?", |port| &port.name);
            format!("{} is behind port {name}", classified.destination.key.mac())
        });
        egress::send(frame, (classified.network, network), to, (tables, shard), out, tracer)?;
        return Ok(Sent::Forwarded);
    }
    tracer.say("bridge", || {
        let mac = classified.destination.key.mac();
        if classified.is_group {
            format!("{mac} is a group address: to all ports of network {}", network.name)
        } else {
            format!("{mac} is unknown: to all ports of network {}", network.name)
        }
    });
    flood(frame, classified, ingress, (tables, network), shard, out, tracer)?;
    Ok(Sent::Flooded)
}

/// Copies the frame to every port of the network that is up, but the one it came from. It counts as sent when one copy
/// was; copies that were not count as drops besides. When none was, the frame is dropped, for the last copy's reason.
fn flood(
    frame: Frame,
    classified: &Classified,
    ingress: (PortIdx, &PortEntry),
    (tables, network): (&Tables, &NetEntry),
    shard: &mut Shard,
    out: &mut Out,
    tracer: &mut impl Tracer,
) -> Result<(), DropReason> {
    let is_up = |port: &PortIdx| tables.port(*port).is_some_and(|port| port.up);
    let mut members =
        network.members.iter().copied().filter(|port| *port != ingress.0 && is_up(port)).peekable();
    let (mut sent, mut lost) = (false, Lost::default());
    let mut frame = Some(frame);
    while let Some(to) = members.next() {
        let copy = match members.peek() {
            Some(_) => frame.as_ref().and_then(|frame| shard.pool.copy(frame)),
            None => frame.take(),
        };
        let result = match copy {
            Some(copy) => egress::send(copy, (classified.network, network), to, (tables, shard), out, tracer),
            None => Err(DropReason::NoBuffer),
        };
        match result {
            Ok(()) => sent = true,
            Err(reason) => {
                tracer.say("egress", || format!("this copy is dropped: {}", reason.meaning()));
                lost.push(reason);
            }
        }
    }
    if !sent {
        return Err(lost.pop().unwrap_or(DropReason::NoReceiver));
    }
    for reason in lost {
        ingress.1.counters.count_drop(reason, 1);
    }
    Ok(())
}
