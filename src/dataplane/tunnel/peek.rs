//! What a tunnel packet is, for those who only look: captures and traces. Takes packets of either direction, and ones that
//! the path drops, as long as they can be read; judges nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use super::{load, vxlan};
use crate::types::Vni;
use crate::wire::ethernet::{HEADER, IPV4, IPV6};
use crate::wire::{ipv4, ipv6, protocol, udp};

/// Bytes in front of the inner frame, at most: IPv4 with all options, or IPv6.
pub const OUTER_MOST: usize = HEADER + 60 + udp::HEADER + vxlan::LEN;

/// A tunnel packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peek {
    /// The VTEP that sent it.
    pub from: IpAddr,
    /// The VTEP or group that it is for.
    pub to: IpAddr,
    /// Its network.
    pub vni: Vni,
    /// Where the inner frame stands in the packet. Its end is what the outer IP header says, which may be more than is there.
    pub inner: Range<usize>,
}

/// Looks at an untagged Ethernet frame, of which the beginning is enough; nothing where it is no packet of a tunnel on this
/// UDP port, or a fragment.
pub fn peek(frame: &[u8], udp_port: u16) -> Option<Peek> {
    let (from, to, header, end) = match u16::from_be_bytes(load(frame, 12)?) {
        IPV4 => peek_v4(load(frame, HEADER)?)?,
        IPV6 => peek_v6(load(frame, HEADER)?)?,
        _ => return None,
    };
    let at = HEADER + header;
    let [_, _, d0, d1, ..] = load::<{ udp::HEADER }>(frame, at)?;
    if u16::from_be_bytes([d0, d1]) != udp_port {
        return None;
    }
    let vni = vxlan::decode(load(frame, at + udp::HEADER)?)?;
    let start = at + udp::HEADER + vxlan::LEN;
    Some(Peek { from, to, vni, inner: start..(HEADER + end).max(start) })
}

/// Addresses, bytes of the header and of the packet (RFC 791, 3.1).
fn peek_v4(header: [u8; ipv4::HEADER]) -> Option<(IpAddr, IpAddr, usize, usize)> {
    let [vihl, _, t0, t1, _, _, f0, f1, _, proto, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = header;
    let len = usize::from(vihl & 15) * 4;
    if vihl >> 4 != 4 || len < ipv4::HEADER || proto != protocol::UDP || f0 & 0x3f != 0 || f1 != 0 {
        return None;
    }
    let (from, to) = (Ipv4Addr::new(s0, s1, s2, s3), Ipv4Addr::new(d0, d1, d2, d3));
    Some((from.into(), to.into(), len, usize::from(u16::from_be_bytes([t0, t1]))))
}

/// As [`peek_v4`] (RFC 8200, section 3).
fn peek_v6(header: [u8; ipv6::HEADER]) -> Option<(IpAddr, IpAddr, usize, usize)> {
    let [version, _, _, _, l0, l1, next, _, addresses @ ..] = header;
    if version >> 4 != 6 || next != protocol::UDP {
        return None;
    }
    let (from, to) = addresses.split_first_chunk::<16>()?;
    let to: [u8; 16] = to.try_into().ok()?;
    let end = ipv6::HEADER + usize::from(u16::from_be_bytes([l0, l1]));
    Some((Ipv6Addr::from(*from).into(), Ipv6Addr::from(to).into(), ipv6::HEADER, end))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tables::tunnel::Outer;
    use crate::types::Mac;

    const INNER: [u8; 20] = [0xab; 20];

    fn packet(from: &str, to: &str, options: usize) -> Vec<u8> {
        let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        let outer = Outer::new((from, mac), (to, mac), 64, 0, 4789);
        let mut bytes = outer.v6()[..outer.len].to_vec();
        let at = bytes.len() - vxlan::LEN;
        bytes[at..].copy_from_slice(&vxlan::encode(Vni::new(7).unwrap()));
        bytes.extend(INNER);
        bytes.splice(HEADER + ipv4::HEADER..HEADER + ipv4::HEADER, vec![0; options]);
        let len = u16::try_from(bytes.len() - HEADER).unwrap();
        if from.is_ipv4() {
            bytes[HEADER] += u8::try_from(options / 4).unwrap();
            bytes[16..18].copy_from_slice(&len.to_be_bytes());
        } else {
            bytes[18..20].copy_from_slice(&(len - 40).to_be_bytes());
        }
        bytes
    }

    #[test]
    fn a_packet_of_either_family_is_what_its_headers_say() {
        for (from, to, options) in
            [("192.0.2.1", "192.0.2.2", 0), ("192.0.2.1", "239.1.1.1", 40), ("2001:db8::1", "2001:db8::2", 0)]
        {
            let mut bytes = packet(from, to, options);
            let found = peek(&bytes, 4789).unwrap();
            assert_eq!((found.from.to_string(), found.to.to_string()), (from.to_owned(), to.to_owned()));
            assert_eq!(found.vni.get(), 7);
            assert_eq!(bytes[found.inner.clone()], INNER);
            assert!(found.inner.start <= OUTER_MOST);
            assert_eq!(peek(&bytes, 4790), None, "another port");
            assert_eq!(
                peek(&bytes[..found.inner.start], 4789).as_ref(),
                Some(&found),
                "the beginning is enough"
            );
            assert_eq!(peek(&bytes[..found.inner.start - 1], 4789), None);
            bytes.extend([0; 9]);
            assert_eq!(peek(&bytes, 4789), Some(found), "padding is not inside");
        }
        let mut fragment = packet("192.0.2.1", "192.0.2.2", 0);
        fragment[20] = 0x20;
        assert_eq!(peek(&fragment, 4789), None);
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..120), six: bool) {
            if let Some(kind) = bytes.get_mut(12..15) {
                kind.copy_from_slice(if six { &[0x86, 0xdd, 0x60] } else { &[8, 0, 0x45] });
            }
            if let Some(found) = peek(&bytes, 4789) {
                prop_assert!(found.inner.start <= found.inner.end && found.inner.start <= bytes.len());
            }
        }
    }
}
