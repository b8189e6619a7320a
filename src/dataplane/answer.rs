//! What the switch answers by itself on a network, because no device there does: that a packet is too big for a tunnel's
//! path, and who has an address that is a router's, or a port's on another host.

use std::collections::HashMap;
use std::net::IpAddr;

use super::egress::{self, Exit, Refused};
use super::ingress::Classified;
use super::out::Out;
use super::tracer::Tracer;
use super::{Sent, Shard, gateway};
use crate::frame::Frame;
use crate::services::{SERVICE_MAC, arp, icmp, nd};
use crate::stats::DropReason;
use crate::tables::{Host, NetEntry, Tables};
use crate::types::{NetIdx, PortIdx};
use crate::wire::ethernet::{ARP, IPV6};

/// Tells the sender of a frame that packets of more than `mtu` bytes do not get there (RFC 1191, section 4; RFC 4443,
/// 3.2), in the name of the one that it wrote to, as a bridge has no address.
///
/// # Errors
/// The frame is one that nobody may be told about: it is dropped.
#[cold]
pub(super) fn too_big(
    frame: &Frame,
    mtu: u16,
    (back, network): (PortIdx, NetIdx),
    (tables, shard): (&Tables, &mut Shard),
    out: &mut Out,
    tracer: &mut impl Tracer,
) -> Result<Sent, DropReason> {
    // What came out of a tunnel is its sender's host's business.
    tables.port(back).filter(|port| port.tunnel().is_none()).ok_or(DropReason::MtuExceeded)?;
    let message = icmp::too_big(frame.head(), mtu).ok_or(DropReason::MtuExceeded)?;
    tracer.say("egress", || format!("its packet is longer than {mtu} bytes: its sender is told so by ICMP"));
    reply(&message, back, network, (tables, shard), out, tracer)
}

/// Answers an ARP request or a neighbour solicitation for an address of a router or of a port on another host; nothing for
/// other frames.
#[cold]
pub(super) fn neighbour(
    frame: &Frame,
    classified: &Classified,
    hosts: &HashMap<IpAddr, Host>,
    (tables, shard): (&Tables, &mut Shard),
    out: &mut Out,
    tracer: &mut impl Tracer,
) -> Option<Result<Sent, DropReason>> {
    let head = frame.head();
    let kind = u16::from_be_bytes(*head.get(12..)?.first_chunk()?);
    let has_guest = || tables.port(classified.ingress).is_some_and(|port| port.guest.is_some());
    // Who has an address out of a pool renews it there (RFC 2131, 4.4.5).
    let has_leases = || {
        let network = tables.network(classified.network);
        !classified.from_tunnel && network.is_some_and(|network| network.serves.dynamic)
    };
    let find = |address: IpAddr| {
        let host = hosts.get(&address).filter(|host| host.is_here || !classified.from_tunnel)?;
        // Where the switch is a service, it is one for guests of its own, and for clients that it gives addresses.
        Some(host)
            .filter(|host| host.mac != SERVICE_MAC || has_guest() || (address.is_ipv4() && has_leases()))
    };
    let message = match kind {
        ARP => arp::answer(head, |address| find(address.into()).map(|host| host.mac))?.to_vec(),
        IPV6 => {
            nd::answer(head, |address| find(address.into()).map(|host| (host.mac, host.is_here)))?.to_vec()
        }
        _ => return None,
    };
    tracer.say("bridge", || "asks for an address that is known: answered here".to_owned());
    Some(reply(&message, classified.ingress, classified.network, (tables, shard), out, tracer))
}

/// Answers a router solicitation for each of our routers that advertises on the network; gives whether it did.
#[cold]
pub(super) fn solicitation(
    frame: &Frame,
    classified: &Classified,
    network: &NetEntry,
    (tables, shard): (&Tables, &mut Shard),
    out: &mut Out,
    tracer: &mut impl Tracer,
) -> bool {
    let mut answered = false;
    for (name, message) in gateway::solicited(frame.head(), network, tables).into_iter().flatten() {
        tracer.say("bridge", || format!("asks for routers: interface {name} advertises itself to it"));
        let sent = reply(&message, classified.ingress, classified.network, (tables, shard), out, tracer);
        answered |= sent.is_ok();
    }
    answered
}

pub(super) fn reply(
    message: &[u8],
    back: PortIdx,
    index: NetIdx,
    (tables, shard): (&Tables, &mut Shard),
    out: &mut Out,
    tracer: &mut impl Tracer,
) -> Result<Sent, DropReason> {
    let network = tables.network(index).ok_or(DropReason::VlanNotAllowed)?;
    let frame = shard.pool.frame_from(message).ok_or(DropReason::NoBuffer)?;
    let exit = Exit { to: back, ingress: back, index, network, from_tunnel: false, look: egress::NO_LOOK };
    let port = match egress::admit(&frame, &exit, tables) {
        Ok(port) => port,
        Err(Refused::Drop(reason)) => return Err(reason),
        Err(Refused::TooBig(_)) => return Err(DropReason::MtuExceeded),
    };
    egress::send(frame, &exit, port, (tables, shard), out, tracer)?;
    Ok(Sent::Answered)
}
