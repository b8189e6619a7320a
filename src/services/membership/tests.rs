//! Golden reports, and the timing of joins, answers and leaves.

use proptest::prelude::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{Icmpv6Packet, Icmpv6Repr, IgmpPacket, IgmpRepr, MldRepr};

use super::*;

const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const ROUTER: Mac = Mac([2, 0, 0, 0, 0, 9]);

fn at(millis: u64) -> Instant {
    Instant(5_000_000_000 + millis * 1_000_000)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn host(local: &str, groups: &[&str]) -> Membership {
    let mut membership = Membership::new(MAC, ip(local));
    membership.set(groups.iter().map(|group| ip(group)), at(0));
    membership
}

fn poll(membership: &mut Membership, now: Instant) -> Vec<Vec<u8>> {
    let mut sent = Vec::new();
    membership.poll(now, |message| sent.push(message.to_vec()));
    sent
}

/// A query of IGMP: its longest response time, its group, what version 3 has more.
fn query(longest: u8, group: [u8; 4], more: &[u8], ttl: u8) -> Vec<u8> {
    let header = V4 {
        source: [192, 0, 2, 9].into(),
        destination: ALL_SYSTEMS,
        protocol: protocol::IGMP,
        ttl,
        class: 0,
        id: None,
        router_alert: true,
    };
    let to = link(Mac([1, 0, 0x5e, 0, 0, 1]), ROUTER, ethernet::IPV4);
    header.message(&to, &[&[0x11, longest, 0, 0], &group, more]).to_vec()
}

fn query6(group: &str, more: &[u8], source: &str, router_alert: bool) -> Vec<u8> {
    let header = V6 {
        source: source.parse().unwrap(),
        destination: "ff02::1".parse().unwrap(),
        hop_limit: 1,
        class: 0,
        router_alert,
    };
    let to = link(Mac([0x33, 0x33, 0, 0, 0, 1]), ROUTER, ethernet::IPV6);
    let group: Ipv6Addr = group.parse().unwrap();
    header.message(&to, &[&[130, 0, 0, 0, 0, 10, 0, 0], &group.octets(), more]).to_vec()
}

fn hear(membership: &mut Membership, frame: &[u8], now: Instant) -> Result<(), Ignored> {
    membership.receive(&Packet::parse(frame)?, now)
}

#[test]
fn a_join_is_told_twice_as_in_rfc_3376() {
    let mut membership = host("192.0.2.1", &["239.1.2.3", "224.0.0.1", "ff02::5", "192.0.2.7"]);
    assert!(membership.contains(ip("239.1.2.3")) && !membership.contains(ip("224.0.0.1")));
    let golden = [
        0x01, 0x00, 0x5e, 0, 0, 0x16, 2, 0, 0, 0, 0, 1, 8, 0, // Ethernet
        0x46, 0xc0, 0, 40, 0, 0, 0x40, 0, 1, 2, 0x41, 0xf8, 192, 0, 2, 1, 224, 0, 0, 22, 0x94, 4, 0,
        0, // IPv4
        0x22, 0, 0xe8, 0xf9, 0, 0, 0, 1, 4, 0, 0, 0, 239, 1, 2,
        3, // a report: change to exclude nothing
    ];
    let sent = poll(&mut membership, at(0));
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0], golden, "{:02x?}", sent[0]);
    assert_eq!(membership.deadline(), Some(at(1000)));
    assert_eq!(poll(&mut membership, at(999)), [[0u8; 0]; 0]);
    assert_eq!(poll(&mut membership, at(1000)), [golden]);
    assert_eq!(membership.deadline(), None);
}

#[test]
fn queries_are_answered_in_their_version() {
    let mut membership = host("192.0.2.1", &["239.1.2.3", "239.1.2.4"]);
    poll(&mut membership, at(0));
    poll(&mut membership, at(1000));
    // Version 3, all groups: two records "is exclude".
    hear(&mut membership, &query(100, [0; 4], &[2, 125, 0, 0], 1), at(5000)).unwrap();
    let sent = poll(&mut membership, at(5000));
    assert_eq!(sent.len(), 2);
    assert!(sent.iter().all(|report| report[38] == 0x22 && report[46] == 2));
    // One group.
    hear(&mut membership, &query(100, [239, 1, 2, 4], &[2, 125, 0, 0], 1), at(6000)).unwrap();
    assert_eq!(poll(&mut membership, at(6000))[0][50..54], [239, 1, 2, 4]);
    // Version 2: to the group itself, as another implementation reads it.
    hear(&mut membership, &query(100, [239, 1, 2, 3], &[], 1), at(7000)).unwrap();
    let report = &poll(&mut membership, at(7000))[0];
    assert_eq!((&report[..6], &report[30..34]), (&[1, 0, 0x5e, 1, 2, 3][..], &[239, 1, 2, 3][..]));
    let repr = IgmpRepr::parse(&IgmpPacket::new_checked(&report[38..]).unwrap()).unwrap();
    assert!(
        matches!(repr, IgmpRepr::MembershipReport { group_addr, version: smoltcp::wire::IgmpVersion::Version2 } if group_addr.octets() == [239, 1, 2, 3])
    );
    // Version 1 goes before it, without an option.
    hear(&mut membership, &query(0, [0; 4], &[], 1), at(8000)).unwrap();
    let report = &poll(&mut membership, at(8000))[0];
    assert_eq!((report[14], report[34]), (0x45, 0x12));
    // The older queriers are forgotten after 260 s.
    hear(&mut membership, &query(100, [0; 4], &[2, 125, 0, 0], 1), at(8_000 + 260_000)).unwrap();
    assert_eq!(poll(&mut membership, at(268_000))[0][38], 0x22);
}

#[test]
fn a_flood_of_queries_makes_ten_answers_a_second() {
    let mut membership = host("192.0.2.1", &["239.1.2.3"]);
    poll(&mut membership, at(0));
    poll(&mut membership, at(1000));
    let mut answers = 0;
    for ms in 2000..3000 {
        hear(&mut membership, &query(100, [0; 4], &[2, 125, 0, 0], 1), at(ms)).unwrap();
        answers += poll(&mut membership, at(ms)).len();
    }
    assert_eq!(answers, 10);
}

#[test]
fn leaving_is_told() {
    let mut membership = host("192.0.2.1", &["239.1.2.3"]);
    poll(&mut membership, at(0));
    poll(&mut membership, at(1000));
    membership.set(std::iter::empty(), at(2000));
    assert!(!membership.contains(ip("239.1.2.3")));
    let sent = poll(&mut membership, at(2000));
    assert_eq!((sent[0][38], sent[0][46]), (0x22, 3), "change to include nothing");
    assert_eq!(poll(&mut membership, at(3000)).len(), 1);
    assert_eq!((membership.deadline(), membership.groups.len()), (None, 0));
    // Version 2: once, to all routers. Version 1: not at all.
    for (longest, expected) in [(100, Some(0x17)), (0, None)] {
        let mut membership = host("192.0.2.1", &["239.1.2.3"]);
        hear(&mut membership, &query(longest, [0; 4], &[], 1), at(0)).unwrap();
        poll(&mut membership, at(0));
        poll(&mut membership, at(1000));
        membership.set(std::iter::empty(), at(2000));
        let sent = poll(&mut membership, at(2000));
        assert_eq!(sent.first().map(|leave| leave[38]), expected);
        assert!(sent.iter().all(|leave| leave[30..34] == [224, 0, 0, 2]));
        assert_eq!(membership.groups.len(), 0);
    }
}

#[test]
fn mld_reports_are_those_of_rfc_3810() {
    let mut membership = host("2001:db8::1", &["ff05::1:3", "ff02::1", "ff01::7", "239.1.2.3"]);
    let sent = poll(&mut membership, at(0));
    assert_eq!(sent.len(), 1);
    let head = [
        0x33, 0x33, 0, 0, 0, 0x16, 2, 0, 0, 0, 0, 1, 0x86, 0xdd, // Ethernet
        0x60, 0, 0, 0, 0, 36, 0, 1, // hop-by-hop, hop limit 1
        0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe, 0, 0,
        1, // from the link-local address of the MAC
        0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x16, // to all MLDv2 routers
        58, 0, 5, 2, 0, 0, 1, 0, // router alert
    ];
    assert_eq!(sent[0][..62], head);
    let (source, destination) = ("fe80::ff:fe00:1".parse().unwrap(), ALL_V2_ROUTERS_V6);
    let message = Icmpv6Packet::new_checked(&sent[0][62..]).unwrap();
    let repr = Icmpv6Repr::parse(&source, &destination, &message, &ChecksumCapabilities::default()).unwrap();
    let Icmpv6Repr::Mld(MldRepr::Report { nr_mcast_addr_rcrds: 1, data }) = repr else { panic!("{repr:?}") };
    assert_eq!(data[..4], [4, 0, 0, 0]);
    assert_eq!(data[4..], "ff05::1:3".parse::<Ipv6Addr>().unwrap().octets());
}

#[test]
fn mld_queries_are_checked_and_answered() {
    let mut membership = host("2001:db8::1", &["ff05::1:3"]);
    poll(&mut membership, at(0));
    poll(&mut membership, at(1000));
    hear(&mut membership, &query6("::", &[2, 125, 0, 0], "fe80::9", true), at(2000)).unwrap();
    assert_eq!(poll(&mut membership, at(2000))[0][62], 143);
    let no_alert = query6("::", &[2, 125, 0, 0], "fe80::9", false);
    assert_eq!(hear(&mut membership, &no_alert, at(3000)), Err(Ignored::Invalid));
    let global = query6("::", &[2, 125, 0, 0], "2001:db8::9", true);
    assert_eq!(hear(&mut membership, &global, at(3000)), Err(Ignored::Invalid));
    assert_eq!(
        hear(&mut membership, &query6("::", &[2], "fe80::9", true), at(3000)),
        Err(Ignored::Malformed)
    );
    assert_eq!(membership.deadline(), None);
    // MLDv1: to the group, and "done" to all routers.
    hear(&mut membership, &query6("ff05::1:3", &[], "fe80::9", true), at(4000)).unwrap();
    let report = &poll(&mut membership, at(4000))[0];
    assert_eq!((&report[..6], report[62], report.len()), (&[0x33, 0x33, 0, 1, 0, 3][..], 131, 62 + 24));
    membership.set(std::iter::empty(), at(5000));
    let done = &poll(&mut membership, at(5000))[0];
    assert_eq!((done[62], &done[38..54]), (132, &ALL_ROUTERS_V6.octets()[..]));
}

#[test]
fn what_is_no_query_is_ignored() {
    let mut membership = host("192.0.2.1", &["239.1.2.3"]);
    assert_eq!(hear(&mut membership, &query(100, [0; 4], &[], 2), at(0)), Err(Ignored::Invalid), "from afar");
    assert_eq!(hear(&mut membership, &query(100, [0; 4], &[1], 1), at(0)), Err(Ignored::Malformed));
    let mut report = query(100, [0; 4], &[], 1);
    report[38] = 0x16;
    assert_eq!(hear(&mut membership, &report, at(0)), Err(Ignored::Checksum));
}

#[test]
fn another_address_tells_of_all_groups_anew() {
    let mut membership = host("192.0.2.1", &["239.1.2.3"]);
    poll(&mut membership, at(0));
    poll(&mut membership, at(1000));
    membership.identify(ROUTER, ip("192.0.2.2"), at(2000));
    let sent = poll(&mut membership, at(2000));
    assert_eq!((&sent[0][6..12], &sent[0][26..30]), (&ROUTER.0[..], &[192, 0, 2, 2][..]));
}

proptest! {
    #[test]
    fn arbitrary_messages_never_panic(body in proptest::collection::vec(any::<u8>(), 0..40), six: bool) {
        let (local, frame) = if six {
            ("2001:db8::1", query6("::", &body, "fe80::9", true))
        } else {
            ("192.0.2.1", query(body.first().copied().unwrap_or(0), [0; 4], &body, 1))
        };
        let mut membership = host(local, &["239.1.2.3", "ff05::1:3"]);
        let _ = hear(&mut membership, &frame, at(10));
        prop_assert!(poll(&mut membership, at(200)).len() <= 1);
    }
}
