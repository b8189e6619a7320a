//! The service that the switch itself is on every network: what becomes of frames for its MAC, and of packets for its
//! addresses that were sent to a router.
//!
//! Whoever asks is known by the port that the frame came in by, never by an address; a port that more than one station may
//! be behind gets no answer that is one station's. Answers that follow from the tables are given at once. What needs a
//! memory, TCP or a file goes to the slow path as a copy ([`Punt`]), a bounded number of frames of each port.

use super::answer;
use super::ingress::Classified;
use super::out::Out;
use super::router::{At, Context, drop_at};
use super::segment;
use super::tracer::Tracer;
use super::{Sent, Shard};
use crate::frame::{Caps, Frame};
use crate::services::packet::Packet;
use crate::services::{SERVICE_MAC, SERVICE_V4, SERVICE_V6, dhcp4, dhcp6, icmp};
use crate::stats::DropReason;
use crate::tables::{Guest, PortEntry, Serves, Tables};
use crate::types::{Mac, NetIdx, PortIdx};
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
    if dhcp4::is_request(frame.head()) {
        return dhcp4(frame, guest, (ingress, network), (tables, shard), out, tracer);
    }
    let Some(guest) = guest else {
        tracer.say("service", || "nobody is known behind the port that it came from".to_owned());
        return Err(DropReason::NoService);
    };
    let head = frame.head();
    if dhcp6::is_request(head) {
        let lease = guest.dhcp6.as_ref().ok_or(DropReason::DhcpNoLease)?;
        let mut reply = Vec::new();
        let answered = dhcp6::answer(head, lease, &mut reply).inspect_err(|refused| {
            tracer.say("service", || format!("DHCPv6: no answer: {refused}"));
        })?;
        tracer.say("service", || format!("DHCPv6: {:?}, answered by {:?}", answered.request, answered.reply));
        return answer::reply(&reply, ingress, network, (tables, shard), out, tracer);
    }
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

/// Whether a frame to a group is a DHCP message that is taken: from a guest of ours, or where whoever asks gets an address.
#[cold]
pub(super) fn takes(frame: &Frame, classified: &Classified, tables: &Tables) -> bool {
    let (Some(network), Some(port)) = (tables.network(classified.network), tables.port(classified.ingress))
    else {
        return false;
    };
    let Serves { dhcp4, dhcp6, dynamic } = network.serves;
    let is_known = port.guest.is_some();
    let v4 = (is_known && dhcp4) || (dynamic && !classified.from_tunnel);
    (v4 && dhcp4::is_request(frame.head())) || (is_known && dhcp6 && dhcp6::is_request(frame.head()))
}

/// A DHCPv4 message: out of the port's leases, or else of the network's pools, by the slow path.
fn dhcp4(
    frame: Frame,
    guest: Option<&Guest>,
    (ingress, network): (PortIdx, NetIdx),
    (tables, shard): (&Tables, &mut Shard),
    out: &mut Out,
    tracer: &mut impl Tracer,
) -> Result<Sent, DropReason> {
    let (leases, entry) = (guest.map_or(&[][..], |guest| &guest.dhcp4), tables.network(network));
    let mtu = entry.map_or(0, |entry| entry.mtu);
    let mut reply = Vec::new();
    let refused = match dhcp4::answer(frame.head(), leases, mtu, &mut reply) {
        Ok(answered) => {
            tracer.say("service", || format!("DHCP: {answered}"));
            if !answered.has_reply() {
                return Ok(Sent::Consumed);
            }
            return answer::reply(&reply, ingress, network, (tables, shard), out, tracer);
        }
        Err(refused) => refused,
    };
    let is_stranger = refused == dhcp4::Refused::OtherClient;
    let has_pool = is_stranger && entry.is_some_and(|entry| entry.serves.dynamic);
    if has_pool && !may_use_pool(frame.head(), tables.port(ingress)) {
        tracer.say("service", || {
            "DHCP: no answer: its port may not send from an address of the network's pools".to_owned()
        });
        return Err(DropReason::DhcpNoLease);
    }
    if has_pool {
        tracer.say("service", || {
            "DHCP of a client without a port: to the slow path, which has the pools".to_owned()
        });
        return punt(frame, (ingress, network), shard);
    }
    tracer.say("service", || format!("DHCP: no answer: {refused}"));
    // One that has no lease at all is no stranger.
    let is_leaseless = is_stranger && leases.is_empty();
    Err(if is_leaseless { DropReason::DhcpNoLease } else { refused.into() })
}

/// Whether who sent a frame may send from addresses that it gets out of a pool: by port security from no more than a few of its
/// own, unless a prefix is among them.
fn may_use_pool(head: &[u8], port: Option<&PortEntry>) -> bool {
    let Some(guard) = port.and_then(|port| port.guard.as_ref()) else { return true };
    let source = head.get(6..).and_then(<[u8]>::first_chunk).map(|source| Mac(*source));
    let mut stations = guard.claims.stations.iter().filter(|station| Some(station.mac) == source);
    guard.claims.any_address || stations.any(|station| station.v4.iter().any(|net| net.prefix_len() < 32))
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
