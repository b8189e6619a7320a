//! Golden messages, what another implementation reads in them, and what may not be answered.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use proptest::prelude::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{Icmpv4DstUnreachable, Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, Ipv4Packet};

use super::*;
use crate::wire::checksum::Sum;

const OURS: Mac = Mac([2, 0, 0, 0, 0, 1]);
const THEIRS: Mac = Mac([2, 0, 0, 0, 0, 2]);
const LOCAL: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

fn local6() -> Ipv6Addr {
    "2001:db8::1".parse().unwrap()
}

fn peer6() -> Ipv6Addr {
    "2001:db8::2".parse().unwrap()
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

fn bucket() -> Bucket {
    Bucket::new(1000, 100, Instant(0))
}

fn echo(frame: &[u8]) -> Result<Vec<u8>, Ignored> {
    let mut out = Vec::new();
    let packet = Packet::parse(frame)?;
    echo_reply(&packet, OURS, 1500, &mut bucket(), Instant(0), &mut out).map(|()| out)
}

#[test]
fn an_echo_reply_is_that_of_rfc_792() {
    let request =
        v4(PEER, LOCAL, 1).message(&to_us(ethernet::IPV4), &[&[8, 0, 0, 0, 0x12, 0x34, 0, 7], b"abc"]);
    let mut padded = request.to_vec();
    padded.resize(60, 0x55);
    let golden = [
        2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, // Ethernet
        0x45, 0xb8, 0, 31, 0x12, 0x34, 0, 0, 64, 1, 0xe3, 0xee, 192, 0, 2, 1, 192, 0, 2, 2, // IPv4
        0, 0, 0x29, 0x62, 0x12, 0x34, 0, 7, b'a', b'b', b'c',
    ];
    let reply = echo(&padded).unwrap();
    assert_eq!(reply, golden, "{reply:02x?}");
    let packet = Ipv4Packet::new_checked(&reply[14..]).unwrap();
    assert!(packet.verify_checksum());
    let message = Icmpv4Packet::new_checked(packet.payload()).unwrap();
    let repr = Icmpv4Repr::parse(&message, &ChecksumCapabilities::default()).unwrap();
    assert_eq!(repr, Icmpv4Repr::EchoReply { ident: 0x1234, seq_no: 7, data: b"abc" });
}

#[test]
fn an_echo_reply_over_ipv6_reads_back() {
    let request =
        v6(peer6(), local6()).message(&to_us(ethernet::IPV6), &[&[128, 0, 0, 0, 0x12, 0x34, 0, 7], b"abc"]);
    let reply = echo(&request).unwrap();
    assert_eq!(
        reply[..22],
        [&THEIRS.0[..], &OURS.0, &[0x86, 0xdd, 0x6b, 0x80, 0, 0, 0, 11, 58, 64]].concat()
    );
    let message = Icmpv6Packet::new_checked(&reply[54..]).unwrap();
    let repr = Icmpv6Repr::parse(&local6(), &peer6(), &message, &ChecksumCapabilities::default()).unwrap();
    assert_eq!(repr, Icmpv6Repr::EchoReply { ident: 0x1234, seq_no: 7, data: b"abc" });
}

#[test]
fn what_is_no_echo_request_for_one_host_is_not_answered() {
    let ask = |source: [u8; 4], message: &[u8]| {
        echo(&v4(source.into(), LOCAL, 1).message(&to_us(ethernet::IPV4), &[message])).err()
    };
    let request = [8, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(ask([192, 0, 2, 2], &request), None);
    for source in [[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 1], [255, 255, 255, 255], [192, 0, 2, 1]] {
        assert_eq!(ask(source, &request), Some(Ignored::Source), "{source:?}");
    }
    assert_eq!(ask([192, 0, 2, 2], &[0, 0, 0, 0, 0, 0, 0, 0]), Some(Ignored::Protocol));
    assert_eq!(ask([192, 0, 2, 2], &[8, 1, 0, 0, 0, 0, 0, 0]), Some(Ignored::Protocol));
    assert_eq!(ask([192, 0, 2, 2], &[8, 0, 0, 0]), Some(Ignored::Malformed));
    let mut wrong = v4(PEER, LOCAL, 1).message(&to_us(ethernet::IPV4), &[&request]);
    wrong[41] = 1;
    assert_eq!(echo(&wrong), Err(Ignored::Checksum));
}

#[test]
fn echo_is_limited_in_length_and_rate() {
    let frame = v4(PEER, LOCAL, 1).message(&to_us(ethernet::IPV4), &[&[8, 0, 0, 0, 0, 0, 0, 0], &[0; 72]]);
    let packet = Packet::parse(&frame).unwrap();
    let mut out = Vec::new();
    let long = echo_reply(&packet, OURS, 99, &mut bucket(), Instant(0), &mut out);
    assert_eq!(long, Err(Ignored::Invalid));
    let mut limit = Bucket::new(10, 3, Instant(0));
    let mut passed = |now: Instant| {
        (0..10).filter(|_| echo_reply(&packet, OURS, 100, &mut limit, now, &mut out).is_ok()).count()
    };
    assert_eq!(passed(Instant(0)), 3);
    assert_eq!(passed(Instant(0).after(Duration::from_millis(100))), 1);
    assert_eq!(passed(Instant(0).after(Duration::from_secs(1))), 3);
    assert_eq!(passed(Instant(0)), 0, "a clock that goes back gives nothing");
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

/// "Fragmentation needed" from a router about a tunnel's packet of ours.
fn told_v4(mtu: u16, len: u16, change: impl Fn(&mut Vec<u8>)) -> Result<PathMtu, Ignored> {
    let header = v4(LOCAL, PEER, 17).header(usize::from(len) - 20);
    let mut quote = [&header[..], &[0xc0, 0, 0x12, 0xb5, 0, 100, 0, 0]].concat();
    change(&mut quote);
    let [m0, m1] = mtu.to_be_bytes();
    let message = v4([198, 51, 100, 1].into(), LOCAL, 1)
        .message(&to_us(ethernet::IPV4), &[&[3, 4, 0, 0, 0, 0, m0, m1], &quote]);
    path_mtu(&Packet::parse(&message)?, LOCAL.into(), 4789)
}

#[test]
fn path_mtus_are_read_with_a_floor_and_plateaus() {
    let told = told_v4(1400, 1500, |_| {}).unwrap();
    assert_eq!(told, PathMtu { destination: PEER.into(), mtu: 1400, quoted: 14 + 20 + 8 + 20 });
    let mtu = |mtu, len| told_v4(mtu, len, |_| {}).map(|told| told.mtu);
    assert_eq!(mtu(100, 1500), Ok(576));
    assert_eq!(
        (mtu(0, 1500), mtu(0, 1492), mtu(0, 9000), mtu(0, 600)),
        (Ok(1492), Ok(1006), Ok(8166), Ok(576))
    );
    assert_eq!(mtu(1500, 1500), Err(Ignored::Invalid), "it would have passed");
    assert_eq!(mtu(9000, 1500), Err(Ignored::Invalid));
}

#[test]
fn only_messages_about_our_own_packets_count() {
    assert_eq!(told_v4(1400, 1500, |quote| quote[15] = 9), Err(Ignored::OtherAddress), "another source");
    assert_eq!(told_v4(1400, 1500, |quote| quote[9] = 6), Err(Ignored::OtherAddress), "TCP");
    assert_eq!(told_v4(1400, 1500, |quote| quote[23] = 0xb6), Err(Ignored::OtherAddress), "another port");
    assert_eq!(told_v4(1400, 1500, |quote| quote[7] = 1), Err(Ignored::Fragment));
    assert_eq!(told_v4(1400, 1500, |quote| quote.truncate(27)), Err(Ignored::Malformed));
    let mut wrong =
        v4(PEER, LOCAL, 1).message(&to_us(ethernet::IPV4), &[&[3, 4, 0, 0, 0, 0, 5, 0], &[0; 28]]).to_vec();
    wrong[50] ^= 1;
    assert_eq!(path_mtu(&Packet::parse(&wrong).unwrap(), LOCAL.into(), 4789), Err(Ignored::Checksum));
}

#[test]
fn path_mtus_of_ipv6() {
    let told = |mtu: u32, port: u8| {
        let header =
            [&[0x60, 0, 0, 0, 0x05, 0xb4, 17, 64][..], &local6().octets(), &peer6().octets()].concat();
        let quote = [&header[..], &[0xc0, 0, 0x12, port, 0x05, 0xb4, 0, 0]].concat();
        let [m0, m1, m2, m3] = mtu.to_be_bytes();
        let message = v6("2001:db8::9".parse().unwrap(), local6())
            .message(&to_us(ethernet::IPV6), &[&[2, 0, 0, 0, m0, m1, m2, m3], &quote]);
        path_mtu(&Packet::parse(&message)?, local6().into(), 4789)
    };
    assert_eq!(
        told(1400, 0xb5),
        Ok(PathMtu { destination: peer6().into(), mtu: 1400, quoted: 14 + 40 + 8 + 40 })
    );
    assert_eq!(told(1280, 0xb5).unwrap().mtu, 1280);
    assert_eq!(told(1279, 0xb5), Err(Ignored::Invalid), "RFC 8201, 4: discarded");
    assert_eq!(told(0x1_0000, 0xb5), Err(Ignored::Invalid));
    assert_eq!(told(1400, 0xb6), Err(Ignored::OtherAddress));
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

    #[test]
    fn arbitrary_errors_never_panic(body in proptest::collection::vec(any::<u8>(), 0..120), six: bool, patch: bool) {
        let mut body = body;
        let head: &[u8] = if six { &[2, 0, 0, 0, 0, 0] } else { &[3, 4, 0, 0, 0, 0] };
        if patch && body.len() > 60 { body[2] = if six { 0x60 } else { 0x45 }; }
        let message = if six {
            v6(peer6(), local6()).message(&to_us(ethernet::IPV6), &[head, &body])
        } else {
            v4(PEER, LOCAL, 1).message(&to_us(ethernet::IPV4), &[head, &body])
        };
        prop_assert_eq!(six || Sum::of(&message[34..]).fold() == 0xffff, true);
        let local = if six { IpAddr::V6(local6()) } else { LOCAL.into() };
        let _ = path_mtu(&Packet::parse(&message).unwrap(), local, 4789);
    }
}
