//! Golden messages, what another implementation reads in them, and what no error may be sent about.

use proptest::prelude::*;
use smoltcp::wire::{Icmpv4DstUnreachable, Icmpv4Packet, Icmpv6Packet};

use super::*;
use crate::services::packet::{Packet, link};

const OURS: Mac = Mac([2, 0, 0, 0, 0, 1]);
const THEIRS: Mac = Mac([2, 0, 0, 0, 0, 2]);
const LOCAL: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const ROUTER: Mac = Mac([2, 0, 0, 0, 0, 9]);
const ROUTER_IP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);

fn local6() -> Ipv6Addr {
    "2001:db8::1".parse().unwrap()
}

fn peer6() -> Ipv6Addr {
    "2001:db8::2".parse().unwrap()
}

fn router6() -> Ipv6Addr {
    "2001:db8::fe".parse().unwrap()
}

fn v4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8) -> V4 {
    V4 { source, destination, protocol, ttl: 9, class: 0xbb, id: Some(0x1234), router_alert: false }
}

fn v6(source: Ipv6Addr, destination: Ipv6Addr) -> V6 {
    V6 { source, destination, hop_limit: 9, class: 0xbb, router_alert: false }
}

fn to_us(ethertype: u16) -> [u8; 14] {
    link(OURS, THEIRS, ethertype)
}

/// A guest's frame of `len` bytes of UDP payload, checksum unfinished.
fn guest_v4(len: usize) -> Vec<u8> {
    let mut header = v4(PEER, LOCAL, 17).header(8 + len);
    header[6] = 0x40; // don't fragment; the header's checksum is wrong now, and is quoted as it is
    let total = u16::try_from(8 + len).unwrap().to_be_bytes();
    [&to_us(ethernet::IPV4)[..], &header, &[0x30, 0x39, 0, 53], &total, &[0xaa, 0xbb], &vec![0x77; len]]
        .concat()
}

#[test]
fn fragmentation_needed_is_that_of_rfc_1191() {
    let guest = guest_v4(1400);
    let message = too_big(&guest, 1330).unwrap();
    assert_eq!(message.len(), 14 + 576);
    let golden = [
        2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, // back to the guest, from the MAC that it wrote to
        0x45, 0xc0, 0x02, 0x40, 0, 0, 0x40, 0, 64, 1, 0xb3, 0xf9, 192, 0, 2, 1, 192, 0, 2, 2,
    ];
    assert_eq!(message[..34], golden, "{:02x?}", &message[..34]);
    assert_eq!((&message[34..36], &message[38..42]), (&[3, 4][..], &[0, 0, 0x05, 0x32][..]));
    assert_eq!(message[42..], guest[14..14 + 548], "quoted as it is");
    let packet = Packet::parse(&message).unwrap();
    let body = packet.verified(1).unwrap();
    // Another implementation, which wants sound headers in what is quoted.
    let body = Icmpv4Packet::new_checked(body).unwrap();
    assert!(body.verify_checksum());
    assert_eq!(body.msg_code(), u8::from(Icmpv4DstUnreachable::FragRequired));
    // A short frame is quoted whole, without Ethernet's padding.
    let mut short = guest_v4(2);
    short.resize(60, 0);
    assert_eq!(too_big(&short, 68).unwrap().len(), 14 + 28 + 30);
}

#[test]
fn packet_too_big_is_that_of_rfc_4443() {
    let guest =
        v6(peer6(), local6()).message(&to_us(ethernet::IPV6), &[&[128, 0, 0, 0, 0, 0, 0, 0], &[7; 1200]]);
    let mut guest = guest.to_vec();
    guest.resize(1500, 7); // the head of a longer one
    guest[18..20].copy_from_slice(&60_000u16.to_be_bytes());
    let message = too_big(&guest, 1430).unwrap();
    assert_eq!(message.len(), 14 + 1280);
    let packet = Icmpv6Packet::new_checked(&message[54..]).unwrap();
    assert!(packet.verify_checksum(&local6(), &peer6()));
    assert_eq!(message[54..56], [2, 0]);
    assert_eq!(message[58..62], [0, 0, 0x05, 0x96]);
    assert_eq!(message[62..], guest[14..14 + 1232]);
    assert_eq!(too_big(&guest, 1279), None, "no IPv6 link has that");
}

#[test]
fn tags_of_the_guest_stay_on_its_answer() {
    let plain = guest_v4(1400);
    let tagged = [&plain[..12], &[0x81, 0, 0, 5], &plain[12..]].concat();
    let message = too_big(&tagged, 1330).unwrap();
    assert_eq!(message[..18], [&THEIRS.0[..], &OURS.0, &[0x81, 0, 0, 5, 8, 0]].concat());
    assert_eq!(message[18..], too_big(&plain, 1330).unwrap()[14..]);
}

#[test]
fn errors_are_not_sent_about_what_rfc_1122_forbids() {
    let with = |at: usize, bytes: &[u8]| {
        let mut frame = guest_v4(1400);
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        too_big(&frame, 1330)
    };
    assert!(with(0, &[2]).is_some());
    for (why, at, bytes) in [
        ("to a group's MAC", 0, &[1][..]),
        ("from a group's MAC", 6, &[1]),
        ("a later fragment", 20, &[0, 1]),
        ("from nowhere", 26, &[0, 0, 0, 0]),
        ("from a group", 26, &[224, 0, 0, 1]),
        ("from all", 26, &[255, 255, 255, 255]),
        ("from itself", 26, &[127, 0, 0, 1]),
        ("to a group", 30, &[239, 1, 1, 1]),
        ("to all", 30, &[255, 255, 255, 255]),
        ("another version", 14, &[0x65]),
        ("ARP", 12, &[8, 6]),
    ] {
        assert_eq!(with(at, bytes), None, "{why}");
    }
    assert!(with(20, &[0x20, 0]).is_some(), "a first fragment is quoted");
    let icmp = |kind: u8| {
        let mut frame = guest_v4(1400);
        (frame[23], frame[34]) = (1, kind);
        too_big(&frame, 1330).is_some()
    };
    let answered: Vec<u8> = (0..=255).filter(|&kind| icmp(kind)).collect();
    assert_eq!(answered, [0, 8, 9, 10, 13, 14, 15, 16, 17, 18]);
    assert_eq!(too_big(&guest_v4(1400), 67), None);
}

#[test]
fn errors_are_not_sent_about_what_rfc_4443_forbids() {
    let base =
        v6(peer6(), local6()).message(&to_us(ethernet::IPV6), &[&[128, 0, 0, 0, 0, 0, 0, 0], &[7; 1200]]);
    let with = |at: usize, bytes: &[u8]| {
        let mut frame = base.to_vec();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        too_big(&frame, 1280)
    };
    assert!(with(0, &[2]).is_some());
    for (why, at, bytes) in [
        ("to a group's MAC", 0, &[0x33, 0x33][..]),
        ("from nowhere", 22, &[0; 16]),
        ("from a group", 22, &[0xff]),
        ("to a group", 38, &[0xff]),
        ("an error", 54, &[1]),
        ("an error of an unknown kind", 54, &[127]),
        ("a redirect", 54, &[137]),
        ("a later fragment", 20, &[44]),
    ] {
        // The fragment's fields are the payload's first bytes: next header 128, offset 0x0000 to 0x0007.
        let mut frame = base.to_vec();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        frame[56] = 0x10;
        assert_eq!(too_big(&frame, 1280), None, "{why}");
    }
}

#[test]
fn a_router_speaks_in_its_own_name_and_says_what_happened() {
    let guest = guest_v4(40);
    let guest6 =
        v6(peer6(), local6()).message(&to_us(ethernet::IPV6), &[&[128, 0, 0, 0, 0, 0, 0, 0], &[7; 40]]);
    for (problem, four, six) in [
        (Problem::HopsExceeded, [11, 0, 0, 0, 0, 0], [3, 0, 0, 0, 0, 0]),
        (Problem::NoRoute, [3, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]),
        (Problem::HostUnreachable, [3, 1, 0, 0, 0, 0], [1, 3, 0, 0, 0, 0]),
        (Problem::ProtocolUnreachable(6), [3, 2, 0, 0, 0, 0], [4, 1, 0, 0, 0, 6]),
        (Problem::PortUnreachable, [3, 3, 0, 0, 0, 0], [1, 4, 0, 0, 0, 0]),
        (Problem::TooBig(1400), [3, 4, 0, 0, 5, 0x78], [2, 0, 0, 0, 5, 0x78]),
        (Problem::Prohibited, [3, 13, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0]),
        (Problem::WrongField(20), [12, 0, 20, 0, 0, 0], [4, 0, 0, 0, 0, 20]),
        (Problem::UnknownOption(42), [12, 0, 42, 0, 0, 0], [4, 2, 0, 0, 0, 42]),
    ] {
        let message = error(&guest, problem, ROUTER, ROUTER_IP.into()).unwrap();
        let packet = Packet::parse(&message).unwrap();
        assert_eq!((packet.source_mac, packet.destination_mac), (ROUTER, THEIRS));
        assert_eq!((packet.source, packet.destination), (ROUTER_IP.into(), PEER.into()));
        let body = packet.verified(1).unwrap();
        assert_eq!([&body[..2], &body[4..8]].concat(), four, "{problem:?}");
        assert_eq!(body[8..], guest[14..], "{problem:?}");
        let message = error(&guest6, problem, ROUTER, router6().into()).unwrap();
        let packet = Packet::parse(&message).unwrap();
        assert_eq!((packet.source_mac, packet.source), (ROUTER, router6().into()));
        assert_eq!((packet.destination, packet.hops), (peer6().into(), 64));
        let body = packet.verified(58).unwrap();
        assert_eq!([&body[..2], &body[4..8]].concat(), six, "{problem:?}");
        assert_eq!(body[8..], guest6[14..], "{problem:?}");
    }
    assert_eq!(error(&guest, Problem::WrongField(256), ROUTER, ROUTER_IP.into()), None, "no such pointer");
    assert_eq!(error(&guest, Problem::NoRoute, ROUTER, router6().into()), None, "the other version");
    assert_eq!(error(&guest, Problem::NoRoute, Mac::BROADCAST, ROUTER_IP.into()), None);
    assert_eq!(error(&guest, Problem::NoRoute, ROUTER, Ipv4Addr::UNSPECIFIED.into()), None);
}

#[test]
fn two_problems_may_be_told_about_groups_of_ipv6_and_none_about_those_of_ipv4() {
    let group: Ipv6Addr = "ff0e::7".parse().unwrap();
    let to = link(Mac([0x33, 0x33, 0, 0, 0, 7]), THEIRS, ethernet::IPV6);
    let six = v6(peer6(), group).message(&to, &[&[128, 0, 0, 0, 0, 0, 0, 0], &[7; 1200]]);
    let four = v4(PEER, [239, 0, 0, 7].into(), 17)
        .message(&link(Mac([1, 0, 0x5e, 0, 0, 7]), THEIRS, ethernet::IPV4), &[&[0; 8]]);
    for problem in [
        Problem::HopsExceeded,
        Problem::NoRoute,
        Problem::HostUnreachable,
        Problem::ProtocolUnreachable(6),
        Problem::PortUnreachable,
        Problem::Prohibited,
        Problem::WrongField(7),
        Problem::TooBig(1280),
        Problem::UnknownOption(42),
    ] {
        let told = error(&six, problem, ROUTER, router6().into()).is_some();
        assert_eq!(told, matches!(problem, Problem::TooBig(_) | Problem::UnknownOption(_)), "{problem:?}");
        assert_eq!(error(&four, problem, ROUTER, ROUTER_IP.into()), None, "{problem:?}");
    }
    assert_eq!(too_big(&six, 1280), None, "a bridge cannot speak for a group");
}

proptest! {
    #[test]
    fn arbitrary_frames_never_panic_and_errors_are_sound(
        mut bytes in proptest::collection::vec(any::<u8>(), 14..1600), kind in 0usize..5, mtu: u16,
    ) {
        let (ethertype, version) = [(0x0800u16, 0x45), (0x86dd, 0x60), (0x0800, 0x4f), (0x8100, 0), (0x0806, 0)][kind];
        bytes[12..14].copy_from_slice(&ethertype.to_be_bytes());
        if let Some(byte) = bytes.get_mut(14) { *byte = version; }
        if let Some(message) = too_big(&bytes, mtu) {
            prop_assert!(message.len() <= crate::services::packet::MAX_MESSAGE);
            prop_assert_eq!(too_big(&message, mtu.max(1280)), None, "no error about an error");
            if let Ok(packet) = Packet::parse(&message) {
                prop_assert!(packet.verified(packet.protocol).is_ok());
            }
        }
    }
}
