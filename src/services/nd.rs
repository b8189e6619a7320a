//! IPv6 neighbour discovery (RFC 4861): solicitations and advertisements, for ourselves and by proxy.
//!
//! A message is valid only by all rules of sections 7.1.1 and 7.1.2; that a hop limit of 255 shows it comes from this very
//! link is the one that spoofers off the link cannot pass. Fragments are none (RFC 6980, 5). Unlike ARP's, the address
//! option need not be the frame's source: no rule of the RFC asks for it.
//!
//! Advertisements have the router flag clear: a proxy that speaks for a router makes hosts strike it off their list of
//! default routers (7.2.5), so addresses of routers are none to be proxied.

use std::net::{IpAddr, Ipv6Addr};

use super::packet::{Message, Packet, V6, link};
use super::{Ignored, is_device, is_host_v6};
use crate::types::Mac;
use crate::wire::ethernet::{self, multicast_mac};
use crate::wire::protocol;

/// ICMPv6 types (RFC 4861, 4.3 and 4.4).
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// Options (RFC 4861, 4.6): the link-layer address of the source, of the target.
const SOURCE_ADDRESS: u8 = 1;
const TARGET_ADDRESS: u8 = 2;
/// Flags of an advertisement (RFC 4861, 4.4).
const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;
/// The hop limit that proves a message to be from this link (RFC 4861, 4.3).
const HOP_LIMIT: u8 = 255;
/// All nodes of the link (RFC 4291, 2.7.1).
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// A message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Nd {
    /// Who has the target?
    Solicitation {
        /// Who asks; unspecified when it wants to take the address (RFC 4862, 5.4.2).
        source: Ipv6Addr,
        /// The address asked for.
        target: Ipv6Addr,
        /// The asker's MAC, where it tells it.
        source_mac: Option<Mac>,
    },
    /// Someone has the target.
    Advertisement {
        /// The address told of.
        target: Ipv6Addr,
        /// Its MAC, where it is told.
        target_mac: Option<Mac>,
        /// It is a router.
        router: bool,
        /// It answers a solicitation.
        solicited: bool,
        /// It replaces a binding that is known.
        overrides: bool,
    },
}

impl Nd {
    /// The message of a packet.
    ///
    /// # Errors
    /// [`Ignored::Protocol`] when it is none, [`Ignored::Checksum`], and [`Ignored::Invalid`] by RFC 4861, 7.1.1 and
    /// 7.1.2.
    pub fn parse(packet: &Packet<'_>) -> Result<Nd, Ignored> {
        let bytes = packet.verified(protocol::ICMPV6)?;
        let kind = bytes.first().copied().ok_or(Ignored::Malformed)?;
        if !matches!(kind, SOLICITATION | ADVERTISEMENT) {
            return Err(Ignored::Protocol);
        }
        let (IpAddr::V6(source), IpAddr::V6(destination)) = (packet.source, packet.destination) else {
            return Err(Ignored::Protocol);
        };
        let read = || {
            let (&[_, code, _, _, flags, _, _, _], rest) = bytes.split_first_chunk::<8>()?;
            let (&target, options) = rest.split_first_chunk::<16>()?;
            let target = Ipv6Addr::from(target);
            let sound = packet.hops == HOP_LIMIT && code == 0 && is_host_v6(target);
            let nd = if kind == SOLICITATION {
                let source_mac = option(options, SOURCE_ADDRESS)?;
                let probes =
                    source.is_unspecified() && source_mac.is_none() && destination == solicited_node(target);
                (probes || is_host_v6(source)).then_some(Nd::Solicitation { source, target, source_mac })
            } else {
                let target_mac = option(options, TARGET_ADDRESS)?;
                let [router, solicited, overrides] =
                    [ROUTER, SOLICITED, OVERRIDE].map(|flag| flags & flag != 0);
                let fits = is_host_v6(source) && !(solicited && destination.is_multicast());
                fits.then_some(Nd::Advertisement { target, target_mac, router, solicited, overrides })
            };
            nd.filter(|_| sound)
        };
        read().ok_or(Ignored::Invalid)
    }
}

/// The MAC in an option of `kind`. Nothing at all when an option is of length 0, cut off, or no device's MAC.
#[allow(clippy::option_option)]
fn option(mut options: &[u8], kind: u8) -> Option<Option<Mac>> {
    let mut found = None;
    while let [this, units, ..] = options {
        let (option, rest) = options.split_at_checked(usize::from(*units) * 8)?;
        let (_, value) = option.split_first_chunk::<2>()?;
        if *this == kind && found.is_none() {
            found = Some(Mac(*value.first_chunk()?)).filter(|&mac| is_device(mac));
            found?;
        }
        options = rest;
    }
    options.is_empty().then_some(found)
}

/// The group at which an address is asked for (RFC 4291, 2.7.1).
pub fn solicited_node(ip: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = ip.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

/// A solicitation for `target` (RFC 4861, 7.2.2): to its solicited-node group, or to one MAC to see whether it still has
/// the address.
pub fn solicitation(mac: Mac, source: Ipv6Addr, target: Ipv6Addr, to: Option<Mac>) -> Message {
    let group = solicited_node(target);
    let destination = if to.is_some() { target } else { group };
    let to = to.or(multicast_mac(group.into())).unwrap_or(Mac::BROADCAST);
    let ip = V6 { source, destination, hop_limit: HOP_LIMIT, class: 0, router_alert: false };
    let head = [SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    ip.message(&link(to, mac, ethernet::IPV6), &[&head, &target.octets(), &[SOURCE_ADDRESS, 1], &mac.0])
}

/// An advertisement: `mac` has `target`, and is that of a router or not: hosts give up a router that says it is none (RFC
/// 4861, 7.2.5). `to` is who asked, with its MAC; nobody: it goes to all nodes, unsolicited (RFC
/// 4861, 7.2.4 and 7.2.6).
pub fn advertisement(mac: Mac, target: Ipv6Addr, to: Option<(Ipv6Addr, Mac)>, is_router: bool) -> Message {
    let all = (ALL_NODES, Mac([0x33, 0x33, 0, 0, 0, 1]));
    let (destination, to_mac) = to.unwrap_or(all);
    let flags = OVERRIDE | if to.is_some() { SOLICITED } else { 0 } | if is_router { ROUTER } else { 0 };
    let ip = V6 { source: target, destination, hop_limit: HOP_LIMIT, class: 0, router_alert: false };
    let head = [ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0];
    ip.message(&link(to_mac, mac, ethernet::IPV6), &[&head, &target.octets(), &[TARGET_ADDRESS, 1], &mac.0])
}

/// The answer to a solicitation that came in `packet`: one who has no address yet is answered at all nodes (RFC 4861,
/// 7.2.4).
pub fn reply(packet: &Packet<'_>, source: Ipv6Addr, target: Ipv6Addr, mac: Mac, is_router: bool) -> Message {
    let to = (!source.is_unspecified()).then_some((source, packet.source_mac));
    advertisement(mac, target, to, is_router)
}

/// Answers a guest's solicitation in the place of the one who has the address, whom `lookup` knows, with whether it is a
/// router; the answer's source is the address itself. Solicitations for an address that someone wants to take are answered too: it is in use.
///
/// Not answered are questions that the asker itself is the answer to, and those to one MAC, which want to know whether
/// that very device is still there.
pub fn answer(frame: &[u8], lookup: impl Fn(Ipv6Addr) -> Option<(Mac, bool)>) -> Option<Message> {
    let packet = Packet::parse(frame).ok()?;
    let Nd::Solicitation { source, target, .. } = Nd::parse(&packet).ok()? else { return None };
    if !packet.destination_mac.is_group() || !is_device(packet.source_mac) {
        return None;
    }
    let (mac, is_router) = lookup(target).filter(|(mac, _)| *mac != packet.source_mac)?;
    Some(reply(&packet, source, target, mac, is_router))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use smoltcp::phy::ChecksumCapabilities;
    use smoltcp::wire::{Icmpv6Packet, Icmpv6Repr, NdiscNeighborFlags, NdiscRepr};

    use super::*;

    const GUEST: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const PEER: Mac = Mac([2, 0, 0, 0, 0, 2]);

    fn ip(text: &str) -> Ipv6Addr {
        text.parse().unwrap()
    }

    fn parse(frame: &[u8]) -> Result<Nd, Ignored> {
        Nd::parse(&Packet::parse(frame)?)
    }

    fn knows(target: Ipv6Addr) -> Option<(Mac, bool)> {
        (target == ip("2001:db8::2")).then_some((PEER, false))
    }

    /// RFC 4861, 4.3: 2001:db8::1 asks for 2001:db8::2; the checksum was summed by hand.
    const QUESTION: [u8; 86] = [
        0x33, 0x33, 0xff, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x86, 0xdd, // Ethernet
        0x60, 0, 0, 0, 0, 32, 58, 255, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 2,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 2, // IPv6
        135, 0, 0x1c, 0x27, 0, 0, 0, 0, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        2, // solicitation
        1, 1, 2, 0, 0, 0, 0, 1,
    ];

    fn probe() -> Message {
        let v6 = V6 {
            source: Ipv6Addr::UNSPECIFIED,
            destination: solicited_node(ip("2001:db8::2")),
            hop_limit: 255,
            class: 0,
            router_alert: false,
        };
        let head = [135, 0, 0, 0, 0, 0, 0, 0];
        let to = Mac([0x33, 0x33, 0xff, 0, 0, 2]);
        v6.message(&link(to, GUEST, ethernet::IPV6), &[&head, &ip("2001:db8::2").octets()])
    }

    #[test]
    fn a_solicitation_is_that_of_section_4_3() {
        let written = solicitation(GUEST, ip("2001:db8::1"), ip("2001:db8::2"), None);
        assert_eq!(written[..], QUESTION, "{written:02x?}");
        assert_eq!(
            parse(&QUESTION),
            Ok(Nd::Solicitation {
                source: ip("2001:db8::1"),
                target: ip("2001:db8::2"),
                source_mac: Some(GUEST)
            })
        );
        let unicast = solicitation(GUEST, ip("2001:db8::1"), ip("2001:db8::2"), Some(PEER));
        assert_eq!(unicast[..6], PEER.0);
        assert_eq!(Packet::parse(&unicast).unwrap().destination, ip("2001:db8::2"));
    }

    #[test]
    fn answers_are_valid_for_another_implementation() {
        let reply = answer(&QUESTION, knows).unwrap();
        assert_eq!(reply[..12], [GUEST.0, PEER.0].concat());
        assert_eq!(reply[21], 255);
        let (source, destination) = (ip("2001:db8::2"), ip("2001:db8::1"));
        let message = Icmpv6Packet::new_checked(&reply[54..]).unwrap();
        let repr =
            Icmpv6Repr::parse(&source, &destination, &message, &ChecksumCapabilities::default()).unwrap();
        let Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert { flags, target_addr, lladdr }) = repr else {
            panic!("another kind");
        };
        assert_eq!(flags, NdiscNeighborFlags::SOLICITED | NdiscNeighborFlags::OVERRIDE);
        assert_eq!((target_addr, lladdr.unwrap().as_bytes()), (source, &PEER.0[..]));
    }

    #[test]
    fn who_wants_to_take_an_address_is_answered_at_all_nodes() {
        let reply = answer(&probe(), knows).unwrap();
        let packet = Packet::parse(&reply).unwrap();
        assert_eq!(
            (packet.destination_mac.to_string().as_str(), packet.destination),
            ("33:33:00:00:00:01", ALL_NODES.into())
        );
        let Nd::Advertisement { solicited, overrides, router, .. } = Nd::parse(&packet).unwrap() else {
            panic!("another kind");
        };
        assert!(!solicited && overrides && !router);
        assert_eq!(answer(&probe(), |_| Some((GUEST, false))), None, "it looks for duplicates of itself");
        let unicast = solicitation(GUEST, ip("2001:db8::1"), ip("2001:db8::2"), Some(PEER));
        assert_eq!(answer(&unicast, knows), None, "it wants to know whether the peer is there");
        assert_eq!(answer(&QUESTION, |_| None), None);
        assert_eq!(answer(&advertisement(GUEST, ip("2001:db8::2"), None, false), knows), None);
    }

    /// A frame with some bytes changed and its checksum made right again.
    fn changed(frame: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
        let mut frame = frame.to_vec();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        frame[56..58].fill(0);
        let packet = Packet::parse(&frame).unwrap();
        let (IpAddr::V6(source), IpAddr::V6(destination)) = (packet.source, packet.destination) else {
            unreachable!()
        };
        let len = u32::try_from(packet.payload.len()).unwrap();
        let sum = crate::wire::checksum::pseudo_v6(source, destination, 58, len)
            + crate::wire::checksum::Sum::of(packet.payload);
        frame[56..58].copy_from_slice(&sum.checksum().to_be_bytes());
        frame
    }

    #[test]
    fn invalid_messages_of_sections_7_1_1_and_7_1_2() {
        assert!(parse(&changed(&QUESTION, 0, &[])).is_ok());
        for (why, at, bytes) in [
            ("hop limit", 21, &[254][..]),
            ("code", 55, &[1]),
            ("a group as target", 62, &[0xff]),
            ("an option of length 0", 79, &[0]),
            ("an option cut off", 79, &[2]),
            ("a group's MAC", 80, &[1]),
            ("a source that is a group", 22, &[0xff]),
            ("no source, but its MAC", 22, &[0; 16]),
        ] {
            assert_eq!(parse(&changed(&QUESTION, at, bytes)), Err(Ignored::Invalid), "{why}");
        }
        let mut wrong = QUESTION;
        wrong[85] = 9;
        assert_eq!(parse(&wrong), Err(Ignored::Checksum));
        assert_eq!(
            parse(&changed(&probe(), 38, &ip("ff02::1").octets())),
            Err(Ignored::Invalid),
            "no source, not to the solicited-node group"
        );
        let told = advertisement(PEER, ip("2001:db8::2"), None, false);
        assert!(parse(&told).is_ok());
        assert_eq!(parse(&changed(&told, 58, &[0x60])), Err(Ignored::Invalid), "solicited, but to all");
        assert_eq!(parse(&changed(&told, 54, &[134])), Err(Ignored::Protocol));
        assert_eq!(parse(&changed(&told, 22, &[0; 16])), Err(Ignored::Invalid));
    }

    proptest! {
        #[test]
        fn arbitrary_messages_never_panic(at in 54usize..86, value: u8, end in 54usize..87, more: u8) {
            let mut frame = QUESTION.to_vec();
            frame.truncate(end);
            if let Some(byte) = frame.get_mut(at) { *byte = value; }
            if let Some(byte) = frame.get_mut(79) { *byte ^= more; }
            frame[19] = u8::try_from(frame.len() - 54).unwrap();
            if frame.len() >= 58 {
                let frame = changed(&frame, 0, &[]);
                let _ = answer(&frame, |_| Some((PEER, false)));
            }
        }
    }
}
