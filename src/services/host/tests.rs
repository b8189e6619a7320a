//! A host on a link that the test is.

use proptest::prelude::*;

use super::*;
use crate::frame::Pool;
use crate::services::packet::{V4, V6, link};
use crate::services::{arp, nd};

const OURS: Mac = Mac([2, 0, 0, 0, 0, 1]);
const PEER: Mac = Mac([2, 0, 0, 0, 0, 2]);
const ROUTER: Mac = Mac([2, 0, 0, 0, 0, 9]);

fn at(millis: u64) -> Instant {
    Instant(7_000_000_000 + millis * 1_000_000)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn v4(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

#[derive(Default)]
struct Wire {
    sent: Vec<Vec<u8>>,
    released: Vec<Frame>,
    discarded: Vec<Frame>,
    events: Vec<Event>,
}

impl Net for Wire {
    fn send(&mut self, frame: &[u8]) {
        self.sent.push(frame.to_vec());
    }

    fn release(&mut self, frame: Frame) {
        self.released.push(frame);
    }

    fn discard(&mut self, frame: Frame) {
        self.discarded.push(frame);
    }

    fn event(&mut self, event: Event) {
        self.events.push(event);
    }
}

impl Wire {
    fn sent(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.sent)
    }

    /// The IPv4 addresses that were asked for.
    fn asked(&mut self) -> Vec<String> {
        let asked = |frame: Vec<u8>| Arp::parse(&frame).filter(|arp| !arp.is_announcement());
        self.sent().into_iter().filter_map(asked).map(|arp| arp.target.to_string()).collect()
    }

    fn events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }
}

fn config4() -> HostConfig {
    HostConfig {
        mac: OURS,
        local: ip("192.0.2.1"),
        prefix_len: 24,
        gateway: Some(ip("192.0.2.9")),
        mtu: 1500,
        udp_port: 4789,
        groups: vec![ip("239.1.2.3")],
        wanted: vec![ip("192.0.2.2"), ip("198.51.100.7"), ip("239.1.2.3"), ip("2001:db8::7")],
    }
}

fn config6() -> HostConfig {
    HostConfig {
        local: ip("2001:db8::1"),
        prefix_len: 64,
        gateway: Some(ip("2001:db8::9")),
        groups: vec![ip("ff05::1:3")],
        wanted: vec![ip("2001:db8::2"), ip("2001:db8:1::7")],
        ..config4()
    }
}

fn answer(sender: &str, mac: Mac) -> Vec<u8> {
    let (target_mac, target) = (OURS, v4("192.0.2.1"));
    let reply = Arp { operation: Operation::Reply, sender_mac: mac, sender: v4(sender), target_mac, target };
    reply.message(OURS).to_vec()
}

#[test]
fn a_host_appears() {
    let mut wire = Wire::default();
    let mut host = Host::new(config4(), at(0), &mut wire);
    let sent = wire.sent();
    let arps: Vec<Arp> = sent.iter().filter_map(|frame| Arp::parse(frame)).collect();
    let asked: Vec<_> = arps.iter().map(|arp| arp.target.to_string()).collect();
    assert_eq!(asked, ["192.0.2.2", "192.0.2.9", "192.0.2.1"], "the peer on the link, the gateway, itself");
    assert!(arps[2].is_announcement());
    assert_eq!(sent.iter().filter(|frame| frame[12..14] == [8, 0]).count(), 1, "a report of its group");
    // The second announcement and report, then silence but for questions.
    host.poll(at(1000), &mut wire);
    host.poll(at(2000), &mut wire);
    let again: Vec<Vec<u8>> = wire.sent();
    let announced = |frame: &&Vec<u8>| Arp::parse(frame).is_some_and(|arp| arp.is_announcement());
    assert_eq!(again.iter().filter(announced).count(), 1);
    assert_eq!(again.iter().filter(|frame| frame[12..14] == [8, 0]).count(), 1);
    assert_eq!(host.deadline(), at(3000), "who does not answer is asked for again");
}

#[test]
fn next_hops_are_on_the_link_or_the_gateway() {
    let host = Host::new(config4(), at(0), &mut Wire::default());
    let hop = |to: &str| host.next_hop(ip(to)).map(|hop| hop.to_string());
    assert_eq!(hop("192.0.2.2").as_deref(), Some("192.0.2.2"));
    assert_eq!(hop("198.51.100.7").as_deref(), Some("192.0.2.9"));
    for to in
        ["192.0.2.1", "192.0.2.0", "192.0.2.255", "255.255.255.255", "0.0.0.0", "239.1.2.3", "2001:db8::2"]
    {
        assert_eq!(hop(to), None, "{to}");
    }
    let small = HostConfig { prefix_len: 31, local: ip("192.0.2.0"), gateway: None, ..config4() };
    let host = Host::new(small, at(0), &mut Wire::default());
    assert_eq!(host.next_hop(ip("192.0.2.1")), Some(ip("192.0.2.1")));
    assert_eq!(host.next_hop(ip("192.0.2.2")), None, "no gateway");
    for prefix_len in [0, 32, 255] {
        let host = Host::new(HostConfig { prefix_len, ..config4() }, at(0), &mut Wire::default());
        let hop = if prefix_len == 0 { "198.51.100.7" } else { "192.0.2.9" };
        assert_eq!(host.next_hop(ip("198.51.100.7")), Some(ip(hop)));
    }
    let host = Host::new(config6(), at(0), &mut Wire::default());
    assert_eq!(host.next_hop(ip("2001:db8::2")), Some(ip("2001:db8::2")));
    assert_eq!(host.next_hop(ip("fe80::2")), Some(ip("fe80::2")));
    assert_eq!(host.next_hop(ip("2001:db8:1::7")), Some(ip("2001:db8::9")));
    assert_eq!(host.next_hop(ip("ff05::1:3")), None);
}

#[test]
fn frames_wait_for_their_next_hop() {
    let mut pool = Pool::with_chunks(64, 0).unwrap();
    let mut wire = Wire::default();
    let mut host = Host::new(config4(), at(0), &mut wire);
    let frame = |pool: &mut Pool| pool.frame_from(&[0; 60]).unwrap();
    host.submit(frame(&mut pool), ip("198.51.100.7"), at(1), &mut wire);
    assert!(wire.released.is_empty());
    assert_eq!(host.receive(&answer("192.0.2.9", ROUTER), at(2), &mut wire), Heard::Consumed);
    assert_eq!(wire.events(), [Event::NextHop { ip: ip("192.0.2.9"), mac: Some(ROUTER) }]);
    assert_eq!(wire.released.pop().unwrap().head()[..6], ROUTER.0);
    assert_eq!(host.resolved(ip("198.51.100.7")), Some(ROUTER));
    // A group needs no neighbour; what is unreachable is discarded at once.
    host.submit(frame(&mut pool), ip("239.129.2.3"), at(3), &mut wire);
    assert_eq!(wire.released.pop().unwrap().head()[..6], [1, 0, 0x5e, 1, 2, 3]);
    host.submit(frame(&mut pool), ip("2001:db8::2"), at(3), &mut wire);
    assert_eq!(wire.discarded.len(), 1);
    // One that nobody wanted before is looked for, and given up after three questions.
    wire.sent();
    host.submit(frame(&mut pool), ip("192.0.2.77"), at(4), &mut wire);
    assert_eq!(wire.asked(), ["192.0.2.77"]);
    for ms in [1004, 2004, 3004] {
        host.poll(at(ms), &mut wire);
    }
    assert_eq!(wire.discarded.len(), 2);
    let known: Vec<_> = host.neighbours().map(|(ip, mac, state)| (ip.to_string(), mac, state)).collect();
    let [peer, router] =
        [("192.0.2.2".to_string(), None, "failed"), ("192.0.2.9".into(), Some(ROUTER), "reachable")];
    assert_eq!(known, [peer, router]);
}

#[test]
fn arp_is_answered_and_heard() {
    let mut wire = Wire::default();
    let mut host = Host::new(config4(), at(0), &mut wire);
    wire.sent();
    let question = arp::request(PEER, v4("192.0.2.2"), v4("192.0.2.1"), None);
    assert_eq!(host.receive(&question, at(1), &mut wire), Heard::Answered);
    let sent = wire.sent();
    assert_eq!(sent.len(), 2, "the reply, and a probe of the one whom we looked for");
    let reply = Arp::parse(&sent[1]).unwrap();
    assert_eq!((reply.operation, reply.sender_mac, reply.target_mac), (Operation::Reply, OURS, PEER));
    assert_eq!(wire.events(), [Event::NextHop { ip: ip("192.0.2.2"), mac: Some(PEER) }]);
    let other = arp::request(PEER, v4("192.0.2.2"), v4("192.0.2.3"), None);
    assert_eq!(host.receive(&other, at(2), &mut wire), Heard::Consumed, "from one that we know");
    let stranger = arp::request(ROUTER, v4("192.0.2.50"), v4("192.0.2.3"), None);
    assert_eq!(host.receive(&stranger, at(2), &mut wire), Heard::Ignored(Ignored::OtherAddress));
    assert_eq!(host.neighbours().count(), 2, "strangers make no entries");
}

#[test]
fn a_conflict_is_told_once_and_defended_every_ten_seconds() {
    let mut wire = Wire::default();
    let mut host = Host::new(config4(), at(0), &mut wire);
    wire.sent();
    let claim = arp::announcement(PEER, v4("192.0.2.1"));
    assert_eq!(host.receive(&claim, at(1), &mut wire), Heard::Answered);
    assert_eq!(wire.events(), [Event::Conflict { ip: ip("192.0.2.1"), mac: PEER }]);
    assert!(Arp::parse(&wire.sent()[0]).unwrap().is_announcement());
    assert_eq!(host.receive(&claim, at(10_000), &mut wire), Heard::Consumed);
    assert_eq!(host.receive(&claim, at(10_001), &mut wire), Heard::Answered);
    assert_eq!((wire.events().len(), wire.sent().len()), (0, 1));
    // Who asks whether the address is free hears that it is not: no conflict yet.
    let mut host = Host::new(config4(), at(0), &mut wire);
    wire.sent();
    let probe = arp::request(PEER, Ipv4Addr::UNSPECIFIED, v4("192.0.2.1"), None);
    assert_eq!(host.receive(&probe, at(1), &mut wire), Heard::Answered);
    assert!(wire.events().is_empty());
    let mut six = Host::new(config6(), at(0), &mut wire);
    assert_eq!(
        six.receive(&nd::advertisement(PEER, v6("2001:db8::1"), None, false), at(1), &mut wire),
        Heard::Answered
    );
    assert_eq!(wire.events(), [Event::Conflict { ip: ip("2001:db8::1"), mac: PEER }]);
}

#[test]
fn an_ipv6_host_speaks_nd_and_mld() {
    let mut wire = Wire::default();
    let mut host = Host::new(config6(), at(0), &mut wire);
    let sent = wire.sent();
    let kinds: Vec<(u8, usize)> = sent.iter().map(|frame| (frame[20], frame.len())).collect();
    let (nd_len, mld_len) = (86, 14 + 48 + 28);
    assert_eq!(kinds, [(58, nd_len), (58, nd_len), (58, nd_len), (0, mld_len), (0, mld_len)]);
    assert_eq!((sent[2][54], sent[2][58]), (136, 0x20), "the announcement overrides");
    let groups: Vec<&[u8]> = sent[3..].iter().map(|report| &report[74..]).collect();
    assert!(groups.contains(&&v6("ff02::1:ff00:1").octets()[..]), "its solicited-node group");
    // A solicitation from the peer that we look for: answered, and the peer is known.
    let question = nd::solicitation(PEER, v6("2001:db8::2"), v6("2001:db8::1"), None);
    assert_eq!(host.receive(&question, at(1), &mut wire), Heard::Answered);
    let sent = wire.sent();
    assert_eq!((sent[0][54], sent[1][54], sent[1][58]), (135, 136, 0x60));
    assert_eq!(wire.events(), [Event::NextHop { ip: ip("2001:db8::2"), mac: Some(PEER) }]);
    // Answers of the gateway; one without a MAC confirms only the MAC that it comes from.
    let told = nd::advertisement(ROUTER, v6("2001:db8::9"), Some((v6("2001:db8::1"), OURS)), false);
    assert_eq!(host.receive(&told, at(2), &mut wire), Heard::Consumed);
    assert_eq!(host.resolved(ip("2001:db8:1::7")), Some(ROUTER));
    host.poll(at(30_002), &mut wire);
    let state = |host: &Host| host.neighbours().find(|(found, ..)| *found == ip("2001:db8::9")).unwrap().2;
    assert_eq!(state(&host), "probe");
    let bare = |from: Mac| {
        let head = V6 {
            source: v6("2001:db8::9"),
            destination: v6("2001:db8::1"),
            hop_limit: 255,
            class: 0,
            router_alert: false,
        };
        head.message(
            &link(OURS, from, ethernet::IPV6),
            &[&[136, 0, 0, 0, 0x60, 0, 0, 0], &v6("2001:db8::9").octets()],
        )
    };
    assert_eq!(host.receive(&bare(PEER), at(30_003), &mut wire), Heard::Ignored(Ignored::Invalid));
    assert_eq!(host.receive(&bare(ROUTER), at(30_004), &mut wire), Heard::Consumed);
    assert_eq!(state(&host), "reachable");
}

fn ping(to: &str, to_mac: Mac) -> Vec<u8> {
    let ip = V4 {
        source: v4("198.51.100.3"),
        destination: v4(to),
        protocol: protocol::ICMP,
        ttl: 3,
        class: 0,
        id: Some(1),
        router_alert: false,
    };
    ip.message(&link(to_mac, ROUTER, ethernet::IPV4), &[&[8, 0, 0, 0, 0, 1, 0, 1], b"hello"]).to_vec()
}

#[test]
fn pings_are_answered_and_the_rest_is_ignored_by_its_name() {
    let mut wire = Wire::default();
    let mut host = Host::new(config4(), at(0), &mut wire);
    wire.sent();
    assert_eq!(host.receive(&ping("192.0.2.1", OURS), at(1), &mut wire), Heard::Answered);
    let reply = wire.sent().remove(0);
    assert_eq!((&reply[..6], reply[34], &reply[42..]), (&ROUTER.0[..], 0, &b"hello"[..]));
    let mut ignored = |frame: &[u8]| match host.receive(frame, at(2), &mut wire) {
        Heard::Ignored(why) => why,
        heard => panic!("{heard:?}"),
    };
    assert_eq!(ignored(&ping("192.0.2.1", PEER)), Ignored::OtherMac);
    assert_eq!(ignored(&ping("192.0.2.3", OURS)), Ignored::OtherAddress);
    assert_eq!(ignored(&ping("192.0.2.1", Mac::BROADCAST)), Ignored::OtherAddress, "RFC 1122, 3.3.6");
    assert_eq!(ignored(&ping("239.1.2.3", Mac([1, 0, 0x5e, 1, 2, 3]))), Ignored::OtherAddress);
    assert_eq!(ignored(&[0; 10]), Ignored::Malformed);
    let mut other = ping("192.0.2.1", OURS);
    other[6] = 1;
    assert_eq!(ignored(&other), Ignored::Source);
    other[6..12].copy_from_slice(&OURS.0);
    assert_eq!(ignored(&other), Ignored::Source, "our own, come back");
    let ping = ping("192.0.2.1", OURS);
    let tagged = [&ping[..12], &[0x81, 0, 0, 5], &ping[12..]].concat();
    assert_eq!(ignored(&tagged), Ignored::Tagged);
    assert_eq!(
        ignored(&nd::solicitation(PEER, v6("2001:db8::2"), v6("2001:db8::1"), None)),
        Ignored::OtherAddress
    );
    assert_eq!(wire.sent(), [[0u8; 0]; 0]);
}

#[test]
fn pings_are_limited() {
    let mut wire = Wire::default();
    let mut host = Host::new(config4(), at(0), &mut wire);
    let answered = (0..200)
        .filter(|_| host.receive(&ping("192.0.2.1", OURS), at(0), &mut wire) == Heard::Answered)
        .count();
    assert_eq!(answered, 100);
    assert_eq!(host.receive(&ping("192.0.2.1", OURS), at(0), &mut wire), Heard::Ignored(Ignored::RateLimit));
    assert_eq!(host.receive(&ping("192.0.2.1", OURS), at(1), &mut wire), Heard::Answered);
}

/// "Fragmentation needed" about a tunnel's packet to `peer`.
fn too_big(peer: Ipv4Addr, mtu: u16) -> Vec<u8> {
    let ours = V4 {
        source: v4("192.0.2.1"),
        destination: peer,
        protocol: protocol::UDP,
        ttl: 9,
        class: 0,
        id: None,
        router_alert: false,
    };
    let quote = ours.header(1480);
    let error =
        V4 { source: v4("198.51.100.254"), destination: v4("192.0.2.1"), protocol: protocol::ICMP, ..ours };
    let [m0, m1] = mtu.to_be_bytes();
    let parts: [&[u8]; 3] = [&[3, 4, 0, 0, 0, 0, m0, m1], &quote, &[0xc0, 0, 0x12, 0xb5, 5, 0xc8, 0, 0]];
    error.message(&link(OURS, ROUTER, ethernet::IPV4), &parts).to_vec()
}

#[test]
fn path_mtus_go_down_and_come_back_after_ten_minutes() {
    let mut wire = Wire::default();
    let config = HostConfig { gateway: None, wanted: vec![], groups: vec![], ..config4() };
    let mut host = Host::new(config, at(0), &mut wire);
    let peer = v4("198.51.100.7");
    let told = |mtu| Event::PathMtu { destination: peer.into(), mtu };
    assert_eq!(host.receive(&too_big(peer, 1400), at(0), &mut wire), Heard::Consumed);
    assert_eq!(host.receive(&too_big(peer, 1450), at(1), &mut wire), Heard::Consumed, "no lower");
    assert_eq!(host.receive(&too_big(peer, 1300), at(2), &mut wire), Heard::Consumed);
    assert_eq!(wire.events(), [told(1400), told(1300)]);
    assert_eq!(host.paths().collect::<Vec<_>>(), [(peer.into(), 1300)]);
    host.poll(at(2000), &mut wire); // the second announcement
    assert_eq!(host.deadline(), at(600_002));
    host.poll(at(600_002), &mut wire);
    assert_eq!((wire.events(), host.deadline()), (vec![told(1500)], Instant(u64::MAX)));
    // However many are told of, only so many are remembered.
    for n in 0..1500u32 {
        host.receive(&too_big(Ipv4Addr::from_bits(0x0a00_0001 + n), 1400), at(700_000), &mut wire);
    }
    assert_eq!(host.paths().count(), 1024);
    assert_eq!(wire.events().len(), 1500 + 1500 - 1024, "what is forgotten is told of");
}

#[test]
fn a_change_announces_joins_leaves_and_asks_what_differs() {
    let mut wire = Wire::default();
    let mut host = Host::new(config4(), at(0), &mut wire);
    host.receive(&answer("192.0.2.9", ROUTER), at(1), &mut wire);
    for ms in [1000, 2000, 3000] {
        host.poll(at(ms), &mut wire);
    }
    wire.sent();
    wire.events();
    host.configure(config4(), at(3500), &mut wire);
    assert_eq!((wire.sent().len(), wire.events().len()), (0, 0), "nothing differs");
    let wanted = vec![ip("198.51.100.7"), ip("192.0.2.5")];
    host.configure(HostConfig { wanted, groups: vec![ip("239.9.9.9")], ..config4() }, at(4000), &mut wire);
    let sent = wire.sent();
    let reports: Vec<(u8, u8)> =
        sent.iter().filter(|frame| frame[12..14] == [8, 0]).map(|f| (f[46], f[50])).collect();
    assert_eq!(reports, [(3, 239), (4, 239)], "left one group, joined another");
    let asked: Vec<String> =
        sent.iter().filter_map(|f| Arp::parse(f)).map(|arp| arp.target.to_string()).collect();
    assert_eq!(asked, ["192.0.2.5"]);
    assert_eq!(host.resolved(ip("198.51.100.7")), Some(ROUTER), "known neighbours stay known");
    assert!(host.neighbours().all(|(known, ..)| known != ip("192.0.2.2")), "failed, and wanted no longer");
    // Another MAC: announced, and all groups are told of anew.
    host.configure(HostConfig { mac: PEER, ..config4() }, at(9000), &mut wire);
    let announced =
        wire.sent().iter().filter_map(|f| Arp::parse(f)).find(|arp| arp.is_announcement()).unwrap();
    assert_eq!(announced.sender_mac, PEER);
    // Another IP version.
    host.configure(config6(), at(20_000), &mut wire);
    assert!(wire.sent().iter().all(|frame| frame[12..14] == [0x86, 0xdd]));
    host.poll(at(500_000), &mut wire);
    assert!(wire.sent().iter().all(|frame| frame[12..14] == [0x86, 0xdd]));
    host.close(at(500_000), &mut wire);
    assert_eq!(wire.sent().len(), 2, "leaves its group and its solicited-node group");
}

/// Frames near enough to real ones to get deep, from pieces and noise.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let seeds: Vec<Vec<u8>> = vec![
        answer("192.0.2.9", ROUTER),
        arp::request(PEER, v4("192.0.2.2"), v4("192.0.2.1"), None).to_vec(),
        arp::announcement(PEER, v4("192.0.2.1")).to_vec(),
        nd::solicitation(PEER, v6("2001:db8::2"), v6("2001:db8::1"), None).to_vec(),
        nd::advertisement(ROUTER, v6("2001:db8::9"), Some((v6("2001:db8::1"), OURS)), false).to_vec(),
        nd::advertisement(PEER, v6("2001:db8::1"), None, false).to_vec(),
        ping("192.0.2.1", OURS),
        too_big(v4("198.51.100.7"), 1400),
        vec![0; 60],
    ];
    let noise = proptest::collection::vec((0usize..100, any::<u8>()), 0..4);
    (0..seeds.len(), noise, proptest::option::of(0usize..100)).prop_map(move |(seed, noise, end)| {
        let mut frame = seeds[seed].clone();
        for (place, value) in noise {
            if let Some(byte) = frame.get_mut(place) {
                *byte = value;
            }
        }
        frame.truncate(end.unwrap_or(usize::MAX));
        frame
    })
}

proptest! {
    #[test]
    fn whatever_comes_in_at_most_two_frames_go_out_and_they_are_sound(
        frames in proptest::collection::vec((hostile(), 0u64..3000), 1..40),
        noise in proptest::collection::vec(any::<u8>(), 0..100),
        six: bool,
    ) {
        let mut wire = Wire::default();
        let config = if six { config6() } else { config4() };
        let mut host = Host::new(config, at(0), &mut wire);
        let mut now = 0;
        for (frame, wait) in frames.into_iter().chain([(noise, 0)]) {
            wire.sent();
            host.receive(&frame, at(now), &mut wire);
            prop_assert!(wire.sent.len() <= 2);
            now += wait;
            host.poll(at(now), &mut wire);
            prop_assert!(host.deadline() > at(now));
            prop_assert!(host.neighbours().count() <= 2, "nothing that was not asked for");
            for sent in wire.sent() {
                prop_assert!(sound(&sent), "{sent:02x?}");
            }
        }
    }
}

/// What another implementation makes of a frame: whole, and its checksums are right.
fn sound(frame: &[u8]) -> bool {
    use smoltcp::phy::ChecksumCapabilities;
    use smoltcp::wire::*;
    let link = EthernetFrame::new_checked(frame).unwrap();
    if link.src_addr().0 != OURS.0 {
        return false;
    }
    match link.ethertype() {
        EthernetProtocol::Arp => ArpRepr::parse(&ArpPacket::new_checked(link.payload()).unwrap()).is_ok(),
        EthernetProtocol::Ipv4 => {
            let packet = Ipv4Packet::new_checked(link.payload()).unwrap();
            let body = packet.payload();
            let inner = match packet.next_header() {
                IpProtocol::Icmp => Icmpv4Packet::new_checked(body).unwrap().verify_checksum(),
                IpProtocol::Igmp => IgmpPacket::new_checked(body).unwrap().verify_checksum(),
                _ => false,
            };
            packet.verify_checksum() && inner
        }
        EthernetProtocol::Ipv6 => {
            let packet = Ipv6Packet::new_checked(link.payload()).unwrap();
            let skip = if packet.next_header() == IpProtocol::HopByHop { 8 } else { 0 };
            let body = Icmpv6Packet::new_checked(&packet.payload()[skip..]).unwrap();
            let (source, destination) = (packet.src_addr(), packet.dst_addr());
            Icmpv6Repr::parse(&source, &destination, &body, &ChecksumCapabilities::default()).is_ok()
        }
        _ => false,
    }
}
