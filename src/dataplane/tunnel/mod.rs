//! Tunnels: how an inner frame comes out of a packet of the underlay, and how it goes into one.
//!
//! [`enter`] proves all of the outer packet before it believes any of it: that it is for us, whole, unbroken, of a network
//! that we have and from a peer that has it too. What is not a tunnel's is for the local VTEP itself ([`Stop::Host`]).
//! [`leave`] writes the outer header from its template. What is inside of VXLAN's own header is [`vxlan`]'s matter.
//!
//! ECN (RFC 6040): the outer field is the inner one's copy (4.1, normal mode); on the way out congestion is carried over
//! to the inner packet or, where that cannot take it, ends in its drop (4.2). DSCP is the configuration's (RFC 2983, the
//! pipe model).
//!
//! Outer checksums: sent as zero (RFC 7348, section 5; RFC 6935, section 5 for IPv6: tunnels only), a zero is
//! taken for both families, any other is checked. A GSO note speaks of the inner frame only: the outer packet of such a
//! frame is what the kernel merged, and has been checked there.

mod ecn;
pub mod peek;
pub mod vxlan;

use std::net::IpAddr;

use super::flow;
use super::ingress::Stop;
use super::underlay::{Note, Notes};
use crate::frame::Frame;
use crate::services::is_host;
use crate::stats::DropReason;
use crate::tables::Tables;
use crate::tables::tunnel::{OUTER_MAX, OUTER_V4, Tunnel, Underlay, address_key, key_address, v4_key};
use crate::types::{Mac, NetIdx, PortIdx, Vni};
use crate::wire::checksum::Sum;
use crate::wire::ethernet::{self, HEADER};
use crate::wire::partial::partial_checksum;
use crate::wire::{ipv4, ipv6, protocol, udp};

/// What is told of an outer packet by its IP header.
struct Outer {
    /// Key of the sender's address.
    from: u128,
    /// Bytes of Ethernet and IP header.
    header: usize,
    /// Bytes behind the IP header.
    payload: usize,
    ecn: u8,
    /// Of the pseudo-header, without length and protocol.
    addresses: Sum,
}

/// Takes a frame of the underlay apart: on success it is the inner one, and the peer's port and the network are given.
#[inline(always)]
pub(super) fn enter(
    frame: &mut Frame,
    underlay: &Underlay,
    tables: &Tables,
    notes: &mut Notes,
) -> Result<(PortIdx, NetIdx), Stop> {
    // Of the underlay's version only: an IPv4-mapped address in an IPv6 packet (RFC 4291, 2.5.5.2) is nobody's.
    let outer = match (load::<2>(frame.head(), 12).map(u16::from_be_bytes), underlay.local) {
        (Some(ethernet::IPV4), IpAddr::V4(_)) => outer_v4(frame, underlay)?,
        (Some(ethernet::IPV6), IpAddr::V6(_)) => outer_v6(frame, underlay)?,
        _ => return Err(Stop::Host),
    };
    let udp: [u8; udp::HEADER] = load(frame.head(), outer.header).ok_or(DropReason::OuterLength)?;
    let [_, _, d0, d1, l0, l1, c0, c1] = udp;
    if u16::from_be_bytes([d0, d1]) != underlay.udp_port {
        return Err(Stop::Host);
    }
    if usize::from(u16::from_be_bytes([l0, l1])) != outer.payload {
        return Err(DropReason::OuterLength.into());
    }
    if (c0, c1) != (0, 0) {
        check_sum(frame, &outer)?;
    }
    let header = load(frame.head(), outer.header + udp::HEADER).ok_or(DropReason::OuterLength)?;
    let vni = vxlan::decode(header).ok_or(DropReason::TunnelHeader)?;
    let network = underlay.networks.get(vni).ok_or(DropReason::UnknownVni)?;
    let peer = peer(outer.from, network, underlay, tables, notes)?;
    let inner = outer.header + udp::HEADER + vxlan::LEN;
    let end = outer.header + outer.payload;
    if frame.len() > end {
        frame.truncate(end);
    }
    frame.trim_front(inner).ok_or(DropReason::OuterLength)?;
    if outer.ecn != 0 {
        ecn::carry_over(frame.head_mut(), outer.ecn)?;
    }
    Ok((peer, network))
}

/// The port of the peer with this address, if it has the network.
#[inline(always)]
fn peer(
    from: u128,
    network: NetIdx,
    underlay: &Underlay,
    tables: &Tables,
    notes: &mut Notes,
) -> Result<PortIdx, DropReason> {
    if let Some(peer) = underlay.peers.get(from)
        && let Some(network) = tables.network(network)
        && network.has(peer)
    {
        return Ok(peer);
    }
    stranger(from, network, underlay, notes)
}

/// The port of those that are not peers yet, if such may become peers.
#[cold]
fn stranger(
    from: u128,
    network: NetIdx,
    underlay: &Underlay,
    notes: &mut Notes,
) -> Result<PortIdx, DropReason> {
    let port = underlay.strangers.ok_or(DropReason::UnknownPeer)?;
    let from = key_address(from);
    if from == underlay.local || !is_host(from) || from.is_ipv4() != underlay.local.is_ipv4() {
        return Err(DropReason::UnknownPeer);
    }
    notes.add(Note::Stranger(from, network));
    Ok(port)
}

/// RFC 791, 3.1.
#[inline(always)]
fn outer_v4(frame: &Frame, underlay: &Underlay) -> Result<Outer, Stop> {
    let head = frame.head();
    let fixed: [u8; ipv4::HEADER] = load(head, HEADER).ok_or(Stop::Host)?;
    let [vihl, tos, t0, t1, _, _, f0, f1, _, proto, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = fixed;
    let to = u32::from_be_bytes([d0, d1, d2, d3]);
    if proto != protocol::UDP || !is_ours(v4_key(to), head, underlay) {
        return Err(Stop::Host);
    }
    let header = usize::from(vihl & 15) * 4;
    let total = usize::from(u16::from_be_bytes([t0, t1]));
    if vihl >> 4 != 4 || header < ipv4::HEADER || total < header || HEADER + total > frame.len() {
        return Err(DropReason::OuterLength.into());
    }
    let options = match header - ipv4::HEADER {
        0 => Sum::ZERO,
        len => head.get(HEADER + ipv4::HEADER..).and_then(|rest| rest.get(..len)).map_or(Sum::ZERO, Sum::of),
    };
    if (Sum::of_array(&fixed) + options).checksum() != 0 {
        return Err(DropReason::OuterChecksum.into());
    }
    if f0 & 0x3f != 0 || f1 != 0 {
        return Err(DropReason::OuterFragment.into());
    }
    let from = u32::from_be_bytes([s0, s1, s2, s3]);
    Ok(Outer {
        from: v4_key(from),
        header: HEADER + header,
        payload: total - header,
        ecn: tos & 3,
        addresses: Sum::of_u32(from) + Sum::of_u32(to),
    })
}

/// RFC 8200, section 3.
#[inline(always)]
fn outer_v6(frame: &Frame, underlay: &Underlay) -> Result<Outer, Stop> {
    let head = frame.head();
    let fixed: [u8; ipv6::HEADER] = load(head, HEADER).ok_or(Stop::Host)?;
    let [v0, v1, _, _, l0, l1, next, _, addresses @ ..] = fixed;
    let (from, to) = addresses.split_first_chunk::<16>().ok_or(Stop::Host)?;
    let to = u128::from_be_bytes(to.try_into().map_err(|_| Stop::Host)?);
    if !is_ours(to, head, underlay) {
        return Err(Stop::Host);
    }
    if next == protocol::FRAGMENT {
        return Err(DropReason::OuterFragment.into());
    }
    if next != protocol::UDP {
        return Err(Stop::Host);
    }
    let payload = usize::from(u16::from_be_bytes([l0, l1]));
    if v0 >> 4 != 6 || HEADER + ipv6::HEADER + payload > frame.len() {
        return Err(DropReason::OuterLength.into());
    }
    Ok(Outer {
        from: u128::from_be_bytes(*from),
        header: HEADER + ipv6::HEADER,
        payload,
        ecn: v1 >> 4 & 3,
        addresses: Sum::of(&addresses),
    })
}

/// Whether a packet is addressed to the local VTEP: to its MAC and address, or to a group that it is in.
#[inline(always)]
fn is_ours(to: u128, head: &[u8], underlay: &Underlay) -> bool {
    let mac = load(head, 0).map_or(0, u64::from_le_bytes) & Mac::MASK;
    if mac == underlay.mac.to_bits() {
        to == underlay.local_key
    } else {
        mac & 1 == 1 && underlay.groups.iter().any(|group| address_key(*group) == to)
    }
}

/// Checks a UDP checksum that is not zero. One that its sender left to the device is the pseudo-header's sum, and a frame
/// with a note was checked by the kernel. Where an inner checksum is unfinished, the outer one is what it will be when that
/// is finished (the kernel's local checksum offload): from the inner one's start on, the bytes then add up to the complement
/// of what stands in its field.
#[cold]
fn check_sum(frame: &mut Frame, outer: &Outer) -> Result<(), DropReason> {
    if !frame.offload.is_done() {
        // An outer checksum that is to be finished goes with the outer header; an inner one stays to be finished.
        if frame.offload.gso() == 0 && usize::from(frame.offload.csum_start) == outer.header {
            frame.offload = Default::default();
        }
        return Ok(());
    }
    let len = u32::try_from(outer.payload).unwrap_or(u32::MAX);
    let pseudo = outer.addresses + Sum::of_u32(len) + Sum::from(u16::from(protocol::UDP));
    let inner = outer.header + udp::HEADER + vxlan::LEN;
    let head = frame.head();
    if let Some((start, field)) = head.get(inner..).and_then(partial_checksum) {
        let start = inner + usize::from(start);
        let partial = load(head, start + usize::from(field)).map_or(0, u16::from_be_bytes);
        let before = head.get(outer.header..start).map_or(Sum::ZERO, Sum::of);
        if (pseudo + before + Sum::from(!partial)).checksum() == 0 {
            return Ok(());
        }
    }
    let mut sum = pseudo;
    let (mut skip, mut left, mut done) = (outer.header, outer.payload, 0);
    for part in frame.segments() {
        let Some(part) = part.get(skip..) else {
            skip -= part.len();
            continue;
        };
        skip = 0;
        let part = part.get(..left).unwrap_or(part);
        sum = sum.combine(done, Sum::of(part));
        left -= part.len();
        done += part.len();
    }
    if sum.checksum() == 0 { Ok(()) } else { Err(DropReason::OuterChecksum) }
}

/// Puts a frame that is no GSO frame into a tunnel; gives the port that it leaves by. The frame is as the tunnel's port takes it: no
/// longer than its MTU.
#[inline(always)]
pub(super) fn leave(
    frame: &mut Frame,
    vni: Vni,
    tunnel: &Tunnel,
    underlay: &Underlay,
) -> Result<PortIdx, DropReason> {
    let port = flow::source_port(frame.head()).to_be_bytes();
    let ecn = ecn::of(frame.head());
    let next_hop = tunnel.state.next_hop();
    let [v0, v1, v2, v3, v4, v5, v6, v7] = vxlan::encode(vni);
    if let Some(template) = tunnel.outer.v4() {
        frame.prepend(OUTER_V4).ok_or(DropReason::NoBuffer)?;
        let total = length(frame.len() - HEADER)?;
        let sum = tunnel.outer.sum + Sum::from(total) + Sum::from(u16::from(ecn));
        let ([t0, t1], [c0, c1]) = (total.to_be_bytes(), sum.checksum().to_be_bytes());
        let [u0, u1] = length(frame.len() - HEADER - ipv4::HEADER)?.to_be_bytes();
        let mut header = *template;
        header[15] |= ecn;
        [header[16], header[17], header[24], header[25]] = [t0, t1, c0, c1];
        [header[34], header[35], header[38], header[39]] = [port[0], port[1], u0, u1];
        let tail = header.last_chunk_mut().ok_or(DropReason::NoBuffer)?;
        *tail = [v0, v1, v2, v3, v4, v5, v6, v7];
        if let (Some(mac), Some(to)) = (next_hop, header.first_chunk_mut()) {
            *to = mac.0;
        }
        *frame.head_mut().first_chunk_mut().ok_or(DropReason::NoBuffer)? = header;
    } else {
        frame.prepend(OUTER_MAX).ok_or(DropReason::NoBuffer)?;
        let [l0, l1] = length(frame.len() - HEADER - ipv6::HEADER)?.to_be_bytes();
        let mut header = *tunnel.outer.v6();
        header[15] |= ecn << 4;
        [header[18], header[19]] = [l0, l1];
        [header[54], header[55], header[58], header[59]] = [port[0], port[1], l0, l1];
        let tail = header.last_chunk_mut().ok_or(DropReason::NoBuffer)?;
        *tail = [v0, v1, v2, v3, v4, v5, v6, v7];
        if let (Some(mac), Some(to)) = (next_hop, header.first_chunk_mut()) {
            *to = mac.0;
        }
        *frame.head_mut().first_chunk_mut().ok_or(DropReason::NoBuffer)? = header;
    }
    Ok(if next_hop.is_some() { underlay.port } else { underlay.resolver })
}

fn length(len: usize) -> Result<u16, DropReason> {
    u16::try_from(len).map_err(|_| DropReason::MtuExceeded)
}

#[inline(always)]
fn load<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}
