//! ICMP errors that routers send (RFC 792, RFC 1812 section 4.3, RFC 4443 section 3).

use std::net::IpAddr;

use super::{At, Delivered, emit};
use crate::dataplane::Shard;
use crate::dataplane::out::Out;
use crate::dataplane::tracer::Tracer;
use crate::frame::Frame;
use crate::services::icmp::{Problem, error};
use crate::services::packet::Message;
use crate::tables::Tables;
use crate::types::Instant;
use crate::wire::ethernet::{HEADER, IPV4, IPV6};

/// Tells the sender of a packet: back to the MAC that it came from, by the interface that it came by.
#[cold]
pub(in crate::dataplane) fn tell(
    frame: &Frame,
    problem: Problem,
    at: &At<'_>,
    (tables, shard): (&Tables, &mut Shard),
    now: Instant,
    out: &mut Out,
    tracer: &mut impl Tracer,
) {
    let Some(message) = message(frame, problem, at) else { return };
    if !shard.may_tell(at.index, now) {
        return;
    }
    tracer.say("router", || format!("its sender is told by ICMP: {problem:?}"));
    if let Some(frame) = shard.pool.frame_from(&message) {
        emit(frame, at, tables, shard, out, tracer);
    }
}

/// Tells the sender of a packet that was routed already and whose next hop does not answer: the message goes where the
/// router's own routes lead.
#[cold]
pub(in crate::dataplane) fn unreachable(
    frame: &Frame,
    at: &At<'_>,
    (_, shard): (&Tables, &mut Shard),
    now: Instant,
    _out: &mut Out,
) {
    let Some(message) = message(frame, Problem::HostUnreachable, at) else { return };
    if !shard.may_tell(at.index, now) {
        return;
    }
    if let Some(frame) = shard.pool.frame_from(&message) {
        let _ = shard.delivered.try_push(Delivered { frame, interface: at.index });
    }
}

/// The message, from the address of the interface that the sender knows it by (RFC 1812, 4.3.2.4).
fn message(frame: &Frame, problem: Problem, at: &At<'_>) -> Option<Message> {
    let head = frame.head();
    let source = match u16::from_be_bytes(*head.get(HEADER - 2..)?.first_chunk()?) {
        IPV4 => IpAddr::V4(u32::from_be_bytes(*head.get(HEADER + 12..)?.first_chunk()?).into()),
        IPV6 => IpAddr::V6(u128::from_be_bytes(*head.get(HEADER + 8..)?.first_chunk()?).into()),
        _ => return None,
    };
    let link_local = source.is_ipv6().then(|| at.interface.link_local().into());
    let own = at.interface.address_towards(source).or(link_local)?;
    error(head, problem, at.interface.mac, own)
}
