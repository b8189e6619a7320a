//! What translation reads of a packet behind its IP header: the ports, TCP's numbers, what an ICMP error quotes.

use std::net::Ipv4Addr;

use super::Asked;
use crate::dataplane::check::Header;
use crate::dataplane::conntrack::Tuple;
use crate::dataplane::conntrack::tcp::Segment;
use crate::dataplane::fragments::{Key, Piece};
use crate::stats::DropReason;
use crate::tables::tunnel::v4_key;
use crate::types::RouterIdx;
use crate::wire::checksum::Sum;
use crate::wire::{ipv4, protocol, tcp};

/// ICMP (RFC 792): types of queries and their replies that have an identifier, and of errors.
pub(in crate::dataplane) const QUERIES: [u8; 6] = [0, 8, 13, 14, 17, 18];
const ERRORS: [u8; 3] = [3, 11, 12];

/// What of a packet's transport header counts.
pub(in crate::dataplane) enum Carried {
    Flow {
        ports: (u16, u16),
        tcp: Option<Segment>,
    },
    /// An ICMP error, with the tuple of the packet that it quotes.
    Error(Tuple),
}

/// What the look-out for fragments needs of one: the ports of a first one stand in it.
pub(in crate::dataplane) fn piece(asked: &Asked<'_>) -> Result<(Key, Piece), DropReason> {
    let header = asked.header;
    let Some(part) = header.fragment else { return Err(DropReason::FragmentLength) };
    let ports = match carried(asked.packet, header, asked.router).ok().filter(|_| header.has_transport()) {
        Some(Carried::Flow { ports, .. }) => Some(ports),
        // An error is never so long that it has to be cut, nor may it be.
        Some(Carried::Error(_)) => return Err(DropReason::IcmpQuote),
        None if header.has_transport() => return Err(DropReason::NatUnmatched),
        None => None,
    };
    let (source, destination) = (header.source.to_bits(), header.destination.to_bits());
    let key = Key {
        zone: asked.router.0.into(),
        source: v4_key(source),
        destination: v4_key(destination),
        id: part.id,
        protocol: header.protocol,
    };
    let len = u16::try_from(header.len.saturating_sub(u32::from(part.data))).unwrap_or(u16::MAX);
    // What comes from the world counts by its sender, a guest's by the guest.
    let guest = asked.rules.guests.get(source).map(|port| u32::from(port.0));
    let owner = guest.filter(|_| !asked.from_world).unwrap_or(source | 1 << 31);
    Ok((key, Piece { offset: part.offset, len, more: part.more, ports, owner }))
}

/// What counts of the packet that is asked about.
pub(in crate::dataplane) fn asked_for(asked: &Asked<'_>) -> Result<Carried, DropReason> {
    match asked.ports {
        Some(ports) => Ok(Carried::Flow { ports, tcp: None }),
        None => carried(asked.packet, asked.header, asked.router),
    }
}

/// Reads what counts of the transport header.
pub(in crate::dataplane) fn carried(
    packet: &[u8],
    header: &Header<Ipv4Addr>,
    router: RouterIdx,
) -> Result<Carried, DropReason> {
    let transport = packet.get(usize::from(header.transport)..).ok_or(DropReason::TransportTruncated)?;
    let message = transport.first().filter(|_| header.protocol == protocol::ICMP && transport.len() >= 8);
    if let Some(kind) = message.filter(|kind| !QUERIES.contains(kind)) {
        return if ERRORS.contains(kind) {
            quoted(transport, router).map(Carried::Error).ok_or(DropReason::IcmpQuote)
        } else {
            Err(DropReason::NatUnmatched)
        };
    }
    let ports = flow(transport, header.protocol).ok_or(DropReason::TransportTruncated)?;
    let tcp = if header.protocol == protocol::TCP {
        let len = header.len.saturating_sub(u32::from(header.transport));
        Some(segment(transport, len).ok_or(DropReason::TransportTruncated)?)
    } else {
        None
    };
    Ok(Carried::Flow { ports, tcp })
}

/// The ports of a flow, or what stands for them; nothing: it is an ICMP message of no flow, or cut off.
#[inline(always)]
pub(in crate::dataplane) fn flow(transport: &[u8], protocol: u8) -> Option<(u16, u16)> {
    match protocol {
        protocol::TCP | protocol::UDP | protocol::UDP_LITE | protocol::DCCP => {
            let &[a, b, c, d] = transport.first_chunk()?;
            Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
        }
        protocol::ICMP => {
            let &[kind, _, _, _, a, b, _, _] = transport.first_chunk()?;
            let id = u16::from_be_bytes([a, b]);
            QUERIES.contains(&kind).then_some((id, id))
        }
        _ => Some((0, 0)),
    }
}

/// What the tracker needs of a TCP header; `len` is that of the header and the data in bytes.
#[inline(always)]
pub(in crate::dataplane) fn segment(transport: &[u8], len: u32) -> Option<Segment> {
    let head: &[u8; tcp::HEADER] = transport.first_chunk()?;
    let [_, _, _, _, s0, s1, s2, s3, a0, a1, a2, a3, offset, flags, w0, w1, ..] = *head;
    Some(Segment {
        seq: u32::from_be_bytes([s0, s1, s2, s3]),
        ack: u32::from_be_bytes([a0, a1, a2, a3]),
        len: len.saturating_sub(u32::from(offset >> 4) * 4),
        window: u16::from_be_bytes([w0, w1]),
        flags,
        scale: if flags & tcp::SYN != 0 { tcp::window_scale(transport) } else { None },
    })
}

/// Whether the checksums of an ICMP error and of the IP header that it quotes are right (RFC 5508, REQ-3), as far as they
/// are there to be looked at.
#[cold]
pub(in crate::dataplane) fn check_error(asked: &Asked<'_>) -> Result<(), DropReason> {
    let message = asked.packet.get(usize::from(asked.header.transport)..).unwrap_or_default();
    let len = usize::try_from(asked.header.len).unwrap_or(usize::MAX) - usize::from(asked.header.transport);
    let is_right = |bytes: &[u8]| Sum::of(bytes).fold() == 0xffff;
    let whole = message.get(..len).filter(|_| !asked.is_partial && asked.header.fragment.is_none());
    let quote = message.get(8..).unwrap_or_default();
    let header = quote.first().map_or(0, |first| usize::from(first & 15) * 4);
    let wrong = |bytes: Option<&[u8]>| bytes.is_some_and(|bytes| !is_right(bytes));
    if wrong(whole) || header >= ipv4::HEADER && wrong(quote.get(..header)) {
        return Err(DropReason::IcmpChecksum);
    }
    Ok(())
}

/// The tuple of the packet that an ICMP error quotes.
fn quoted(message: &[u8], router: RouterIdx) -> Option<Tuple> {
    let quote = message.get(8..)?;
    let head: &[u8; ipv4::HEADER] = quote.first_chunk()?;
    let [vihl, _, _, _, _, _, f0, f1, _, kind, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = *head;
    let header = usize::from(vihl & 15) * 4;
    if vihl >> 4 != 4 || header < ipv4::HEADER || u16::from_be_bytes([f0, f1]) & 0x1fff != 0 {
        return None;
    }
    let source = v4_key(u32::from_be_bytes([s0, s1, s2, s3]));
    let destination = v4_key(u32::from_be_bytes([d0, d1, d2, d3]));
    let rest = quote.get(header..)?;
    let (source_port, destination_port) = flow(rest, kind)?;
    Some(Tuple { zone: router.0, protocol: kind, source, destination, source_port, destination_port })
}
