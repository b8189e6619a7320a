//! Ethernet II headers (IEEE 802.3-2018, 3.2.6) with up to two VLAN tags (IEEE 802.1Q-2018, 9.6).

use std::net::IpAddr;

use super::Malformed;
use crate::types::Mac;

/// Bytes of an untagged header.
pub const HEADER: usize = 14;
/// Bytes of one VLAN tag.
pub const TAG: usize = 4;
/// Most tags that are looked through.
pub const MAX_TAGS: usize = 2;

/// EtherType of IPv4 (RFC 894).
pub const IPV4: u16 = 0x0800;
/// EtherType of ARP (RFC 826).
pub const ARP: u16 = 0x0806;
/// EtherType of RARP (RFC 903).
pub const RARP: u16 = 0x8035;
/// EtherType of a customer's VLAN tag (IEEE 802.1Q-2018, table 9-1).
pub const VLAN: u16 = 0x8100;
/// EtherType of IPv6 (RFC 2464, 3).
pub const IPV6: u16 = 0x86dd;
/// EtherType of a service VLAN tag (IEEE 802.1Q-2018, table 9-1).
pub const SERVICE_VLAN: u16 = 0x88a8;

/// True for the EtherTypes of tags.
#[inline(always)]
pub const fn is_tag(ethertype: u16) -> bool {
    ethertype == VLAN || ethertype == SERVICE_VLAN
}

/// A VLAN tag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tag {
    /// [`VLAN`] or [`SERVICE_VLAN`].
    pub tpid: u16,
    /// Tag control information: priority (3 bits), drop eligible (1), VLAN identifier (12).
    pub tci: u16,
}

impl Tag {
    /// The VLAN identifier; 0 marks a priority tag.
    #[inline(always)]
    pub const fn vlan_id(self) -> u16 {
        self.tci & 0xfff
    }
}

/// A frame with its whole header, tags included.
#[derive(Clone, Copy, Debug)]
pub struct Ethernet<'a> {
    bytes: &'a [u8],
    head: &'a [u8; HEADER],
    tags: [Option<Tag>; MAX_TAGS],
    ethertype: u16,
    header_len: usize,
}

impl<'a> Ethernet<'a> {
    /// A view of a frame. A third tag is left as what the header carries: [`Ethernet::ethertype`] names it.
    ///
    /// # Errors
    /// [`Malformed::Truncated`] when the frame ends inside of the header or a tag.
    #[inline]
    pub fn new_checked(bytes: &'a [u8]) -> Result<Ethernet<'a>, Malformed> {
        let head: &[u8; HEADER] = bytes.first_chunk().ok_or(Malformed::Truncated)?;
        let mut view = Ethernet {
            bytes,
            head,
            tags: [None; MAX_TAGS],
            ethertype: u16::from_be_bytes([head[12], head[13]]),
            header_len: HEADER,
        };
        for tag in &mut view.tags {
            if !is_tag(view.ethertype) {
                break;
            }
            let rest = bytes.get(view.header_len..).and_then(|rest| rest.first_chunk::<TAG>());
            let &[c0, c1, e0, e1] = rest.ok_or(Malformed::Truncated)?;
            *tag = Some(Tag { tpid: view.ethertype, tci: u16::from_be_bytes([c0, c1]) });
            view.ethertype = u16::from_be_bytes([e0, e1]);
            view.header_len += TAG;
        }
        Ok(view)
    }

    /// The destination address.
    pub fn destination(&self) -> Mac {
        let &[a, b, c, d, e, f, ..] = self.head;
        Mac([a, b, c, d, e, f])
    }

    /// The source address.
    pub fn source(&self) -> Mac {
        let &[_, _, _, _, _, _, a, b, c, d, e, f, ..] = self.head;
        Mac([a, b, c, d, e, f])
    }

    /// The tags, outermost first.
    pub fn tags(&self) -> impl Iterator<Item = Tag> {
        self.tags.into_iter().flatten()
    }

    /// The EtherType behind the tags; up to 1500 it is a length (IEEE 802.3-2018, 3.2.6).
    #[inline(always)]
    pub fn ethertype(&self) -> u16 {
        self.ethertype
    }

    /// Bytes of the header, tags included.
    #[inline(always)]
    pub fn header_len(&self) -> usize {
        self.header_len
    }

    /// What follows the header.
    #[inline(always)]
    pub fn payload(&self) -> &'a [u8] {
        self.bytes.get(self.header_len..).unwrap_or(&[])
    }
}

/// The MAC of an IP multicast group (RFC 1112, section 6.4; RFC 2464, section 7), or nothing for an address that is no group.
pub fn multicast_mac(group: IpAddr) -> Option<Mac> {
    match group {
        IpAddr::V4(ip) if ip.is_multicast() => {
            let [_, b, c, d] = ip.octets();
            Some(Mac([0x01, 0x00, 0x5e, b & 0x7f, c, d]))
        }
        IpAddr::V6(ip) if ip.is_multicast() => {
            let [.., a, b, c, d] = ip.octets();
            Some(Mac([0x33, 0x33, a, b, c, d]))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACS: [u8; 12] = [0x52, 0x54, 0, 0, 0, 2, 0x52, 0x54, 0, 0, 0, 1];

    fn frame(rest: &[u8]) -> Vec<u8> {
        [&MACS[..], rest].concat()
    }

    #[test]
    fn tags_are_looked_through_up_to_two() {
        let bytes = frame(&[0x88, 0xa8, 0, 100, 0x81, 0, 0xe0, 7, 0x08, 0, 0x45]);
        let view = Ethernet::new_checked(&bytes).unwrap();
        let tags: Vec<Tag> = view.tags().collect();
        assert_eq!(tags, [Tag { tpid: SERVICE_VLAN, tci: 100 }, Tag { tpid: VLAN, tci: 0xe007 }]);
        assert_eq!(tags[1].vlan_id(), 7);
        assert_eq!((view.ethertype(), view.header_len(), view.payload()), (IPV4, 22, &[0x45][..]));
        assert_eq!(view.destination().to_string(), "52:54:00:00:00:02");
        assert_eq!(view.source().to_string(), "52:54:00:00:00:01");
        let third = frame(&[0x81, 0, 0, 1, 0x81, 0, 0, 2, 0x81, 0, 0, 3, 8, 0]);
        assert_eq!(Ethernet::new_checked(&third).unwrap().ethertype(), VLAN);
    }

    #[test]
    fn what_ends_early_is_refused() {
        let tagged = frame(&[0x81, 0, 0, 1, 0x81, 0, 0, 2, 8, 0]);
        for len in 0..tagged.len() {
            assert_eq!(Ethernet::new_checked(&tagged[..len]).err(), Some(Malformed::Truncated), "{len}");
        }
        assert!(Ethernet::new_checked(&tagged).is_ok());
    }

    #[test]
    fn groups_have_the_macs_of_rfc_1112_and_rfc_2464() {
        let mac = |ip: &str| multicast_mac(ip.parse().unwrap()).map(|mac| mac.to_string());
        assert_eq!(mac("224.0.0.22").as_deref(), Some("01:00:5e:00:00:16"));
        assert_eq!(mac("239.129.2.3").as_deref(), Some("01:00:5e:01:02:03"), "the 24th bit is lost");
        assert_eq!(mac("ff02::1:ff28:9c5a").as_deref(), Some("33:33:ff:28:9c:5a"));
        assert_eq!((mac("192.0.2.1"), mac("2001:db8::1")), (None, None));
    }
}
