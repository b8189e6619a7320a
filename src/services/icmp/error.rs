//! ICMP and ICMPv6 errors about a packet that could not go on.
//!
//! [`Problem`] says what happened in words that fit both versions; [`error()`] writes the message, or says that none may
//! be sent. Nothing is sent about ICMP errors, packets to groups or to all (by IP or by MAC), later fragments, and sources
//! that are no single host (RFC 1122, 3.2.2; RFC 1812, 4.3.2.7; RFC 4443, 2.4(e)). "Packet too big" and an unknown option
//! may be told about packets to IPv6 groups (RFC 4443, 2.4(e.3)).
//!
//! Limits: the rate is the caller's matter ([`Bucket`](super::Bucket)), and so are the broadcast addresses of subnets. What
//! is quoted lies in the bytes that the caller gives.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use arrayvec::ArrayVec;

use super::{
    ERROR_HEADER, FRAGMENTATION_NEEDED, HOPS, MIN_LINK_V4, MIN_V4, MIN_V6, PACKET_TOO_BIG, UNREACHABLE,
};
use crate::services::packet::{Message, V4, V6, put};
use crate::services::{is_device, is_host, is_host_v4, is_host_v6};
use crate::types::Mac;
use crate::wire::ethernet::{self, Ethernet};
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::ipv6::{self, Ipv6};
use crate::wire::protocol;

/// Types of ICMP (RFC 792).
const TIME_EXCEEDED: u8 = 11;
const PARAMETER_PROBLEM: u8 = 12;
/// Types of ICMPv6 (RFC 4443, 3).
const UNREACHABLE_V6: u8 = 1;
const TIME_EXCEEDED_V6: u8 = 3;
const PARAMETER_PROBLEM_V6: u8 = 4;

/// Why a packet could not go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Problem {
    /// Its last hop was this one (RFC 792, type 11, code 0; RFC 4443, 3.3).
    HopsExceeded,
    /// No route leads there (type 3, code 0; RFC 4443, 3.1, code 0).
    NoRoute,
    /// The host does not answer on its link (code 1; RFC 4443: code 3).
    HostUnreachable,
    /// Its protocol is not spoken here: in IPv6 a parameter problem, and the next header that names it is at this offset in
    /// the packet (code 2; RFC 4443, 3.4, code 1).
    ProtocolUnreachable(u32),
    /// Nobody listens on that port (code 3; RFC 4443, 3.1, code 4).
    PortUnreachable,
    /// A rule forbids it (RFC 1812, 5.2.7.1, code 13; RFC 4443, 3.1, code 1).
    Prohibited,
    /// Longer than the next link carries, in bytes from the IP header on (RFC 1191, 4; RFC 4443, 3.2).
    TooBig(u16),
    /// The field at this offset in the packet is wrong (RFC 792, type 12; RFC 4443, 3.4, code 0).
    WrongField(u32),
    /// The option at this offset in the packet is unknown (as before; RFC 4443: code 2).
    UnknownOption(u32),
}

impl Problem {
    /// Type, code, and the last word of the message's header. Nothing for what that version cannot say.
    fn v4(self) -> Option<(u8, u8, u32)> {
        // The pointer is the word's first octet (RFC 792).
        let pointer = |at: u32| u8::try_from(at).ok().map(|at| u32::from(at) << 24);
        Some(match self {
            Problem::HopsExceeded => (TIME_EXCEEDED, 0, 0),
            Problem::NoRoute => (UNREACHABLE, 0, 0),
            Problem::HostUnreachable => (UNREACHABLE, 1, 0),
            Problem::ProtocolUnreachable(_) => (UNREACHABLE, 2, 0),
            Problem::PortUnreachable => (UNREACHABLE, 3, 0),
            Problem::TooBig(mtu) if mtu < MIN_LINK_V4 => return None,
            Problem::TooBig(mtu) => (UNREACHABLE, FRAGMENTATION_NEEDED, u32::from(mtu)),
            Problem::Prohibited => (UNREACHABLE, 13, 0),
            Problem::WrongField(at) | Problem::UnknownOption(at) => (PARAMETER_PROBLEM, 0, pointer(at)?),
        })
    }

    fn v6(self) -> Option<(u8, u8, u32)> {
        Some(match self {
            Problem::HopsExceeded => (TIME_EXCEEDED_V6, 0, 0),
            Problem::NoRoute => (UNREACHABLE_V6, 0, 0),
            Problem::Prohibited => (UNREACHABLE_V6, 1, 0),
            Problem::HostUnreachable => (UNREACHABLE_V6, 3, 0),
            Problem::PortUnreachable => (UNREACHABLE_V6, 4, 0),
            Problem::TooBig(mtu) if mtu < MIN_V6 => return None,
            Problem::TooBig(mtu) => (PACKET_TOO_BIG, 0, u32::from(mtu)),
            Problem::WrongField(at) => (PARAMETER_PROBLEM_V6, 0, at),
            Problem::ProtocolUnreachable(at) => (PARAMETER_PROBLEM_V6, 1, at),
            Problem::UnknownOption(at) => (PARAMETER_PROBLEM_V6, 2, at),
        })
    }

    /// Whether a sender may be told about a packet that went to an IPv6 group (RFC 4443, 2.4(e.3)).
    fn concerns_groups(self) -> bool {
        matches!(self, Problem::TooBig(_) | Problem::UnknownOption(_))
    }
}

/// The message that tells a sender what became of its packet, as a whole frame back to it, with its tags. `frame` is the
/// sender's, or its first bytes; its checksums may be unfinished. The message comes from `source`, at `mac`.
///
/// Nothing when no such message may be sent (see the module's text), when `source` is no host's or of the other version, or
/// when an MTU is told that no link of that version may have.
pub fn error(frame: &[u8], problem: Problem, mac: Mac, source: IpAddr) -> Option<Message> {
    let view = Ethernet::new_checked(frame).ok()?;
    if !is_device(view.source()) || !is_device(mac) || !is_host(source) {
        return None;
    }
    let to_group = view.destination().is_group();
    let (head, packet) = frame.split_at_checked(view.header_len())?;
    let mut back = ArrayVec::<u8, { ethernet::HEADER + ethernet::MAX_TAGS * ethernet::TAG }>::new();
    put(&mut back, &view.source().0);
    put(&mut back, &mac.0);
    put(&mut back, head.get(12..)?);
    match (view.ethertype(), source) {
        (ethernet::IPV4, IpAddr::V4(source)) if !to_group => error_v4(&back, packet, problem, source),
        (ethernet::IPV6, IpAddr::V6(source)) if !to_group || problem.concerns_groups() => {
            error_v6(&back, packet, problem, source)
        }
        _ => None,
    }
}

/// As [`error()`] for a bridge, which has no address: "too big" in the name of the one that the packet was for, at the MAC
/// that the frame was for. It is sent about packets without "don't fragment" too: a switch cannot fragment them, and
/// Linux heeds it all the same.
pub fn too_big(frame: &[u8], mtu: u16) -> Option<Message> {
    let view = Ethernet::new_checked(frame).ok()?;
    let packet = frame.get(view.header_len()..)?;
    let source = match view.ethertype() {
        ethernet::IPV4 => Ipv4::new_checked(packet).ok()?.destination().into(),
        ethernet::IPV6 => Ipv6::new_checked(packet).ok()?.destination().into(),
        _ => return None,
    };
    error(frame, Problem::TooBig(mtu), view.destination(), source)
}

fn error_v4(back: &[u8], packet: &[u8], problem: Problem, source: Ipv4Addr) -> Option<Message> {
    let view = Ipv4::new_checked(packet).ok()?;
    let first = view.fragment() & ipv4::FRAGMENT_OFFSET == 0;
    let is_error = view.protocol() == protocol::ICMP && {
        let kind = packet.get(view.header_len()).copied()?;
        // Queries and their answers; all else is an error or unknown (RFC 1122, 3.2.2).
        !matches!(kind, 0 | 8 | 9 | 10 | 13..=18)
    };
    if !first || is_error || !is_host_v4(view.source()) || !is_host_v4(view.destination()) {
        return None;
    }
    let whole = packet.get(..usize::from(view.total_len())).unwrap_or(packet);
    let ip = V4 {
        source,
        destination: view.source(),
        protocol: protocol::ICMP,
        ttl: HOPS,
        class: 0xc0, // internetwork control (RFC 1812, 4.3.2.5)
        id: None,
        router_alert: false,
    };
    // RFC 1812, 4.3.2.3.
    Some(ip.message(back, &[&header(problem.v4()?), quote(whole, MIN_V4, ipv4::HEADER)]))
}

fn error_v6(back: &[u8], packet: &[u8], problem: Problem, source: Ipv6Addr) -> Option<Message> {
    let view = Ipv6::new_checked(packet).ok()?;
    let transport = view.transport().ok()?;
    let first = transport.fragment.is_none_or(|field| field & 0xfff8 == 0);
    let is_error = transport.protocol == protocol::ICMPV6 && {
        let kind = packet.get(transport.offset).copied()?;
        kind < 128 || kind == 137 // a redirect (RFC 4443, 2.4(e.2))
    };
    let to = view.destination();
    let may = is_host_v6(to) || to.is_multicast() && problem.concerns_groups();
    if !first || is_error || !is_host_v6(view.source()) || !may {
        return None;
    }
    let whole = packet.get(..ipv6::HEADER + usize::from(view.payload_len())).unwrap_or(packet);
    let ip = V6 { source, destination: view.source(), hop_limit: HOPS, class: 0, router_alert: false };
    // RFC 4443, 2.4(c).
    Some(ip.message(back, &[&header(problem.v6()?), quote(whole, MIN_V6, ipv6::HEADER)]))
}

fn header((kind, code, word): (u8, u8, u32)) -> [u8; ERROR_HEADER] {
    let [w0, w1, w2, w3] = word.to_be_bytes();
    [kind, code, 0, 0, w0, w1, w2, w3]
}

/// As much of a packet as fits into a message of `most` bytes with an IP header of `ip` bytes.
fn quote(packet: &[u8], most: u16, ip: usize) -> &[u8] {
    packet.get(..usize::from(most) - ip - ERROR_HEADER).unwrap_or(packet)
}

#[cfg(test)]
mod tests;
