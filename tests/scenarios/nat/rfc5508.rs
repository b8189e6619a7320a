//! RFC 5508, NAT for ICMP, requirement by requirement. REQ-9 is a policy that we do not have.

use super::*;

#[test]
fn req4_an_error_from_the_world_finds_the_guest() {
    let mut sw = settled(EDGE);
    sw.send("a", out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 udp sport=4000 dport=53 len=20"));
    let sent = sw.take("w");
    // A router on the way says that the TTL has ended: it quotes what it got.
    let quote: Vec<u8> = sent.bytes[14..14 + 28].to_vec();
    let mut error =
        spec(&format!("eth src={W} dst={EDGE_MAC} ip src=192.0.2.254 dst=203.0.113.100 icmp echo len=28"))
            .bytes;
    error[34..42].copy_from_slice(&[11, 0, 0, 0, 0, 0, 0, 0]);
    error[42..70].copy_from_slice(&quote);
    let sum = checksum(&[&error[34..70]]);
    error[36..38].copy_from_slice(&sum.to_be_bytes());
    sw.send("w", error);
    let told = sw.take("a").bytes;
    assert_eq!(told[26..34], [192, 0, 2, 254, 10, 0, 0, 10]);
    assert_eq!(told[42 + 12..42 + 20], [10, 0, 0, 10, 198, 51, 100, 9], "what the guest has sent");
    assert_eq!(told[42 + 20..42 + 22], 4000u16.to_be_bytes());
    assert_eq!(checksum(&[&told[34..70]]), 0);
    assert_eq!(checksum(&[&told[14..34]]), 0);
    assert_eq!(checksum(&[&told[42..62]]), 0, "the quoted header's too");
    sw.forget();
}

#[test]
fn req1_an_identifier_is_the_same_outside_towards_everybody() {
    let mut sw = settled(EDGE);
    sw.send("a", out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 icmp echo id=7 seq=1"));
    sw.send("b", out_of(B, "ip src=10.0.0.11 dst=198.51.100.9 icmp echo id=7 seq=1"));
    sw.send("b", out_of(B, "ip src=10.0.0.11 dst=192.0.2.77 icmp echo id=7 seq=1"));
    let ids: Vec<u16> = sw.take_all("w").iter().map(|frame| word(&frame.bytes, 38)).collect();
    assert!(ids[0] == 7 && ids[1] != 7 && ids[1] == ids[2], "{ids:?}");
    sw.forget();
}

#[test]
fn req2_a_query_may_be_answered_for_a_minute() {
    for (seconds, lives) in [(59, 1), (60, 0)] {
        let mut sw = settled(EDGE);
        sw.send("a", out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 icmp echo id=7 seq=1"));
        wait(&mut sw, seconds);
        sw.send("w", from_world("ip src=198.51.100.9 dst=203.0.113.100 icmp reply id=7 seq=1"));
        assert_eq!(sw.take_all("a").len(), lives, "{seconds} s");
        sw.forget();
    }
}

/// What left, and an error about it.
fn asked_and_told(sw: &mut Switch) -> Vec<u8> {
    sw.send("a", out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 udp sport=4000 dport=53 len=20"));
    let sent = sw.take("w");
    sw.forget();
    told([192, 0, 2, 254], (11, 0), &sent)
}

#[test]
fn req3_an_error_with_a_wrong_checksum_is_dropped() {
    let mut sw = settled(EDGE);
    let mut error = asked_and_told(&mut sw);
    error[22] ^= 1;
    sw.send("w", world_frame(&error));
    sw.expect_nothing("a");
    let len = error.len() + 14;
    sw.expect_counters(&format!(
        "w: rx_frames 1, rx_bytes {len}, forwarded 1; edge/public-v4: tx_frames 1, tx_bytes {len}, icmp_checksum 1"
    ));
}

#[test]
fn req3a_so_is_one_that_quotes_a_header_with_a_wrong_checksum() {
    let mut sw = settled(EDGE);
    let mut error = asked_and_told(&mut sw);
    error[28 + 10] ^= 1;
    seal_transport(&mut error);
    sw.send("w", world_frame(&error));
    sw.expect_nothing("a");
    let len = error.len() + 14;
    sw.expect_counters(&format!(
        "w: rx_frames 1, rx_bytes {len}, forwarded 1; edge/public-v4: tx_frames 1, tx_bytes {len}, icmp_checksum 1"
    ));
}

#[test]
fn req3b_options_of_the_quoted_packet_are_passed_over() {
    let mut sw = settled(EDGE);
    let plain = out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 udp sport=4000 dport=53 len=20");
    let long = with_options(&plain.bytes[14..], &[7, 7, 4, 0, 0, 0, 0, 0]);
    sw.send("a", framed(A, GATEWAY.parse().unwrap(), &long));
    let sent = sw.take("w").bytes;
    sw.send(
        "w",
        world_frame(&icmp_error(([192, 0, 2, 254], [203, 0, 113, 100]), (3, 1), [0; 4], &sent[14..])),
    );
    let heard = sw.take("a").bytes;
    verify(&heard[14..]);
    let mut expected = long;
    expected[8] -= 1;
    seal(&mut expected);
    assert_eq!(heard[42..], expected);
    sw.forget();
}

#[test]
fn req3c_the_quoted_transports_checksum_is_not_looked_at() {
    let mut sw = settled(EDGE);
    let mut error = asked_and_told(&mut sw);
    error[28 + 26] ^= 0x55;
    seal_transport(&mut error);
    sw.send("w", world_frame(&error));
    let heard = sw.take("a").bytes;
    verify(&heard[14..]);
    sw.forget();
}

#[test]
fn req3d_extensions_are_not_taken_for_the_quoted_packet() {
    let mut sw = settled(EDGE);
    let mut error = asked_and_told(&mut sw);
    let object = [0x20, 0, 0, 0, 0, 8, 1, 1, 0, 0, 0x31, 1];
    error.resize(28 + 128, 0);
    error.extend(object);
    error[20 + 5] = 32; // words of the quote (RFC 4884, 4.1)
    let len = error.len() as u16;
    error[2..4].copy_from_slice(&len.to_be_bytes());
    seal(&mut error);
    seal_transport(&mut error);
    sw.send("w", world_frame(&error));
    let heard = sw.take("a").bytes;
    verify(&heard[14..]);
    assert_eq!(heard[heard.len() - 12..], object, "they stay as they are");
    assert_eq!(heard[42 + 12..42 + 20], [10, 0, 0, 10, 198, 51, 100, 9]);
    sw.forget();
}

#[test]
fn req4a_an_error_about_nothing_that_was_sent_is_dropped_in_silence() {
    let mut sw = settled(EDGE);
    let mut error = asked_and_told(&mut sw);
    // The port that the quoted packet came from.
    error[28 + 20..28 + 22].copy_from_slice(&4001u16.to_be_bytes());
    seal_transport(&mut error);
    sw.send("w", world_frame(&error));
    sw.expect_nothing("a");
    sw.expect_nothing("w");
    sw.forget();
}

#[test]
fn req5_an_error_from_inside_shows_nothing_of_the_inside() {
    let mut sw = settled(EDGE);
    sw.send("a", out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 udp sport=4000 dport=53"));
    sw.take("w");
    sw.send("w", from_world("ip src=198.51.100.9 dst=203.0.113.100 udp sport=53 dport=4000 len=9"));
    let got = sw.take("a").bytes;
    let error = icmp_error(([10, 0, 0, 10], [198, 51, 100, 9]), (3, 3), [0; 4], &got[14..]);
    sw.send("a", framed(A, GATEWAY.parse().unwrap(), &error));
    let told = sw.take("w").bytes;
    verify(&told[14..]);
    assert_eq!(told[26..34], [203, 0, 113, 100, 198, 51, 100, 9]);
    assert_eq!(
        told[54..66],
        [198, 51, 100, 9, 203, 0, 113, 100, 0, 53, 0x0f, 0xa0],
        "what the world has sent"
    );
    sw.forget();
}

#[test]
fn req6_an_error_neither_refreshes_nor_ends_a_query() {
    let mut sw = settled(EDGE);
    sw.send("a", out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 icmp echo id=7 seq=1 len=8"));
    let sent = sw.take("w");
    wait(&mut sw, 50);
    sw.send("w", world_frame(&told([192, 0, 2, 254], (11, 0), &sent)));
    assert_eq!(sw.take_all("a").len(), 1);
    let reply = || from_world("ip src=198.51.100.9 dst=203.0.113.100 icmp reply id=7 seq=1 len=8");
    wait(&mut sw, 9);
    sw.send("w", reply());
    assert_eq!(sw.take_all("a").len(), 1, "at 59 s: it has not ended");
    wait(&mut sw, 1);
    sw.send("w", reply());
    sw.expect_nothing("a");
    sw.forget();
}

#[test]
fn req7_hairpinning_of_queries_and_errors() {
    let mut sw = settled(&format!("{EDGE}{FLOATING}"));
    sw.send("a", out_of(A, "ip src=10.0.0.10 dst=203.0.113.150 icmp echo id=7 seq=1"));
    sw.expect("b", into(B, "ip src=203.0.113.100 dst=10.0.0.11 ttl=63 icmp echo id=7 seq=1"));
    sw.send("b", out_of(B, "ip src=10.0.0.11 dst=203.0.113.100 icmp reply id=7 seq=1"));
    sw.expect("a", into(A, "ip src=203.0.113.150 dst=10.0.0.10 ttl=63 icmp reply id=7 seq=1"));
    sw.send("a", out_of(A, "ip src=10.0.0.10 dst=203.0.113.150 udp sport=5 dport=6"));
    let got = sw.take("b").bytes;
    let error = icmp_error(([10, 0, 0, 11], [203, 0, 113, 100]), (3, 3), [0; 4], &got[14..]);
    sw.send("b", framed(B, GATEWAY.parse().unwrap(), &error));
    let heard = sw.take("a").bytes;
    verify(&heard[14..]);
    assert_eq!(heard[26..34], [203, 0, 113, 150, 10, 0, 0, 10]);
    assert_eq!(heard[54..66], [10, 0, 0, 10, 203, 0, 113, 150, 0, 5, 0, 6]);
    sw.forget();
}

/// A protocol without ports is one guest's at each address.
#[test]
fn req8_who_finds_nothing_free_is_told_that_it_is_prohibited() {
    let mut sw = settled(EDGE);
    sw.send("a", out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 proto=47 len=30"));
    sw.take("w");
    sw.send("b", out_of(B, "ip src=10.0.0.11 dst=198.51.100.9 proto=47 len=30"));
    let told = sw.take("b").bytes;
    verify(&told[14..]);
    assert_eq!((told[34], told[35]), (3, 13), "communication administratively prohibited");
    assert_eq!(told[26..34], [10, 0, 0, 1, 10, 0, 0, 11]);
    sw.expect_nothing("w");
    sw.forget();
}

#[test]
fn req10_the_router_itself_speaks_of_ttls_on_both_sides() {
    let mut sw = settled(EDGE);
    sw.send("a", out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 ttl=1 udp sport=4000 dport=53"));
    let told = sw.take("a").bytes;
    assert_eq!((told[34], told[35], &told[26..30]), (11, 0, &[10, 0, 0, 1][..]));
    sw.send("a", out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 udp sport=4000 dport=53"));
    sw.take("w");
    sw.send("w", from_world("ip src=198.51.100.9 dst=203.0.113.100 ttl=1 udp sport=53 dport=4000"));
    let told = sw.take("w").bytes;
    verify(&told[14..]);
    assert_eq!((told[34], told[35], &told[26..30]), (11, 0, &[203, 0, 113, 100][..]));
    assert_eq!(told[54..62], [198, 51, 100, 9, 203, 0, 113, 100], "about what the world has sent");
    sw.forget();
}

#[test]
fn req11_other_messages_are_dropped() {
    let mut sw = settled(EDGE);
    sw.send("a", out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 udp sport=4000 dport=53 len=20"));
    let sent = sw.take("w");
    sw.forget();
    // Redirect, and source quench.
    for kind in [5, 4] {
        sw.send("w", world_frame(&told([203, 0, 113, 1], (kind, 1), &sent)));
        sw.expect_nothing("a");
        sw.expect_nothing("w");
    }
    sw.forget();
}
