//! RFC 1812, requirements for IP version 4 routers, section by section: `s4_3_2_7_…` shows a rule of section 4.3.2.7.

use super::*;

#[test]
fn s5_3_1_a_packet_whose_ttl_ends_here_is_told_about() {
    let mut sw = settled(TWO);
    sw.send(
        "a",
        spec(&format!("eth src={A} dst={RED} ip src=10.0.1.10 dst=10.0.2.11 ttl=1 udp sport=1 dport=2")),
    );
    sw.expect_nothing("b");
    let told = sw.take("a");
    assert_eq!((told.bytes[23], told.bytes[34], told.bytes[35]), (1, 11, 0), "ICMP time exceeded");
    assert_eq!(told.bytes[26..34], [10, 0, 1, 1, 10, 0, 1, 10]);
    sw.advance(secs(0));
    sw.expect_counters(
        "a: rx_frames 1, rx_bytes 42, forwarded 1, tx_frames 1, tx_bytes 70; \
         r/red-v4: tx_frames 1, tx_bytes 42, rx_frames 1, rx_bytes 70, forwarded 1, ttl_exceeded 1",
    );
}

#[test]
fn s4_3_2_8_errors_are_limited_for_each_interface() {
    let mut sw = settled(TWO);
    for _ in 0..80 {
        sw.send("a", spec(&format!("eth src={A} dst={RED} ip src=10.0.1.10 dst=192.0.2.1 udp")));
    }
    assert_eq!(sw.take_all("a").len(), 50);
    sw.send("b", spec(&format!("eth src={B} dst={BLUE} ip src=10.0.2.11 dst=192.0.2.1 udp")));
    assert_eq!(sw.take_all("b").len(), 1, "another's has its own");
    sw.forget();
}

#[test]
fn s4_3_3_1_a_host_that_does_not_answer_is_told_about() {
    let mut sw = settled(TWO);
    sw.send("a", spec(&format!("eth src={A} dst={RED} ip src=10.0.1.10 dst=10.0.2.50 udp sport=1")));
    for _ in 0..4 {
        sw.advance(secs(1));
        sw.settle();
    }
    let told = sw.take("a");
    assert_eq!(told.bytes[..12], [A.0, mac_of(RED).0].concat());
    assert_eq!((told.bytes[34], told.bytes[35]), (3, 1), "host unreachable");
    sw.forget();
}

#[test]
fn s4_3_3_6_the_gateway_answers_ping_on_every_side() {
    let mut sw = settled(TWO);
    for address in ["10.0.1.1", "10.0.2.1"] {
        sw.send(
            "a",
            spec(&format!(
                "eth src={A} dst={RED} ip src=10.0.1.10 dst={address} icmp echo id=7 seq=1 len=20"
            )),
        );
        let reply = sw.take("a");
        assert_eq!(reply.bytes[..12], [A.0, mac_of(RED).0].concat());
        assert_eq!(reply.bytes[26..30], address.parse::<std::net::Ipv4Addr>().unwrap().octets());
        assert_eq!(reply.bytes[34], 0, "an echo reply");
    }
    sw.advance(secs(0));
    sw.expect_counters(
        "a: rx_frames 2, rx_bytes 124, forwarded 2, tx_frames 2, tx_bytes 124; \
         r/red-v4: tx_frames 2, tx_bytes 124, rx_frames 2, rx_bytes 124, forwarded 2, answered 2",
    );
}

fn red() -> Mac {
    mac_of(RED)
}

fn to_b(fields: &str) -> Wire {
    spec(&format!("eth src={A} dst={RED} ip src=10.0.1.10 {fields}"))
}

/// With other bytes at a place in the IP header, whose checksum is right again.
fn with(frame: Wire, at: usize, bytes: &[u8]) -> Wire {
    let mut frame = frame.patch(14 + at, bytes);
    seal(&mut frame.bytes[14..]);
    frame
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
        "a: rx_frames 1, rx_bytes {len}, forwarded 1; r/red-v4: tx_frames 1, tx_bytes {len}, {reason} 1"
    ));
}

/// What guest `a` is told about its frame.
#[track_caller]
fn told(frame: Wire) -> Vec<u8> {
    let mut sw = settled(TWO);
    sw.send("a", frame);
    let told = sw.take("a").bytes;
    sw.forget();
    assert_eq!(told[..14], [&A.0[..], &red().0, &[8, 0]].concat());
    verify(&told[14..]);
    told[14..].to_vec()
}

#[test]
fn s4_3_2_3_an_error_quotes_what_fits_into_576_bytes() {
    let long = told(to_b("dst=192.0.2.1 udp len=1000"));
    assert_eq!(long.len(), 576);
    let short = to_b("dst=192.0.2.1 udp len=100");
    assert_eq!(told(short.clone())[28..], short.bytes[14..]);
}

#[test]
fn s4_3_2_4_an_error_comes_from_the_interface_that_its_cause_came_by() {
    assert_eq!(told(to_b("dst=192.0.2.1 udp"))[12..20], [10, 0, 1, 1, 10, 0, 1, 10]);
}

#[test]
fn s4_3_2_5_an_error_has_the_precedence_of_internetwork_control() {
    assert_eq!(told(to_b("dst=192.0.2.1 udp"))[1], 0xc0);
}

#[test]
fn s4_3_2_7_nobody_is_told_about_errors() {
    for kind in [3, 4, 5, 11, 12] {
        let error = icmp_error(([10, 0, 1, 10], [192, 0, 2, 1]), (kind, 0), [0; 4], &[0x45; 28]);
        ends_in(framed(A, red(), &error), "no_route");
    }
    // A question is none.
    assert_eq!(told(to_b("dst=192.0.2.1 icmp echo id=1"))[20..22], [3, 0]);
}

#[test]
fn s4_3_2_7_nobody_is_told_about_later_fragments() {
    ends_in(with(to_b("dst=192.0.2.1 udp len=16"), 6, &[0, 5]), "no_route");
    assert_eq!(
        told(with(to_b("dst=192.0.2.1 udp len=16"), 6, &[0x20, 0]))[20..22],
        [3, 0],
        "the first one is"
    );
}

/// Groups, broadcasts, and what came from no single host: each of those ends before a route is looked for.
#[test]
fn s4_3_2_7_nobody_is_told_about_groups_and_broadcasts() {
    ends_in(to_b("dst=224.0.0.251 ttl=1 udp"), "not_unicast");
    ends_in(to_b("dst=10.0.2.255 ttl=1 udp"), "directed_broadcast");
    ends_in(to_b("dst=255.255.255.255 ttl=1 udp"), "martian_destination");
    for source in [[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 1], [240, 0, 0, 1], [255; 4]] {
        ends_in(with(to_b("dst=192.0.2.1 udp"), 12, &source), "martian_source");
    }
}

#[test]
fn s4_3_3_1_no_route_is_network_unreachable() {
    assert_eq!(told(to_b("dst=192.0.2.1 udp"))[20..22], [3, 0]);
}

#[test]
fn s4_3_3_1_what_the_router_itself_does_not_serve_is_unreachable() {
    assert_eq!(told(to_b("dst=10.0.1.1 udp dport=53"))[20..22], [3, 3], "port");
    assert_eq!(told(to_b("dst=10.0.1.1 proto=47 len=30"))[20..22], [3, 2], "protocol");
}

#[test]
fn s4_3_3_5_malformed_options_are_a_parameter_problem() {
    for (options, at) in [([7u8, 1, 0, 0], 20), ([1, 1, 7, 3], 22), ([7, 9, 4, 0], 20)] {
        let packet = with_options(&to_b("dst=10.0.2.11 udp").bytes[14..], &options);
        let heard = told(framed(A, red(), &packet));
        assert_eq!((heard[20], heard[21], heard[24]), (12, 0, at), "{options:?}");
    }
}

#[test]
fn s5_2_2_a_header_that_is_not_sound_ends_in_silence() {
    let good = || to_b("dst=10.0.2.11 udp len=30");
    ends_in(good().patch(14 + 10, &[0, 0]), "ip_checksum");
    ends_in(with(good(), 0, &[0x65]), "ip_version");
    ends_in(good().patch(14, &[0x44]), "ip_length");
    ends_in(with(good(), 2, &[0, 19]), "ip_length");
    ends_in(with(good(), 2, &[0, 200]), "ip_length");
}

#[test]
fn s5_2_4_3_the_longest_prefix_counts() {
    let more = TWO.replace(
        "routes = [",
        "routes = [{ destination = \"10.9.9.0/24\", nexthop = \"10.0.2.11\" }, { destination = \"0.0.0.0/0\", nexthop = \"10.0.1.10\" }, ",
    );
    let mut sw = settled(&more);
    sw.send("c", spec(&format!("eth src={C} dst={BLUE} arp reply 10.0.2.77 is-at {C} to=10.0.2.1")));
    for (destination, port) in [("10.9.9.1", "b"), ("10.9.8.1", "c"), ("10.9.10.0", "c"), ("10.9.9.255", "b")]
    {
        sw.send("a", to_b(&format!("dst={destination} udp")));
        assert_eq!(sw.take_all(port).len(), 1, "{destination}");
    }
    sw.send("b", spec(&format!("eth src={B} dst={BLUE} ip src=10.0.2.11 dst=198.51.100.1 udp")));
    assert_eq!(sw.take_all("a").len(), 1, "all else");
    sw.forget();
}

#[test]
fn s5_3_1_a_ttl_of_zero_does_not_pass() {
    assert_eq!(told(to_b("dst=10.0.2.11 ttl=0 udp"))[20..22], [11, 0]);
}

#[test]
fn s5_3_1_a_packet_for_the_router_may_have_come_to_its_last_hop() {
    let reply = told(to_b("dst=10.0.1.1 ttl=1 icmp echo id=3"));
    assert_eq!((reply[20], &reply[12..16]), (0, &[10, 0, 1, 1][..]));
}

#[test]
fn s5_3_1_the_ttl_is_looked_at_before_the_length() {
    assert_eq!(told(to_b("dst=10.0.2.11 ttl=1 udp len=1400"))[20..22], [11, 0]);
}

#[test]
fn s5_3_5_broadcasts_are_not_forwarded() {
    ends_in(to_b("dst=10.0.2.255 udp"), "directed_broadcast");
    ends_in(to_b("dst=10.0.2.0 udp"), "directed_broadcast");
    ends_in(to_b("dst=255.255.255.255 udp"), "martian_destination");
}

#[test]
fn s5_3_7_martians_are_not_forwarded() {
    for source in [[0, 1, 2, 3], [127, 9, 9, 9], [239, 1, 1, 1], [241, 0, 0, 1], [255; 4]] {
        ends_in(with(to_b("dst=10.0.2.11 udp"), 12, &source), "martian_source");
    }
    for destination in [[0, 1, 2, 3], [127, 0, 0, 1], [250, 0, 0, 1]] {
        ends_in(with(to_b("dst=10.0.2.11 udp"), 16, &destination), "martian_destination");
    }
    ends_in(with(to_b("dst=10.0.2.11 udp"), 12, &[10, 0, 2, 11]), "land");
    // RFC 3927, 2.7.
    ends_in(with(to_b("dst=10.0.2.11 udp"), 12, &[169, 254, 1, 1]), "link_local");
}

#[test]
fn s5_3_13_3_source_routes_are_refused() {
    for option in [131, 137] {
        let options = [option, 7, 4, 10, 0, 2, 11, 0];
        let packet = with_options(&to_b("dst=10.0.2.1 udp").bytes[14..], &options);
        ends_in(framed(A, red(), &packet), "source_route");
    }
}

#[test]
fn s5_3_13_4_other_options_pass_as_they_came() {
    let mut sw = settled(TWO);
    for options in
        [&[7u8, 7, 4, 0, 0, 0, 0, 0][..], &[0x44, 8, 5, 0, 0, 0, 0, 0], &[0x94, 4, 0, 0], &[1, 1, 1, 0]]
    {
        let packet = with_options(&to_b("dst=10.0.2.11 udp sport=1 dport=2 len=9").bytes[14..], options);
        sw.send("a", framed(A, red(), &packet));
        let got = sw.take("b").bytes[14..].to_vec();
        verify(&got);
        assert_eq!(got[20..], packet[20..]);
    }
    sw.forget();
}
