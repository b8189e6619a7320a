//! Golden messages, what another implementation reads in them, and what may not be answered.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use proptest::prelude::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, Ipv4Packet};

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
