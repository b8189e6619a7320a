//! Ports on other hosts that the configuration names: known without learning, asked for without flooding.

use nuswitch::services::packet;
use nuswitch::services::{arp, nd};

use super::super::frames::{Wire, spec};
use super::*;

/// B is at the first peer, C at the second.
fn entries(l2population: bool) -> String {
    let entry = |mac: Mac, n: u8, vtep: &str| {
        format!(
            "{{ mac_address = \"{mac}\", fixed_ips = [\"10.0.0.{n}\", \"fd00::{n}\"], vtep = \"{vtep}\" }}"
        )
    };
    let ports = [entry(B, 2, PEER), entry(C, 3, OTHER)].join(", ");
    network(BLUE, &format!("l2population = {l2population}\nremote_ports = [{ports}]"))
}

fn who_has(address: &str) -> Wire {
    match ip(address) {
        IpAddr::V4(target) => arp::request(A, [10, 0, 0, 1].into(), target, None).to_vec().wire(),
        IpAddr::V6(target) => nd::solicitation(A, "fd00::1".parse().unwrap(), target, None).to_vec().wire(),
    }
}

#[test]
fn arp_is_answered_here() {
    for l2population in [true, false] {
        let mut switch = started(&entries(l2population));
        for (address, owner) in [("10.0.0.2", B), ("10.0.0.3", C)] {
            switch.send("a", who_has(address));
            let reply = switch.take("a").bytes;
            assert_eq!(reply[..12], [A.0, owner.0].concat(), "from its owner to who asked");
            let reply = Arp::parse(&reply).unwrap();
            assert_eq!((reply.operation, reply.sender_mac), (Operation::Reply, owner));
            assert_eq!((IpAddr::from(reply.sender), reply.target_mac), (ip(address), A));
            assert_eq!(reply.target, std::net::Ipv4Addr::new(10, 0, 0, 1));
            switch.expect_counters("a: rx_frames 1, rx_bytes 42, answered 1, tx_frames 1, tx_bytes 42");
        }
    }
}

#[test]
fn solicitations_are_answered_here() {
    for l2population in [true, false] {
        let mut switch = started(&entries(l2population));
        switch.send("a", who_has("fd00::3"));
        let reply = switch.take("a").bytes;
        assert_eq!(reply[..12], [A.0, C.0].concat());
        let reply = packet::Packet::parse(&reply).unwrap();
        assert_eq!((reply.source, reply.destination, reply.hops), (ip("fd00::3"), ip("fd00::1"), 255));
        let nd::Nd::Advertisement { target, target_mac, solicited, .. } = nd::Nd::parse(&reply).unwrap()
        else {
            panic!("an advertisement is expected");
        };
        assert_eq!((IpAddr::from(target), target_mac, solicited), (ip("fd00::3"), Some(C), true));
        switch.expect_counters("a: rx_frames 1, rx_bytes 86, answered 1, tx_frames 1, tx_bytes 86");
    }
}

#[test]
fn a_populated_network_floods_nothing_into_tunnels() {
    let mut switch = started(&format!("{}{SECOND}", entries(true)));
    // Who is not named, broadcast, a group, an unknown station: for our own ports only.
    let dhcp =
        spec(&format!("eth src={A} dst={BROADCAST} ip src=0.0.0.0 dst=255.255.255.255 udp dport=67 len=50"));
    for frame in [who_has("10.0.0.77"), who_has("fd00::77"), dhcp, inner(mac(0x55), A).wire()] {
        let len = frame.len();
        switch.send("a", frame.clone());
        switch.expect("b", frame);
        switch.expect_nothing("overlay");
        switch.expect_counters(&format!(
            "a: rx_frames 1, rx_bytes {len}, flooded 1; b: tx_frames 1, tx_bytes {len}"
        ));
    }
    // Whom an entry names is reached without having spoken.
    for (station, peer) in [(B, PEER), (C, OTHER)] {
        switch.send("a", inner(station, A));
        expect_packet(&mut switch, &super::packet(inner(station, A)).ours(peer));
        switch.expect_counters(&format!(
            "a: rx_frames 1, rx_bytes 60, forwarded 1; overlay: tx_frames 1, tx_bytes 110; \
             {peer}: tx_frames 1, tx_bytes 60"
        ));
    }
}

#[test]
fn without_other_ports_there_is_no_receiver() {
    let mut switch = started(&entries(true));
    switch.send("a", inner(mac(0x55), A));
    switch.expect_counters("a: rx_frames 1, rx_bytes 60, no_receiver 1");
    switch.send("a", who_has("10.0.0.77"));
    switch.expect_counters("a: rx_frames 1, rx_bytes 42, no_receiver 1");
}

#[test]
fn entries_beside_flooding_do_not_stop_it() {
    let mut switch = started(&entries(false));
    let unnamed = who_has("10.0.0.77");
    switch.send("a", unnamed.clone());
    for peer in [PEER, OTHER] {
        expect_packet(&mut switch, &super::packet(unnamed.bytes.clone()).ours(peer));
    }
    switch.expect_counters(
        "a: rx_frames 1, rx_bytes 42, flooded 1; overlay: tx_frames 2, tx_bytes 184; \
         192.0.2.11: tx_frames 1, tx_bytes 42; 192.0.2.12: tx_frames 1, tx_bytes 42",
    );
}

/// An entry stays where it says, whoever sends with its MAC.
#[test]
fn an_entry_is_not_moved_by_frames() {
    let mut switch = started(&format!("{}{SECOND}", entries(true)));
    switch.send("overlay", super::packet(inner(A, B)).from(OTHER).bytes());
    switch.expect("a", inner(A, B));
    switch.send("b", inner(A, B));
    switch.expect("a", inner(A, B));
    assert_eq!(switch.knows("blue", B).as_deref(), Some(PEER));
    switch.forget();
}

/// Only questions of our own guests: those of another host's are its own switch's to answer.
#[test]
fn a_question_out_of_a_tunnel_is_not_answered() {
    let mut switch = started(&entries(true));
    let asked = arp::request(C, [10, 0, 0, 3].into(), [10, 0, 0, 2].into(), None).to_vec();
    switch.send("overlay", super::packet(asked.clone()).from(OTHER).bytes());
    switch.expect("a", asked);
    switch.expect_nothing("overlay");
    switch.forget();
}

/// A guest that checks whether an address is free (RFC 5227; RFC 4862, 5.4) is told that it is not; what it says of its own
/// is no question.
#[test]
fn probes_and_announcements() {
    let mut switch = started(&format!("{}{SECOND}", entries(true)));
    switch.send("a", arp::request(A, [0, 0, 0, 0].into(), [10, 0, 0, 2].into(), None).to_vec());
    let reply = Arp::parse(&switch.take("a").bytes).unwrap();
    assert_eq!((reply.sender_mac, reply.sender), (B, [10, 0, 0, 2].into()));
    switch.forget();
    let said = arp::announcement(A, [10, 0, 0, 1].into()).to_vec();
    switch.send("a", said.clone());
    switch.expect("b", said);
    switch.forget();
}
