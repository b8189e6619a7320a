//! RFC 4443, ICMPv6, section by section: `s2_4_e_…` shows a rule of section 2.4(e). Headers are RFC 8200's.

use super::*;

fn to_b(fields: &str) -> Wire {
    spec(&format!("eth src={A} dst={RED6} ip src=2001:db8:1::10 {fields}"))
}

/// The frame ends in this reason, and nobody is told.
#[track_caller]
fn ends_in(frame: Wire, reason: &str) {
    let mut sw = settled(TWO);
    let len = frame.len();
    sw.send("a", frame);
    for port in ["a", "b", "c"] {
        sw.expect_nothing(port);
    }
    sw.advance(secs(0));
    sw.expect_counters(&format!(
        "a: rx_frames 1, rx_bytes {len}, forwarded 1; r/red-v6: tx_frames 1, tx_bytes {len}, {reason} 1"
    ));
}

/// The ICMPv6 message that guest `a` gets about its frame, from the IPv6 header on; sound.
#[track_caller]
fn told(frame: Wire) -> Vec<u8> {
    let mut sw = settled(TWO);
    sw.send("a", frame);
    let told = sw.take("a").bytes;
    sw.forget();
    assert_eq!(told[..14], [&A.0[..], &mac_of(RED6).0, &[0x86, 0xdd]].concat());
    let packet = told[14..].to_vec();
    assert_eq!(usize::from(word(&packet, 4)) + 40, packet.len(), "length");
    assert_eq!(checksum(&[&packet[8..40], &packet[4..6], &[0, 58], &packet[40..]]), 0, "checksum");
    packet
}

const ROUTER: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

#[test]
fn s2_2_an_error_comes_from_an_address_of_the_router() {
    let heard = told(to_b("dst=2001:db8:ff::1 udp"));
    assert_eq!(heard[8..24], ROUTER);
    assert_eq!(heard[24..40], to_b("dst=2001:db8:ff::1 udp").bytes[22..38], "to who sent the packet");
}

#[test]
fn s2_4_c_an_error_has_the_least_mtu_at_most() {
    assert_eq!(told(to_b("dst=2001:db8:ff::1 udp len=1400")).len(), 1280);
    let short = to_b("dst=2001:db8:ff::1 udp len=100");
    assert_eq!(told(short.clone())[48..], short.bytes[14..], "and else quotes all");
}

/// An ICMPv6 message of this type, to nowhere.
fn message(kind: u8) -> Wire {
    let mut frame = to_b("dst=2001:db8:ff::1 icmp echo id=1 len=60");
    frame.bytes[54] = kind;
    frame
}

#[test]
fn s2_4_e_nobody_is_told_about_errors_and_redirects() {
    for kind in [1, 2, 3, 4, 100, 127, 137] {
        ends_in(message(kind), "no_route");
    }
    assert_eq!(told(message(128))[40..42], [1, 0], "a question is none");
}

#[test]
fn s2_4_e_nobody_is_told_about_groups() {
    ends_in(to_b("dst=ff0e::1 ttl=1 udp"), "not_unicast");
    // A group of the link layer: the switch's own router does not even get it.
    let mut sw = settled(TWO);
    sw.send("a", to_b("dst=2001:db8:ff::1 udp").patch(0, &[0x33, 0x33, 0, 0, 0, 1]));
    sw.expect_nothing("a");
    sw.forget();
}

#[test]
fn s2_4_e_nobody_is_told_who_is_no_single_host() {
    for source in [[0u8; 16], [0xff, 0xe, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]] {
        ends_in(to_b("dst=2001:db8:ff::1 udp").patch(22, &source), "martian_source");
    }
}

#[test]
fn s2_4_e_nobody_is_told_about_later_fragments() {
    let fragment = |offset: u8| {
        let mut frame = to_b("dst=2001:db8:ff::1 udp len=8");
        let header = [17, 0, 0, offset, 0, 0, 0, 9];
        frame.bytes.splice(54..54, header);
        frame.patch(18, &[0, 24]).patch(20, &[44])
    };
    ends_in(fragment(8), "no_route");
    assert_eq!(told(fragment(1))[40..42], [1, 0], "about the first one it may");
}

#[test]
fn s2_4_f_errors_are_limited() {
    let mut sw = settled(TWO);
    for _ in 0..80 {
        sw.send("a", to_b("dst=2001:db8:ff::1 udp"));
    }
    assert_eq!(sw.take_all("a").len(), 50);
    sw.advance(secs(1));
    sw.send("a", to_b("dst=2001:db8:ff::1 udp"));
    assert_eq!(sw.take_all("a").len(), 1, "there is more after a while");
    sw.forget();
}

#[test]
fn s3_1_no_route() {
    assert_eq!(told(to_b("dst=2001:db8:ff::1 udp"))[40..42], [1, 0]);
}

#[test]
fn s3_1_a_host_that_does_not_answer() {
    let mut sw = settled(TWO);
    sw.send("a", to_b("dst=2001:db8:2::99 udp"));
    for _ in 0..4 {
        sw.advance(secs(1));
        sw.settle();
    }
    assert_eq!(sw.take("a").bytes[54..56], [1, 3], "address unreachable");
    sw.forget();
}

#[test]
fn s3_1_a_port_of_the_routers_own() {
    assert_eq!(told(to_b("dst=2001:db8:1::1 udp dport=53"))[40..42], [1, 4]);
}

#[test]
fn s3_2_packet_too_big_tells_the_mtu() {
    let heard = told(to_b("dst=2001:db8:2::11 udp len=1400"));
    assert_eq!(heard[40..42], [2, 0]);
    assert_eq!(heard[44..48], 1400u32.to_be_bytes());
}

#[test]
fn s3_3_a_hop_limit_that_ends_here() {
    for hops in [0, 1] {
        assert_eq!(told(to_b(&format!("dst=2001:db8:2::11 ttl={hops} udp")))[40..42], [3, 0]);
    }
}

#[test]
fn s3_4_a_next_header_that_the_router_does_not_speak() {
    let heard = told(to_b("dst=2001:db8:1::1 proto=47 len=30"));
    assert_eq!((&heard[40..42], &heard[44..48]), (&[4, 1][..], &6u32.to_be_bytes()[..]));
}

#[test]
fn s4_2_the_router_answers_echo_requests() {
    let reply = told(to_b("dst=2001:db8:1::1 ttl=1 icmp echo id=3 seq=4 len=20"));
    assert_eq!((&reply[40..42], &reply[8..24], word(&reply, 44)), (&[129, 0][..], &ROUTER[..], 3));
}

/// RFC 5095, 3: whether it is used up or not.
#[test]
fn rfc5095_routing_headers_of_type_0_are_refused() {
    for left in [0, 1] {
        let mut frame = to_b("dst=2001:db8:2::11 udp len=8");
        let mut header = [0u8; 24];
        header[..4].copy_from_slice(&[17, 2, 0, left]);
        frame.bytes.splice(54..54, header);
        ends_in(frame.patch(18, &[0, 40]).patch(20, &[43]), "routing_header");
    }
}

/// RFC 4291, 2.5.6: they do not leave their link.
#[test]
fn rfc4291_link_local_addresses_do_not_leave_their_link() {
    let link_local = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
    ends_in(to_b("dst=2001:db8:2::11 udp").patch(22, &link_local), "link_local");
    ends_in(to_b("dst=2001:db8:2::11 udp").patch(38, &link_local), "link_local");
}

/// RFC 5722 is about those who put packets together; a router that does not translate passes fragments as they come.
#[test]
fn rfc5722_fragments_pass_untouched() {
    let mut sw = settled(TWO);
    for (offset, more) in [(0u8, 1u8), (8, 1), (8, 0), (16, 0)] {
        let mut frame = to_b("dst=2001:db8:2::11 udp len=8");
        frame.bytes.splice(54..54, [17, 0, 0, offset | more, 0, 0, 0, 9]);
        let frame = frame.patch(18, &[0, 24]).patch(20, &[44]);
        sw.send("a", frame.clone());
        assert_eq!(sw.take("b").bytes[22..], frame.bytes[22..]);
    }
    sw.forget();
}
