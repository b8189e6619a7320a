//! RFC 7857, updates to the requirements for NATs, section by section.

use super::*;

/// Whether a segment from the world still arrives after so many seconds.
fn arrives_after(sw: &mut Switch, seconds: u64, tcp: &str) -> bool {
    wait(sw, seconds);
    sw.send("w", from_world(&format!("ip src=198.51.100.9 dst=203.0.113.100 tcp sport=80 dport=4000 {tcp}")));
    let arrived = sw.take_all("a").len();
    sw.forget();
    arrived == 1
}

#[test]
fn section_2_1_a_connection_that_both_have_closed_is_kept_for_four_minutes() {
    for (seconds, lives) in [(239, true), (240, false)] {
        let mut sw = settled(EDGE);
        open_connection(&mut sw);
        for (from_a, tcp) in [
            (true, "flags=FA seq=101 ack=501"),
            (false, "flags=FA seq=501 ack=102"),
            (true, "flags=A seq=102 ack=502"),
        ] {
            step(&mut sw, from_a, tcp);
        }
        // The last acknowledgement was lost.
        assert_eq!(arrives_after(&mut sw, seconds, "flags=FA seq=501 ack=102"), lives, "{seconds} s");
    }
}

#[test]
fn section_2_1_one_that_one_side_has_closed_lives_as_before() {
    let mut sw = settled(EDGE);
    open_connection(&mut sw);
    step(&mut sw, true, "flags=FA seq=101 ack=501");
    step(&mut sw, false, "flags=A seq=501 ack=102");
    assert!(arrives_after(&mut sw, 7000, "flags=A seq=501 ack=102 len=9"));
}

#[test]
fn section_2_2_a_reset_in_the_window_ends_it_after_four_minutes() {
    for (seconds, lives) in [(239, true), (240, false)] {
        let mut sw = settled(EDGE);
        open_connection(&mut sw);
        step(&mut sw, true, "flags=R seq=101");
        assert_eq!(arrives_after(&mut sw, seconds, "flags=A seq=501 ack=101 len=1"), lives, "{seconds} s");
    }
}

#[test]
fn section_2_2_a_reset_outside_of_the_window_does_not() {
    let mut sw = settled(EDGE);
    open_connection(&mut sw);
    sw.send(
        "w",
        from_world("ip src=198.51.100.9 dst=203.0.113.100 tcp sport=80 dport=4000 flags=R seq=4000000000"),
    );
    sw.expect_nothing("a");
    assert!(arrives_after(&mut sw, 7000, "flags=A seq=501 ack=101 len=1"));
}

/// Section 5: a mapping for one protocol is none for another.
#[test]
fn section_5_mappings_of_protocols_are_their_own() {
    let mut sw = settled(EDGE);
    sw.send("a", out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 udp sport=4000 dport=53"));
    sw.send("b", out_of(B, "ip src=10.0.0.11 dst=198.51.100.9 tcp sport=4000 dport=53 flags=S seq=1"));
    let ports: Vec<u16> = sw.take_all("w").iter().map(|frame| word(&frame.bytes, 34)).collect();
    assert_eq!(ports, [4000, 4000], "each is the first of its protocol there");
    sw.send(
        "w",
        from_world("ip src=198.51.100.9 dst=203.0.113.100 tcp sport=53 dport=4000 flags=SA seq=1 ack=2"),
    );
    assert_eq!((sw.take_all("a").len(), sw.take_all("b").len()), (0, 1));
    sw.forget();
}

/// Section 6: inbound packets do not keep it, whatever they are; also in RFC 4787, REQ-6. ICMP errors do not either.
#[test]
fn section_6_errors_from_the_world_keep_nothing_alive() {
    let mut sw = settled(EDGE);
    sw.send("a", out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 udp sport=4000 dport=53"));
    let sent = sw.take("w");
    wait(&mut sw, 290);
    sw.send("w", world_frame(&told([192, 0, 2, 254], (3, 1), &sent)));
    assert_eq!(sw.take_all("a").len(), 1);
    wait(&mut sw, 10);
    sw.send("w", from_world("ip src=198.51.100.9 dst=203.0.113.100 udp sport=53 dport=4000"));
    sw.expect_nothing("a");
    sw.forget();
}
