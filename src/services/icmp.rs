//! ICMP and ICMPv6: echo replies for our own addresses, errors about packets that could not go on, and what such messages
//! from the underlay say about a tunnel's path.
//!
//! - Echo: whole packets only; the caller has seen to it that the address is ours, and a [`Bucket`] limits the rate.
//! - [`error()`] is a router's, in its own name; [`too_big`] is a bridge's, which has no address in its guests' networks: it
//!   comes from the address that the guest wrote to, which is the one that its kernel listens to.
//! - [`path_mtu`]: anyone can send these, so only one that quotes a packet of ours, to a tunnel's port and longer than the
//!   MTU it tells, counts; and it lowers no path below what every IP host must manage.

use std::net::IpAddr;

use super::packet::{Packet, V4, V6, link};
use super::{Ignored, is_device};
use crate::types::{Instant, Mac};
use crate::wire::checksum::update_u16;
use crate::wire::ethernet;
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::ipv6::Ipv6;
use crate::wire::{protocol, udp};

mod error;

pub use error::{Problem, error, too_big};

/// Types of ICMP (RFC 792).
const ECHO_REPLY: u8 = 0;
const UNREACHABLE: u8 = 3;
const ECHO: u8 = 8;
/// "Fragmentation needed and DF set", a code of "unreachable" (RFC 792).
const FRAGMENTATION_NEEDED: u8 = 4;
/// Types of ICMPv6 (RFC 4443, 3.2, 4.1 and 4.2).
const PACKET_TOO_BIG: u8 = 2;
const ECHO_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;
/// Bytes of the part before the quoted packet, the same in both.
const ERROR_HEADER: usize = 8;
/// Longest error over IPv4 (RFC 1812, 4.3.2.3), and the lowest path MTU that is believed: every host takes in that
/// much (RFC 791, 3.1).
const MIN_V4: u16 = 576;
/// As long is the longest error over IPv6 (RFC 4443, 2.4(c)), and every link carries it (RFC 8200, 5).
const MIN_V6: u16 = 1280;
/// The lowest MTU of an IPv4 link (RFC 791, 3.2).
const MIN_LINK_V4: u16 = 68;
/// MTUs that are usual (RFC 1191, 7.1).
const PLATEAUS: [u16; 10] = [32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68];
/// TTL and hop limit of what we send (IANA, "IP option numbers": the default TTL).
const HOPS: u8 = 64;

/// A token bucket: lets through a burst, then a rate.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// Nanoseconds that one token takes.
    cost: u64,
    /// Nanoseconds that a full bucket is worth.
    depth: u64,
    credit: u64,
    filled: Instant,
}

impl Bucket {
    /// A full bucket of `burst` tokens, refilled at `rate` tokens a second.
    pub fn new(rate: u32, burst: u32, now: Instant) -> Bucket {
        let cost = 1_000_000_000 / u64::from(rate.max(1));
        let depth = cost.saturating_mul(u64::from(burst));
        Bucket { cost, depth, credit: depth, filled: now }
    }

    /// Takes a token, if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        self.take_many(1, now)
    }

    /// Takes as many tokens, but no more than a full bucket has; if they are not all there, none.
    pub fn take_many(&mut self, count: u32, now: Instant) -> bool {
        let cost = self.cost.saturating_mul(u64::from(count)).min(self.depth);
        let passed = now.0.saturating_sub(self.filled.0);
        self.credit = self.credit.saturating_add(passed).min(self.depth);
        self.filled = self.filled.max(now);
        let some = self.credit >= cost;
        if some {
            self.credit -= cost;
        }
        some
    }
}

/// Writes the reply to an echo request (RFC 792; RFC 4443, 4.2) into `out`: a whole frame, back to the MAC that it came
/// from. IP options and extension headers are not sent back. `mac` is our own.
///
/// # Errors
/// [`Ignored`] when it is no echo request that may be answered, when a reply would be longer than `mtu`, or when `limit`
/// is used up.
pub fn echo_reply(
    packet: &Packet<'_>,
    mac: Mac,
    mtu: u16,
    limit: &mut Bucket,
    now: Instant,
    out: &mut Vec<u8>,
) -> Result<(), Ignored> {
    let (number, request, reply) = match packet.destination {
        IpAddr::V4(_) => (protocol::ICMP, ECHO, ECHO_REPLY),
        IpAddr::V6(_) => (protocol::ICMPV6, ECHO_V6, ECHO_REPLY_V6),
    };
    let message = packet.verified(number)?;
    let (&[kind, code, c0, c1, ..], rest) = message.split_first_chunk::<8>().ok_or(Ignored::Malformed)?;
    if kind != request || code != 0 {
        return Err(Ignored::Protocol);
    }
    if !super::is_host(packet.source) || packet.source == packet.destination || !is_device(packet.source_mac)
    {
        return Err(Ignored::Source);
    }
    let class = packet.class & 0xfc; // not the ECN bits (RFC 3168, 5)
    let (ethertype, header) = match (packet.destination, packet.source) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let (protocol, ttl, router_alert) = (protocol::ICMP, HOPS, false);
            let ip = V4 { source, destination, protocol, ttl, class, id: Some(packet.id), router_alert };
            (ethernet::IPV4, ip.header(message.len()).iter().copied().collect())
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let ip = V6 { source, destination, hop_limit: HOPS, class, router_alert: false };
            (ethernet::IPV6, ip.header(message.len()))
        }
        _ => return Err(Ignored::Malformed),
    };
    if header.len() + message.len() > usize::from(mtu) {
        return Err(Ignored::Invalid);
    }
    if !limit.take(now) {
        return Err(Ignored::RateLimit);
    }
    // Source and destination have changed places, which no checksum sees; the type has changed.
    let old = u16::from_be_bytes([c0, c1]);
    let sum = update_u16(old, u16::from_be_bytes([request, 0]), u16::from_be_bytes([reply, 0]));
    out.clear();
    out.extend_from_slice(&link(packet.source_mac, mac, ethertype));
    out.extend_from_slice(&header);
    out.extend_from_slice(&[reply, 0]);
    out.extend_from_slice(&sum.to_be_bytes());
    out.extend_from_slice(message.get(4..8).unwrap_or_default());
    out.extend_from_slice(rest);
    Ok(())
}

/// What the underlay says about the way to a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PathMtu {
    /// The end of the way.
    pub destination: IpAddr,
    /// The longest packet that passes, in bytes from its IP header on.
    pub mtu: u16,
    /// Where the UDP header of the packet that was too big begins, in bytes from the start of the frame. At least its 8
    /// bytes are there.
    pub quoted: usize,
}

/// Reads "fragmentation needed" (RFC 1191) or "packet too big" (RFC 4443, 3.2; RFC 8201) about a UDP packet from `local` to
/// `port`. An MTU of 0 stands for the plateau below the packet's length (RFC 1191, 5).
///
/// # Errors
/// [`Ignored::Protocol`] when it is another message, [`Ignored::Checksum`], [`Ignored::OtherAddress`] when the quoted packet
/// is not one of ours, and [`Ignored::Invalid`] when the quoted packet would have passed, or an IPv6 link is said to
/// carry less than it must (RFC 8201, 4).
pub fn path_mtu(packet: &Packet<'_>, local: IpAddr, port: u16) -> Result<PathMtu, Ignored> {
    let v4 = local.is_ipv4();
    let (number, kind) = if v4 {
        (protocol::ICMP, [UNREACHABLE, FRAGMENTATION_NEEDED])
    } else {
        (protocol::ICMPV6, [PACKET_TOO_BIG, 0])
    };
    let message = packet.verified(number)?;
    let (head, quoted) = message.split_first_chunk::<ERROR_HEADER>().ok_or(Ignored::Malformed)?;
    let &[k0, k1, _, _, m0, m1, m2, m3] = head;
    if [k0, k1] != kind {
        return Err(Ignored::Protocol);
    }
    let quote = if v4 { quote_v4(quoted)? } else { quote_v6(quoted)? };
    let transport = quoted.get(quote.offset..).unwrap_or_default();
    let ours = quote.source == local && quote.protocol == protocol::UDP;
    let datagram = udp::Udp::new_checked(transport).map_err(|_| Ignored::Malformed)?;
    if !ours || datagram.destination_port() != port {
        return Err(Ignored::OtherAddress);
    }
    let mtu = if v4 { u32::from(u16::from_be_bytes([m2, m3])) } else { u32::from_be_bytes([m0, m1, m2, m3]) };
    let mtu = if v4 && mtu == 0 { plateau(quote.len) } else { mtu };
    if mtu >= quote.len || !v4 && mtu < u32::from(MIN_V6) {
        return Err(Ignored::Invalid);
    }
    let mtu = u16::try_from(mtu).unwrap_or(u16::MAX).max(if v4 { MIN_V4 } else { MIN_V6 });
    Ok(PathMtu {
        destination: quote.destination,
        mtu,
        quoted: packet.payload_at + ERROR_HEADER + quote.offset,
    })
}

/// What the quoted IP header says.
struct Quote {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    /// Where its transport header begins.
    offset: usize,
    /// Bytes of the whole packet, as it was sent.
    len: u32,
}

fn quote_v4(bytes: &[u8]) -> Result<Quote, Ignored> {
    let view = Ipv4::new_checked(bytes).map_err(|_| Ignored::Malformed)?;
    if view.fragment() & ipv4::FRAGMENT_OFFSET != 0 {
        return Err(Ignored::Fragment);
    }
    Ok(Quote {
        source: view.source().into(),
        destination: view.destination().into(),
        protocol: view.protocol(),
        offset: view.header_len(),
        len: u32::from(view.total_len()),
    })
}

fn quote_v6(bytes: &[u8]) -> Result<Quote, Ignored> {
    let view = Ipv6::new_checked(bytes).map_err(|_| Ignored::Malformed)?;
    let transport = view.transport().map_err(|_| Ignored::Malformed)?;
    if transport.fragment.is_some_and(|field| field & 0xfff8 != 0) {
        return Err(Ignored::Fragment);
    }
    Ok(Quote {
        source: view.source().into(),
        destination: view.destination().into(),
        protocol: transport.protocol,
        offset: transport.offset,
        len: u32::from(view.payload_len()) + 40,
    })
}

/// The greatest usual MTU below a packet's length.
fn plateau(len: u32) -> u32 {
    PLATEAUS.into_iter().map(u32::from).find(|&mtu| mtu < len).unwrap_or(u32::from(MIN_LINK_V4))
}

#[cfg(test)]
mod tests;
