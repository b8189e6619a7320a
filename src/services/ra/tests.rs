use proptest::prelude::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{Icmpv6Packet, Icmpv6Repr, NdiscPrefixInfoFlags, NdiscRepr, NdiscRouterFlags};

use super::*;
use crate::wire::checksum::Sum;

const ROUTER: Mac = Mac([2, 0, 0, 0, 0, 1]);
const HOST: Mac = Mac([0x52, 0x54, 0, 0, 0, 0x0a]);

fn ip(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

fn facts() -> Advertisement {
    Advertisement {
        managed: false,
        other: true,
        mtu: 1450,
        prefixes: vec![("2001:db8:1::1/64".parse().unwrap(), true)],
        dns_servers: vec![ip("2001:db8::53")],
        domain: Some("example.org".to_owned()),
        lifetime: LIFETIME,
    }
}

fn payload(message: &[u8]) -> Vec<u8> {
    Packet::parse(message).unwrap().verified(protocol::ICMPV6).unwrap().to_vec()
}

#[test]
fn an_advertisement_is_as_it_was_written_by_hand() {
    let message = advertisement(ROUTER, ip("fe80::1"), None, &facts(), false);
    #[rustfmt::skip]
    let golden = [
        64, 0x40, 1, 0x2c, 0, 0, 0, 0, 0, 0, 0, 0,
        1, 1, 2, 0, 0, 0, 0, 1,
        5, 1, 0, 0, 0, 0, 5, 0xaa,
        3, 4, 64, 0xc0, 0, 1, 0x51, 0x80, 0, 0, 0x38, 0x40, 0, 0, 0, 0,
        0x20, 1, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        25, 3, 0, 0, 0, 0, 1, 0x2c, 0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x53,
        31, 3, 0, 0, 0, 0, 1, 0x2c, 7, b'e', b'x', b'a', b'm', b'p', b'l', b'e', 3, b'o', b'r', b'g', 0, 0, 0, 0,
    ];
    let body = payload(&message);
    assert_eq!((&body[..2], &body[4..]), (&[134, 0][..], &golden[..]));
    let packet = Packet::parse(&message).unwrap();
    assert_eq!((packet.hops, packet.source), (255, ip("fe80::1").into()), "RFC 4861, 6.1.2");
    assert_eq!(
        (packet.destination, packet.destination_mac.to_string().as_str()),
        (ip("ff02::1").into(), "33:33:00:00:00:01")
    );
}

#[test]
fn another_implementation_reads_the_same() {
    let message = advertisement(ROUTER, ip("fe80::1"), Some((HOST, ip("fe80::a"))), &facts(), false);
    assert_eq!(message[..12], [HOST.0, ROUTER.0].concat());
    let packet = Icmpv6Packet::new_checked(&message[54..]).unwrap();
    let (from, to) = (ip("fe80::1"), ip("fe80::a"));
    let Icmpv6Repr::Ndisc(NdiscRepr::RouterAdvert {
        flags, router_lifetime, mtu, prefix_info, lladdr, ..
    }) = Icmpv6Repr::parse(&from, &to, &packet, &ChecksumCapabilities::default()).unwrap()
    else {
        panic!("another kind")
    };
    assert_eq!((flags, router_lifetime.secs(), mtu), (NdiscRouterFlags::OTHER, 300, Some(1450)));
    assert_eq!(lladdr.unwrap().as_bytes(), ROUTER.0);
    let prefix = prefix_info.unwrap();
    assert_eq!((prefix.prefix, prefix.prefix_len), (ip("2001:db8:1::"), 64));
    assert_eq!(prefix.flags, NdiscPrefixInfoFlags::ON_LINK | NdiscPrefixInfoFlags::ADDRCONF);
}

/// Kind, octets behind the length.
fn options(body: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut rest = &body[16..];
    let mut found = Vec::new();
    while let [kind, units, ..] = rest {
        let (option, next) = rest.split_at(usize::from(*units) * 8);
        found.push((*kind, option[2..].to_vec()));
        rest = next;
    }
    found
}

#[test]
fn s6_2_5_the_final_one_takes_the_router_away_and_leaves_the_prefixes() {
    let body = payload(&advertisement(ROUTER, ip("fe80::1"), None, &facts(), true));
    assert_eq!(body[6..8], [0, 0]);
    let lifetimes: Vec<(u8, Vec<u8>)> = options(&body)
        .into_iter()
        .filter(|(kind, _)| *kind >= 25 || *kind == 3)
        .map(|(kind, value)| (kind, value[2..6].to_vec()))
        .collect();
    assert_eq!(lifetimes, [(3, VALID.to_be_bytes().to_vec()), (25, vec![0; 4]), (31, vec![0; 4])]);
}

#[test]
fn flags_are_those_of_the_modes() {
    let with = |managed, other, autonomous| {
        let prefixes = vec![("2001:db8:1::/64".parse().unwrap(), autonomous)];
        let body = payload(&advertisement(
            ROUTER,
            ip("fe80::1"),
            None,
            &Advertisement { managed, other, prefixes, ..facts() },
            false,
        ));
        let prefix = options(&body).into_iter().find(|(kind, _)| *kind == 3).unwrap().1;
        (body[5], prefix[1])
    };
    assert_eq!(with(false, false, true), (0, 0xc0), "slaac");
    assert_eq!(with(false, true, true), (0x40, 0xc0), "dhcpv6-stateless");
    assert_eq!(with(true, false, false), (0x80, 0x80), "dhcpv6-stateful");
}

#[test]
fn what_there_is_none_of_is_not_told() {
    let bare = Advertisement { mtu: 1279, ..Advertisement::default() };
    let body = payload(&advertisement(ROUTER, ip("fe80::1"), None, &bare, false));
    assert_eq!(options(&body), [(1, ROUTER.0.to_vec())]);
    assert_eq!(body[6..8], [0, 0], "no default router");
    let odd = Advertisement { domain: Some("a b".to_owned()), ..bare };
    assert_eq!(payload(&advertisement(ROUTER, ip("fe80::1"), None, &odd, false)), body);
}

#[test]
fn too_much_is_left_out_as_whole_options() {
    let prefixes: Vec<(Ipv6Net, bool)> = (0..60u16)
        .map(|n| (Ipv6Net::new(Ipv6Addr::new(0x2001, n, 0, 0, 0, 0, 0, 0), 64).unwrap(), true))
        .collect();
    let message = advertisement(ROUTER, ip("fe80::1"), None, &Advertisement { prefixes, ..facts() }, false);
    assert!(message.len() <= 14 + 1280);
    let told = options(&payload(&message)).iter().filter(|(kind, _)| *kind == 3).count();
    assert_eq!(told, 37);
    let dns_servers = vec![ip("::1"); 200];
    let body = payload(&advertisement(
        ROUTER,
        ip("fe80::1"),
        None,
        &Advertisement { dns_servers, ..facts() },
        false,
    ));
    assert!(options(&body).iter().all(|(kind, _)| *kind != 25), "it has no number for so long an option");
}

fn solicitation(source: &str, options: &[u8]) -> Vec<u8> {
    let ip =
        V6 { source: ip(source), destination: ALL_ROUTERS, hop_limit: 255, class: 0, router_alert: false };
    let to = multicast_mac(ALL_ROUTERS.into()).unwrap();
    ip.message(&link(to, HOST, ethernet::IPV6), &[&[133, 0, 0, 0, 0, 0, 0, 0], options]).to_vec()
}

/// A solicitation with some bytes changed, and its checksum right again.
fn changed(mut frame: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    frame[56..58].fill(0);
    let address = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&frame[at..at + 16]).unwrap());
    let sum = pseudo_v6(address(22), address(38), 58, u32::try_from(frame.len() - 54).unwrap())
        + Sum::of(&frame[54..]);
    frame[56..58].copy_from_slice(&sum.checksum().to_be_bytes());
    frame
}

const SLLA: [u8; 8] = [1, 1, 0x52, 0x54, 0, 0, 0, 0x0a];

#[test]
fn s6_1_1_what_a_valid_solicitation_is() {
    assert_eq!(solicited(&solicitation("fe80::a", &SLLA)), Ok((HOST, ip("fe80::a"))));
    assert_eq!(solicited(&solicitation("fe80::a", &[])), Ok((HOST, ip("fe80::a"))));
    assert_eq!(
        solicited(&solicitation("::", &[])),
        Ok((HOST, ALL_NODES)),
        "by the group's address, to it alone"
    );
    assert_eq!(
        solicited(&solicitation("fe80::a", &[200, 1, 0, 0, 0, 0, 0, 0])),
        Ok((HOST, ip("fe80::a"))),
        "unknown options"
    );
    assert_eq!(solicited(&solicitation("::", &SLLA)), Err(Ignored::Invalid), "a MAC from ::");
    let good = || solicitation("fe80::a", &SLLA);
    for (why, at, bytes, expected) in [
        ("hop limit", 21, &[254][..], Ignored::Invalid),
        ("code", 55, &[1], Ignored::Invalid),
        ("an option of length 0", 63, &[0], Ignored::Invalid),
        ("an option cut off", 63, &[2], Ignored::Invalid),
        ("a source that is a group", 22, &[0xff], Ignored::Source),
        ("a neighbour solicitation", 54, &[135], Ignored::Protocol),
    ] {
        assert_eq!(solicited(&changed(good(), at, bytes)), Err(expected), "{why}");
    }
    let mut wrong = good();
    wrong[60] = 1;
    assert_eq!(solicited(&wrong), Err(Ignored::Checksum));
}

#[test]
fn an_unfinished_checksum_is_taken() {
    let mut frame = solicitation("fe80::a", &SLLA);
    let sum = pseudo_v6(ip("fe80::a"), ALL_ROUTERS, 58, 16).fold();
    frame[56..58].copy_from_slice(&sum.to_be_bytes());
    assert!(solicited(&frame).is_ok());
}

#[test]
fn a_solicitation_that_is_cut_off_is_none() {
    let frame = solicitation("fe80::a", &SLLA);
    for end in 0..frame.len() {
        assert!(solicited(&frame[..end]).is_err(), "{end}");
        if end > 58 {
            let mut short = frame[..end].to_vec();
            short[19] = u8::try_from(end - 54).unwrap();
            assert_eq!(solicited(&changed(short, 0, &[])).is_ok(), end == 62, "{end}, with lengths that fit");
        }
    }
}

#[test]
fn s6_2_4_the_first_three_come_soon_and_then_in_their_range() {
    let second = |n: u64| Instant(n * 1_000_000_000);
    let mut schedule = Schedule::new(7, second(100));
    assert!(!schedule.take(second(99)) && schedule.take(second(100)));
    let mut gaps = Vec::new();
    for _ in 0..50 {
        let (due, last) = (schedule.deadline(), schedule.deadline().0 - 1);
        assert!(!schedule.take(Instant(last)) && schedule.take(due));
        gaps.push(Duration::from_nanos(schedule.deadline().0 - due.0));
    }
    assert_eq!(schedule.initial, 0);
    assert_eq!(gaps[0], INITIAL_INTERVAL);
    assert!(gaps[1..].iter().all(|gap| (MIN_INTERVAL..=MAX_INTERVAL).contains(gap)));
    let spread = gaps[1..].iter().max().unwrap().as_secs() - gaps[1..].iter().min().unwrap().as_secs();
    assert!(spread > 30, "{spread}");
    let now = schedule.deadline();
    schedule.restart(Instant(now.0 - 5));
    assert!(schedule.take(Instant(now.0 - 5)));
    assert_eq!(schedule.initial, 2, "a change is told as often as the beginning");
    assert_ne!(
        Schedule::new(1, second(1)).random().to_bits(),
        Schedule::new(2, second(1)).random().to_bits()
    );
}

proptest! {
    #[test]
    fn arbitrary_solicitations_never_panic(options in prop::collection::vec(any::<u8>(), 0..80), at in 0usize..62, value: u8) {
        let frame = solicitation("fe80::a", &options);
        let _ = solicited(&changed(frame.clone(), 0, &[]));
        let mut frame = frame;
        frame[at] = value;
        let _ = solicited(&frame);
    }

    #[test]
    fn an_advertisement_is_always_sound(
        prefixes in prop::collection::vec((any::<u128>(), 0u8..=128, any::<bool>()), 0..70),
        servers in 0usize..140, mtu: u16, is_final: bool, domain in "[a-z.]{0,300}",
    ) {
        let prefixes = prefixes.into_iter().map(|(ip, len, a)| (Ipv6Net::new(ip.into(), len).unwrap(), a)).collect();
        let facts = Advertisement { prefixes, dns_servers: vec![ip("::1"); servers], mtu, domain: Some(domain), ..facts() };
        let message = advertisement(ROUTER, ip("fe80::1"), None, &facts, is_final);
        prop_assert!(message.len() <= 14 + 1280);
        let body = payload(&message);
        prop_assert_eq!(body.len() % 8, 0);
        prop_assert!(options(&body).len() < 45);
    }
}
