//! Security groups: which packets leave a guest, and which enter one. `a` and `b` are guests of the group `web`, `d` is one of
//! the group `default`; `c` is a port without port security, where anything may be.

use std::time::Duration;

use nuswitch::stats::DropReason;

use super::frames::*;
use super::ipv4::*;
use super::switch::*;

pub const LAB: &str = r#"
network = [{ name = "lan" }]
subnet = [
  { name = "lan-v4", network = "lan", cidr = "10.0.0.0/24", enable_dhcp = false },
  { name = "lan-v6", network = "lan", cidr = "2001:db8::/64", enable_dhcp = false },
]
security_group = [
  { name = "web", rules = [
    { direction = "egress", protocol = "tcp", ports = "80,443" },
    { direction = "egress", protocol = "udp" },
    { direction = "egress", protocol = "icmp" },
    { direction = "egress", protocol = "ipv6-icmp" },
    { direction = "ingress", protocol = "tcp", ports = "80", remote = "10.0.0.0/24" },
    { direction = "ingress", protocol = "tcp", ports = "22", remote_group = "web" },
    { direction = "ingress", protocol = "icmp", icmp_type = 8, icmp_code = 0 },
    { direction = "ingress", protocol = "ipv6-icmp", icmp_type = 128 },
    { direction = "ingress", protocol = "udp", ports = "5000-5009" },
  ] },
]
port = [
  { name = "a", network = "lan", mac_address = "52:54:00:00:00:0a", fixed_ips = ["10.0.0.10", "2001:db8::10"], port_security_enabled = true, security_groups = ["web"], interface = { kind = "packet", name = "eth-a" } },
  { name = "b", network = "lan", mac_address = "52:54:00:00:00:0b", fixed_ips = ["10.0.0.11", "2001:db8::11"], port_security_enabled = true, security_groups = ["web"], interface = { kind = "packet", name = "eth-b" } },
  { name = "c", network = "lan", mac_address = "52:54:00:00:00:0c", fixed_ips = ["10.0.0.12", "2001:db8::12"], interface = { kind = "packet", name = "eth-c" } },
  { name = "d", network = "lan", mac_address = "52:54:00:00:00:0d", fixed_ips = ["10.0.0.13", "2001:db8::13"], port_security_enabled = true, interface = { kind = "packet", name = "eth-d" } },
]
"#;

pub fn lab() -> Switch {
    let mut sw = Switch::from(LAB);
    sw.settle();
    sw
}

/// A packet from one of `a`, `b`, `c`, `d` to another one: `tcp sport=1 dport=80`.
pub fn packet(from: char, to: char, what: &str) -> Wire {
    let [source, destination] = [from, to].map(|who| who as u8 - b'a' + 10);
    let mac = |n: u8| format!("52:54:00:00:00:{n:02x}");
    let (source_mac, destination_mac) = (mac(source), mac(destination));
    match what.strip_prefix("v6 ") {
        Some(what) => spec(&format!(
            "eth src={source_mac} dst={destination_mac} ip src=2001:db8::{source} dst=2001:db8::{destination} {what}"
        )),
        None => spec(&format!(
            "eth src={source_mac} dst={destination_mac} ip src=10.0.0.{source} dst=10.0.0.{destination} {what}"
        )),
    }
}

/// It gets through.
#[track_caller]
pub fn passes(sw: &mut Switch, from: char, to: char, what: &str) {
    let packet = packet(from, to, what);
    sw.send(&from.to_string(), packet.clone());
    sw.expect(&to.to_string(), packet);
    sw.forget();
}

/// It ends for this reason.
#[track_caller]
pub fn ends(sw: &mut Switch, from: char, to: char, what: &str, reason: &str) {
    sw.forget();
    sw.send(&from.to_string(), packet(from, to, what));
    sw.expect_nothing(&to.to_string());
    sw.expect_counters(&format!("{from}: rx_frames 1, {} {reason} 1", bytes(from, to, what)));
}

fn bytes(from: char, to: char, what: &str) -> String {
    format!("rx_bytes {},", packet(from, to, what).len())
}

#[test]
fn what_no_rule_lets_out_or_in_ends() {
    let mut sw = lab();
    ends(&mut sw, 'a', 'c', "tcp sport=40000 dport=25 flags=S", "security_egress");
    ends(&mut sw, 'c', 'a', "tcp sport=40000 dport=25 flags=S", "security_ingress");
    ends(&mut sw, 'c', 'a', "udp sport=40000 dport=4999", "security_ingress");
    ends(&mut sw, 'c', 'a', "udp sport=40000 dport=5010", "security_ingress");
    // By the other version of IP, too: the rule has a prefix of IPv4.
    ends(&mut sw, 'c', 'a', "v6 tcp sport=40000 dport=80 flags=S", "security_ingress");
    // The default group lets in its own members only.
    ends(&mut sw, 'a', 'd', "udp sport=40000 dport=53", "security_ingress");
    passes(&mut sw, 'd', 'c', "udp sport=40000 dport=53");
}

#[test]
fn what_a_rule_lets_in_has_its_replies_let_out() {
    let mut sw = lab();
    passes(&mut sw, 'c', 'a', "tcp sport=40000 dport=80 flags=S seq=100");
    passes(&mut sw, 'a', 'c', "tcp sport=80 dport=40000 flags=SA seq=500 ack=101");
    passes(&mut sw, 'c', 'a', "tcp sport=40000 dport=80 flags=A seq=101 ack=501");
    passes(&mut sw, 'c', 'a', "udp sport=40000 dport=5000");
    passes(&mut sw, 'a', 'c', "udp sport=5000 dport=40000");
    passes(&mut sw, 'c', 'a', "icmp echo id=7");
    passes(&mut sw, 'a', 'c', "icmp reply id=7");
    passes(&mut sw, 'c', 'a', "v6 icmp echo id=7");
    passes(&mut sw, 'a', 'c', "v6 icmp reply id=7");
    // A reply to nothing that was asked is none.
    ends(&mut sw, 'c', 'a', "icmp reply id=8", "security_ingress");
    ends(&mut sw, 'c', 'a', "tcp sport=80 dport=41000 flags=SA seq=1 ack=2", "security_ingress");
}

/// A burst is looked at before its first packet is decided on: what that one changes counts for those behind it.
#[test]
fn each_packet_of_a_burst_is_judged_by_itself() {
    let mut sw = lab();
    for version in ["", "v6 "] {
        let said = |what: &str| format!("{version}{what}");
        let new = [
            packet('c', 'a', &said("udp sport=40000 dport=5000")),
            packet('c', 'a', &said("udp sport=40000 dport=4999")),
            packet('c', 'a', &said("udp sport=40000 dport=5000")),
            packet('c', 'a', &said("udp sport=40001 dport=5000")),
            packet('c', 'a', &said("tcp sport=40000 dport=25 flags=A seq=1 ack=1")),
            packet('c', 'b', &said("udp sport=40000 dport=5000")),
            packet('c', 'a', &said("udp sport=40001 dport=5000")),
        ];
        for round in 0..3 {
            for packet in new.clone() {
                assert!(sw.queue("c", packet));
            }
            sw.settle();
            for passing in [0, 2, 3, 6] {
                sw.expect("a", new[passing].clone());
            }
            sw.expect_nothing("a");
            sw.expect("b", new[5].clone());
            let answers =
                [40001, 40000].map(|port| packet('a', 'c', &said(&format!("udp sport=5000 dport={port}"))));
            for answer in answers.clone() {
                assert!(sw.queue("a", answer), "round {round}");
            }
            sw.settle();
            answers.into_iter().for_each(|answer| sw.expect("c", answer));
        }
        assert_eq!(dropped(&sw, "c", DropReason::SecurityIngress) % 6, 0);
    }
    assert_eq!(dropped(&sw, "c", DropReason::SecurityIngress), 12);
    sw.forget();
}

#[test]
fn what_a_rule_lets_out_has_its_replies_let_in() {
    let mut sw = lab();
    passes(&mut sw, 'a', 'c', "tcp sport=40000 dport=443 flags=S seq=100");
    passes(&mut sw, 'c', 'a', "tcp sport=443 dport=40000 flags=SA seq=500 ack=101");
    passes(&mut sw, 'a', 'c', "v6 udp sport=40000 dport=53");
    passes(&mut sw, 'c', 'a', "v6 udp sport=53 dport=40000");
    // Nobody else's, nor at another port.
    ends(&mut sw, 'd', 'a', "udp sport=53 dport=40000", "security_ingress");
    ends(&mut sw, 'c', 'a', "v6 udp sport=53 dport=40001", "security_ingress");
}

#[test]
fn between_two_guests_both_have_a_say() {
    let mut sw = lab();
    passes(&mut sw, 'a', 'b', "tcp sport=40000 dport=80 flags=S seq=100");
    passes(&mut sw, 'b', 'a', "tcp sport=80 dport=40000 flags=SA seq=500 ack=101");
    // `b` would let it in, but `a` does not let it out; then the other way round.
    ends(&mut sw, 'a', 'b', "tcp sport=40000 dport=22 flags=S", "security_egress");
    ends(&mut sw, 'd', 'a', "tcp sport=40000 dport=443 flags=S", "security_ingress");
    // `d` lets out all, and is no member of `web`.
    ends(&mut sw, 'd', 'a', "tcp sport=40000 dport=22 flags=S", "security_ingress");
}

#[test]
fn it_is_the_same_where_each_guest_has_a_worker_of_its_own() {
    let two = format!("switch = {{ workers = [0, 1] }}\n{LAB}");
    let mut sw = Build::from(&two).worker("a", 0).worker("b", 1).worker("c", 1).worker("d", 0).start();
    sw.settle();
    passes(&mut sw, 'a', 'b', "tcp sport=40000 dport=80 flags=S seq=100");
    passes(&mut sw, 'b', 'a', "tcp sport=80 dport=40000 flags=SA seq=500 ack=101");
    passes(&mut sw, 'c', 'a', "udp sport=40000 dport=5000");
    passes(&mut sw, 'a', 'c', "udp sport=5000 dport=40000");
    sw.forget();
    // What its receiver does not let in counts there, as its sender's worker is done with it.
    let stranger = packet('c', 'a', "tcp sport=40000 dport=25 flags=S");
    sw.send("c", stranger.clone());
    sw.expect_nothing("a");
    let len = stranger.len();
    sw.expect_counters(&format!("c: rx_frames 1, rx_bytes {len}, forwarded 1; a: security_ingress 1"));
}

#[test]
fn members_come_and_go() {
    let mut sw = lab();
    // `d` lets anything out, and `web` lets its members in by SSH.
    let joined = LAB.replace(
        r#"port_security_enabled = true, interface = { kind = "packet", name = "eth-d" }"#,
        r#"port_security_enabled = true, security_groups = ["default", "web"], interface = { kind = "packet", name = "eth-d" }"#,
    );
    let first = "tcp sport=40000 dport=22 flags=S seq=100";
    ends(&mut sw, 'd', 'a', first, "security_ingress");
    sw.reload(&joined);
    passes(&mut sw, 'd', 'a', first);
    passes(&mut sw, 'a', 'd', "tcp sport=22 dport=40000 flags=SA seq=500 ack=101");
    passes(&mut sw, 'd', 'a', "tcp sport=40000 dport=22 flags=A seq=101 ack=501");
    // It is no member any more: what only that let in ends, and at once.
    sw.reload(LAB);
    ends(&mut sw, 'd', 'a', "tcp sport=40000 dport=22 flags=A seq=101 ack=501", "security_ingress");
    ends(&mut sw, 'a', 'd', "tcp sport=22 dport=40000 flags=A seq=501 ack=101", "security_egress");
}

#[test]
fn a_rule_that_goes_ends_what_only_it_let_in() {
    let mut sw = lab();
    for port in [40000, 40001] {
        passes(&mut sw, 'c', 'a', &format!("udp sport={port} dport=5000"));
        passes(&mut sw, 'c', 'a', &format!("tcp sport={port} dport=80 flags=S seq=100"));
    }
    sw.reload(&LAB.replace(r#"{ direction = "ingress", protocol = "udp", ports = "5000-5009" },"#, ""));
    ends(&mut sw, 'c', 'a', "udp sport=40000 dport=5000", "security_ingress");
    passes(&mut sw, 'c', 'a', "tcp sport=40001 dport=80 flags=S seq=100");
    // The guest itself may still begin what looks like the answer.
    passes(&mut sw, 'a', 'c', "udp sport=5000 dport=40000");
    passes(&mut sw, 'c', 'a', "udp sport=40000 dport=5000");
}

#[test]
fn icmp_errors_pass_with_what_they_are_about() {
    let mut sw = lab();
    passes(&mut sw, 'a', 'c', "udp sport=40000 dport=53");
    let sent = packet('a', 'c', "udp sport=40000 dport=53");
    let (c, a) = ([10, 0, 0, 12], [10, 0, 0, 10]);
    let error = |quote: &[u8]| framed(mac(12), mac(10), &icmp_error((c, a), (3, 3), [0; 4], &quote[14..]));
    sw.send("c", error(&sent.bytes));
    sw.expect("a", error(&sent.bytes));
    // About nothing that it sent.
    sw.forget();
    let other = packet('a', 'c', "udp sport=40001 dport=53");
    sw.send("c", error(&other.bytes));
    sw.expect_nothing("a");
    sw.expect_counters(&format!(
        "c: rx_frames 1, rx_bytes {}, security_ingress 1",
        error(&other.bytes).len()
    ));
}

#[test]
fn fragments_go_with_the_first_of_their_packet() {
    let mut sw = lab();
    let whole = |dport: u16| packet('c', 'a', &format!("udp sport=40000 dport={dport} len=2000"));
    let parts = |dport: u16, id: u8| -> Vec<Wire> {
        let mut bytes = whole(dport).bytes[14..].to_vec();
        bytes[5] = id;
        seal(&mut bytes);
        in_parts(&bytes, 1000).iter().map(|part| framed(mac(12), mac(10), part)).collect()
    };
    let [first, second, third] = parts(5000, 1).try_into().unwrap();
    // The second waits for the first, and they leave in that order.
    sw.send("c", second.clone());
    sw.expect_nothing("a");
    sw.send("c", first.clone());
    sw.expect("a", first);
    sw.expect("a", second);
    sw.send("c", third.clone());
    sw.expect("a", third);
    // Where the first may not enter, neither may the others.
    sw.forget();
    let refused = parts(4000, 2);
    let len: usize = refused.iter().map(Wire::len).sum();
    for part in refused {
        sw.send("c", part);
        sw.expect_nothing("a");
    }
    sw.expect_counters(&format!("c: rx_frames 3, rx_bytes {len}, security_ingress 3"));
}

#[test]
fn what_a_guest_needs_to_begin_with_needs_no_rule() {
    let deaf = LAB.replace(r#"security_groups = ["web"]"#, "security_groups = []");
    let mut sw = Switch::from(&deaf);
    sw.settle();
    ends(&mut sw, 'a', 'c', "udp sport=1 dport=2", "security_egress");
    let asks = spec("eth src=52:54:00:00:00:0a dst=ff:ff:ff:ff:ff:ff arp who-has 10.0.0.12 tell 10.0.0.10");
    sw.send("a", asks.clone());
    sw.expect("c", asks);
    let says = spec(
        "eth src=52:54:00:00:00:0c dst=52:54:00:00:00:0a arp reply 10.0.0.12 is-at 52:54:00:00:00:0c to=10.0.0.10",
    );
    sw.send("c", says.clone());
    sw.expect("a", says);
    // Another server's DHCP, where ours does not serve.
    let offer = spec(
        "eth src=52:54:00:00:00:0c dst=52:54:00:00:00:0a ip src=10.0.0.12 dst=10.0.0.10 udp sport=67 dport=68 len=300",
    );
    sw.send("c", offer.clone());
    sw.expect("a", offer);
    ends(&mut sw, 'c', 'a', "udp sport=68 dport=67", "security_ingress");
}

#[test]
fn a_flood_reaches_only_those_who_let_it_in() {
    let mut sw = lab();
    let beacon = |dport: u16| {
        spec(&format!(
            "eth src=52:54:00:00:00:0c dst=ff:ff:ff:ff:ff:ff ip src=10.0.0.12 dst=10.0.0.255 udp sport=9 dport={dport}"
        ))
    };
    sw.send("c", beacon(5000));
    sw.expect("a", beacon(5000));
    sw.expect("b", beacon(5000));
    sw.expect_nothing("d");
    sw.send("c", beacon(4000));
    for port in ["a", "b", "d"] {
        sw.expect_nothing(port);
    }
    // A guest is not sent what is for a MAC that is not its own.
    let stray =
        spec("eth src=52:54:00:00:00:0c dst=52:54:00:00:00:77 ip src=10.0.0.12 dst=10.0.0.10 udp dport=5000");
    sw.send("c", stray);
    sw.expect_nothing("a");
    sw.expect_counters(
        "c: rx_frames 3, rx_bytes 126, flooded 1, security_ingress 1, no_receiver 1; a: tx_frames 1, tx_bytes 42, security_ingress 1; \
         b: tx_frames 1, tx_bytes 42, security_ingress 1; d: security_ingress 2",
    );
}

#[test]
fn stateless_groups_judge_each_packet_by_itself() {
    let mut sw =
        Switch::from(&LAB.replace(r#"{ name = "web", rules"#, r#"{ name = "web", stateful = false, rules"#));
    sw.settle();
    passes(&mut sw, 'c', 'a', "tcp sport=40000 dport=80 flags=S seq=100");
    ends(&mut sw, 'a', 'c', "tcp sport=80 dport=40000 flags=SA seq=500 ack=101", "security_egress");
    passes(&mut sw, 'c', 'a', "udp sport=40000 dport=5000");
    passes(&mut sw, 'a', 'c', "udp sport=5000 dport=40000");
}

#[test]
fn a_trace_names_the_rule() {
    let mut sw = lab();
    let refused = sw.explain("c", packet('c', 'a', "tcp sport=40000 dport=25 flags=S"));
    assert_eq!(refused.verdict, "dropped: security_ingress");
    let said = |steps: &[nuswitch::control::view::TraceStep]| {
        steps
            .iter()
            .filter(|step| step.stage == "security")
            .map(|step| step.text.clone())
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert!(said(&refused.steps).contains("its security groups: web"), "{:?}", refused.steps);
    let first = sw.explain("c", packet('c', 'a', "tcp sport=40000 dport=80 flags=S"));
    assert_eq!(first.verdict, "forwarded");
    let rule = "a rule of security group web: ingress IPv4 tcp 80 from 10.0.0.0/24";
    assert!(said(&first.steps).contains(rule), "{:?}", first.steps);
    // An established connection: the rule that once let it in.
    passes(&mut sw, 'c', 'a', "tcp sport=40000 dport=80 flags=S seq=100");
    let reply = packet('a', 'c', "tcp sport=80 dport=40000 flags=SA seq=500 ack=101");
    let traced = sw.explain_live("a", reply.clone());
    assert_eq!(traced.verdict, "forwarded");
    assert!(
        said(&traced.steps).contains(&format!("tracked, syn-received; let in by {rule}")),
        "{:?}",
        traced.steps
    );
    // Without what the switch knows it would not get out.
    assert_eq!(sw.explain("a", reply).verdict, "dropped: security_egress");
}

/// `b` and `d` have asked `c`, whose answers get in by the connections alone.
fn with_connections() -> Switch {
    let mut sw =
        Switch::from(&format!("conntrack = {{ max_entries = 1024, max_entries_per_guest = 1024 }}\n{LAB}"));
    sw.settle();
    passes(&mut sw, 'b', 'c', "tcp sport=40000 dport=443 flags=S seq=100");
    passes(&mut sw, 'c', 'b', "tcp sport=443 dport=40000 flags=SA seq=500 ack=101");
    passes(&mut sw, 'b', 'c', "tcp sport=40000 dport=443 flags=A seq=101 ack=501");
    passes(&mut sw, 'd', 'c', "udp sport=40000 dport=53");
    passes(&mut sw, 'c', 'd', "udp sport=53 dport=40000");
    sw
}

/// The others' connections are as they were, and they may begin others.
#[track_caller]
fn others_go_on(sw: &mut Switch) {
    sw.forget();
    passes(sw, 'c', 'b', "tcp sport=443 dport=40000 flags=A seq=501 ack=101");
    passes(sw, 'b', 'c', "tcp sport=40000 dport=443 flags=A seq=101 ack=501");
    passes(sw, 'c', 'd', "udp sport=53 dport=40000");
    passes(sw, 'd', 'c', "udp sport=40001 dport=53");
    passes(sw, 'c', 'd', "udp sport=53 dport=40001");
}

fn dropped(sw: &Switch, port: &str, reason: DropReason) -> u64 {
    sw.counters(port).dropped(reason)
}

#[test]
fn a_flood_of_syns_ends_nobody_elses_connections() {
    let mut sw = with_connections();
    for n in 0..4000 {
        sw.send("a", packet('a', 'c', &format!("tcp sport={} dport=80 flags=S seq={n}", 1024 + n)));
        if n % 500 == 0 {
            others_go_on(&mut sw);
        }
    }
    others_go_on(&mut sw);
}

#[test]
fn a_flood_of_new_udp_connections_ends_nobody_elses() {
    let mut sw = with_connections();
    for n in 0..4000 {
        let version = ["", "v6 "][n % 2];
        sw.send("a", packet('a', 'c', &format!("{version}udp sport={} dport={}", 1024 + n, 9000 + n)));
        // What comes back makes them look like real ones.
        sw.send("c", packet('c', 'a', &format!("{version}udp sport={} dport={}", 9000 + n, 1024 + n)));
        if n % 500 == 0 {
            others_go_on(&mut sw);
        }
    }
    others_go_on(&mut sw);
}

#[test]
fn a_guest_begins_so_many_connections_in_a_second_and_others_as_many() {
    let mut sw = Switch::from(&format!("conntrack = {{ max_new_per_guest = 10 }}\n{LAB}"));
    sw.settle();
    let first = |from, n: u16| packet(from, 'c', &format!("udp sport={} dport=53", 1024 + n));
    for n in 0..15 {
        sw.send("a", first('a', n));
    }
    assert_eq!(sw.take_all("c").len(), 10);
    assert_eq!(dropped(&sw, "a", DropReason::FloodLimit), 5);
    // What has begun goes on, and so does everybody else.
    sw.send("a", first('a', 3));
    sw.expect("c", first('a', 3));
    sw.send("b", first('b', 1));
    sw.expect("c", first('b', 1));
    sw.forget();
    sw.advance(Duration::from_millis(500));
    for n in 20..30 {
        sw.send("a", first('a', n));
    }
    assert_eq!(sw.take_all("c").len(), 5, "half a second's worth");
    sw.forget();
}

/// What of `count` such frames from `a` gets through to `to`, at once and in the next second.
#[track_caller]
fn is_bounded(sw: &mut Switch, to: &str, frame: &Wire) {
    sw.forget();
    for _ in 0..3000 {
        sw.send("a", frame.clone());
    }
    assert_eq!(sw.take_all(to).len(), 1000);
    assert_eq!(dropped(sw, "a", DropReason::FloodLimit), 2000);
    others_go_on(sw);
    sw.advance(Duration::from_millis(100));
    for _ in 0..1000 {
        sw.send("a", frame.clone());
    }
    assert_eq!(sw.take_all(to).len(), 500);
    others_go_on(sw);
}

#[test]
fn a_flood_of_arp_costs_its_sender_only() {
    for to in ["ff:ff:ff:ff:ff:ff", "52:54:00:00:00:0b"] {
        let mut sw = with_connections();
        let asks = spec(&format!("eth src=52:54:00:00:00:0a dst={to} arp who-has 10.0.0.11 tell 10.0.0.10"));
        is_bounded(&mut sw, "b", &asks);
        // Nobody else has less of it.
        let asks = spec(&format!("eth src=52:54:00:00:00:0d dst={to} arp who-has 10.0.0.11 tell 10.0.0.13"));
        sw.send("d", asks.clone());
        sw.expect("b", asks);
        sw.forget();
    }
}

/// A neighbour solicitation for `b` from `a` or `d`.
fn solicitation(from: u8, to: &[u8; 6]) -> Wire {
    let address = |n: &[u8; 2]| [&[0x20, 1, 0xd, 0xb8][..], &[0; 10], n].concat();
    let group = [&[0xff, 2][..], &[0; 9], &[1, 0xff, 0, 0, 0x11]].concat();
    let own = [0x52, 0x54, 0, 0, 0, from];
    let number = if from == 0xa { [0, 0x10] } else { [0, 0x13] };
    let head = [&to[..], &own, &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255]].concat();
    let message = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &address(&[0, 0x11]), &[1, 1], &own].concat();
    [head, address(&number), group, message].concat().wire()
}

#[test]
fn a_flood_of_neighbour_solicitations_costs_its_sender_only() {
    for to in [[0x33, 0x33, 0xff, 0, 0, 0x11], [0x52, 0x54, 0, 0, 0, 0xb]] {
        let mut sw = with_connections();
        is_bounded(&mut sw, "b", &solicitation(0xa, &to));
        let asks = solicitation(0xd, &to);
        sw.send("d", asks.clone());
        sw.expect("b", asks);
        sw.forget();
    }
}

#[test]
fn a_flood_of_broadcasts_costs_its_sender_only() {
    let mut sw = with_connections();
    let beacon = spec(
        "eth src=52:54:00:00:00:0a dst=ff:ff:ff:ff:ff:ff ip src=10.0.0.10 dst=10.0.0.255 udp sport=9 dport=5000",
    );
    for _ in 0..12_000 {
        sw.send("a", beacon.clone());
    }
    assert_eq!(sw.take_all("b").len(), 10_000);
    assert_eq!(dropped(&sw, "a", DropReason::FloodLimit), 2000);
    others_go_on(&mut sw);
}

#[test]
fn a_flood_of_fragments_costs_its_sender_only() {
    let mut sw = with_connections();
    let parts = |from: char, id: u16| -> [Wire; 2] {
        let whole = packet(from, 'c', "udp sport=40000 dport=53 len=1500");
        let mut bytes = whole.bytes[14..].to_vec();
        bytes[4..6].copy_from_slice(&id.to_be_bytes());
        seal(&mut bytes);
        let source = from as u8 - b'a' + 10;
        let parts: Vec<_> =
            in_parts(&bytes, 1000).iter().map(|part| framed(mac(source), mac(12), part)).collect();
        parts.try_into().unwrap()
    };
    for id in 0..3000 {
        let [_, second] = parts('a', id);
        sw.send("a", second);
        sw.expect_nothing("c");
    }
    assert!(dropped(&sw, "a", DropReason::FragmentLimit) > 2800, "few wait");
    // Another's wait for their first all the same, and nobody's go on without.
    for from in ['b', 'd'] {
        let [first, second] = parts(from, 7);
        sw.send(&from.to_string(), second.clone());
        sw.expect_nothing("c");
        sw.send(&from.to_string(), first.clone());
        sw.expect("c", first);
        sw.expect("c", second);
    }
    others_go_on(&mut sw);
    for _ in 0..20 {
        sw.advance(Duration::from_secs(1));
    }
    sw.expect_nothing("c");
    sw.forget();
}

/// [`LAB`] with a router on the network, whose MAC is 02:00:00:00:00:01.
fn with_router() -> Switch {
    let mut sw = Switch::from(&format!(
        "{LAB}\nrouter = [{{ name = \"r\", interfaces = [{{ subnet = \"lan-v4\", mac_address = \"02:00:00:00:00:01\" }}] }}]"
    ));
    sw.settle();
    sw
}

#[test]
fn what_a_guest_may_send_is_not_what_another_one_of_its_groups_lets_in() {
    let mut sw = with_router();
    // `a` may send it, and `b`, whose groups are the same, lets no such thing in: not by the router either, which brings it back.
    ends(&mut sw, 'a', 'b', "udp sport=40000 dport=4999", "security_ingress");
    sw.forget();
    for _ in 0..3 {
        let by_router = spec(
            "eth src=52:54:00:00:00:0a dst=02:00:00:00:00:01 ip src=10.0.0.10 dst=10.0.0.11 udp sport=40000 dport=4999",
        );
        sw.send("a", by_router);
        sw.expect_nothing("b");
    }
    // What `b` lets in comes that way too, packet after packet, and so do the answers.
    for _ in 0..3 {
        for (from, to, ports) in [('a', 'b', "sport=40000 dport=5000"), ('b', 'a', "sport=5000 dport=40000")]
        {
            let [own, other] = [from, to].map(|who| who as u8 - b'a' + 10);
            let sent = format!(
                "eth src=52:54:00:00:00:{own:02x} dst=02:00:00:00:00:01 ip src=10.0.0.{own} dst=10.0.0.{other} udp {ports}"
            );
            sw.send(&from.to_string(), spec(&sent));
            assert_eq!(sw.take_all(&to.to_string()).len(), 1, "{from} to {to}");
        }
    }
    sw.forget();
}

#[test]
fn who_gets_anothers_address_does_not_get_its_connections() {
    let mut sw = lab();
    passes(&mut sw, 'a', 'c', "udp sport=161 dport=40000");
    passes(&mut sw, 'c', 'a', "udp sport=40000 dport=161");
    // `a` goes, and `b` has its address.
    let without = LAB.replace("fixed_ips = [\"10.0.0.10\", \"2001:db8::10\"]", "fixed_ips = [\"10.0.0.20\"]");
    sw.reload(&without.replace("10.0.0.11", "10.0.0.10"));
    sw.advance(Duration::from_millis(1));
    sw.settle();
    sw.forget();
    let late = spec(
        "eth src=52:54:00:00:00:0c dst=52:54:00:00:00:0b ip src=10.0.0.12 dst=10.0.0.10 udp sport=40000 dport=161",
    );
    sw.send("c", late);
    sw.expect_nothing("b");
    assert_eq!(dropped(&sw, "c", DropReason::SecurityIngress), 1);
    sw.forget();
}

#[test]
fn a_later_fragment_for_nobody_known_needs_a_rule_too() {
    let mut sw = Switch::from(&LAB.replace(
        "port_security_enabled = true, security_groups = [\"web\"]",
        "port_security_enabled = true, security_groups = []",
    ));
    sw.settle();
    sw.forget();
    let whole = spec(
        "eth src=52:54:00:00:00:0a dst=02:00:00:00:00:77 ip src=10.0.0.10 dst=10.0.0.99 udp sport=1 dport=2 len=40",
    );
    let mut packet = whole.bytes[14..].to_vec();
    packet[6..8].copy_from_slice(&[0, 185]);
    seal(&mut packet);
    let later = Wire { bytes: [&whole.bytes[..14], &packet].concat(), ..whole };
    sw.send("a", later);
    sw.expect_nothing("c");
    assert_eq!(dropped(&sw, "a", DropReason::SecurityEgress), 1);
    sw.forget();
}

#[test]
fn a_ping_lets_its_answers_in_and_no_other_questions() {
    let mut sw = lab();
    passes(&mut sw, 'c', 'a', "icmp echo id=7");
    passes(&mut sw, 'a', 'c', "icmp reply id=7");
    passes(&mut sw, 'c', 'a', "icmp echo id=7 seq=2");
    ends(&mut sw, 'c', 'a', "icmp reply id=7", "security_ingress");
}

#[test]
fn discovery_comes_from_the_link() {
    let mut sw = lab();
    let advertisement = |hops: u8| {
        let from = "eth src=52:54:00:00:00:0c dst=52:54:00:00:00:0a ip src=2001:db8:9::1 dst=2001:db8::10";
        spec(&format!("{from} proto=58 len=24")).patch(21, &[hops]).patch(54, &[136])
    };
    sw.send("c", advertisement(255));
    sw.expect("a", advertisement(255));
    sw.forget();
    sw.send("c", advertisement(63));
    sw.expect_nothing("a");
    assert_eq!(dropped(&sw, "c", DropReason::SecurityIngress), 1);
    sw.forget();
}

/// The parts of a packet that [`packet`] or a `spec` makes.
fn cut_up(whole: &Wire, size: usize) -> Vec<Wire> {
    let head = &whole.bytes[..14];
    in_parts(&whole.bytes[14..], size).iter().map(|part| [head, part].concat().wire()).collect()
}

#[test]
fn a_large_ping_passes_stateless_groups_in_parts() {
    let stateless = LAB.replace("name = \"web\", rules", "name = \"web\", stateful = false, rules");
    let mut sw = Switch::from(&stateless);
    sw.settle();
    for part in cut_up(&packet('c', 'a', "icmp echo id=7 len=3000"), 1000) {
        sw.send("c", part.clone());
        sw.expect("a", part);
    }
    sw.forget();
}

#[test]
fn parts_that_a_router_brings_back_pass_one_by_one() {
    let mut sw = with_router();
    let whole = spec(
        "eth src=52:54:00:00:00:0a dst=02:00:00:00:00:01 ip src=10.0.0.10 dst=10.0.0.11 udp sport=40000 dport=5000 len=3000",
    );
    let parts = cut_up(&whole, 1000);
    let count = parts.len();
    for part in parts {
        sw.send("a", part);
    }
    let came =
        sw.take_all("b").into_iter().filter(|frame| frame.bytes[12..14] == [8, 0] && frame.bytes[23] == 17);
    assert_eq!(came.count(), count);
    sw.forget();
}

#[test]
fn strangers_do_not_cost_a_guest_its_own_parts() {
    let mut sw = lab();
    let own = cut_up(&packet('a', 'c', "udp sport=40000 dport=53 len=3000"), 1000);
    // The later parts of its datagram wait for the first one.
    for part in &own[1..] {
        sw.send("a", part.clone());
    }
    // Later parts of packets that never come, from outside.
    for id in 0..2000u16 {
        let mut later = packet('c', 'a', "udp sport=1 dport=2 len=40").bytes[14..].to_vec();
        later[4..6].copy_from_slice(&id.to_be_bytes());
        later[6..8].copy_from_slice(&[0, 185]);
        seal(&mut later);
        sw.send(
            "c",
            framed("52:54:00:00:00:0c".parse().unwrap(), "52:54:00:00:00:0a".parse().unwrap(), &later),
        );
    }
    sw.send("a", own[0].clone());
    assert_eq!(sw.take_all("c").len(), own.len());
    for _ in 0..10 {
        sw.advance(Duration::from_secs(60));
        sw.settle();
    }
    sw.forget();
}

#[test]
fn snap_hides_nothing_where_macs_alone_are_known() {
    let mut sw = Switch::from(
        r#"
network = [{ name = "bare" }]
port = [
  { name = "a", network = "bare", mac_address = "52:54:00:00:00:0a", port_security_enabled = true, interface = { kind = "packet", name = "eth-a" } },
  { name = "b", network = "bare", interface = { kind = "packet", name = "eth-b" } },
]"#,
    );
    sw.settle();
    let llc = |header: &[u8]| {
        [&[0xff; 6][..], &[0x52, 0x54, 0, 0, 0, 0xa, 0, 46], header, &[0; 60]].concat().wire()
    };
    sw.send("a", llc(&[0x42, 0x42, 3]));
    sw.expect("b", llc(&[0x42, 0x42, 3]));
    sw.forget();
    for (count, kind) in (1..).zip([[0x86, 0xdd], [8, 0], [8, 6], [0x81, 0]]) {
        sw.send("a", llc(&[0xaa, 0xaa, 3, 0, 0, 0, kind[0], kind[1]]));
        sw.expect_nothing("b");
        assert_eq!(dropped(&sw, "a", DropReason::EthertypeNotAllowed), count);
        sw.forget();
    }
}
