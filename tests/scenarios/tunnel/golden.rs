//! What a tunnel packet looks like, byte for byte, and what it carries in and out.

use std::collections::BTreeSet;

use super::super::frames::{Wire, spec};
use super::*;

/// RFC 7348, section 5, figure 1, and RFC 791: every byte but the source port's two.
#[test]
fn a_packet_over_ipv4() {
    let mut switch = started(&overlay(BLUE, "ttl = 9\ndscp = 46"));
    switch.send("overlay", packet(inner(A, B)).bytes());
    switch.expect("a", inner(A, B));
    switch.forget();
    switch.send("a", inner(B, A));
    let sent = switch.take("overlay").bytes;
    let port = source_port(&sent);
    let wanted = format!(
        "{PEER}{VTEP}0800{IP}{SUM}c000020ac000020b{port:04x}12b5004c000008000000{VNI}00",
        PEER = "525400000071",
        VTEP = "02000000ee01",
        // Version and header length; DSCP 46; 96 bytes; no identification; do not fragment; TTL 9; UDP.
        IP = "45b80060000040000911",
        SUM = "ecbf",
        VNI = "0003e9",
    );
    assert_eq!(hex(&sent[..50]), wanted);
    assert_eq!(sent[50..], inner(B, A));
    switch.expect_counters(
        "a: rx_frames 1, rx_bytes 60, forwarded 1; overlay: tx_frames 1, tx_bytes 110; \
         192.0.2.11: tx_frames 1, tx_bytes 60",
    );
}

/// RFC 8200, section 3; the checksum is zero as in RFC 6935, section 5; no flow label.
#[test]
fn a_packet_over_ipv6() {
    let mut switch = started(&overlay(&blue6(), "ttl = 9\ndscp = 46"));
    switch.send("overlay", packet6(inner(A, B)).bytes());
    switch.expect("a", inner(A, B));
    switch.forget();
    switch.send("a", inner(B, A));
    let sent = switch.take("overlay").bytes;
    let port = source_port(&sent);
    let local = "20010db8000000000000000000000010";
    let peer = "20010db8000000000000000000000011";
    // Version, DSCP 46, flow label; 76 bytes of payload; UDP; hop limit 9.
    let ip = "6b800000004c1109";
    let wanted =
        format!("52540000007102000000ee0186dd{ip}{local}{peer}{port:04x}12b5004c0000080000000003e900");
    assert_eq!(hex(&sent[..70]), wanted);
    assert_eq!(sent[70..], inner(B, A));
    switch.expect_counters(
        "a: rx_frames 1, rx_bytes 60, forwarded 1; overlay: tx_frames 1, tx_bytes 130; \
         2001:db8::11: tx_frames 1, tx_bytes 60",
    );
}

#[test]
fn a_frame_comes_out_of_a_tunnel_and_its_answer_goes_back_into_it() {
    for (text, from_peer, peer, outer) in
        [(BLUE.to_owned(), packet(inner(A, B)), PEER, 110), (blue6(), packet6(inner(A, B)), PEER6, 130)]
    {
        let mut switch = started(&text);
        switch.send("overlay", from_peer.bytes());
        switch.expect("a", inner(A, B));
        assert_eq!(switch.knows("blue", B).as_deref(), Some(peer));
        switch.send("a", inner(B, A));
        expect_packet(&mut switch, &Packet { inner: inner(B, A), ..from_peer }.ours(peer));
        switch.expect_counters(&format!(
            "overlay: rx_frames 1, rx_bytes {outer}, consumed 1, tx_frames 1, tx_bytes {outer}; \
             {peer}: rx_frames 1, rx_bytes 60, forwarded 1, tx_frames 1, tx_bytes 60; \
             a: rx_frames 1, rx_bytes 60, forwarded 1, tx_frames 1, tx_bytes 60",
        ));
    }
}

#[test]
fn another_udp_port_is_that_of_both_ends() {
    let mut switch = started(&overlay(BLUE, "udp_port = 8472"));
    switch.send("overlay", Packet { ports: [50_000, 8472], ..packet(inner(A, B)) }.bytes());
    switch.expect("a", inner(A, B));
    switch.send("a", inner(B, A));
    expect_packet(&mut switch, &Packet { ports: [0, 8472], ..packet(inner(B, A)).ours(PEER) });
    switch.forget();
    switch.send("overlay", packet(inner(A, B)).bytes());
    switch.expect_counters("overlay: rx_frames 1, rx_bytes 110, underlay_other 1");
}

/// Whatever the peer's, as long as it is there: RFC 7348 has the source port for hashing only.
#[test]
fn a_peers_source_port_and_ttl_and_dscp_say_nothing() {
    let mut switch = blue();
    for (port, ttl, class) in [(0, 64, 0), (1, 1, 0xb8), (65535, 255, 0xfc)] {
        let packet = Packet { ports: [port, 4789], ttl, ..packet(inner(A, B)) }.class(class);
        switch.send("overlay", packet.bytes());
        switch.expect("a", inner(A, B));
    }
    switch.expect_counters(
        "overlay: rx_frames 3, rx_bytes 330, consumed 3; 192.0.2.11: rx_frames 3, rx_bytes 180, forwarded 3; \
         a: tx_frames 3, tx_bytes 180",
    );
}

/// The source port of the packet that this frame becomes.
fn port_of(switch: &mut Switch, frame: Wire) -> u16 {
    switch.send("a", frame);
    let port = source_port(&switch.take("overlay").bytes);
    assert!((49152..=65535).contains(&port), "RFC 6335, section 6: {port}");
    port
}

fn flow(ip: &str, protocol: &str, sport: u16, len: usize) -> Wire {
    spec(&format!("eth src={A} dst={B} ip {ip} {protocol} sport={sport} dport=80 len={len}"))
}

#[test]
fn a_flow_has_one_source_port_and_flows_have_many() {
    let entry = format!("remote_ports = [{{ mac_address = \"{B}\", vtep = \"{PEER}\" }}]");
    let mut switch = started(&network(BLUE, &entry));
    for ip in ["src=10.0.0.1 dst=10.0.0.2", "src=fd00::1 dst=fd00::2"] {
        for protocol in ["tcp", "udp"] {
            let first = port_of(&mut switch, flow(ip, protocol, 1000, 0));
            for len in [1, 100, 1000] {
                assert_eq!(port_of(&mut switch, flow(ip, protocol, 1000, len)), first, "{ip} {protocol}");
            }
            let ports: BTreeSet<u16> =
                (0..200).map(|n| port_of(&mut switch, flow(ip, protocol, 1000 + n, 8))).collect();
            assert!(ports.len() > 190, "{ip} {protocol}: 200 flows have {} source ports", ports.len());
        }
    }
    // What has no ports is spread by its addresses: those of IP, or else the MACs.
    let pings: BTreeSet<u16> = (1..100)
        .map(|n| {
            port_of(&mut switch, spec(&format!("eth src={A} dst={B} ip src=10.0.0.1 dst=10.0.1.{n} icmp")))
        })
        .collect();
    assert!(pings.len() > 90, "{}", pings.len());
    let other = |n: u8| frame().from(mac(n)).to(B).ethertype(0x88b5).wire();
    let ports: BTreeSet<u16> = (1..100).map(|n| port_of(&mut switch, other(n))).collect();
    assert!(ports.len() > 90, "{}", ports.len());
    switch.forget();
}

/// RFC 7348, section 6.1: no tag goes in. One that a guest hides behind a priority tag would.
#[test]
fn no_tag_goes_into_a_tunnel() {
    let mut switch = started(&format!("{BLUE}{SECOND}"));
    switch.send("overlay", packet(inner(A, B)).bytes());
    switch.forget();
    let hidden = || frame().from(A).to(B).tag(0).tag(7);
    switch.send("a", hidden());
    switch.expect_counters("a: rx_frames 1, rx_bytes 68, inner_tag 1");
    switch.send("a", hidden().to(BROADCAST));
    switch.expect("b", frame().from(A).to(BROADCAST).tag(7));
    switch
        .expect_counters("a: rx_frames 1, rx_bytes 68, flooded 1, inner_tag 2; b: tx_frames 1, tx_bytes 64");
    // A priority tag alone is taken off.
    switch.send("a", frame().from(A).to(B).tag(0xe000).ethertype(0x88b5));
    expect_packet(&mut switch, &packet(inner(B, A)).ours(PEER));
    switch.forget();
}
