//! What security groups read of a packet: whose it is, and which connection it is of.

use super::Ends;
use crate::dataplane::check::{Header, check_v4, check_v6, sound_v4, walk_v6};
use crate::dataplane::conntrack::tcp::Segment;
use crate::dataplane::fragments::{Key, Piece};
use crate::dataplane::nat::carried;
use crate::services::{SERVICE_V4, SERVICE_V6};
use crate::stats::DropReason;
use crate::tables::tunnel::{address_key, v4_key};
use crate::wire::ethernet::{ARP, HEADER, IPV4, IPV6, RARP};
use crate::wire::{ipv4, ipv6, protocol};

/// ICMP (RFC 792) and ICMPv6 (RFC 4443): echo requests, errors.
const ERRORS_V4: [u8; 3] = [3, 11, 12];
const ECHO_V6: [u8; 2] = [128, 129];
/// ICMPv6 without which IPv6 does not work (RFC 4890, 4.4.1): neighbour and router discovery (RFC 4861), and group membership
/// (RFC 2710, RFC 3810).
const DISCOVERY_V6: [u8; 5] = [133, 134, 135, 136, 137];
const MEMBERSHIP_V6: [u8; 4] = [130, 131, 132, 143];
/// UDP ports of DHCP: the server's and the client's.
const DHCP_V4: [u16; 2] = [67, 68];
const DHCP_V6: [u16; 2] = [547, 546];

/// What of an IP packet counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    /// As [`v4_key`] has it for IPv4.
    pub(super) source: u128,
    pub(super) destination: u128,
    pub(super) protocol: u8,
    /// From the IP header on.
    pub(super) bytes: u32,
    pub(super) what: What,
    /// Whom no rule may keep it from: its sender, as it leaves, and its receiver, as it enters.
    pub(super) exempt: Exempt,
}

/// Which ends need no rule.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Exempt {
    pub(super) egress: bool,
    pub(super) ingress: bool,
    /// Only towards our own service.
    pub(super) is_service: bool,
}

impl Exempt {
    fn asks(&mut self, is_service: bool) {
        self.is_service = is_service && !self.egress;
        self.egress |= is_service;
    }
}

/// What it is.
#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    /// A part of a flow: its ports, and TCP's numbers.
    Flow { ports: (u16, u16), tcp: Option<Segment> },
    /// An ICMP query or its reply: its identifier, its type and code.
    Query { id: u16, kind: u16 },
    /// An ICMP message of no flow: its type and code.
    Message { kind: u16 },
    /// An ICMP error: its type and code, and of the packet that it quotes its addresses, protocol and ports.
    Error { kind: u16, quoted: Quoted },
    /// A fragment; of a first one what rules ask for besides addresses: the destination port, or an ICMP query's type and code.
    Part { key: Key, piece: Piece, port: Option<u16> },
}

/// What an ICMP error quotes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quoted {
    pub(super) source: u128,
    pub(super) destination: u128,
    pub(super) protocol: u8,
    pub(super) ports: (u16, u16),
}

/// A frame as rules see it.
pub(super) enum Read {
    /// No rule is about it.
    Exempt(&'static str),
    /// For whom it is: one station, or a group of them.
    Unicast(Facts),
    Group(Facts),
}

/// Reads a frame on its way between two ends.
pub(super) fn read(head: &[u8], len: usize, ends: &Ends<'_>) -> Result<Read, DropReason> {
    let kind =
        head.get(HEADER - 2..HEADER).and_then(<[u8]>::first_chunk).map(|kind| u16::from_be_bytes(*kind));
    let packet = head.get(HEADER..).unwrap_or_default();
    let len = len.saturating_sub(HEADER);
    let is_group = head.first().is_some_and(|first| first & 1 != 0);
    match kind {
        Some(ARP | RARP) => Ok(Read::Exempt("ARP is let through")),
        Some(IPV4) => {
            let header = sound_v4(packet, len)?;
            let is_group = is_group || header.destination.is_multicast() || header.destination.is_broadcast();
            let header = if is_group { header } else { check_v4(packet, len)? };
            let mut exempt = dhcp(packet, &header, DHCP_V4);
            exempt.asks(header.destination == SERVICE_V4);
            facts(packet, &header, ends, false, (is_group, exempt))
        }
        Some(IPV6) => {
            let (header, _) = walk_v6(packet, len)?;
            let first = packet.get(usize::from(header.transport)..).and_then(<[u8]>::first);
            // Of discovery, RFC 4861, 6.1 and 7.1; of membership, RFC 2710, 3 and RFC 3810, 5: it comes from the link.
            let source = header.source;
            let is_from_link = match first {
                Some(kind) if DISCOVERY_V6.contains(kind) => packet.get(7) == Some(&255),
                Some(kind) if MEMBERSHIP_V6.contains(kind) => {
                    source.is_unicast_link_local() || source.is_unspecified()
                }
                _ => false,
            };
            let is_link = header.protocol == protocol::ICMPV6 && header.fragment.is_none() && is_from_link;
            if is_link {
                return Ok(Read::Exempt(
                    "neighbour and router discovery and group membership are let through",
                ));
            }
            let is_group = is_group || header.destination.is_multicast();
            let header = if is_group { header } else { check_v6(packet, len)? };
            let mut exempt = dhcp(packet, &header, DHCP_V6);
            exempt.asks(header.destination == SERVICE_V6);
            facts(packet, &header, ends, true, (is_group, exempt))
        }
        _ => Err(DropReason::EthertypeNotAllowed),
    }
}

/// A guest may always ask for its configuration, and always gets it. That it is no server, port security sees to.
fn dhcp<A>(packet: &[u8], header: &Header<A>, [server, client]: [u16; 2]) -> Exempt {
    if header.protocol != protocol::UDP || header.fragment.is_some() {
        return Exempt::default();
    }
    let ports = packet.get(usize::from(header.transport)..).and_then(|udp| flow(udp, protocol::UDP));
    let (egress, ingress) = (ports == Some((client, server)), ports == Some((server, client)));
    Exempt { egress, ingress, is_service: false }
}

fn facts<A: Copy + Into<std::net::IpAddr>>(
    packet: &[u8],
    header: &Header<A>,
    ends: &Ends<'_>,
    is_v6: bool,
    (is_group, exempt): (bool, Exempt),
) -> Result<Read, DropReason> {
    let [source, destination] =
        [header.source, header.destination].map(|address| address_key(address.into()));
    let what = match header.fragment {
        None => whole(packet, header, is_v6)?,
        Some(part) => {
            let (ports, port) = if header.has_transport() {
                first_part(packet, header, is_v6)?.unzip()
            } else {
                (None, None)
            };
            let protocol = if is_v6 { 0 } else { header.protocol };
            // By a router on its network a packet comes twice, and leaves by another port.
            let zone = u32::from(ends.zone.0) | u32::from(ends.ports.1.0) << 16;
            let key = Key { zone, source, destination, id: part.id, protocol };
            let len = u16::try_from(header.len.saturating_sub(u32::from(part.data))).unwrap_or(u16::MAX);
            // What comes from elsewhere counts by its sender: it is not to cost its receiver what that has of its own.
            #[allow(clippy::cast_possible_truncation)] // the least of it tells most
            let owner = ends.from.map_or(source as u32 | 1 << 31, |_| u32::from(ends.guest.0));
            What::Part { key, piece: Piece { offset: part.offset, len, more: part.more, ports, owner }, port }
        }
    };
    let facts = Facts { source, destination, protocol: header.protocol, bytes: header.len, what, exempt };
    Ok(if is_group { Read::Group(facts) } else { Read::Unicast(facts) })
}

/// The ports of a packet, and what rules ask for.
type First = ((u16, u16), u16);

/// The ports of a first fragment, and what rules ask for. An ICMP query has its identifier, and its type and code; an error is
/// never cut.
fn first_part<A>(packet: &[u8], header: &Header<A>, is_v6: bool) -> Result<Option<First>, DropReason> {
    match whole(packet, header, is_v6)? {
        What::Flow { ports, .. } => Ok(Some((ports, ports.1))),
        What::Query { id, kind } => Ok(Some(((id, kind), kind))),
        _ => Err(DropReason::IcmpQuote),
    }
}

fn whole<A>(packet: &[u8], header: &Header<A>, is_v6: bool) -> Result<What, DropReason> {
    let transport = packet.get(usize::from(header.transport)..).unwrap_or_default();
    let len = header.len.saturating_sub(u32::from(header.transport));
    let icmp = if is_v6 { protocol::ICMPV6 } else { protocol::ICMP };
    if header.protocol == icmp {
        return message(transport, is_v6);
    }
    let ports = flow(transport, header.protocol).ok_or(DropReason::TransportTruncated)?;
    let tcp = match header.protocol {
        protocol::TCP => Some(carried::segment(transport, len).ok_or(DropReason::TransportTruncated)?),
        _ => None,
    };
    Ok(What::Flow { ports, tcp })
}

/// The type of query that an answer of a type belongs to, and of the answer to a query (RFC 792; RFC 950; RFC 4443).
pub(super) fn answer(kind: u16) -> Option<u16> {
    const PAIRS: [(u16, u16); 6] = [(8, 0), (13, 14), (15, 16), (17, 18), (10, 9), (128, 129)];
    PAIRS.iter().find_map(|(query, answer)| match kind {
        kind if kind == *query => Some(*answer),
        kind if kind == *answer => Some(*query),
        _ => None,
    })
}

fn message(transport: &[u8], is_v6: bool) -> Result<What, DropReason> {
    let &[kind, code, _, _, a, b, _, _] = transport.first_chunk().ok_or(DropReason::TransportTruncated)?;
    let id = u16::from_be_bytes([a, b]);
    let (is_query, is_error) = if is_v6 {
        (ECHO_V6.contains(&kind), kind < 128)
    } else {
        (carried::QUERIES.contains(&kind), ERRORS_V4.contains(&kind))
    };
    let kind = u16::from_be_bytes([kind, code]);
    Ok(match is_error.then(|| quoted(transport.get(8..).unwrap_or_default(), is_v6)) {
        Some(quoted) => What::Error { kind, quoted: quoted.ok_or(DropReason::IcmpQuote)? },
        None if is_query => What::Query { id, kind },
        None => What::Message { kind },
    })
}

/// The packet in an ICMP error, as far as it is there.
fn quoted(quote: &[u8], is_v6: bool) -> Option<Quoted> {
    let (source, destination, kind, header) = if is_v6 {
        let head: &[u8; ipv6::HEADER] = quote.first_chunk()?;
        let mut halves = head.get(8..)?.as_chunks::<16>().0.iter().map(|octets| u128::from_be_bytes(*octets));
        (halves.next()?, halves.next()?, *head.get(6)?, ipv6::HEADER)
    } else {
        let head: &[u8; ipv4::HEADER] = quote.first_chunk()?;
        let &[vihl, _, _, _, _, _, f0, f1, _, kind, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = head;
        let header = usize::from(vihl & 15) * 4;
        if vihl >> 4 != 4 || header < ipv4::HEADER || u16::from_be_bytes([f0, f1]) & 0x1fff != 0 {
            return None;
        }
        let source = v4_key(u32::from_be_bytes([s0, s1, s2, s3]));
        (source, v4_key(u32::from_be_bytes([d0, d1, d2, d3])), kind, header)
    };
    let rest = quote.get(header..)?;
    let icmp = if is_v6 { protocol::ICMPV6 } else { protocol::ICMP };
    let ports = if kind == icmp {
        match message_id(rest, is_v6) {
            Some(id) => (id, id),
            None => return None,
        }
    } else {
        flow(rest, kind)?
    };
    Some(Quoted { source, destination, protocol: kind, ports })
}

fn message_id(transport: &[u8], is_v6: bool) -> Option<u16> {
    let &[kind, _, _, _, a, b, _, _] = transport.first_chunk()?;
    let is_query = if is_v6 { ECHO_V6.contains(&kind) } else { carried::QUERIES.contains(&kind) };
    is_query.then(|| u16::from_be_bytes([a, b]))
}

/// The ports of a flow of a protocol that has some; zeroes for any other. Nothing: they are cut off.
#[inline(always)]
pub(super) fn flow(transport: &[u8], kind: u8) -> Option<(u16, u16)> {
    match kind {
        protocol::TCP | protocol::UDP | protocol::UDP_LITE | protocol::DCCP | protocol::SCTP => {
            let &[a, b, c, d] = transport.first_chunk()?;
            Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
        }
        _ => Some((0, 0)),
    }
}
