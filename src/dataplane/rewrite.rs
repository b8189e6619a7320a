//! Header rewriting: what NAT and a hop change in a packet, with checksums brought up to date by the difference alone (RFC
//! 1624, equation 3).
//!
//! - [`Rewrite`] is worked out once a session and direction, and [`Rewrite::apply`] writes addresses, ports and TTL in one
//!   go: the sums of what changes are known in advance.
//! - [`error_v4`] translates an ICMP error: its own addresses and those of the packet that it quotes (RFC 5508, 4.2).
//! - [`hop_v4`], [`hop_v6`]: a hop without translation. [`clamp_mss`]: the size that a TCP end announces.
//!
//! Invariants
//!
//! - A checksum that was right is right afterwards, and one that was wrong stays wrong: nothing is summed anew, so damage on
//!   the way is never covered up. It is the same field that a full sum gives.
//! - A UDP checksum of zero stays zero, and no other becomes zero (RFC 768; RFC 3022, 4.1).
//! - A checksum that is still to be finished ([`Offload::NEEDS_CSUM`]) holds the pseudo-header's sum: it follows the addresses
//!   only. GSO frames are such.
//! - Of a first fragment the checksum covers the whole datagram, and the difference is the same; later fragments have
//!   none ([`Rewrite::apply_later`]).
//!
//! Limits: SCTP's ports are never translated, since its CRC covers them and knows no difference; its addresses are not
//! covered (RFC 9260, 6.8). The headers lie in the frame's head.

use std::net::Ipv4Addr;

use crate::frame::Offload;
use crate::stats::DropReason;
use crate::wire::checksum::Sum;
use crate::wire::{ipv4, protocol, tcp, udp};

/// What a hop changes in the sum of an IPv4 header: one less in the high byte of the word that the TTL is in.
const ONE_HOP: u16 = !0x0100;
/// Where ICMP has its checksum and the identifier of its queries, in bytes from its start (RFC 792).
const ICMP_CHECKSUM: usize = 2;
const ICMP_ID: usize = 4;
/// Bytes before what an ICMP error quotes (RFC 792), and where the length of the quote stands in them (RFC 4884, 4.1).
const ICMP_ERROR: usize = 8;
const ICMP_QUOTE_WORDS: usize = 5;
/// Where DCCP has its checksum (RFC 4340, 5.1).
const DCCP_CHECKSUM: usize = 6;
/// TCP options (RFC 9293, 3.1).
const OPTION_END: u8 = 0;
const OPTION_FILLER: u8 = 1;
const OPTION_MSS: u8 = 2;

/// Which fields behind the IP header a translation touches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Transport {
    /// Ports, and a checksum over them and the addresses.
    Tcp,
    /// As TCP, and a checksum of zero is none. UDP-Lite too, which has no packets of that kind (RFC 3828, 3.1).
    Udp,
    /// As TCP.
    Dccp,
    /// Queries of ICMP: an identifier, and a checksum without addresses.
    IcmpQuery,
    /// None: only addresses are translated.
    Other,
}

impl Transport {
    /// That of an IP protocol. Of ICMP's messages only queries may be translated so.
    #[inline]
    pub const fn of(protocol: u8) -> Transport {
        match protocol {
            protocol::TCP => Transport::Tcp,
            protocol::UDP | protocol::UDP_LITE => Transport::Udp,
            protocol::DCCP => Transport::Dccp,
            protocol::ICMP => Transport::IcmpQuery,
            _ => Transport::Other,
        }
    }

    /// Where the checksum is, in bytes from the start of the transport header.
    #[inline(always)]
    const fn checksum(self) -> Option<usize> {
        match self {
            Transport::Tcp => Some(tcp::CHECKSUM as usize),
            Transport::Udp => Some(udp::CHECKSUM as usize),
            Transport::Dccp => Some(DCCP_CHECKSUM),
            Transport::IcmpQuery => Some(ICMP_CHECKSUM),
            Transport::Other => None,
        }
    }

    /// Whether the checksum of a frame with this note, whose transport header is at `at` of the frame, is unfinished.
    #[inline(always)]
    pub fn is_partial(self, offload: &Offload, at: usize) -> bool {
        offload.needs_csum()
            && usize::from(offload.csum_start) == at
            && self.checksum() == Some(usize::from(offload.csum_offset))
    }
}

/// The ends of a packet. Of an ICMP query `source_port` is the identifier, and `destination_port` does not count.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Tuple {
    /// The source address.
    pub source: Ipv4Addr,
    /// The destination address.
    pub destination: Ipv4Addr,
    /// The source port.
    pub source_port: u16,
    /// The destination port.
    pub destination_port: u16,
}

impl Tuple {
    #[inline(always)]
    fn addresses(&self) -> [u8; 8] {
        let ([a, b, c, d], [e, f, g, h]) = (self.source.octets(), self.destination.octets());
        [a, b, c, d, e, f, g, h]
    }

    #[inline(always)]
    fn ports(&self) -> [u8; 4] {
        let ([a, b], [c, d]) = (self.source_port.to_be_bytes(), self.destination_port.to_be_bytes());
        [a, b, c, d]
    }
}

/// A translation of packets that all have the same ends, and one hop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rewrite {
    /// What is to stand in the packet, in the order of the wire.
    addresses: [u8; 8],
    ports: [u8; 4],
    /// What comes to the sum of the IP header, the hop included.
    network: u16,
    /// What comes to the sum of the transport.
    transport: u16,
    kind: Transport,
}

/// The sum that takes `old` out and puts `new` in.
#[inline(always)]
fn delta<const N: usize>(old: &[u8; N], new: &[u8; N]) -> Sum {
    Sum::of_array(new) - Sum::of_array(old)
}

/// A finished checksum after something came to the sum under it.
#[inline(always)]
fn update(checksum: &mut [u8; 2], delta: u16) {
    *checksum = (Sum::from(!u16::from_be_bytes(*checksum)) + Sum::from(delta)).checksum().to_be_bytes();
}

/// As [`update`], for UDP: zero is none and stays so, and a sum that gives zero is sent as all ones (RFC 768).
#[inline(always)]
fn update_udp(checksum: &mut [u8; 2], delta: u16) {
    if *checksum != [0, 0] {
        update(checksum, delta);
        *checksum = udp::never_zero(u16::from_be_bytes(*checksum)).to_be_bytes();
    }
}

/// An unfinished checksum, which is the sum itself.
#[inline(always)]
fn update_partial(field: &mut [u8; 2], delta: u16) {
    *field = (Sum::from(u16::from_be_bytes(*field)) + Sum::from(delta)).fold().to_be_bytes();
}

#[inline(always)]
fn field<const N: usize>(bytes: &mut [u8], at: usize) -> Result<&mut [u8; N], DropReason> {
    bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut).ok_or(DropReason::TransportTruncated)
}

impl Rewrite {
    /// What makes packets with the ends `from` into such with the ends `to`, one hop on. For [`Transport::Other`] the ports
    /// do not count.
    #[inline(always)]
    pub fn new(kind: Transport, from: &Tuple, to: &Tuple) -> Rewrite {
        let word = |old: u32, new: u32| Sum::of_u32(new) + Sum::of_u32(!old);
        let half = |old: u16, new: u16| Sum::from(new) + Sum::from(!old);
        let addresses = word(from.source.to_bits(), to.source.to_bits())
            + word(from.destination.to_bits(), to.destination.to_bits());
        let source_port = half(from.source_port, to.source_port);
        let transport = match kind {
            Transport::Tcp | Transport::Udp | Transport::Dccp => {
                addresses + source_port + half(from.destination_port, to.destination_port)
            }
            Transport::IcmpQuery => source_port,
            Transport::Other => Sum::ZERO,
        };
        Rewrite {
            addresses: to.addresses(),
            ports: to.ports(),
            network: (addresses + Sum::from(ONE_HOP)).fold(),
            transport: transport.fold(),
            kind,
        }
    }

    /// Which fields it touches.
    #[inline(always)]
    pub fn kind(&self) -> Transport {
        self.kind
    }

    /// Translates a whole packet or a first fragment, and counts the hop. `packet` begins at the IP header, `transport` is
    /// where the transport header begins in it. `partial` says that the transport's checksum is unfinished
    /// ([`Transport::is_partial`]). The caller has seen to it that the packet has these ends, and a TTL that is not 0.
    ///
    /// # Errors
    /// [`DropReason::TransportTruncated`] when the transport header's fields are not there; the packet is to be dropped.
    #[inline(always)]
    pub fn apply(&self, packet: &mut [u8], transport: usize, partial: bool) -> Result<(), DropReason> {
        self.apply_later(packet)?;
        let segment = packet.get_mut(transport..).ok_or(DropReason::TransportTruncated)?;
        match self.kind {
            Transport::Tcp => {
                let head: &mut [u8; tcp::HEADER] = field(segment, 0)?;
                let [p0, p1, p2, p3, .., c0, c1, _, _] = head;
                [*p0, *p1, *p2, *p3] = self.ports;
                let mut checksum = [*c0, *c1];
                if partial {
                    update_partial(&mut checksum, self.addresses_delta());
                } else {
                    update(&mut checksum, self.transport);
                }
                [*c0, *c1] = checksum;
            }
            Transport::Udp | Transport::Dccp => {
                let [p0, p1, p2, p3, _, _, c0, c1] = field(segment, 0)?;
                [*p0, *p1, *p2, *p3] = self.ports;
                let mut checksum = [*c0, *c1];
                if partial {
                    update_partial(&mut checksum, self.addresses_delta());
                } else if self.kind == Transport::Udp {
                    update_udp(&mut checksum, self.transport);
                } else {
                    update(&mut checksum, self.transport);
                }
                [*c0, *c1] = checksum;
            }
            Transport::IcmpQuery => {
                let [_, _, c0, c1, i0, i1] = field(segment, 0)?;
                [*i0, *i1, ..] = self.ports;
                // An unfinished one is the sum of nothing: the identifier is added with the rest.
                if !partial {
                    let mut checksum = [*c0, *c1];
                    update(&mut checksum, self.transport);
                    [*c0, *c1] = checksum;
                }
            }
            Transport::Other => {}
        }
        Ok(())
    }

    /// Translates the IP header and counts the hop: all there is to do for a later fragment.
    ///
    /// # Errors
    /// [`DropReason::IpLength`] when the header is not there.
    #[inline(always)]
    pub fn apply_later(&self, packet: &mut [u8]) -> Result<(), DropReason> {
        let head: &mut [u8; ipv4::HEADER] = packet.first_chunk_mut().ok_or(DropReason::IpLength)?;
        let [_, _, _, _, _, _, _, _, ttl, _, c0, c1, addresses @ ..] = head;
        *ttl = ttl.wrapping_sub(1);
        *addresses = self.addresses;
        let mut checksum = [*c0, *c1];
        update(&mut checksum, self.network);
        [*c0, *c1] = checksum;
        Ok(())
    }

    /// What comes to the pseudo-header's sum.
    #[inline(always)]
    fn addresses_delta(&self) -> u16 {
        (Sum::from(self.network) + Sum::from(!ONE_HOP)).fold()
    }
}

/// Counts a hop in an IPv4 header; what is there must be one, with a TTL that is not 0.
#[inline(always)]
pub fn hop_v4(packet: &mut [u8]) {
    if let Some([_, _, _, _, _, _, _, _, ttl, _, c0, c1]) = packet.first_chunk_mut() {
        *ttl = ttl.wrapping_sub(1);
        let mut checksum = [*c0, *c1];
        update(&mut checksum, ONE_HOP);
        [*c0, *c1] = checksum;
    }
}

/// As [`hop_v4`], in an IPv6 header, which has no checksum.
#[inline(always)]
pub fn hop_v6(packet: &mut [u8]) {
    if let Some([_, _, _, _, _, _, _, hops]) = packet.first_chunk_mut() {
        *hops = hops.wrapping_sub(1);
    }
}

/// Translates an ICMP error, and counts the hop: its own addresses become `source` and `destination`, and the packet that it
/// quotes gets the ends `quoted`, as far as it is there (RFC 5508, REQ-4 and REQ-5). The checksums of the quoted headers
/// follow, where they are quoted, and so does that of the error; extensions stay as they are (RFC 4884).
///
/// `packet` begins at the IP header of a whole packet, which is sound and has a TTL that is not 0; `transport` is where ICMP
/// begins. `partial` says that ICMP's checksum is unfinished.
///
/// # Errors
/// [`DropReason::IcmpQuote`] when it is no "unreachable", "time exceeded" or "parameter problem", when what is quoted is no IPv4
/// header, or a translated port is not quoted. The packet may have been changed, and is to be dropped.
pub fn error_v4(
    packet: &mut [u8],
    transport: usize,
    (source, destination): (Ipv4Addr, Ipv4Addr),
    quoted: &Tuple,
    partial: bool,
) -> Result<(), DropReason> {
    let head: &mut [u8; ipv4::HEADER] = packet.first_chunk_mut().ok_or(DropReason::IpLength)?;
    let [_, _, t0, t1, _, _, _, _, ttl, _, c0, c1, addresses @ ..] = head;
    let total = usize::from(u16::from_be_bytes([*t0, *t1]));
    let outer = Tuple { source, destination, ..*quoted }.addresses();
    let change = delta(addresses, &outer) + Sum::from(ONE_HOP);
    *addresses = outer;
    *ttl = ttl.wrapping_sub(1);
    let mut checksum = [*c0, *c1];
    update(&mut checksum, change.fold());
    [*c0, *c1] = checksum;

    let end = total.min(packet.len());
    let message = packet.get_mut(transport..end).ok_or(DropReason::IcmpQuote)?;
    let (head, quote) = message.split_first_chunk_mut::<ICMP_ERROR>().ok_or(DropReason::IcmpQuote)?;
    if !matches!(head[0], 3 | 11 | 12) {
        return Err(DropReason::IcmpQuote);
    }
    // Behind its length, where one is told, are extensions (RFC 4884, 4.1 and 5.5).
    let words = usize::from(head[ICMP_QUOTE_WORDS]);
    let len = if words == 0 { quote.len() } else { quote.len().min(words * 4) };
    let change = translate_quote(quote.get_mut(..len).unwrap_or_default(), quoted)?;
    if !partial {
        let [_, _, c0, c1, ..] = head;
        let mut checksum = [*c0, *c1];
        update(&mut checksum, change);
        [*c0, *c1] = checksum;
    }
    Ok(())
}

/// Translates a quoted packet; what comes to the sum of its bytes is given back.
fn translate_quote(quote: &mut [u8], to: &Tuple) -> Result<u16, DropReason> {
    let view = ipv4::Ipv4::new_checked(quote).map_err(|_| DropReason::IcmpQuote)?;
    let (header, kind) = (view.header_len(), Transport::of(view.protocol()));
    let len = quote.len().min(usize::from(view.total_len()));
    let later = view.fragment() & ipv4::FRAGMENT_OFFSET != 0;
    // All that changes is in the IP header and the first bytes behind it, an even number of them.
    let changed = (header + tcp::HEADER).min(len) & !1;
    let quote = quote.get_mut(..changed).ok_or(DropReason::IcmpQuote)?;
    let before = Sum::of(quote);
    let (network, segment) = quote.split_at_mut_checked(header).ok_or(DropReason::IcmpQuote)?;
    let addresses: &mut [u8; 8] = field(network, 12)?;
    let address_change = delta(addresses, &to.addresses());
    *addresses = to.addresses();
    update(field(network, 10)?, address_change.fold());
    if !later {
        translate_segment(segment, kind, address_change, to)?;
    }
    Ok((Sum::of(quote) - before).fold())
}

fn translate_segment(
    segment: &mut [u8],
    kind: Transport,
    addresses: Sum,
    to: &Tuple,
) -> Result<(), DropReason> {
    let mut change = addresses;
    match kind {
        Transport::Other => return Ok(()),
        Transport::IcmpQuery => {
            let id: &mut [u8; 2] = field(segment, ICMP_ID).map_err(|_| DropReason::IcmpQuote)?;
            change = delta(id, &to.source_port.to_be_bytes());
            *id = to.source_port.to_be_bytes();
        }
        Transport::Tcp | Transport::Udp | Transport::Dccp => {
            let ports: &mut [u8; 4] = field(segment, 0).map_err(|_| DropReason::IcmpQuote)?;
            change = change + delta(ports, &to.ports());
            *ports = to.ports();
        }
    }
    let Some(at) = kind.checksum() else { return Ok(()) };
    match field(segment, at) {
        Ok(checksum) if kind == Transport::Udp => update_udp(checksum, change.fold()),
        Ok(checksum) => update(checksum, change.fold()),
        Err(_) => {} // not quoted, or half of it
    }
    Ok(())
}

/// Lowers the maximum segment size that a TCP segment with SYN announces to `mss` bytes, where it is greater (RFC 9293,
/// 3.7.1; a practice that RFC 4459, 3.2, describes). `segment` begins at the TCP header; `partial` says that its checksum is
/// unfinished. True when it was lowered. An end that announces none has 536 or 1220 bytes, and is left at that.
pub fn clamp_mss(segment: &mut [u8], mss: u16, partial: bool) -> bool {
    let Ok(view) = tcp::Tcp::new_checked(segment) else { return false };
    if view.flags() & tcp::SYN == 0 {
        return false;
    }
    let Some(at) = find_mss(segment, view.header_len()) else { return false };
    let Ok(value) = field::<2>(segment, at) else { return false };
    let old = u16::from_be_bytes(*value);
    if old <= mss {
        return false;
    }
    *value = mss.to_be_bytes();
    // At an odd place the halves of the words that the field is in have changed places (RFC 1071, 2(B)).
    let turn = |value: u16| Sum::from(if at.is_multiple_of(2) { value } else { value.swap_bytes() });
    if !partial && let Ok(checksum) = field(segment, usize::from(tcp::CHECKSUM)) {
        update(checksum, (turn(mss) - turn(old)).fold());
    }
    true
}

/// Where the value of the option "maximum segment size" is.
fn find_mss(segment: &[u8], end: usize) -> Option<usize> {
    let mut at = tcp::HEADER;
    loop {
        at += match *segment.get(at..end)? {
            [OPTION_FILLER, ..] => 1,
            [OPTION_MSS, 4, _, _, ..] => return Some(at + 2),
            [OPTION_END, ..] => return None,
            [_, len, ..] if len >= 2 => usize::from(len),
            _ => return None,
        };
    }
}

#[cfg(test)]
mod tests;
