//! What a router looks at in an IP header before anything else (RFC 1812, 5.2.2; RFC 8200): is it sound, and may a packet
//! with these addresses be on a network at all. Each refusal has its own [`DropReason`].
//!
//! [`check_v4`] and [`check_v6`] refuse what nobody may take in; [`Header::forwardable`] refuses what a router may take in
//! for itself, but not send on. What is refused is dropped in silence (RFC 1812, 5.2.2 and 5.3.7), but for malformed options
//! (4.3.3.5).
//!
//! - Source routes are refused (RFC 1812, 5.3.13.3 allows it), and IPv6 routing headers of type 0, used up or not
//!   (RFC 5095, 4.2). Other options, record route and timestamp among them, pass as they came (RFC 1812, 5.3.13.4).
//! - A first fragment has the whole transport header and, in IPv6, all headers before it (RFC 1858, 3; RFC 7112, 5): so who
//!   has the first fragment has the ports. A fragment that would overwrite a TCP header is refused (RFC 1858, 4; RFC 3128).
//! - An IPv6 packet that is its own only fragment counts as none (RFC 6946, 4).
//! - Site-local addresses are like any others (RFC 4291, 2.5.7).
//!
//! Limits: IP headers, extension headers included, lie in the frame's head. Jumbograms (RFC 2675) are refused.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::stats::DropReason;
use crate::wire::checksum::Sum;
use crate::wire::{ipv4, ipv6, protocol};

/// Bytes of the headers without options or extensions, as packets count them.
#[allow(clippy::cast_possible_truncation)] // 20 and 40
const HEADERS: (u16, u16) = (ipv4::HEADER as u16, ipv6::HEADER as u16);
/// Version 4 and a header of five words: the first byte of nearly all packets.
const PLAIN: u8 = 0x45;
/// Options of IPv4 (RFC 791, 3.1): the end, a filler, loose and strict source route.
const END: u8 = 0;
const FILLER: u8 = 1;
const LOOSE_SOURCE_ROUTE: u8 = 131;
const STRICT_SOURCE_ROUTE: u8 = 137;

/// How far a packet may go by its addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// To wherever the routes lead.
    Routed,
    /// Not off its link: one of its addresses is link-local (RFC 3927, 2.7; RFC 4291, 2.5.6).
    Link,
    /// To a multicast group.
    Group,
}

/// A part of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fragment {
    /// What it has in common with the other parts.
    pub id: u32,
    /// Where its data belong, in bytes.
    pub offset: u16,
    /// Others follow.
    pub more: bool,
    /// Where its data begin, in bytes from the start of the IP header.
    pub data: u16,
}

/// What a sound IP header says. `A` is [`Ipv4Addr`] or [`Ipv6Addr`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header<A> {
    /// Who sent it.
    pub source: A,
    /// Whom it is for.
    pub destination: A,
    /// Bytes of the packet from its IP header on, without Ethernet's padding.
    pub len: u32,
    /// Where the transport header begins, in bytes from the start of the IP header; for a later fragment, where its data
    /// begin.
    pub transport: u16,
    /// The transport protocol; for a later fragment of IPv6, what its fragment header tells.
    pub protocol: u8,
    /// TTL or hop limit, as it came.
    pub hops: u8,
    /// A router may cut it in pieces: IPv4 without "don't fragment".
    pub may_fragment: bool,
    /// Which part of a packet it is; nothing: it is whole.
    pub fragment: Option<Fragment>,
    /// How far it may go.
    pub scope: Scope,
}

impl<A> Header<A> {
    /// Whether a router may send it on, as far as its addresses are concerned.
    ///
    /// # Errors
    /// [`DropReason::LinkLocal`], [`DropReason::NotUnicast`].
    #[inline(always)]
    pub fn forwardable(&self) -> Result<(), DropReason> {
        match self.scope {
            Scope::Routed => Ok(()),
            Scope::Link => Err(DropReason::LinkLocal),
            Scope::Group => Err(DropReason::NotUnicast),
        }
    }

    /// True when the transport header is in this packet: it is whole, or the first part.
    #[inline(always)]
    pub fn has_transport(&self) -> bool {
        self.fragment.is_none_or(|fragment| fragment.offset == 0)
    }
}

/// Bytes of a transport header without options, which a first fragment must have.
pub(super) const fn least_transport(protocol: u8) -> u32 {
    match protocol {
        protocol::TCP => 20,
        protocol::DCCP | protocol::SCTP => 12,
        protocol::UDP | protocol::UDP_LITE | protocol::ICMP | protocol::ICMPV6 => 8,
        _ => 0,
    }
}

/// Checks an IPv4 header. `packet` are the bytes of a frame's head from the IP header on, `len` the bytes of the frame from
/// there on, padding included.
///
/// # Errors
/// [`DropReason::IpVersion`], [`DropReason::IpLength`], [`DropReason::IpChecksum`], [`DropReason::IpOptions`],
/// [`DropReason::SourceRoute`], [`DropReason::MartianSource`], [`DropReason::MartianDestination`], [`DropReason::Land`],
/// [`DropReason::FragmentTiny`].
#[inline]
pub fn check_v4(packet: &[u8], len: usize) -> Result<Header<Ipv4Addr>, DropReason> {
    let mut header = sound_v4(packet, len)?;
    let (source, destination) = (header.source.to_bits(), header.destination.to_bits());
    if is_special_v4(source) | is_special_v4(destination) | (source == destination) {
        header.scope = judge_v4(source, destination)?;
    }
    Ok(header)
}

/// As [`check_v4`], whatever its addresses are: its scope says nothing.
///
/// # Errors
/// Those of [`check_v4`] that are not about addresses.
#[inline(always)]
pub fn sound_v4(packet: &[u8], len: usize) -> Result<Header<Ipv4Addr>, DropReason> {
    let head: &[u8; ipv4::HEADER] = packet.first_chunk().ok_or(DropReason::IpLength)?;
    let (transport, sum) =
        if head[0] == PLAIN { (HEADERS.0, Sum::of_array(head)) } else { long_header(packet)? };
    let total = u16::from_be_bytes([head[2], head[3]]);
    if total < transport || usize::from(total) > len {
        return Err(DropReason::IpLength);
    }
    if sum.fold() != 0xffff {
        return Err(DropReason::IpChecksum);
    }
    if transport != HEADERS.0 {
        let long = packet.get(ipv4::HEADER..usize::from(transport)).unwrap_or_default();
        options(long).map_err(|(_, reason)| reason)?;
    }
    let source = u32::from_be_bytes([head[12], head[13], head[14], head[15]]);
    let destination = u32::from_be_bytes([head[16], head[17], head[18], head[19]]);
    let field = u16::from_be_bytes([head[6], head[7]]);
    let mut header = Header {
        source: Ipv4Addr::from_bits(source),
        destination: Ipv4Addr::from_bits(destination),
        len: u32::from(total),
        transport,
        protocol: head[9],
        hops: head[8],
        may_fragment: field & ipv4::DONT_FRAGMENT == 0,
        fragment: None,
        scope: Scope::Routed,
    };
    if field & (ipv4::MORE_FRAGMENTS | ipv4::FRAGMENT_OFFSET) != 0 {
        let id = u16::from_be_bytes([head[4], head[5]]);
        header.fragment = Some(fragment_v4(&header, id, field)?);
    }
    Ok(header)
}

/// What counts of a packet that needs no second look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Simple {
    /// Who sent it.
    pub source: u32,
    /// Whom it is for.
    pub destination: u32,
    /// Bytes of the packet from its IP header on, without Ethernet's padding.
    pub len: u32,
    /// The transport protocol.
    pub protocol: u8,
}

/// Where the transport header of a simple packet begins.
pub const SIMPLE_TRANSPORT: usize = ipv4::HEADER;

/// What nearly all IPv4 packets are: [`check_v4`] has nothing against it, it has no options, is whole, may be routed, and has
/// a hop left. Nothing: it is none of these, and [`check_v4`] says what it is.
#[inline(always)]
pub fn simple_v4(packet: &[u8], len: usize) -> Option<Simple> {
    let head: &[u8; ipv4::HEADER] = packet.first_chunk()?;
    let [version, _, t0, t1, _, _, f0, f1, hops, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = *head;
    let total = u16::from_be_bytes([t0, t1]);
    let source = u32::from_be_bytes([s0, s1, s2, s3]);
    let destination = u32::from_be_bytes([d0, d1, d2, d3]);
    let parts = u16::from_be_bytes([f0, f1]) & (ipv4::MORE_FRAGMENTS | ipv4::FRAGMENT_OFFSET);
    // All at once: one branch that is almost always taken.
    let simple = (version == PLAIN)
        & (total >= HEADERS.0)
        & (usize::from(total) <= len)
        & (parts == 0)
        & (hops > 1)
        & !is_special_v4(source)
        & !is_special_v4(destination)
        & (source != destination)
        & (Sum::of_array(head).fold() == 0xffff);
    simple.then_some(Simple { source, destination, len: u32::from(total), protocol })
}

/// The length and the sum of a header that is not plain.
#[cold]
fn long_header(packet: &[u8]) -> Result<(u16, Sum), DropReason> {
    let first = packet.first().copied().unwrap_or_default();
    if first >> 4 != 4 {
        return Err(DropReason::IpVersion);
    }
    let len = u16::from(first & 15) * 4;
    let header = packet.get(..usize::from(len)).filter(|header| header.len() >= ipv4::HEADER);
    Ok((len, Sum::of(header.ok_or(DropReason::IpLength)?)))
}

/// Where in the options something is wrong, and what.
#[cold]
fn options(options: &[u8]) -> Result<(), (usize, DropReason)> {
    let mut at = 0;
    loop {
        at += match *options.get(at..).unwrap_or_default() {
            [] | [END, ..] => return Ok(()),
            [FILLER, ..] => 1,
            [LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE, ..] => return Err((at, DropReason::SourceRoute)),
            [_, len, ..] if len >= 2 && at + usize::from(len) <= options.len() => usize::from(len),
            _ => return Err((at, DropReason::IpOptions)),
        };
    }
}

/// Where in a packet that [`check_v4`] refuses with [`DropReason::IpOptions`] the malformed option begins, in bytes from the
/// start of the IP header.
#[cold]
pub fn wrong_option(packet: &[u8]) -> usize {
    let len = packet.first().map_or(0, |first| usize::from(first & 15) * 4);
    let wrong = options(packet.get(ipv4::HEADER..len).unwrap_or_default());
    ipv4::HEADER + wrong.err().map_or(0, |(at, _)| at)
}

#[cold]
fn fragment_v4(header: &Header<Ipv4Addr>, id: u16, field: u16) -> Result<Fragment, DropReason> {
    let offset = (field & ipv4::FRAGMENT_OFFSET) * 8;
    let short = header.len - u32::from(header.transport) < least_transport(header.protocol);
    if offset == 0 && short || offset == 8 && header.protocol == protocol::TCP {
        return Err(DropReason::FragmentTiny);
    }
    let more = field & ipv4::MORE_FRAGMENTS != 0;
    Ok(Fragment { id: u32::from(id), offset, more, data: header.transport })
}

/// Whether an address needs a second look: not 1.0.0.0 to 223.255.255.255, loopback, or link-local.
#[inline(always)]
const fn is_special_v4(address: u32) -> bool {
    let net = address >> 24;
    net.wrapping_sub(1) >= 223 || net == 127 || address >> 16 == 0xa9fe
}

/// RFC 1812, 5.3.7, and RFC 6890, 2.2.2.
#[cold]
fn judge_v4(source: u32, destination: u32) -> Result<Scope, DropReason> {
    let never = |address: u32| matches!(address >> 24, 0 | 127 | 240..);
    let is_group = |address: u32| address >> 28 == 0xe;
    if never(source) || is_group(source) {
        Err(DropReason::MartianSource)
    } else if never(destination) {
        Err(DropReason::MartianDestination)
    } else if source == destination {
        Err(DropReason::Land)
    } else {
        Ok(if is_group(destination) { Scope::Group } else { Scope::Link })
    }
}

/// Checks an IPv6 header and walks over its extension headers. The arguments are those of [`check_v4`].
///
/// # Errors
/// [`DropReason::IpVersion`], [`DropReason::IpLength`] (also where a packet ends inside of an extension header),
/// [`DropReason::RoutingHeader`], [`DropReason::ExtensionOrder`], [`DropReason::ExtensionCount`],
/// [`DropReason::MartianSource`], [`DropReason::MartianDestination`], [`DropReason::Land`], [`DropReason::FragmentTiny`].
#[inline]
pub fn check_v6(packet: &[u8], len: usize) -> Result<Header<Ipv6Addr>, DropReason> {
    let mut header = fixed_v6(packet, len)?;
    let (source, destination) = (header.source.to_bits(), header.destination.to_bits());
    if is_special_v6(source) | is_special_v6(destination) | (source == destination) {
        header.scope = judge_v6(source, destination)?;
    }
    if ipv6::is_extension(header.protocol) {
        extensions(packet, &mut header)?;
    }
    Ok(header)
}

/// As [`check_v6`], but whatever the addresses are: nothing is said of [`Header::scope`]. Gives besides whether there is a
/// fragment header, be it of a packet that is whole (RFC 6946).
pub(super) fn walk_v6(packet: &[u8], len: usize) -> Result<(Header<Ipv6Addr>, bool), DropReason> {
    let mut header = fixed_v6(packet, len)?;
    let has_fragment_header = extensions(packet, &mut header)?;
    Ok((header, has_fragment_header))
}

/// The fixed header.
#[inline(always)]
fn fixed_v6(packet: &[u8], len: usize) -> Result<Header<Ipv6Addr>, DropReason> {
    let head: &[u8; ipv6::HEADER] = packet.first_chunk().ok_or(DropReason::IpLength)?;
    if head[0] >> 4 != 6 {
        return Err(DropReason::IpVersion);
    }
    let total = ipv6::HEADER + usize::from(u16::from_be_bytes([head[4], head[5]]));
    if total > len {
        return Err(DropReason::IpLength);
    }
    let [_, _, _, _, _, _, next, hops, addresses @ ..] = *head;
    let mut half = addresses.as_chunks::<16>().0.iter().map(|&octets| u128::from_be_bytes(octets));
    let (source, destination) = (half.next().unwrap_or_default(), half.next().unwrap_or_default());
    Ok(Header {
        source: Ipv6Addr::from_bits(source),
        destination: Ipv6Addr::from_bits(destination),
        len: u32::try_from(total).unwrap_or(u32::MAX),
        transport: HEADERS.1,
        protocol: next,
        hops,
        may_fragment: false,
        fragment: None,
        scope: Scope::Routed,
    })
}

/// Walks over extension headers to the transport (RFC 8200, 4.1); gives whether there is a fragment header.
#[cold]
fn extensions(packet: &[u8], header: &mut Header<Ipv6Addr>) -> Result<bool, DropReason> {
    let total = usize::try_from(header.len).unwrap_or(usize::MAX);
    let packet = packet.get(..total).unwrap_or(packet);
    let (mut at, mut fragmented, mut short) = (ipv6::HEADER, false, DropReason::IpLength);
    for count in 0.. {
        if !ipv6::is_extension(header.protocol) {
            break;
        }
        if count == ipv6::MAX_EXTENSIONS {
            return Err(DropReason::ExtensionCount);
        }
        let rest = packet.get(at..).ok_or(short)?;
        let &[next, len, b2, b3, b4, b5, b6, b7] = rest.first_chunk().ok_or(short)?;
        let mut len = (usize::from(len) + 1) * 8; // RFC 8200, 4.2
        match header.protocol {
            protocol::HOP_BY_HOP if count > 0 => return Err(DropReason::ExtensionOrder),
            protocol::ROUTING if b2 == 0 => return Err(DropReason::RoutingHeader),
            protocol::FRAGMENT if fragmented => return Err(DropReason::ExtensionOrder),
            protocol::AUTHENTICATION => len = (len / 8 + 1) * 4, // RFC 4302, 2.2
            protocol::FRAGMENT => {
                (fragmented, len) = (true, 8);
                let field = u16::from_be_bytes([b2, b3]);
                let (offset, more) = (field & 0xfff8, field & 1 != 0);
                let id = u32::from_be_bytes([b4, b5, b6, b7]);
                let data = u16::try_from(at + len).map_err(|_| DropReason::IpLength)?;
                if offset != 0 || more {
                    header.fragment = Some(Fragment { id, offset, more, data });
                    short = DropReason::FragmentTiny;
                }
            }
            _ => {}
        }
        if rest.len() < len {
            return Err(short);
        }
        at += len;
        header.protocol = next;
        if !header.has_transport() {
            break;
        }
    }
    header.transport = u16::try_from(at).map_err(|_| DropReason::IpLength)?;
    let carried = header.len - u32::from(header.transport);
    if header.fragment.is_some() && header.has_transport() && carried < least_transport(header.protocol) {
        return Err(DropReason::FragmentTiny);
    }
    Ok(fragmented)
}

/// Whether an address needs a second look: in ::/64, link-local, or multicast.
#[inline(always)]
const fn is_special_v6(address: u128) -> bool {
    address >> 64 == 0 || is_link_local_v6(address) || address >> 120 == 0xff
}

#[inline(always)]
const fn is_link_local_v6(address: u128) -> bool {
    address >> 118 == 0x3fa
}

/// RFC 4291, 2.5 and 2.7.
#[cold]
fn judge_v6(source: u128, destination: u128) -> Result<Scope, DropReason> {
    // The unspecified address, loopback, and addresses of IPv4, which are for software alone (RFC 4291, 2.5.5).
    let never = |address: u128| matches!(address >> 32, 0 | 0xffff);
    let is_group = |address: u128| address >> 120 == 0xff;
    if never(source) || is_group(source) {
        Err(DropReason::MartianSource)
    } else if never(destination) {
        Err(DropReason::MartianDestination)
    } else if source == destination {
        Err(DropReason::Land)
    } else if is_group(destination) {
        Ok(Scope::Group)
    } else if is_link_local_v6(source) || is_link_local_v6(destination) {
        Ok(Scope::Link)
    } else {
        Ok(Scope::Routed)
    }
}

#[cfg(test)]
mod tests;
