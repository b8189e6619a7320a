//! An IP packet in an Ethernet frame, read whole and checked, and the writers of messages.
//!
//! [`Packet`] holds only packets that a host may take in: the lengths fit, the IPv4 header's checksum is right, it is no
//! fragment and not on its way through a routing header. Ethernet's padding is cut off. Messages are written by value into a
//! [`Message`]; all of ICMP, IGMP and ICMPv6 have their checksum at the same place, so the writers fill it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use arrayvec::ArrayVec;

use super::Ignored;
use crate::types::Mac;
use crate::wire::checksum::{Sum, pseudo_v6};
use crate::wire::ethernet::{self, Ethernet};
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::ipv6::{self, Ipv6};
use crate::wire::protocol;

/// Bytes of the longest message: an ICMPv6 error of 1280 bytes (RFC 4443, 2.4(c)) behind two VLAN tags.
pub const MAX_MESSAGE: usize = ethernet::HEADER + ethernet::MAX_TAGS * ethernet::TAG + 1280;

/// A whole Ethernet frame that a service wrote.
pub type Message = ArrayVec<u8, MAX_MESSAGE>;

/// Where ICMP, IGMP and ICMPv6 have their checksum, in bytes from their start.
const CHECKSUM: usize = 2;
/// The option "router alert" (RFC 2113, 2.1).
const ROUTER_ALERT_V4: [u8; 4] = [0x94, 0x04, 0, 0];
/// A hop-by-hop header with the option "router alert" for MLD (RFC 2711, 2.1), padded (RFC 8200, 4.2).
const ROUTER_ALERT_V6: [u8; 8] = [protocol::ICMPV6, 0, 0x05, 0x02, 0, 0, 0x01, 0x00];

/// A packet as a host takes it in: untagged, whole, of sound lengths.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Who sent the frame.
    pub source_mac: Mac,
    /// Whom the frame is addressed to.
    pub destination_mac: Mac,
    /// The packet's source, unchecked.
    pub source: IpAddr,
    /// The packet's destination.
    pub destination: IpAddr,
    /// TTL or hop limit.
    pub hops: u8,
    /// ToS or traffic class.
    pub class: u8,
    /// The identification of IPv4; 0 for IPv6.
    pub id: u16,
    /// The transport protocol.
    pub protocol: u8,
    /// The IP header with its options, or with extension headers.
    pub header: &'a [u8],
    /// What the transport protocol carries, to the packet's end.
    pub payload: &'a [u8],
    /// Where the payload begins, in bytes from the start of the frame.
    pub payload_at: usize,
}

impl<'a> Packet<'a> {
    /// Reads the packet of a frame.
    ///
    /// # Errors
    /// [`Ignored::Tagged`], [`Ignored::Protocol`] when it is not IP, and [`Ignored::Malformed`], [`Ignored::Checksum`],
    /// [`Ignored::Fragment`] for what the module's text leaves out.
    pub fn parse(frame: &'a [u8]) -> Result<Packet<'a>, Ignored> {
        let link = Ethernet::new_checked(frame).map_err(|_| Ignored::Malformed)?;
        if link.tags().next().is_some() {
            return Err(Ignored::Tagged);
        }
        match link.ethertype() {
            ethernet::IPV4 => Packet::v4(&link),
            ethernet::IPV6 => Packet::v6(&link),
            _ => Err(Ignored::Protocol),
        }
    }

    fn v4(link: &Ethernet<'a>) -> Result<Packet<'a>, Ignored> {
        let view = Ipv4::new_checked(link.payload()).map_err(|_| Ignored::Malformed)?;
        let bytes = link.payload().get(..usize::from(view.total_len())).ok_or(Ignored::Malformed)?;
        let (header, payload) = bytes.split_at_checked(view.header_len()).ok_or(Ignored::Malformed)?;
        if Sum::of(header).fold() != 0xffff {
            return Err(Ignored::Checksum);
        }
        if view.is_fragment() {
            return Err(Ignored::Fragment);
        }
        Ok(Packet {
            source_mac: link.source(),
            destination_mac: link.destination(),
            source: view.source().into(),
            destination: view.destination().into(),
            hops: view.ttl(),
            class: header.get(1).copied().unwrap_or_default(),
            id: view.id(),
            protocol: view.protocol(),
            header,
            payload,
            payload_at: ethernet::HEADER + view.header_len(),
        })
    }

    fn v6(link: &Ethernet<'a>) -> Result<Packet<'a>, Ignored> {
        let view = Ipv6::new_checked(link.payload()).map_err(|_| Ignored::Malformed)?;
        let len = ipv6::HEADER + usize::from(view.payload_len());
        let bytes = link.payload().get(..len).ok_or(Ignored::Malformed)?;
        let view = Ipv6::new_checked(bytes).map_err(|_| Ignored::Malformed)?;
        let transport = view.transport().map_err(|_| Ignored::Malformed)?;
        if transport.fragment.is_some() {
            return Err(Ignored::Fragment);
        }
        if transport.en_route {
            return Err(Ignored::OtherAddress);
        }
        let (header, payload) = bytes.split_at_checked(transport.offset).ok_or(Ignored::Malformed)?;
        let class = header.first_chunk::<2>().map_or(0, |&[a, b]| a << 4 | b >> 4);
        Ok(Packet {
            source_mac: link.source(),
            destination_mac: link.destination(),
            source: view.source().into(),
            destination: view.destination().into(),
            hops: view.hop_limit(),
            class,
            id: 0,
            protocol: transport.protocol,
            header,
            payload,
            payload_at: ethernet::HEADER + transport.offset,
        })
    }

    /// The payload, when it is of `protocol` and its checksum is right: for ICMP, IGMP and ICMPv6.
    ///
    /// # Errors
    /// [`Ignored::Protocol`], [`Ignored::Checksum`].
    pub fn verified(&self, protocol: u8) -> Result<&'a [u8], Ignored> {
        if self.protocol != protocol {
            return Err(Ignored::Protocol);
        }
        let pseudo = match (self.source, self.destination) {
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let len = u32::try_from(self.payload.len()).map_err(|_| Ignored::Malformed)?;
                pseudo_v6(source, destination, protocol, len)
            }
            _ => Sum::ZERO,
        };
        if (pseudo + Sum::of(self.payload)).fold() != 0xffff {
            return Err(Ignored::Checksum);
        }
        Ok(self.payload)
    }

    /// Whether the header has a hop-by-hop option "router alert" for MLD (RFC 2711, 2.1), as MLD's messages must (RFC
    /// 3810, 5).
    pub fn alerts_mld(&self) -> bool {
        let [next, ..] = self.header.get(6..).unwrap_or_default() else { return false };
        let Some(extension) = self.header.get(ipv6::HEADER..).filter(|_| *next == protocol::HOP_BY_HOP)
        else {
            return false;
        };
        let len = extension.get(1).map_or(0, |&units| (usize::from(units) + 1) * 8);
        let mut options = extension.get(2..len).unwrap_or_default();
        loop {
            match options {
                [0x05, 0x02, value @ ..] => return value.starts_with(&[0, 0]),
                [0, rest @ ..] => options = rest,
                [_, len, rest @ ..] => options = rest.get(usize::from(*len)..).unwrap_or_default(),
                _ => return false,
            }
        }
    }
}

/// The first bytes of an untagged frame.
pub(super) fn link(destination: Mac, source: Mac, ethertype: u16) -> [u8; ethernet::HEADER] {
    let mut header = [0; ethernet::HEADER];
    header[..6].copy_from_slice(&destination.0);
    header[6..12].copy_from_slice(&source.0);
    header[12..].copy_from_slice(&ethertype.to_be_bytes());
    header
}

/// What an IPv4 header says beyond its constants.
#[derive(Clone, Copy, Debug)]
pub(super) struct V4 {
    pub(super) source: Ipv4Addr,
    pub(super) destination: Ipv4Addr,
    pub(super) protocol: u8,
    pub(super) ttl: u8,
    pub(super) class: u8,
    /// The identification of a packet that may be fragmented; none: it may not, and needs no identification (RFC 6864, 4).
    pub(super) id: Option<u16>,
    pub(super) router_alert: bool,
}

impl V4 {
    /// The header, for a payload of `len` bytes; one that is too long for IPv4 has a length of 65535.
    pub(super) fn header(&self, len: usize) -> ArrayVec<u8, 24> {
        let words: u8 = if self.router_alert { 6 } else { 5 };
        let total = u16::try_from(usize::from(words) * 4 + len).unwrap_or(u16::MAX);
        let (id, fragment) = self.id.map_or((0, ipv4::DONT_FRAGMENT), |id| (id, 0));
        let mut bytes = ArrayVec::new();
        put(&mut bytes, &[0x40 | words, self.class]);
        put(&mut bytes, &total.to_be_bytes());
        put(&mut bytes, &id.to_be_bytes());
        put(&mut bytes, &fragment.to_be_bytes());
        put(&mut bytes, &[self.ttl, self.protocol, 0, 0]);
        put(&mut bytes, &self.source.octets());
        put(&mut bytes, &self.destination.octets());
        if self.router_alert {
            put(&mut bytes, &ROUTER_ALERT_V4);
        }
        let sum = Sum::of(&bytes).checksum();
        set(&mut bytes, 10, sum);
        bytes
    }

    /// The frame of an ICMP or IGMP message, whose checksum is filled in. What does not fit into a [`Message`] is cut off.
    pub(super) fn message(&self, link: &[u8], message: &[&[u8]]) -> Message {
        let len = message.iter().map(|part| part.len()).sum();
        let mut bytes = Message::new();
        put(&mut bytes, link);
        put(&mut bytes, &self.header(len));
        let at = bytes.len();
        message.iter().for_each(|part| put(&mut bytes, part));
        let sum = Sum::of(bytes.get(at..).unwrap_or_default()).checksum();
        set(&mut bytes, at + CHECKSUM, sum);
        bytes
    }
}

/// What an IPv6 header before ICMPv6 says beyond its constants.
#[derive(Clone, Copy, Debug)]
pub(super) struct V6 {
    pub(super) source: Ipv6Addr,
    pub(super) destination: Ipv6Addr,
    pub(super) hop_limit: u8,
    pub(super) class: u8,
    pub(super) router_alert: bool,
}

impl V6 {
    /// The header, for a payload of `len` bytes; one that is too long for IPv6 has a length of 65535.
    pub(super) fn header(&self, len: usize) -> ArrayVec<u8, 48> {
        let extension: &[u8] = if self.router_alert { &ROUTER_ALERT_V6 } else { &[] };
        let len = u16::try_from(extension.len() + len).unwrap_or(u16::MAX);
        let next = if self.router_alert { protocol::HOP_BY_HOP } else { protocol::ICMPV6 };
        let mut bytes = ArrayVec::new();
        put(&mut bytes, &[0x60 | self.class >> 4, self.class << 4, 0, 0]);
        put(&mut bytes, &len.to_be_bytes());
        put(&mut bytes, &[next, self.hop_limit]);
        put(&mut bytes, &self.source.octets());
        put(&mut bytes, &self.destination.octets());
        put(&mut bytes, extension);
        bytes
    }

    /// The frame of an ICMPv6 message, whose checksum is filled in. What does not fit into a [`Message`] is cut off.
    pub(super) fn message(&self, link: &[u8], message: &[&[u8]]) -> Message {
        let len = message.iter().map(|part| part.len()).sum();
        let mut bytes = Message::new();
        put(&mut bytes, link);
        put(&mut bytes, &self.header(len));
        let at = bytes.len();
        message.iter().for_each(|part| put(&mut bytes, part));
        let body = bytes.get(at..).unwrap_or_default();
        let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let sum = pseudo_v6(self.source, self.destination, protocol::ICMPV6, len) + Sum::of(body);
        set(&mut bytes, at + CHECKSUM, sum.checksum());
        bytes
    }
}

/// Appends as much of `bytes` as fits.
pub(super) fn put<const N: usize>(to: &mut ArrayVec<u8, N>, bytes: &[u8]) {
    let fits = bytes.len().min(to.remaining_capacity());
    debug_assert_eq!(fits, bytes.len(), "a message is longer than its buffer");
    // It fits: that was seen to.
    let _ = to.try_extend_from_slice(bytes.get(..fits).unwrap_or_default());
}

/// Writes a field of 16 bits at `at`, when it is there.
pub(super) fn set(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(field) = bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
        *field = value.to_be_bytes();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OURS: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const THEIRS: Mac = Mac([2, 0, 0, 0, 0, 2]);

    fn v4() -> Vec<u8> {
        let header = V4 {
            source: [192, 0, 2, 1].into(),
            destination: [192, 0, 2, 2].into(),
            protocol: protocol::ICMP,
            ttl: 64,
            class: 0xc0,
            id: Some(7),
            router_alert: true,
        };
        header.message(&link(OURS, THEIRS, ethernet::IPV4), &[&[8, 0, 0, 0], &[1, 2, 3]]).to_vec()
    }

    fn v6() -> Vec<u8> {
        let header = V6 {
            source: "fe80::1".parse().unwrap(),
            destination: "ff02::16".parse().unwrap(),
            hop_limit: 1,
            class: 0xb8,
            router_alert: true,
        };
        header.message(&link(OURS, THEIRS, ethernet::IPV6), &[&[143, 0, 0, 0], &[1, 2, 3]]).to_vec()
    }

    #[test]
    fn what_is_written_reads_back_without_padding() {
        let mut bytes = v4();
        bytes.resize(60, 0xee);
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!((packet.destination_mac, packet.source_mac), (OURS, THEIRS));
        assert_eq!((packet.source, packet.destination), ([192, 0, 2, 1].into(), [192, 0, 2, 2].into()));
        assert_eq!((packet.hops, packet.class, packet.id, packet.payload_at), (64, 0xc0, 7, 38));
        assert_eq!(packet.verified(protocol::ICMP).unwrap().len(), 7);
        assert_eq!(packet.verified(protocol::ICMPV6), Err(Ignored::Protocol));
        let mut bytes = v6();
        bytes.resize(100, 0xee);
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!((packet.hops, packet.class, packet.payload_at), (1, 0xb8, 62));
        assert_eq!(packet.verified(protocol::ICMPV6).unwrap().len(), 7);
        assert!(packet.alerts_mld());
    }

    #[test]
    fn what_a_host_does_not_take_in_is_named() {
        let with = |bytes: &[u8], at: usize, value: u8| {
            let mut bytes = bytes.to_vec();
            bytes[at] = value;
            Packet::parse(&bytes).map(|packet| packet.verified(packet.protocol).err())
        };
        assert_eq!(with(&v4(), 14 + 8, 63).err(), Some(Ignored::Checksum));
        assert_eq!(with(&v4(), 12, 0x81).err(), Some(Ignored::Tagged));
        assert_eq!(with(&v4(), 13, 6).err(), Some(Ignored::Protocol));
        assert_eq!(with(&v4(), 14 + 3, 60).err(), Some(Ignored::Malformed), "longer than the frame");
        assert_eq!(with(&v4(), 44, 9), Ok(Some(Ignored::Checksum)));
        assert_eq!(with(&v6(), 68, 9), Ok(Some(Ignored::Checksum)));
        assert_eq!(with(&v6(), 14 + 5, 60).err(), Some(Ignored::Malformed));
        assert_eq!(with(&v6(), 14 + 6, protocol::FRAGMENT).err(), Some(Ignored::Fragment));
        let mut fragment = v4();
        fragment[14 + 6..14 + 8].copy_from_slice(&[0x20, 0]);
        set(&mut fragment, 24, 0);
        let sum = Sum::of(&fragment[14..38]).checksum();
        set(&mut fragment, 24, sum);
        assert_eq!(Packet::parse(&fragment).err(), Some(Ignored::Fragment));
        let mut other = v6();
        other[14 + 40 + 5] = 1; // a router alert for RSVP
        assert!(!Packet::parse(&other).unwrap().alerts_mld());
    }

    #[test]
    fn an_ipv4_header_is_as_it_was_written_by_hand() {
        let bytes = v4();
        // RFC 791, 3.1, with the option of RFC 2113 and an identification.
        let golden =
            [0x46, 0xc0, 0, 31, 0, 7, 0, 0, 64, 1, 0x61, 0x0f, 192, 0, 2, 1, 192, 0, 2, 2, 0x94, 4, 0, 0];
        assert_eq!(bytes[14..38], golden);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0usize..4) {
            let ethertype: [u8; 2] = [[8, 0], [0x86, 0xdd], [8, 6], [0x81, 0]][kind];
            if bytes.len() > 15 {
                bytes[12..14].copy_from_slice(&ethertype);
                bytes[14] = [0x45, 0x60, 0x46, 0x60][kind];
            }
            if let Ok(packet) = Packet::parse(&bytes) {
                let _ = packet.verified(packet.protocol);
                let _ = packet.alerts_mld();
                prop_assert!(packet.payload_at + packet.payload.len() <= bytes.len());
            }
        }
    }
}
