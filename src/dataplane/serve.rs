//! The service that the switch itself is on every network: what becomes of frames for its MAC, and of packets for its
//! addresses that were sent to a router.
//!
//! Whoever asks is known by the port that the frame came in by, never by an address; a port that more than one station may
//! be behind gets no answer that is one station's. Answers that follow from the tables are given at once. What needs a
//! memory, TCP or a file goes to the slow path as a copy ([`Punt`]), a bounded number of frames of each port.

use super::answer;
use super::out::Out;
use super::router::{At, Context, drop_at};
use super::segment;
use super::tracer::Tracer;
use super::{Sent, Shard};
use crate::frame::{Caps, Frame};
use crate::services::packet::Packet;
use crate::services::{SERVICE_MAC, SERVICE_V4, SERVICE_V6, icmp};
use crate::stats::DropReason;
use crate::tables::{Guest, Tables};
use crate::types::{NetIdx, PortIdx};
use crate::wire::ethernet::{HEADER, IPV4};
use crate::wire::{protocol, tcp};

/// Frames a second of a port that go to the slow path, and at once: a guest that loads its user data as fast as TCP goes
/// sends less.
pub(super) const PUNTS: (u32, u32) = (10_000, 1000);
/// Frames that wait to be handed to the slow path at the end of a turn.
const MAX_PUNTS: usize = 1024;
/// Where metadata is (EC2's and OpenStack's convention).
const HTTP: u16 = 80;
/// What the slow path takes: whole packets with their checksums.
const PLAIN: Caps = Caps { checksum: false, tso: false, uso: false, mtu: u16::MAX };

/// A frame for the slow path, untagged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Punt {
    /// The port that it came in by.
    pub ingress: PortIdx,
    /// The network that it stands in.
    pub network: NetIdx,
    /// From its Ethernet header on.
    pub frame: Vec<u8>,
}

/// A frame for the service. It ends here, or in the slow path.
#[cold]
pub(super) fn receive(
    frame: Frame,
    (ingress, network): (PortIdx, NetIdx),
    (tables, shard): (&Tables, &mut Shard),
    out: &mut Out,
    tracer: &mut impl Tracer,
) -> Result<Sent, DropReason> {
    let guest = tables.port(ingress).and_then(|port| port.guest.as_deref());
    let Some(guest) = guest else {
        tracer.say("service", || "nobody is known behind the port that it came from".to_owned());
        return Err(DropReason::NoService);
    };
    let head = frame.head();
    if is_metadata(head, guest) {
        tracer.say("service", || "a metadata request: to the slow path".to_owned());
        return punt(frame, (ingress, network), shard);
    }
    if let Ok(packet) = Packet::parse(head)
        && (packet.destination == SERVICE_V4 || packet.destination == SERVICE_V6)
    {
        let (mut reply, now) = (Vec::new(), shard.now);
        let mtu = tables.network(network).map_or(0, |network| network.mtu);
        let limit = &mut shard.echo;
        if icmp::echo_reply(&packet, SERVICE_MAC, mtu, limit, now, &mut reply).is_ok() {
            tracer.say("service", || "an echo request: answered here".to_owned());
            return answer::reply(&reply, ingress, network, (tables, shard), out, tracer);
        }
    }
    Err(DropReason::NoService)
}

/// Whether a packet that a router was sent is for the service.
pub(super) fn is_for_service(head: &[u8]) -> bool {
    let is_v4 = head.get(HEADER - 2..HEADER) == Some(&IPV4.to_be_bytes()[..]);
    is_v4 && head.get(HEADER + 16..HEADER + 20) == Some(&SERVICE_V4.octets()[..])
}

/// A packet for the service that was sent to a router: its sender has no nearer way. It ends at the interface that it came by.
pub(super) fn at_router(frame: Frame, ingress: PortIdx, at: &At<'_>, cx: &mut Context<'_, '_, impl Tracer>) {
    cx.tracer.say("router", || "for the service that the switch is".to_owned());
    let place = (ingress, at.interface.network);
    match receive(frame, place, (cx.tables, cx.shard), cx.out, cx.tracer) {
        Ok(Sent::Answered) => at.port.counters.answered.add_shared(1),
        Ok(_) => at.port.counters.consumed.add_shared(1),
        Err(reason) => drop_at(at.index, reason, cx),
    }
}

/// Whether a frame is of a TCP connection to the place where metadata is, from a guest that may have some.
fn is_metadata(head: &[u8], guest: &Guest) -> bool {
    let Ok(packet) = Packet::parse(head) else { return false };
    guest.metadata
        && (packet.destination == SERVICE_V4 || packet.destination == SERVICE_V6)
        && packet.protocol == protocol::TCP
        && packet.payload.get(tcp::DESTINATION..).and_then(<[u8]>::first_chunk) == Some(&HTTP.to_be_bytes())
}

/// Hands a frame to the slow path: whole, with its checksums, in segments that a link would carry.
fn punt(frame: Frame, (ingress, network): (PortIdx, NetIdx), shard: &mut Shard) -> Result<Sent, DropReason> {
    let may = shard.punting.get_mut(ingress.index()).is_some_and(|bucket| bucket.take(shard.now));
    if !may || shard.punts.len() >= MAX_PUNTS {
        return Err(DropReason::SlowPathFull);
    }
    let Shard { pool, punts, .. } = shard;
    segment::finish(frame, pool, &PLAIN, |frame| {
        let frame = frame.segments().collect::<Vec<_>>().concat();
        punts.push(Punt { ingress, network, frame });
    })?;
    Ok(Sent::Consumed)
}

/// Sends what the slow path answers: a whole frame for one port of this worker.
pub fn inject(
    answer: &Punt,
    (tables, shard): (&Tables, &mut Shard),
    out: &mut Out,
) -> Result<(), DropReason> {
    let silent = &mut super::tracer::Silent;
    answer::reply(&answer.frame, answer.ingress, answer.network, (tables, shard), out, silent).map(|_| ())
}
