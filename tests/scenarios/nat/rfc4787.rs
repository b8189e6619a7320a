//! RFC 4787, NAT for UDP, requirement by requirement.
//!
//! REQ-3 (no port is given twice, and ranges are kept) and the timeouts of REQ-5 in detail are shown beside the tracker.

use super::*;

#[test]
fn req1_and_req4_an_inside_port_is_the_same_outside_towards_everybody() {
    let mut sw = settled(EDGE);
    sw.send("a", out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 udp sport=4000 dport=1"));
    sw.send("b", out_of(B, "ip src=10.0.0.11 dst=198.51.100.9 udp sport=4000 dport=1"));
    let first = sw.take("w");
    assert_eq!(first.bytes[34..36], 4000u16.to_be_bytes(), "kept where it is free");
    let second = sw.take("w");
    let port = u16::from_be_bytes([second.bytes[34], second.bytes[35]]);
    assert_ne!(port, 4000);
    assert_eq!(port % 2, 0, "REQ-4: parity is kept");
    sw.send("b", out_of(B, "ip src=10.0.0.11 dst=192.0.2.77 udp sport=4000 dport=9"));
    let third = sw.take("w");
    assert_eq!(third.bytes[34..36], port.to_be_bytes());
    sw.forget();
}

#[test]
fn req8_only_those_who_were_sent_to_are_let_in() {
    let mut sw = settled(EDGE);
    sw.send("a", out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 udp sport=4000 dport=53"));
    sw.take("w");
    sw.forget();
    sw.send("w", from_world("ip src=198.51.100.9 dst=203.0.113.100 udp sport=54 dport=4000"));
    sw.expect_nothing("a");
    sw.expect_nothing("w");
    sw.advance(secs(0));
    sw.expect_counters(
        "w: rx_frames 1, rx_bytes 42, forwarded 1; edge/public-v4: tx_frames 1, tx_bytes 42, nat_unmatched 1",
    );
}

#[test]
fn req8_filtering_may_be_independent_of_the_endpoint() {
    let open =
        EDGE.replace("name = \"edge\"\n", "name = \"edge\"\nnat_filtering = \"endpoint-independent\"\n");
    let mut sw = settled(&open);
    sw.send("a", out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 udp sport=4000 dport=53"));
    sw.take("w");
    sw.send("w", from_world("ip src=192.0.2.77 dst=203.0.113.100 udp sport=54 dport=4000"));
    sw.expect("a", into(A, "ip src=192.0.2.77 dst=10.0.0.10 ttl=63 udp sport=54 dport=4000"));
    sw.forget();
}

/// What came in by a mapping holds it as what went out does: its port is nobody else's while the guest answers.
#[test]
fn req6_a_mapping_lives_as_long_as_the_guest_answers_whom_it_let_in() {
    for filtering in ["endpoint-independent", "address-dependent"] {
        let open = format!("name = \"edge\"\nnat_filtering = \"{filtering}\"\n");
        let mut sw = settled(&EDGE.replace("name = \"edge\"\n", &open));
        sw.send("a", out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 udp sport=4000 dport=53"));
        let visitor = |port: u16| {
            from_world(&format!("ip src=198.51.100.9 dst=203.0.113.100 udp sport={port} dport=4000"))
        };
        sw.send("w", visitor(54));
        assert_eq!(sw.take_all("a").len(), 1);
        for _ in 0..2 {
            wait(&mut sw, 200);
            sw.send("a", out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 udp sport=4000 dport=54"));
        }
        sw.send("w", visitor(55));
        assert_eq!(sw.take_all("a").len(), 1, "{filtering}: another visitor, after 400 s");
        wait(&mut sw, 300);
        sw.send("w", visitor(56));
        sw.expect_nothing("a");
        sw.forget();
    }
}

#[test]
fn req8_filtering_may_depend_on_the_address_alone() {
    let by_address =
        EDGE.replace("name = \"edge\"\n", "name = \"edge\"\nnat_filtering = \"address-dependent\"\n");
    let mut sw = settled(&by_address);
    sw.send("a", out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 udp sport=4000 dport=53"));
    sw.take("w");
    sw.send("w", from_world("ip src=198.51.100.9 dst=203.0.113.100 udp sport=54 dport=4000"));
    sw.expect("a", into(A, "ip src=198.51.100.9 dst=10.0.0.10 ttl=63 udp sport=54 dport=4000"));
    sw.send("w", from_world("ip src=192.0.2.77 dst=203.0.113.100 udp sport=53 dport=4000"));
    sw.expect_nothing("a");
    sw.forget();
}

#[test]
fn req9_hairpinning_a_guest_reaches_floating_ips_its_own_too() {
    let mut sw = settled(&format!("{EDGE}{FLOATING}"));
    sw.send("a", out_of(A, "ip src=10.0.0.10 dst=203.0.113.150 udp sport=5 dport=6"));
    sw.expect("b", into(B, "ip src=203.0.113.100 dst=10.0.0.11 ttl=63 udp sport=5 dport=6"));
    sw.send("b", out_of(B, "ip src=10.0.0.11 dst=203.0.113.100 udp sport=6 dport=5"));
    sw.expect("a", into(A, "ip src=203.0.113.150 dst=10.0.0.10 ttl=63 udp sport=6 dport=5"));
    sw.send("b", out_of(B, "ip src=10.0.0.11 dst=203.0.113.150 udp sport=7 dport=8"));
    sw.expect("b", into(B, "ip src=203.0.113.150 dst=10.0.0.11 ttl=63 udp sport=7 dport=8"));
    sw.forget();
}

#[test]
fn req14_fragments_follow_their_flow_in_any_order() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        let mut sw = settled(EDGE);
        let sent = pieces(&out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 udp sport=4000 dport=53 len=60"), 24);
        let wanted = pieces(
            &to_world("ip src=203.0.113.100 dst=198.51.100.9 ttl=63 udp sport=4000 dport=53 len=60"),
            24,
        );
        for n in order {
            sw.send("a", sent[n].clone());
        }
        let mut got = sw.take_all("w");
        got.sort_by_key(|piece| piece.bytes[20..22].to_vec().iter().map(|b| b & 0x1f).collect::<Vec<_>>());
        assert_eq!(got.len(), 3, "{order:?}");
        for piece in &wanted {
            assert!(got.contains(piece), "{order:?}: {piece:?} is not among {got:?}");
        }
        sw.forget();
    }
}

#[test]
fn req14_a_fragment_whose_first_never_comes_is_dropped() {
    let mut sw = settled(EDGE);
    let sent = pieces(&out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 udp sport=4000 dport=53 len=60"), 24);
    sw.send("a", sent[1].clone());
    for _ in 0..20 {
        sw.advance(secs(1));
        sw.settle();
    }
    sw.expect_nothing("w");
    sw.expect_counters(&format!(
        "a: rx_frames 1, rx_bytes {0}, forwarded 1; edge/blue-v4: tx_frames 1, tx_bytes {0}, fragment_expired 1",
        sent[1].len()
    ));
}

/// With several addresses ("paired" pooling).
#[test]
fn req2_all_of_a_guests_ports_are_at_one_address() {
    let two = EDGE.replace("[\"203.0.113.100\"]", "[\"203.0.113.100\", \"203.0.113.101\"]");
    let mut sw = settled(&two);
    for (guest, address) in [(A, "10.0.0.10"), (B, "10.0.0.11")] {
        let name = if guest == A { "a" } else { "b" };
        for n in 0..20 {
            let kind = ["udp sport", "tcp flags=S sport"][n % 2];
            let packet = format!("ip src={address} dst=198.51.100.{n} {kind}={} dport=53", 4000 + n);
            sw.send(name, out_of(guest, &packet));
        }
        let sources: std::collections::HashSet<Vec<u8>> =
            sw.take_all("w").iter().map(|frame| frame.bytes[26..30].to_vec()).collect();
        assert_eq!(sources.len(), 1);
    }
    sw.forget();
}

#[test]
fn req3_no_port_is_overloaded() {
    let mut sw = settled(EDGE);
    sw.send("a", out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 udp sport=4000 dport=53"));
    sw.send("b", out_of(B, "ip src=10.0.0.11 dst=192.0.2.77 udp sport=4000 dport=53"));
    let ports: Vec<u16> = sw.take_all("w").iter().map(|frame| word(&frame.bytes, 34)).collect();
    assert_ne!(ports[0], ports[1], "not even towards others");
    sw.forget();
}

#[test]
fn req3_well_known_ports_stay_so() {
    let mut sw = settled(EDGE);
    sw.send("a", out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 udp sport=500 dport=500"));
    sw.send("b", out_of(B, "ip src=10.0.0.11 dst=198.51.100.9 udp sport=500 dport=500"));
    let ports: Vec<u16> = sw.take_all("w").iter().map(|frame| word(&frame.bytes, 34)).collect();
    assert!(ports[0] == 500 && ports[1] < 1024 && ports[1] != 500, "{ports:?}");
    sw.forget();
}

/// A guest has asked; after so many seconds an answer comes. Whether it arrives.
fn answered_after(text: &str, seconds: u64) -> bool {
    let mut sw = settled(text);
    sw.send("a", out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 udp sport=4000 dport=53"));
    wait(&mut sw, seconds);
    sw.send("w", from_world("ip src=198.51.100.9 dst=203.0.113.100 udp sport=53 dport=4000"));
    let arrived = sw.take_all("a").len();
    sw.forget();
    arrived == 1
}

#[test]
fn req5_a_mapping_lives_for_five_minutes() {
    assert!(answered_after(EDGE, 299));
    assert!(!answered_after(EDGE, 300));
}

#[test]
fn req5_its_life_can_be_configured() {
    let short = format!("[conntrack.timeouts]\nudp = 120\n{EDGE}");
    assert!(answered_after(&short, 119));
    assert!(!answered_after(&short, 120));
}

#[test]
fn req6_what_leads_out_refreshes_a_mapping() {
    let mut sw = settled(EDGE);
    let out = || out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 udp sport=4000 dport=53");
    let answer = || from_world("ip src=198.51.100.9 dst=203.0.113.100 udp sport=53 dport=4000");
    sw.send("a", out());
    wait(&mut sw, 200);
    sw.send("a", out());
    wait(&mut sw, 299);
    sw.send("w", answer());
    assert_eq!(sw.take_all("a").len(), 1, "at 499 s");
    sw.forget();
}

#[test]
fn req6_what_comes_in_does_not_refresh_it() {
    let mut sw = settled(EDGE);
    let answer = || from_world("ip src=198.51.100.9 dst=203.0.113.100 udp sport=53 dport=4000");
    sw.send("a", out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 udp sport=4000 dport=53"));
    wait(&mut sw, 200);
    sw.send("w", answer());
    assert_eq!(sw.take_all("a").len(), 1);
    wait(&mut sw, 100);
    sw.send("w", answer());
    sw.expect_nothing("a");
    sw.forget();
}

/// Inside and outside never have the same addresses: such a router is refused.
#[test]
fn req7_addresses_inside_and_outside_do_not_conflict() {
    let same = EDGE.replace("10.0.0.0/24", "203.0.113.0/25").replace("10.0.0.", "203.0.113.");
    let mistakes = nuswitch::model::load(&same, "test.toml").map(drop).unwrap_err();
    assert!(mistakes.iter().any(|mistake| mistake.to_string().contains("overlap")), "{mistakes:?}");
}

#[test]
fn req9_hairpinning_by_the_shared_address_shows_the_outside_endpoint() {
    let open =
        EDGE.replace("name = \"edge\"\n", "name = \"edge\"\nnat_filtering = \"endpoint-independent\"\n");
    let mut sw = settled(&open);
    sw.send("b", out_of(B, "ip src=10.0.0.11 dst=198.51.100.9 udp sport=6000 dport=53"));
    sw.take("w");
    sw.send("a", out_of(A, "ip src=10.0.0.10 dst=203.0.113.100 udp sport=4000 dport=6000"));
    sw.expect("b", into(B, "ip src=203.0.113.100 dst=10.0.0.11 ttl=63 udp sport=4000 dport=6000"));
    sw.send("b", out_of(B, "ip src=10.0.0.11 dst=203.0.113.100 udp sport=6000 dport=4000"));
    sw.expect("a", into(A, "ip src=203.0.113.100 dst=10.0.0.10 ttl=63 udp sport=6000 dport=4000"));
    sw.forget();
}

#[test]
fn req9_hairpinning_a_guest_reaches_its_own_outside_endpoint() {
    let open =
        EDGE.replace("name = \"edge\"\n", "name = \"edge\"\nnat_filtering = \"endpoint-independent\"\n");
    let mut sw = settled(&open);
    sw.send("a", out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 udp sport=4000 dport=53"));
    sw.take("w");
    for _ in 0..3 {
        sw.send("a", out_of(A, "ip src=10.0.0.10 dst=203.0.113.100 udp sport=4000 dport=4000"));
        sw.expect("a", into(A, "ip src=203.0.113.100 dst=10.0.0.10 ttl=63 udp sport=4000 dport=4000"));
    }
    // They hold nothing: the mapping ends with the connection that it was for.
    wait(&mut sw, 300);
    sw.send("a", out_of(A, "ip src=10.0.0.10 dst=203.0.113.100 udp sport=4000 dport=4000"));
    sw.expect_nothing("a");
    sw.forget();
}

#[test]
fn req10_no_gateway_changes_what_applications_say() {
    let mut sw = settled(EDGE);
    let said =
        b"INVITE sip:x SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.10:5060\r\nContact: <sip:10.0.0.10:5060>\r\n";
    sw.send("a", carrying(out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 udp sport=5060 dport=5060"), said));
    let expected =
        carrying(to_world("ip src=203.0.113.100 dst=198.51.100.9 ttl=63 udp sport=5060 dport=5060"), said);
    sw.expect("w", expected);
    sw.forget();
}

#[test]
fn req11_a_conflict_changes_nothing_in_how_it_maps_and_filters() {
    let mut sw = settled(EDGE);
    sw.send("a", out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 udp sport=4000 dport=53"));
    sw.send("b", out_of(B, "ip src=10.0.0.11 dst=198.51.100.9 udp sport=4000 dport=53"));
    let mut ports: Vec<u16> = sw.take_all("w").iter().map(|frame| word(&frame.bytes, 34)).collect();
    for n in 1..20 {
        sw.send("b", out_of(B, &format!("ip src=10.0.0.11 dst=192.0.2.{n} udp sport=4000 dport={n}")));
        ports.push(word(&sw.take("w").bytes, 34));
    }
    assert!(ports[1..].iter().all(|port| *port == ports[1]), "{ports:?}");
    let stranger = format!("ip src=192.0.2.99 dst=203.0.113.100 udp sport=1 dport={}", ports[1]);
    sw.send("w", from_world(&stranger));
    sw.expect_nothing("b");
    sw.forget();
}

#[test]
fn req12_icmp_does_not_end_a_mapping() {
    let mut sw = settled(EDGE);
    sw.send("a", out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 udp sport=4000 dport=53"));
    let sent = sw.take("w");
    for kind in [(3, 3), (3, 1), (11, 0), (3, 13)] {
        sw.send("w", world_frame(&told([198, 51, 100, 9], kind, &sent)));
        assert_eq!(sw.take_all("a").len(), 1, "it is told");
    }
    sw.send("w", from_world("ip src=198.51.100.9 dst=203.0.113.100 udp sport=53 dport=4000"));
    sw.expect("a", into(A, "ip src=198.51.100.9 dst=10.0.0.10 ttl=63 udp sport=53 dport=4000"));
    sw.forget();
}

#[test]
fn req13_a_packet_that_must_not_be_cut_and_is_too_long_is_told_about_on_both_ways() {
    let narrow = EDGE.replace("name = \"public\"\nexternal", "name = \"public\"\nmtu = 1300\nexternal");
    let mut sw = settled(&narrow);
    sw.send("a", out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 udp sport=4000 dport=53 len=1400"));
    let told = sw.take("a").bytes;
    assert_eq!((told[34], told[35], word(&told, 40)), (3, 4, 1300), "fragmentation needed");
    assert_eq!(told[54..62], [10, 0, 0, 10, 198, 51, 100, 9], "about what the guest has sent");
    sw.expect_nothing("w");
    sw.forget();

    let narrow = EDGE.replace("name = \"blue\"\n[", "name = \"blue\"\nmtu = 1300\n[");
    let mut sw = settled(&narrow);
    sw.send("a", out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 udp sport=4000 dport=53"));
    sw.take("w");
    sw.send("w", from_world("ip src=198.51.100.9 dst=203.0.113.100 udp sport=53 dport=4000 len=1400"));
    let told = sw.take("w").bytes;
    assert_eq!((told[34], told[35], word(&told, 40)), (3, 4, 1300), "fragmentation needed");
    assert_eq!(told[26..30], [203, 0, 113, 100], "from the address that the world knows");
    assert_eq!(told[54..62], [198, 51, 100, 9, 203, 0, 113, 100], "about what the world has sent");
    sw.forget();
}

/// Translated first, and cut then, both ways.
#[test]
fn req13_a_packet_that_may_be_cut_is() {
    let may_be_cut = |frame: Wire| {
        let mut frame = frame.patch(18, &[0xbe, 0xef, 0]);
        seal(&mut frame.bytes[14..]);
        frame
    };
    let arrived = |sw: &mut Switch, port: &str| {
        let parts: Vec<Vec<u8>> = sw.take_all(port).iter().map(|frame| frame.bytes[14..].to_vec()).collect();
        assert!(parts.len() == 2 && parts.iter().all(|part| part.len() <= 1300));
        together(parts)
    };
    let narrow = EDGE.replace("name = \"public\"\nexternal", "name = \"public\"\nmtu = 1300\nexternal");
    let mut sw = settled(&narrow);
    sw.send("a", may_be_cut(out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 udp sport=4000 dport=53 len=1400")));
    let expected = to_world("ip src=203.0.113.100 dst=198.51.100.9 ttl=63 udp sport=4000 dport=53 len=1400");
    assert_eq!(arrived(&mut sw, "w"), may_be_cut(expected).bytes[14..]);
    sw.forget();

    let narrow = EDGE.replace("name = \"blue\"\n[", "name = \"blue\"\nmtu = 1300\n[");
    let mut sw = settled(&narrow);
    sw.send("a", out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 udp sport=4000 dport=53"));
    sw.take("w");
    sw.send(
        "w",
        may_be_cut(from_world("ip src=198.51.100.9 dst=203.0.113.100 udp sport=53 dport=4000 len=1400")),
    );
    let expected = into(A, "ip src=198.51.100.9 dst=10.0.0.10 ttl=63 udp sport=53 dport=4000 len=1400");
    assert_eq!(arrived(&mut sw, "a"), may_be_cut(expected).bytes[14..]);
    sw.forget();
}

/// What is in parts is no part of what the tracker can number, and is acknowledged all the same.
#[test]
fn req14_tcp_data_in_fragments_is_acknowledged() {
    for from_guest in [true, false] {
        let mut sw = settled(EDGE);
        open_connection(&mut sw);
        let (sender, receiver) = if from_guest { ("a", "w") } else { ("w", "a") };
        let data = if from_guest {
            out_of(
                A,
                "ip src=10.0.0.10 dst=198.51.100.9 tcp sport=4000 dport=80 flags=A seq=101 ack=501 len=600",
            )
        } else {
            from_world(
                "ip src=198.51.100.9 dst=203.0.113.100 tcp sport=80 dport=4000 flags=A seq=501 ack=101 len=600",
            )
        };
        for piece in pieces(&data, 400) {
            sw.send(sender, piece);
        }
        assert_eq!(sw.take_all(receiver).len(), 2);
        let acknowledgement = if from_guest {
            from_world(
                "ip src=198.51.100.9 dst=203.0.113.100 tcp sport=80 dport=4000 flags=A seq=501 ack=701",
            )
        } else {
            out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 tcp sport=4000 dport=80 flags=A seq=101 ack=1101")
        };
        sw.send(receiver, acknowledgement);
        assert_eq!(sw.take_all(sender).len(), 1, "the acknowledgement");
        sw.forget();
    }
}
