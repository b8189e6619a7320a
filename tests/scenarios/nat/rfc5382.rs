//! RFC 5382, NAT for TCP, requirement by requirement.

use super::*;

#[test]
fn req4_an_unasked_syn_is_dropped_in_silence() {
    let mut sw = settled(EDGE);
    sw.send("w", from_world("ip src=198.51.100.9 dst=203.0.113.100 tcp sport=54 dport=4000 flags=S"));
    sw.expect_nothing("w");
    sw.expect_nothing("a");
    sw.forget();
}

#[test]
fn req2_a_connection_opens_and_closes_through_snat() {
    let mut sw = settled(EDGE);
    for (from_a, tcp) in [
        (true, "flags=S seq=100"),
        (false, "flags=SA seq=500 ack=101"),
        (true, "flags=A seq=101 ack=501 len=10"),
        (false, "flags=FA seq=501 ack=111"),
        (true, "flags=FA seq=111 ack=502"),
        (false, "flags=A seq=502 ack=112"),
    ] {
        step(&mut sw, from_a, tcp);
    }
}

#[test]
fn req1_mapping_is_independent_of_the_endpoint() {
    let mut sw = settled(EDGE);
    sw.send("b", out_of(B, "ip src=10.0.0.11 dst=198.51.100.9 tcp sport=4000 dport=80 flags=S seq=1"));
    sw.send("a", out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 tcp sport=4000 dport=80 flags=S seq=1"));
    sw.send("a", out_of(A, "ip src=10.0.0.10 dst=192.0.2.77 tcp sport=4000 dport=443 flags=S seq=1"));
    let ports: Vec<u16> = sw.take_all("w").iter().map(|frame| word(&frame.bytes, 34)).collect();
    assert_eq!(ports[1], ports[2]);
    assert_ne!(ports[0], ports[1], "REQ-7: and no port is overloaded");
    sw.forget();
}

#[test]
fn req2_a_simultaneous_open() {
    let mut sw = settled(EDGE);
    for (from_a, tcp) in [
        (true, "flags=S seq=100"),
        (false, "flags=S seq=500"),
        (true, "flags=SA seq=100 ack=501"),
        (false, "flags=SA seq=500 ack=101"),
        (true, "flags=A seq=101 ack=501 len=10"),
        (false, "flags=A seq=501 ack=111 len=10"),
    ] {
        step(&mut sw, from_a, tcp);
    }
}

#[test]
fn req2_half_closed_connections_carry_data() {
    let mut sw = settled(EDGE);
    open_connection(&mut sw);
    for (from_a, tcp) in [
        (true, "flags=FA seq=101 ack=501"),
        (false, "flags=A seq=501 ack=102 len=1000"),
        (true, "flags=A seq=102 ack=1501"),
        (false, "flags=FA seq=1501 ack=102"),
        (true, "flags=A seq=102 ack=1502"),
    ] {
        step(&mut sw, from_a, tcp);
    }
}

#[test]
fn req3_filtering_may_be_independent_of_the_endpoint() {
    let open =
        EDGE.replace("name = \"edge\"\n", "name = \"edge\"\nnat_filtering = \"endpoint-independent\"\n");
    let mut sw = settled(&open);
    sw.send("a", out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 tcp sport=4000 dport=80 flags=S seq=1"));
    sw.take("w");
    sw.send("w", from_world("ip src=192.0.2.77 dst=203.0.113.100 tcp sport=5 dport=4000 flags=S seq=9"));
    sw.expect("a", into(A, "ip src=192.0.2.77 dst=10.0.0.10 ttl=63 tcp sport=5 dport=4000 flags=S seq=9"));
    sw.forget();
}

#[test]
fn req4_nothing_is_said_about_an_unasked_syn_later_either() {
    let mut sw = settled(EDGE);
    sw.send("w", from_world("ip src=198.51.100.9 dst=203.0.113.100 tcp sport=54 dport=4000 flags=S"));
    for _ in 0..20 {
        sw.advance(secs(1));
        sw.settle();
    }
    assert!(sw.take_all("w").iter().all(|frame| word(&frame.bytes, 12) == 0x0806), "questions for MACs only");
    sw.forget();
}

/// Whether a segment from the world still arrives after so many seconds.
fn arrives_after(sw: &mut Switch, seconds: u64, tcp: &str) -> bool {
    wait(sw, seconds);
    sw.send("w", from_world(&format!("ip src=198.51.100.9 dst=203.0.113.100 tcp sport=80 dport=4000 {tcp}")));
    let arrived = sw.take_all("a").len();
    sw.forget();
    arrived == 1
}

#[test]
fn req5_an_established_connection_may_be_idle_for_two_hours_and_four_minutes() {
    for (seconds, lives) in [(7439, true), (7440, false)] {
        let mut sw = settled(EDGE);
        open_connection(&mut sw);
        assert_eq!(arrives_after(&mut sw, seconds, "flags=A seq=501 ack=101 len=1"), lives, "{seconds} s");
    }
}

#[test]
fn req5_one_that_is_not_yet_open_for_four_minutes() {
    for (seconds, lives) in [(239, true), (240, false)] {
        let mut sw = settled(EDGE);
        sw.send("a", out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 tcp sport=4000 dport=80 flags=S seq=100"));
        assert_eq!(arrives_after(&mut sw, seconds, "flags=SA seq=500 ack=101"), lives, "{seconds} s");
    }
}

#[test]
fn req6_no_gateway_changes_what_applications_say() {
    let mut sw = settled(EDGE);
    open_connection(&mut sw);
    let said = b"PORT 10,0,0,10,15,160\r\n";
    let tcp = "tcp sport=4000 dport=80 flags=PA seq=101 ack=501";
    sw.send("a", carrying(out_of(A, &format!("ip src=10.0.0.10 dst=198.51.100.9 {tcp}")), said));
    sw.expect("w", carrying(to_world(&format!("ip src=203.0.113.100 dst=198.51.100.9 ttl=63 {tcp}")), said));
    sw.forget();
}

#[test]
fn req8_hairpinning_shows_the_outside_endpoint() {
    let mut sw = settled(&format!("{EDGE}{FORWARDED}"));
    let steps = [
        (true, "flags=S seq=100"),
        (false, "flags=SA seq=500 ack=101"),
        (true, "flags=A seq=101 ack=501 len=10"),
        (false, "flags=A seq=501 ack=111 len=20"),
    ];
    for (from_a, tcp) in steps {
        if from_a {
            sw.send(
                "a",
                out_of(A, &format!("ip src=10.0.0.10 dst=203.0.113.151 tcp sport=4000 dport=8080 {tcp}")),
            );
            sw.expect(
                "b",
                into(B, &format!("ip src=203.0.113.100 dst=10.0.0.11 ttl=63 tcp sport=4000 dport=80 {tcp}")),
            );
        } else {
            sw.send(
                "b",
                out_of(B, &format!("ip src=10.0.0.11 dst=203.0.113.100 tcp sport=80 dport=4000 {tcp}")),
            );
            sw.expect(
                "a",
                into(
                    A,
                    &format!("ip src=203.0.113.151 dst=10.0.0.10 ttl=63 tcp sport=8080 dport=4000 {tcp}"),
                ),
            );
        }
    }
    sw.forget();
}

#[test]
fn req9_and_req10_icmp_is_translated_and_ends_no_connection() {
    let mut sw = settled(EDGE);
    open_connection(&mut sw);
    sw.send(
        "a",
        out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 tcp sport=4000 dport=80 flags=A seq=101 ack=501 len=10"),
    );
    let sent = sw.take("w");
    for kind in [(3, 4), (3, 3), (3, 2), (3, 1), (11, 0)] {
        sw.send("w", world_frame(&told([192, 0, 2, 254], kind, &sent)));
        let heard = sw.take("a").bytes;
        verify(&heard[14..]);
        assert_eq!((heard[34], heard[35]), kind);
        assert_eq!(
            heard[54..66],
            [10, 0, 0, 10, 198, 51, 100, 9, 0x0f, 0xa0, 0, 80],
            "what the guest has sent"
        );
    }
    assert!(arrives_after(&mut sw, 7000, "flags=A seq=501 ack=111 len=1"));
}
