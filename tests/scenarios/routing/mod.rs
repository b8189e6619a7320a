//! What a router does with packets, and what it says of those that go no further.

mod cutting;
mod ra;
mod rfc1812;
mod rfc4443;

use nuswitch::types::Mac;

use super::frames::*;
use super::ipv4::*;
use super::switch::*;

/// Two networks and a router between them, a guest in each, and a port without addresses in the second one.
const TWO: &str = r#"
[[network]]
name = "red"
[[subnet]]
name = "red-v4"
network = "red"
cidr = "10.0.1.0/24"
[[subnet]]
name = "red-v6"
network = "red"
cidr = "2001:db8:1::/64"

[[network]]
name = "blue"
mtu = 1400
[[subnet]]
name = "blue-v4"
network = "blue"
cidr = "10.0.2.0/24"
[[subnet]]
name = "blue-v6"
network = "blue"
cidr = "2001:db8:2::/64"

[[router]]
name = "r"
interfaces = [
  { subnet = "red-v4", mac_address = "02:00:00:00:01:01" },
  { subnet = "red-v6", mac_address = "02:00:00:00:01:06" },
  { subnet = "blue-v4", mac_address = "02:00:00:00:02:01" },
  { subnet = "blue-v6", mac_address = "02:00:00:00:02:06" },
]
routes = [{ destination = "10.9.0.0/16", nexthop = "10.0.2.77" }]

[[port]]
name = "a"
network = "red"
mac_address = "52:54:00:00:00:0a"
fixed_ips = ["10.0.1.10", "2001:db8:1::10"]
interface = { kind = "packet", name = "eth-a" }

[[port]]
name = "b"
network = "blue"
mac_address = "52:54:00:00:00:0b"
fixed_ips = ["10.0.2.11", "2001:db8:2::11"]
interface = { kind = "packet", name = "eth-b" }

[[port]]
name = "c"
network = "blue"
fixed_ips = []
interface = { kind = "packet", name = "eth-c" }
"#;

const RED: &str = "02:00:00:00:01:01";
const RED6: &str = "02:00:00:00:01:06";
const BLUE: &str = "02:00:00:00:02:01";
const BLUE6: &str = "02:00:00:00:02:06";

/// A switch that has announced its routers' addresses and asked for their next hops.
fn settled(text: &str) -> Switch {
    let mut sw = Switch::from(text);
    sw.settle();
    sw.advance(secs(3));
    sw.settle();
    sw.forget();
    sw
}

fn mac_of(text: &str) -> Mac {
    text.parse().unwrap()
}

#[test]
fn a_packet_to_another_network_takes_one_hop() {
    let mut sw = settled(TWO);
    sw.send(
        "a",
        spec(&format!(
            "eth src={A} dst={RED} ip src=10.0.1.10 dst=10.0.2.11 ttl=64 udp sport=1 dport=2 len=30"
        )),
    );
    sw.expect(
        "b",
        spec(&format!(
            "eth src={BLUE} dst={B} ip src=10.0.1.10 dst=10.0.2.11 ttl=63 udp sport=1 dport=2 len=30"
        )),
    );
    sw.expect_nothing("c");
    sw.advance(secs(0));
    sw.expect_counters(
        "a: rx_frames 1, rx_bytes 72, forwarded 1; b: tx_frames 1, tx_bytes 72; r/red-v4: tx_frames 1, tx_bytes 72; \
         r/blue-v4: rx_frames 1, rx_bytes 72, forwarded 1",
    );
}

#[test]
fn ipv6_takes_one_hop_too() {
    let mut sw = settled(TWO);
    sw.send(
        "a",
        spec(&format!(
            "eth src={A} dst={RED6} ip src=2001:db8:1::10 dst=2001:db8:2::11 ttl=9 tcp sport=1 dport=2"
        )),
    );
    sw.expect(
        "b",
        spec(&format!(
            "eth src={BLUE6} dst={B} ip src=2001:db8:1::10 dst=2001:db8:2::11 ttl=8 tcp sport=1 dport=2"
        )),
    );
    sw.forget();
}

#[test]
fn the_gateway_answers_arp_and_nothing_is_flooded() {
    let mut sw = settled(TWO);
    sw.send("b", spec(&format!("eth src={B} dst={BROADCAST} arp who-has 10.0.2.1 tell 10.0.2.11")));
    sw.expect(
        "b",
        spec(&format!("eth src={BLUE} dst={B} arp reply 10.0.2.1 is-at {BLUE} to=10.0.2.11")).patch(32, &B.0),
    );
    sw.expect_nothing("c");
    sw.forget();
}

#[test]
fn a_packet_without_a_route_or_too_long_is_told_about() {
    let mut sw = settled(TWO);
    sw.send("a", spec(&format!("eth src={A} dst={RED} ip src=10.0.1.10 dst=192.0.2.1 udp")));
    let told = sw.take("a");
    assert_eq!((told.bytes[34], told.bytes[35]), (3, 0), "net unreachable");
    sw.send("a", spec(&format!("eth src={A} dst={RED} ip src=10.0.1.10 dst=10.0.2.11 udp len=1400")));
    let told = sw.take("a");
    assert_eq!((told.bytes[34], told.bytes[35]), (3, 4), "fragmentation needed");
    assert_eq!(told.bytes[40..42], 1400u16.to_be_bytes());
    sw.send(
        "a",
        spec(&format!("eth src={A} dst={RED6} ip src=2001:db8:1::10 dst=2001:db8:2::11 udp len=1400")),
    );
    let told = sw.take("a");
    assert_eq!((told.bytes[54], told.bytes[55]), (2, 0), "packet too big");
    sw.expect_nothing("b");
    sw.forget();
}

#[test]
fn a_host_that_is_not_known_is_asked_for_and_its_packets_wait() {
    let mut sw = settled(TWO);
    let packet =
        |n: u16| spec(&format!("eth src={A} dst={RED} ip src=10.0.1.10 dst=10.0.2.50 udp sport={n}"));
    sw.send("a", packet(1));
    sw.send("a", packet(2));
    let question = spec(&format!("eth src={BLUE} dst={BROADCAST} arp who-has 10.0.2.50 tell 10.0.2.1"));
    sw.expect("c", question.clone());
    sw.expect("b", question);
    sw.expect_nothing("c");
    sw.send("c", spec(&format!("eth src={C} dst={BLUE} arp reply 10.0.2.50 is-at {C} to=10.0.2.1")));
    for n in [1, 2] {
        sw.expect(
            "c",
            spec(&format!("eth src={BLUE} dst={C} ip src=10.0.1.10 dst=10.0.2.50 ttl=63 udp sport={n}")),
        );
    }
    sw.send("a", packet(3));
    sw.expect(
        "c",
        spec(&format!("eth src={BLUE} dst={C} ip src=10.0.1.10 dst=10.0.2.50 ttl=63 udp sport=3")),
    );
    sw.expect_nothing("b");
    sw.forget();
}

#[test]
fn an_unasked_reply_changes_nothing() {
    let mut sw = settled(TWO);
    let packet = |ttl: u8, to: &str, from: &str| {
        spec(&format!("eth src={from} dst={to} ip src=10.0.1.10 dst=10.0.2.11 ttl={ttl} udp"))
    };
    // C claims B's address.
    sw.send("c", spec(&format!("eth src={C} dst={BLUE} arp reply 10.0.2.11 is-at {C} to=10.0.2.1")));
    sw.send("a", packet(64, RED, &A.to_string()));
    sw.expect("b", packet(63, &B.to_string(), BLUE));
    sw.expect_nothing("c");
    sw.forget();
}

#[test]
fn a_route_leads_over_its_next_hop() {
    let mut sw = settled(TWO);
    sw.send("c", spec(&format!("eth src={C} dst={BLUE} arp reply 10.0.2.77 is-at {C} to=10.0.2.1")));
    sw.send("a", spec(&format!("eth src={A} dst={RED} ip src=10.0.1.10 dst=10.9.8.7 udp")));
    sw.expect("c", spec(&format!("eth src={BLUE} dst={C} ip src=10.0.1.10 dst=10.9.8.7 ttl=63 udp")));
    sw.forget();
}

#[test]
fn the_mss_is_lowered_where_the_router_is_to() {
    let clamping = TWO.replace("name = \"r\"\n", "name = \"r\"\nmss_clamping = true\n");
    let syn = |to: &str, from: &str, ttl: u8| {
        spec(&format!(
            "eth src={from} dst={to} ip src=10.0.1.10 dst=10.0.2.11 ttl={ttl} tcp sport=1 dport=2 flags=S"
        ))
    };
    let mss = |wire: &Wire| -> Vec<u8> { wire.bytes[54..].to_vec() };
    for (text, lowered) in [(TWO, false), (&clamping, true)] {
        let mut sw = settled(text);
        let mut sent = syn(RED, &A.to_string(), 64).bytes;
        // Four bytes of options: an MSS of 1460.
        sent.truncate(54);
        sent.extend([2, 4, 5, 0xb4]);
        sent[16..18].copy_from_slice(&44u16.to_be_bytes());
        sent[46] = 0x60;
        sent[24..26].copy_from_slice(&[0, 0]);
        let sum = sent[14..34].chunks(2).map(|p| u32::from(p[0]) << 8 | u32::from(p[1])).sum::<u32>();
        let sum = !(((sum & 0xffff) + (sum >> 16)) as u16);
        sent[24..26].copy_from_slice(&sum.to_be_bytes());
        sw.send("a", sent);
        let got = sw.take("b");
        // Network blue has an MTU of 1400.
        assert_eq!(mss(&got), if lowered { vec![2, 4, 5, 0x50] } else { vec![2, 4, 5, 0xb4] });
        sw.forget();
    }
}

#[test]
fn addresses_are_announced_when_they_appear() {
    let mut sw = Switch::from(TWO);
    sw.settle();
    let announced: Vec<Wire> = sw.take_all("a");
    let arp = spec(&format!("eth src={RED} dst={BROADCAST} arp who-has 10.0.1.1 tell 10.0.1.1"));
    assert!(announced.contains(&arp), "{announced:?}");
    assert_eq!(announced.len(), 2, "and an advertisement: {announced:?}");
    sw.advance(secs(2));
    sw.settle();
    assert_eq!(sw.take_all("a").len(), 2, "twice");
    sw.advance(secs(2));
    sw.settle();
    assert_eq!(sw.take_all("a").len(), 0);
    sw.forget();
}

#[test]
fn hostile_packets_end_in_a_reason_of_their_own() {
    let good = || spec(&format!("eth src={A} dst={RED} ip src=10.0.1.10 dst=10.0.2.11 udp"));
    let rows: [(Wire, &str); 6] = [
        (good().patch(24, &[0, 0]), "ip_checksum"),
        (spec(&format!("eth src={A} dst={RED} ip src=127.0.0.1 dst=10.0.2.11 udp")), "martian_source"),
        (spec(&format!("eth src={A} dst={RED} ip src=10.0.2.11 dst=10.0.2.11 udp")), "land"),
        (spec(&format!("eth src={A} dst={RED} ip src=10.0.1.10 dst=10.0.2.255 udp")), "directed_broadcast"),
        (spec(&format!("eth src={A} dst={RED} ip src=10.0.1.10 dst=239.1.1.1 udp")), "not_unicast"),
        (spec(&format!("eth src={A} dst={RED} type=0x88b5 len=50")), "not_ip"),
    ];
    for (frame, reason) in rows {
        let mut sw = settled(TWO);
        let len = frame.len();
        sw.send("a", frame);
        sw.expect_nothing("b");
        sw.expect_nothing("a");
        sw.advance(secs(0));
        sw.expect_counters(&format!(
            "a: rx_frames 1, rx_bytes {len}, forwarded 1; r/red-v4: tx_frames 1, tx_bytes {len}, {reason} 1"
        ));
    }
}

/// Such a frame is forged, or went round outside. It is not one that the router has to send.
#[test]
fn a_frame_from_the_routers_own_mac_to_the_router_is_dropped() {
    for frame in [
        spec(&format!("eth src={RED} dst={RED} arp who-has 10.0.1.1 tell 10.0.1.10")),
        spec(&format!("eth src={RED} dst={RED} arp reply 10.0.1.77 is-at {C} to=10.0.1.1")),
        spec(&format!("eth src={RED} dst={RED} ip src=10.0.1.10 dst=10.0.1.1 icmp echo id=7 seq=1 len=8")),
        spec(&format!("eth src={RED} dst={RED} ip src=10.0.1.10 dst=10.0.1.1 udp sport=1 dport=2")),
    ] {
        let mut sw = settled(TWO);
        let len = frame.len();
        sw.send("a", frame);
        sw.expect_nothing("a");
        sw.advance(secs(0));
        sw.expect_counters(&format!(
            "a: rx_frames 1, rx_bytes {len}, forwarded 1; r/red-v4: tx_frames 1, tx_bytes {len}, own_mac 1"
        ));
    }
}
