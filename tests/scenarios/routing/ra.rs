//! Router advertisements: when the hosts of a network hear of a router, and when they hear that there is none any more.

use nuswitch::services::ra::{Advertisement, INITIAL_INTERVAL, LIFETIME, MAX_INTERVAL, MIN_INTERVAL};
use nuswitch::tables::{Segments, Tables};

use super::*;

/// What the router tells network `blue`.
fn facts() -> Advertisement {
    Advertisement {
        mtu: 1400,
        prefixes: vec![("2001:db8:2::/64".parse().unwrap(), true)],
        lifetime: LIFETIME,
        ..Advertisement::default()
    }
}

/// [`TWO`] without a next hop, which the router would ask for every so often.
fn quiet() -> String {
    let text = TWO.replace("routes = [{ destination = \"10.9.0.0/16\", nexthop = \"10.0.2.77\" }]\n", "");
    assert_ne!(text, TWO);
    text
}

fn tell(tables: &mut Tables, facts: &Advertisement) {
    for port in tables.ports.iter_mut().flatten().filter(|port| &*port.name == "r/blue-v6") {
        let Segments::Router(interface) = &mut port.segments else { panic!("no interface") };
        interface.ra = Some(facts.clone());
    }
}

/// A switch whose router has begun to advertise and said so three times.
fn advertising() -> Switch {
    let mut sw = settled(&quiet());
    sw.publish_with(|tables| tell(tables, &facts()));
    for _ in 0..3 {
        sw.settle();
        sw.advance(INITIAL_INTERVAL);
    }
    sw.forget();
    sw
}

/// The ICMPv6 message of an advertisement from the router, which is sound; to all nodes, or to one MAC.
#[track_caller]
fn told(frame: &Wire, to: &str) -> Vec<u8> {
    let bytes = &frame.bytes;
    assert_eq!(bytes[..14], [&mac_of(to).0[..], &mac_of(BLUE6).0, &[0x86, 0xdd]].concat());
    assert_eq!((bytes[20], bytes[21], bytes[54], bytes[55]), (58, 255, 134, 0));
    assert_eq!(bytes[22..38], [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe, 0, 2, 6]);
    assert_eq!(usize::from(word(bytes, 18)) + 54, bytes.len());
    assert_eq!(checksum(&[&bytes[22..54], &bytes[18..20], &[0, 58], &bytes[54..]]), 0);
    bytes[54..].to_vec()
}

const ALL: &str = "33:33:00:00:00:01";

/// Takes what both guests of the network got: one advertisement each, the same, and gives it.
#[track_caller]
fn both_are_told(sw: &mut Switch) -> Vec<u8> {
    sw.settle();
    let (b, c) = (sw.take("b"), sw.take("c"));
    assert_eq!(told(&b, ALL), told(&c, ALL));
    sw.expect_nothing("a");
    sw.expect_nothing("b");
    told(&b, ALL)
}

#[test]
fn rfc4861_s6_2_4_the_first_ones_come_soon_and_then_in_their_time() {
    let mut sw = settled(&quiet());
    sw.publish_with(|tables| tell(tables, &facts()));
    for _ in 0..3 {
        let message = both_are_told(&mut sw);
        assert_eq!(word(&message, 6), LIFETIME);
        sw.advance(INITIAL_INTERVAL - secs(1));
        sw.settle();
        sw.expect_nothing("b");
        sw.advance(secs(1));
    }
    sw.settle();
    sw.expect_nothing("b");
    let mut waited = INITIAL_INTERVAL;
    while sw.take_all("b").is_empty() {
        waited += secs(1);
        assert!(waited <= MAX_INTERVAL + secs(1), "none after {waited:?}");
        sw.advance(secs(1));
        sw.settle();
    }
    assert!(waited >= MIN_INTERVAL, "{waited:?}");
    sw.forget();
}

#[test]
fn what_changes_is_told_at_once_and_the_same_is_not() {
    let mut sw = advertising();
    sw.publish_with(|tables| tell(tables, &facts()));
    sw.settle();
    sw.expect_nothing("b");
    sw.publish_with(|tables| tell(tables, &Advertisement { managed: true, ..facts() }));
    assert_eq!(both_are_told(&mut sw)[5], 0x80);
    sw.forget();
}

#[test]
fn rfc4861_s6_2_5_who_stops_says_so_once() {
    let two = quiet();
    let gone = {
        let (before, rest) = two.split_once("[[router]]").unwrap();
        let (_, ports) = rest.split_once("[[port]]").unwrap();
        format!("{before}[[port]]{ports}")
    };
    let no_subnet = two.replace("  { subnet = \"blue-v6\", mac_address = \"02:00:00:00:02:06\" },\n", "");
    let down = two.replace("name = \"r\"\n", "name = \"r\"\nadmin_state_up = false\n");
    for (why, text) in
        [("not any more", &two), ("router gone", &gone), ("interface gone", &no_subnet), ("down", &down)]
    {
        let mut sw = advertising();
        sw.reload(text);
        let message = both_are_told(&mut sw);
        assert_eq!(word(&message, 6), 0, "{why}");
        assert_eq!(message[24 + 8], 3, "{why}: the prefix is there");
        assert_ne!(message[24 + 8 + 4..24 + 8 + 8], [0; 4], "{why}: and lives");
        sw.advance(MAX_INTERVAL);
        sw.settle();
        sw.expect_nothing("b");
        sw.forget();
    }
}

/// A router solicitation to all routers.
fn solicitation(mac: Mac, source: [u8; 16], options: &[u8]) -> Wire {
    let all = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
    solicitation_to((Mac([0x33, 0x33, 0, 0, 0, 2]), all), mac, source, options)
}

fn solicitation_to(to: (Mac, [u8; 16]), mac: Mac, source: [u8; 16], options: &[u8]) -> Wire {
    let mut bytes = [&to.0.0[..], &mac.0, &[0x86, 0xdd, 0x60, 0, 0, 0, 0]].concat();
    bytes.extend([8 + options.len() as u8, 58, 255]);
    bytes.extend(source);
    bytes.extend(to.1);
    bytes.extend([133, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend(options);
    let sum = checksum(&[&bytes[22..54], &bytes[18..20], &[0, 58], &bytes[54..]]);
    bytes[56..58].copy_from_slice(&sum.to_be_bytes());
    Wire { bytes, ..spec(&format!("eth src={B} dst={C} type=0x88b5")) }
}

const LINK_LOCAL: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x0b];

#[test]
fn who_asks_is_answered_at_once_and_others_are_asked_too() {
    let mut sw = advertising();
    let question = solicitation(B, LINK_LOCAL, &[]);
    sw.send("b", question.clone());
    let answer = sw.take("b");
    told(&answer, &B.to_string());
    assert_eq!(answer.bytes[38..54], LINK_LOCAL);
    sw.expect("c", question);
    sw.expect_nothing("b");
    sw.expect_nothing("a");
    sw.forget();
}

#[test]
fn who_has_no_address_yet_is_answered_alone() {
    let mut sw = advertising();
    sw.send("b", solicitation(B, [0; 16], &[]));
    let answer = sw.take("b");
    told(&answer, &B.to_string());
    assert_eq!(answer.bytes[38..54], [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    assert_eq!(sw.take("c").bytes[54], 133, "the question alone");
    sw.expect_nothing("c");
    sw.forget();
}

#[test]
fn a_question_that_none_else_hears_counts_as_answered() {
    let mut sw = advertising();
    sw.set_device("c", false);
    sw.publish_with(|tables| tell(tables, &facts()));
    sw.settle();
    sw.forget();
    let question = solicitation(B, LINK_LOCAL, &[]);
    let len = question.bytes.len();
    sw.send("b", question);
    let answer = sw.take("b").bytes.len();
    sw.expect_counters(&format!(
        "b: rx_frames 1, rx_bytes {len}, answered 1, tx_frames 1, tx_bytes {answer}"
    ));
}

#[test]
fn rfc4861_s6_1_1_what_is_not_valid_is_only_flooded() {
    let mut sw = advertising();
    for question in [
        solicitation(B, LINK_LOCAL, &[1, 0, 0, 0, 0, 0, 0, 0]),
        solicitation(B, [0; 16], &[1, 1, 0x52, 0x54, 0, 0, 0, 0x0b]),
        solicitation(B, LINK_LOCAL, &[]).patch(21, &[64]),
        solicitation(B, LINK_LOCAL, &[]).patch(56, &[0x12, 0x34]),
    ] {
        sw.send("b", question);
        assert_eq!(sw.take("c").bytes[54], 133);
        sw.expect_nothing("b");
    }
    let mut other = settled(&quiet());
    other.send("b", solicitation(B, LINK_LOCAL, &[]));
    other.expect_nothing("b");
    other.forget();
    sw.forget();
}

#[test]
fn a_question_to_the_router_alone_is_answered() {
    let mut sw = advertising();
    let router = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe, 0, 2, 6];
    let question = solicitation_to((mac_of(BLUE6), router), B, LINK_LOCAL, &[]);
    sw.send("b", question);
    told(&sw.take("b"), &B.to_string());
    sw.expect_nothing("c");
    sw.forget();
}

#[test]
fn a_trace_tells_of_the_answer() {
    let mut sw = settled(&quiet());
    sw.publish_with(|tables| tell(tables, &facts()));
    sw.settle();
    sw.forget();
    let told = sw.trace("b", solicitation(B, LINK_LOCAL, &[]));
    assert!(
        told.contains("bridge: asks for routers: interface r/blue-v6 advertises itself to it\n"),
        "{told}"
    );
    assert!(told.contains("egress: leaves by port c"), "{told}");
}
