//! The local VTEP as a host of the underlay: it answers ARP, neighbour solicitations and ping for its address, and nothing else.

use nuswitch::services::{arp, nd, packet};

use super::super::frames::{Wire, spec};
use super::super::switch::secs;
use super::*;

fn fresh(text: &str) -> Switch {
    unresolved(Build::from(text))
}

#[test]
fn it_announces_itself_twice_and_asks_for_its_peers() {
    let mut switch = Switch::from(BLUE);
    switch.settle();
    let said: Vec<Arp> =
        switch.take_all("overlay").iter().map(|wire| Arp::parse(&wire.bytes).unwrap()).collect();
    let local: std::net::Ipv4Addr = LOCAL.parse().unwrap();
    let (announced, asked): (Vec<Arp>, Vec<Arp>) = said.into_iter().partition(Arp::is_announcement);
    assert_eq!(announced.len(), 1);
    assert!(announced.iter().chain(&asked).all(|arp| arp.sender == local && arp.sender_mac == VTEP_MAC));
    assert!(asked.iter().all(|arp| arp.operation == Operation::Request));
    let asked: Vec<IpAddr> = asked.iter().map(|arp| arp.target.into()).collect();
    assert_eq!(asked, [ip(PEER), ip(OTHER)]);
    switch.expect_counters("overlay: tx_frames 3, tx_bytes 126");
    switch.advance(secs(2));
    let again =
        switch.take_all("overlay").iter().filter(|w| Arp::parse(&w.bytes).unwrap().is_announcement()).count();
    assert_eq!(again, 1, "RFC 5227, 2.3: two announcements, two seconds apart");
    switch.forget();
}

#[test]
fn arp_for_its_address_is_answered_and_for_no_other() {
    let mut switch = fresh(BLUE);
    let asks = |target: &str| {
        arp::request(PEER_MAC, [192, 0, 2, 200].into(), target.parse().unwrap(), None).to_vec()
    };
    switch.send("overlay", asks(LOCAL));
    let bytes = switch.take("overlay").bytes;
    assert_eq!(bytes[..12], [PEER_MAC.0, VTEP_MAC.0].concat());
    let reply = Arp::parse(&bytes).unwrap();
    assert_eq!((reply.operation, reply.sender_mac), (Operation::Reply, VTEP_MAC));
    assert_eq!((IpAddr::from(reply.sender), reply.target_mac), (ip(LOCAL), PEER_MAC));
    switch.expect_counters("overlay: rx_frames 1, rx_bytes 42, answered 1, tx_frames 1, tx_bytes 42");
    switch.send("overlay", asks("192.0.2.77"));
    switch.expect_counters("overlay: rx_frames 1, rx_bytes 42, underlay_other 1");
}

#[test]
fn solicitations_for_its_address_are_answered_and_for_no_other() {
    let mut switch = fresh(&blue6());
    let asks = |target: &str| {
        nd::solicitation(PEER_MAC, "2001:db8::200".parse().unwrap(), target.parse().unwrap(), None).to_vec()
    };
    switch.send("overlay", asks(LOCAL6));
    let bytes = switch.take("overlay").bytes;
    assert_eq!(bytes[..12], [PEER_MAC.0, VTEP_MAC.0].concat());
    let reply = packet::Packet::parse(&bytes).unwrap();
    let nd::Nd::Advertisement { target, target_mac, solicited, .. } = nd::Nd::parse(&reply).unwrap() else {
        panic!("an advertisement is expected");
    };
    assert_eq!((IpAddr::from(target), target_mac, solicited), (ip(LOCAL6), Some(VTEP_MAC), true));
    switch.expect_counters("overlay: rx_frames 1, rx_bytes 86, answered 1, tx_frames 1, tx_bytes 86");
    switch.send("overlay", asks("2001:db8::77"));
    switch.expect_counters("overlay: rx_frames 1, rx_bytes 86, underlay_other 1");
}

fn ping(to_mac: Mac, from: &str, to: &str, what: &str) -> Wire {
    spec(&format!("eth src={PEER_MAC} dst={to_mac} ip src={from} dst={to} icmp {what} id=7 seq=3 len=56"))
}

#[test]
fn pings_are_answered() {
    for (text, from, to, len) in [(BLUE.to_owned(), PEER, LOCAL, 98), (blue6(), PEER6, LOCAL6, 118)] {
        let mut switch = fresh(&text);
        switch.send("overlay", ping(VTEP_MAC, from, to, "echo"));
        let reply = switch.take("overlay").bytes;
        let wanted = spec(&format!(
            "eth src={VTEP_MAC} dst={PEER_MAC} ip src={to} dst={from} icmp reply id=7 seq=3 len=56"
        ));
        let at = if len == 98 { 34 } else { 54 };
        assert_eq!((&reply[..12], &reply[at..]), (&wanted.bytes[..12], &wanted.bytes[at..]));
        assert_eq!(reply[at - 8..at], wanted.bytes[at - 8..at], "addresses");
        switch.expect_counters(&format!(
            "overlay: rx_frames 1, rx_bytes {len}, answered 1, tx_frames 1, tx_bytes {len}"
        ));
        // Another's address, another's MAC, an answer that nobody asked for.
        let third = if len == 98 { "192.0.2.77" } else { "2001:db8::77" };
        for other in [
            ping(VTEP_MAC, from, third, "echo"),
            ping(PEER_MAC, from, to, "echo"),
            ping(BROADCAST, from, to, "echo"),
            ping(VTEP_MAC, from, to, "reply"),
        ] {
            switch.send("overlay", other);
            switch.expect_nothing("overlay");
            switch.expect_counters(&format!("overlay: rx_frames 1, rx_bytes {len}, underlay_other 1"));
        }
    }
}

/// 100 at once and 1000 a second; the rest is not answered.
#[test]
fn pings_are_answered_at_a_limited_rate() {
    let mut switch = fresh(BLUE);
    for _ in 0..150 {
        switch.send("overlay", ping(VTEP_MAC, PEER, LOCAL, "echo"));
    }
    assert_eq!(switch.take_all("overlay").len(), 100);
    switch.expect_counters(
        "overlay: rx_frames 150, rx_bytes 14700, answered 100, underlay_other 50, tx_frames 100, tx_bytes 9800",
    );
    switch.advance(std::time::Duration::from_millis(10));
    for _ in 0..20 {
        switch.send("overlay", ping(VTEP_MAC, PEER, LOCAL, "echo"));
    }
    assert_eq!(switch.take_all("overlay").len(), 10);
    switch.forget();
}

/// Somebody else has our address: it is announced again, at most every ten seconds (RFC 5227, 2.4).
#[test]
fn the_address_is_defended() {
    let mut switch = fresh(BLUE);
    let theirs = arp::announcement(mac(0x99), LOCAL.parse().unwrap()).to_vec();
    switch.send("overlay", theirs.clone());
    assert!(Arp::parse(&switch.take("overlay").bytes).unwrap().is_announcement());
    switch.expect_counters("overlay: rx_frames 1, rx_bytes 42, answered 1, tx_frames 1, tx_bytes 42");
    switch.send("overlay", theirs);
    switch.expect_counters("overlay: rx_frames 1, rx_bytes 42, consumed 1");
}

/// A guest has no way to the VTEP's own host: its frames stay in its network.
#[test]
fn a_guest_does_not_reach_the_underlays_host() {
    let mut switch = blue();
    let asked = arp::request(A, [192, 0, 2, 99].into(), LOCAL.parse().unwrap(), None).to_vec();
    switch.send("a", asked.clone());
    for peer in [PEER, OTHER] {
        expect_packet(&mut switch, &super::packet(asked.clone()).ours(peer));
    }
    switch.expect_nothing("a");
    switch.forget();
}
