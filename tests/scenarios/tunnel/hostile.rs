//! Packets that no honest VTEP sends: each ends in a counter of its own, and none in another network.

use super::super::frames::spec;
use super::super::switch::PLAIN;
use super::*;

#[track_caller]
fn ends(switch: &mut Switch, bytes: Vec<u8>, reason: &str) {
    let len = bytes.len();
    switch.send("overlay", bytes);
    switch.expect_counters(&format!("overlay: rx_frames 1, rx_bytes {len}, {reason} 1"));
}

#[test]
fn outer_packets_over_ipv4() {
    let good = packet(inner(A, B));
    let cases = [
        (good.clone().flags(0).bytes(), "tunnel_header"),
        (good.clone().flags(0xf7).bytes(), "tunnel_header"),
        (good.clone().vni(1002).bytes(), "unknown_vni"),
        (good.clone().vni(0).bytes(), "unknown_vni"),
        (good.clone().vni(0xff_ffff).bytes(), "unknown_vni"),
        (good.clone().from("192.0.2.99").bytes(), "unknown_peer"),
        (good.clone().from(LOCAL).bytes(), "unknown_peer"),
        // The IP header: its checksum, and lengths beyond the frame or below a header.
        (good.patched(22, &[63]), "outer_checksum"),
        (good.patched(24, &[0, 0]), "outer_checksum"),
        (good.resummed(16, &[0, 200]), "outer_length"),
        (good.resummed(16, &[0, 19]), "outer_length"),
        (good.resummed(14, &[0x44]), "outer_length"),
        (good.patched(14, &[0x65]), "outer_length"),
        (good.patched(14, &[0x4f]), "outer_checksum"),
        // UDP's length: shorter and longer than the packet, and below its own header.
        (good.patched(38, &[0, 20]), "outer_length"),
        (good.patched(38, &[0, 77]), "outer_length"),
        (good.patched(38, &[0, 7]), "outer_length"),
        (good.patched(38, &[0, 0]), "outer_length"),
        (good.resummed(16, &[0, 95]), "outer_length"),
        (good.patched(40, &[1, 2]), "outer_checksum"),
        // Fragments: the first, one in the middle, the last.
        (good.resummed(20, &[0x20, 0]), "outer_fragment"),
        (good.resummed(20, &[0x20, 9]), "outer_fragment"),
        (good.resummed(20, &[0, 9]), "outer_fragment"),
        // Cut off anywhere.
        (good.bytes()[..40].to_vec(), "outer_length"),
        (good.bytes()[..49].to_vec(), "outer_length"),
        (good.bytes()[..109].to_vec(), "outer_length"),
        // For us, yet no tunnel's.
        (good.patched(36, &[0x12, 0xb6]), "underlay_other"),
        (good.resummed(23, &[6]), "underlay_other"),
        // For another MAC or another address.
        (Packet { macs: [PEER_MAC, PEER_MAC], ..good.clone() }.bytes(), "underlay_other"),
        (Packet { macs: [BROADCAST, PEER_MAC], ..good.clone() }.bytes(), "underlay_other"),
        (good.clone().to("192.0.2.44").bytes(), "underlay_other"),
        (good.clone().to("239.1.1.1").bytes(), "underlay_other"),
        // In a VLAN of the underlay.
        ([&good.bytes()[..12], &[0x81, 0, 0, 5], &good.bytes()[12..]].concat(), "underlay_other"),
        (vec![2; 3], "underlay_other"),
    ];
    let mut switch = blue();
    for (at, (bytes, reason)) in cases.into_iter().enumerate() {
        println!("{at}: {reason}");
        ends(&mut switch, bytes, reason);
    }
    assert_eq!(switch.knows("blue", B), None, "none of them taught anything");
}

#[test]
fn outer_packets_over_ipv6() {
    let good = packet6(inner(A, B));
    let fragment = {
        // A fragment header (RFC 8200, 4.5) before the UDP header.
        let mut bytes = good.patched(20, &[44]);
        bytes[18..20].copy_from_slice(&84u16.to_be_bytes());
        bytes.splice(54..54, [17, 0, 0, 1, 0, 0, 0, 9]);
        bytes
    };
    let cases = [
        (good.clone().flags(0xf7).bytes(), "tunnel_header"),
        (good.clone().vni(1002).bytes(), "unknown_vni"),
        (good.clone().from("2001:db8::99").bytes(), "unknown_peer"),
        (good.clone().from(LOCAL6).bytes(), "unknown_peer"),
        (good.patched(18, &[0, 200]), "outer_length"),
        (good.patched(18, &[0, 75]), "outer_length"),
        (good.patched(18, &[0, 0]), "outer_length"), // no jumbograms
        (good.patched(14, &[0x40]), "outer_length"),
        (good.patched(58, &[0, 20]), "outer_length"),
        (good.patched(58, &[0, 7]), "outer_length"),
        (good.patched(60, &[1, 2]), "outer_checksum"),
        (fragment, "outer_fragment"),
        (good.bytes()[..60].to_vec(), "outer_length"),
        (good.bytes()[..129].to_vec(), "outer_length"),
        (good.patched(56, &[0x12, 0xb6]), "underlay_other"),
        (good.patched(20, &[6]), "underlay_other"),
        (Packet { macs: [PEER_MAC, PEER_MAC], ..good.clone() }.bytes(), "underlay_other"),
        (good.clone().to("2001:db8::44").bytes(), "underlay_other"),
        (good.clone().to("ff05::1:1").bytes(), "underlay_other"),
    ];
    let mut switch = started(&blue6());
    for (at, (bytes, reason)) in cases.into_iter().enumerate() {
        println!("{at}: {reason}");
        ends(&mut switch, bytes, reason);
    }
    assert_eq!(switch.knows("blue", B), None);
}

/// IPv4-mapped addresses never stand in a packet (RFC 4291, 2.5.5.2; RFC 5156, 2.2): neither is an IPv6 packet one of the
/// IPv4 underlay's, nor its sender a peer over IPv6.
#[test]
fn an_ip_version_is_not_taken_for_the_other() {
    for learn in ["", "learn_peers = true"] {
        let mapped = packet(inner(A, B)).from("::ffff:192.0.2.11").to("::ffff:192.0.2.10");
        let mut switch = started(&overlay(BLUE, learn));
        ends(&mut switch, mapped.bytes(), "underlay_other");
        switch.expect_nothing("a");

        let mut switch = started(&overlay(&blue6(), learn));
        ends(&mut switch, packet6(inner(A, B)).from("::ffff:192.0.2.11").bytes(), "unknown_peer");
        ends(&mut switch, packet(inner(A, B)).bytes(), "underlay_other");
        switch.expect_nothing("a");
    }
}

#[test]
fn inner_frames() {
    let tagged = |tpid: [u8; 2]| {
        let mut inner = inner(A, B);
        inner.splice(12..12, [tpid[0], tpid[1], 0, 5]);
        inner
    };
    let bad_length = frame().to(A).from(B).ethertype(47).wire().bytes;
    let reserved = inner(Mac([0x01, 0x80, 0xc2, 0, 0, 0x0e]), B);
    let cases = [
        (Vec::new(), "inner_runt"),
        (vec![2; 9], "inner_runt"),
        (inner(A, B)[..13].to_vec(), "inner_runt"),
        (tagged([0x81, 0]), "inner_tag"),
        (tagged([0x88, 0xa8]), "inner_tag"),
        // A frame of the underlay's own: our tunnel packets, sent back into a tunnel.
        (inner(A, VTEP_MAC), "nested_tunnel"),
        (inner(VTEP_MAC, B), "nested_tunnel"),
        (packet(inner(A, B)).bytes(), "nested_tunnel"),
        (packet(inner(A, B)).ours(PEER).bytes(), "nested_tunnel"),
        (inner(A, BROADCAST), "source_multicast"),
        (inner(A, Mac([0; 6])), "source_zero"),
        (reserved, "reserved_mac"),
        (bad_length, "bad_length"),
        ([&inner(A, B)[..], &vec![0; 1405]].concat(), "giant"),
    ];
    for (text, peer) in [(BLUE.to_owned(), PEER), (blue6(), PEER6)] {
        let mut switch = started(&text);
        for (inner, reason) in cases.clone() {
            let packet = if peer == PEER { packet(inner.clone()) } else { packet6(inner.clone()) };
            let (len, outer) = (inner.len(), packet.bytes().len());
            // Where there is no byte at all, only frames are counted.
            let bytes = if len == 0 { String::new() } else { format!("rx_bytes {len}, ") };
            switch.send("overlay", packet.bytes());
            println!("{len} bytes, {reason}");
            switch.expect_counters(&format!(
                "overlay: rx_frames 1, rx_bytes {outer}, consumed 1; {peer}: rx_frames 1, {bytes}{reason} 1"
            ));
        }
        switch.expect_nothing("a");
    }
}

/// An inner packet may be a tunnel's of someone else: guests may run VXLAN of their own.
#[test]
fn guests_may_have_tunnels_of_their_own() {
    let mut switch = blue();
    let theirs = Packet { macs: [A, B], ..packet(inner(C, mac(9))) }.from("10.0.0.2").to("10.0.0.1").bytes();
    switch.send("overlay", packet(theirs.clone()).bytes());
    switch.expect("a", theirs);
    switch.forget();
}

/// RFC 7348, section 5: reserved bits are ignored on receipt.
#[test]
fn a_reserved_bit_changes_nothing() {
    for (text, packet) in [(BLUE.to_owned(), packet(inner(A, B))), (blue6(), packet6(inner(A, B)))] {
        let mut switch = started(&text);
        let at = packet.udp() + 8;
        let mut bytes = packet.flags(0xff).bytes();
        bytes[at + 1..at + 4].copy_from_slice(&[0xff; 3]);
        bytes[at + 7] = 0xff;
        switch.send("overlay", bytes);
        switch.expect("a", inner(A, B));
        switch.forget();
    }
}

/// IP options are allowed, and passed over.
#[test]
fn ip_options_are_no_fault() {
    let mut switch = blue();
    let mut bytes = packet(inner(A, B)).bytes();
    bytes.splice(34..34, [1, 1, 1, 0]);
    bytes[14] = 0x46;
    bytes[16..18].copy_from_slice(&100u16.to_be_bytes());
    bytes[24..26].copy_from_slice(&[0, 0]);
    let sum = Sum::of(&bytes[14..38]).checksum().to_be_bytes();
    bytes[24..26].copy_from_slice(&sum);
    switch.send("overlay", bytes);
    switch.expect("a", inner(A, B));
    switch.forget();
}

/// What Ethernet adds to short frames belongs to nobody.
#[test]
fn padding_does_not_come_out() {
    let mut switch = blue();
    let short = inner(A, B)[..14].to_vec();
    let mut bytes = packet(short.clone()).bytes();
    bytes.extend([0xee; 60]);
    switch.send("overlay", bytes);
    switch.expect("a", short);
    switch.expect_counters(
        "overlay: rx_frames 1, rx_bytes 124, consumed 1; 192.0.2.11: rx_frames 1, rx_bytes 14, forwarded 1; \
         a: tx_frames 1, tx_bytes 14",
    );
}

/// Every bit of a packet flipped by itself, and every length: nothing is lost, and nothing comes out in `red`.
#[test]
fn no_bit_leads_into_another_network() {
    for (text, packet) in [(BLUE.to_owned(), packet(inner(A, B))), (blue6(), packet6(inner(A, B)))] {
        let red = RED.replace("192.0.2.12", if text == BLUE { PEER } else { PEER6 });
        let mut switch = resolved(Build::from(&format!("{text}{red}")).caps("a", PLAIN));
        let good = packet.bytes();
        let header = packet.udp() + 16;
        for bit in 0..(header + 14) * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 0x80 >> (bit % 8);
            switch.send("overlay", bytes);
            switch.expect_nothing("r");
        }
        for len in 0..good.len() {
            switch.send("overlay", good[..len].to_vec());
            switch.expect_nothing("r");
        }
        let other = Packet { vni: 2002, ..packet }.bytes();
        switch.send("overlay", other);
        switch.expect("r", inner(A, B));
        switch.forget();
    }
}

/// The host of the underlay sees what is no tunnel's: broken IP in it is no reason to answer.
#[test]
fn broken_packets_are_not_answered() {
    let mut switch = blue();
    let mut ping = spec(&format!(
        "eth src={PEER_MAC} dst={VTEP_MAC} ip src={PEER} dst={LOCAL} icmp echo id=1 seq=1 len=8"
    ))
    .bytes;
    *ping.last_mut().unwrap() ^= 1;
    ends(&mut switch, ping, "underlay_other");
    switch.expect_nothing("overlay");
}
