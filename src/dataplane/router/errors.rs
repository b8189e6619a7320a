//! ICMP errors that routers send (RFC 792, RFC 1812 section 4.3, RFC 4443 section 3).

use std::net::IpAddr;

use super::{At, Context, emit, leave, next};
use crate::dataplane::tracer::{Silent, Tracer};
use crate::frame::Frame;
use crate::services::icmp::{Problem, error};
use crate::services::packet::Message;
use crate::tables::tunnel::address_key;
use crate::wire::ethernet::{HEADER, IPV4, IPV6};

/// Tells the sender of a packet: back to the MAC that it came from, by the interface that it came by.
#[cold]
pub(in crate::dataplane) fn tell(
    frame: &Frame,
    problem: Problem,
    at: &At<'_>,
    cx: &mut Context<'_, '_, impl Tracer>,
) {
    let Some(message) = message(frame, problem, at) else { return };
    if !cx.shard.may_tell(at.index, cx.now) {
        return;
    }
    cx.tracer.say("router", || format!("its sender is told by ICMP: {problem:?}"));
    if let Some(frame) = cx.shard.pool.frame_from(&message) {
        emit(frame, at, cx);
    }
}

/// Tells the sender of a packet that was routed already and whose next hop does not answer: the message goes where the
/// router's own routes lead.
#[cold]
pub(in crate::dataplane) fn unreachable(
    mut frame: Frame,
    at: &At<'_>,
    cx: &mut Context<'_, '_, impl Tracer>,
) {
    let seconds = cx.seconds;
    let is_v4 = frame.head().get(HEADER - 2..HEADER) == Some(&IPV4.to_be_bytes());
    let packet = frame.head_mut().get_mut(HEADER..).unwrap_or_default();
    if is_v4 && let Some(translator) = &mut cx.shard.nat {
        translator.restore(packet, at.interface.router, seconds);
    }
    let Some(source) = source(frame.head()) else { return };
    let key = address_key(source);
    let route = match source {
        IpAddr::V4(source) => at.router.fib.v4(source.to_bits()),
        IpAddr::V6(source) => at.router.fib.v6(source.to_bits()),
    };
    let back = next(route, key, frame.head(), at, cx.tables, &mut Silent);
    let Ok(Some((to, next))) = back else { return };
    let Some(message) = message(&frame, Problem::HostUnreachable, &to) else { return };
    if !cx.shard.may_tell(at.index, cx.now) {
        return;
    }
    if let Some(frame) = cx.shard.pool.frame_from(&message) {
        leave(frame, &to, next, cx);
    }
}

/// Who sent a packet.
fn source(head: &[u8]) -> Option<IpAddr> {
    match u16::from_be_bytes(*head.get(HEADER - 2..)?.first_chunk()?) {
        IPV4 => Some(IpAddr::V4(u32::from_be_bytes(*head.get(HEADER + 12..)?.first_chunk()?).into())),
        IPV6 => Some(IpAddr::V6(u128::from_be_bytes(*head.get(HEADER + 8..)?.first_chunk()?).into())),
        _ => None,
    }
}

/// The message, from the address of the interface that the sender knows it by (RFC 1812, 4.3.2.4).
fn message(frame: &Frame, problem: Problem, at: &At<'_>) -> Option<Message> {
    let source = source(frame.head())?;
    let link_local = source.is_ipv6().then(|| at.interface.link_local().into());
    let own = at.interface.address_towards(source).or(link_local)?;
    error(frame.head(), problem, at.interface.mac, own)
}
