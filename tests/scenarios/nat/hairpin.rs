//! Hairpinning between two guests behind one address (RFC 4787, REQ-9; RFC 5382, REQ-8): what one sends to the other's outside
//! endpoint is filtered as if it had gone out and come back.

use nuswitch::worker::inspect::{Facts, Question};

use super::*;

const FILTERINGS: [&str; 3] = ["address-and-port-dependent", "address-dependent", "endpoint-independent"];

fn filtering(filtering: &str) -> String {
    EDGE.replace("name = \"edge\"\n", &format!("name = \"edge\"\nnat_filtering = \"{filtering}\"\n"))
}

/// Both guests have told a third host where they can be found: `a` from port 4000, and `b`, too, which got another one.
fn met(text: &str, kind: &str) -> (Switch, u16) {
    let mut sw = settled(text);
    sw.send("a", out_of(A, &format!("ip src=10.0.0.10 dst=198.51.100.9 {kind} sport=4000 dport=3478")));
    assert_eq!(word(&sw.take("w").bytes, 34), 4000);
    sw.send("b", out_of(B, &format!("ip src=10.0.0.11 dst=198.51.100.9 {kind} sport=4000 dport=3478")));
    let port = word(&sw.take("w").bytes, 34);
    assert_ne!(port, 4000);
    sw.forget();
    (sw, port)
}

/// Connections and bindings that there are.
fn held(sw: &mut Switch) -> (u32, u32) {
    for _ in 0..4 {
        sw.settle();
    }
    let Facts::Tracker(Some((connections, bindings, _))) = sw.ask(Question::Tracker).facts else {
        panic!("another answer")
    };
    (connections, bindings)
}

/// What `a` sends to `b` as it is known outside, and what arrives, if it does; and the other way.
fn a_to_b(port: u16, what: &str) -> (Wire, Wire) {
    let (ends, shown) = (what.replace("ENDS", &format!("sport=4000 dport={port}")), "sport=4000 dport=4000");
    (
        out_of(A, &format!("ip src=10.0.0.10 dst=203.0.113.100 {ends}")),
        into(B, &format!("ip src=203.0.113.100 dst=10.0.0.11 ttl=63 {}", what.replace("ENDS", shown))),
    )
}

fn b_to_a(port: u16, what: &str) -> (Wire, Wire) {
    let (ends, shown) = ("sport=4000 dport=4000", what.replace("ENDS", &format!("sport={port} dport=4000")));
    (
        out_of(B, &format!("ip src=10.0.0.11 dst=203.0.113.100 {}", what.replace("ENDS", ends))),
        into(A, &format!("ip src=203.0.113.100 dst=10.0.0.10 ttl=63 {shown}")),
    )
}

/// As ICE does (RFC 8445): each sends to the endpoint that the other has outside, which opens its own filter for the other.
#[test]
fn req9_two_guests_open_their_filters_for_each_other() {
    for kind in FILTERINGS {
        let (mut sw, port) = met(&filtering(kind), "udp");
        let (there, arrives) = a_to_b(port, "udp ENDS len=9");
        let (back, returns) = b_to_a(port, "udp ENDS len=9");
        sw.send("a", there.clone());
        if kind == "endpoint-independent" {
            sw.expect("b", arrives.clone());
        } else {
            sw.expect_nothing("b");
            sw.expect_counters(
                "a: rx_frames 1, rx_bytes 51, forwarded 1; \
                 edge/blue-v4: tx_frames 1, tx_bytes 51, nat_unmatched 1",
            );
        }
        for _ in 0..3 {
            sw.send("b", back.clone());
            sw.expect("a", returns.clone());
            sw.send("a", there.clone());
            sw.expect("b", arrives.clone());
        }
        sw.forget();
    }
}

/// What is not let in counts as sent all the same, for as long as it is sent again.
#[test]
fn req9_the_first_to_send_may_try_for_long() {
    for kind in &FILTERINGS[..2] {
        let (mut sw, port) = met(&filtering(kind), "udp");
        let (there, arrives) = a_to_b(port, "udp ENDS");
        for _ in 0..3 {
            sw.send("a", there.clone());
            sw.expect_nothing("b");
            sw.send("b", out_of(B, "ip src=10.0.0.11 dst=198.51.100.9 udp sport=4000 dport=3478"));
            wait(&mut sw, 200);
        }
        let (back, returns) = b_to_a(port, "udp ENDS");
        sw.send("b", back);
        sw.expect("a", returns);
        sw.send("a", there);
        sw.expect("b", arrives);
        sw.forget();
    }
}

#[test]
fn req9_is_filtered_by_the_outside_endpoint() {
    let (mut sw, port) = met(&filtering("address-and-port-dependent"), "udp");
    sw.send("a", a_to_b(port, "udp ENDS").0);
    // Another endpoint of `b` is not the one that was sent to.
    sw.send("b", out_of(B, "ip src=10.0.0.11 dst=203.0.113.100 udp sport=4002 dport=4000"));
    sw.expect_nothing("a");
    sw.forget();
    // By the address it is the same.
    let (mut sw, port) = met(&filtering("address-dependent"), "udp");
    sw.send("a", a_to_b(port, "udp ENDS").0);
    sw.send("b", out_of(B, "ip src=10.0.0.11 dst=203.0.113.100 udp sport=4002 dport=4000"));
    sw.expect("a", into(A, "ip src=203.0.113.100 dst=10.0.0.10 ttl=63 udp sport=4002 dport=4000"));
    // And `b` has sent to the address that `a` has outside.
    sw.send("a", out_of(A, "ip src=10.0.0.10 dst=203.0.113.100 udp sport=4004 dport=4002"));
    sw.expect("b", into(B, "ip src=203.0.113.100 dst=10.0.0.11 ttl=63 udp sport=4004 dport=4002"));
    sw.forget();
}

/// As long as one of them sends, both stay where they are: the mappings are the conversation's, not the third host's.
#[test]
fn req9_keeps_both_mappings() {
    for kind in FILTERINGS {
        for (speaker, listener) in [("a", "b"), ("b", "a")] {
            let (mut sw, port) = met(&filtering(kind), "udp");
            let (there, back) = (a_to_b(port, "udp ENDS"), b_to_a(port, "udp ENDS"));
            sw.send("a", there.0.clone());
            sw.send("b", back.0.clone());
            sw.forget();
            let (sent, arrives) = if speaker == "a" { there } else { back };
            for _ in 0..4 {
                wait(&mut sw, 200);
                sw.send(speaker, sent.clone());
                sw.expect(listener, arrives.clone());
            }
            for (name, guest, address, outside) in [("b", B, "10.0.0.11", port), ("a", A, "10.0.0.10", 4000)]
            {
                sw.send(
                    name,
                    out_of(guest, &format!("ip src={address} dst=192.0.2.9 udp sport=4000 dport=9")),
                );
                assert_eq!(word(&sw.take("w").bytes, 34), outside, "{kind}: {name} is where it was");
            }
            // And no longer.
            sw.forget();
            wait(&mut sw, 300);
            assert_eq!(held(&mut sw), (0, 0), "{kind}");
        }
    }
}

/// What `a` has sent to `b` lets in nobody from outside, with whatever source.
#[test]
fn req9_lets_nobody_else_in() {
    let two = filtering("address-and-port-dependent")
        .replace("[\"203.0.113.100\"]", "[\"203.0.113.100\", \"203.0.113.101\"]");
    let mut sw = settled(&two);
    sw.send("a", out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 udp sport=4000 dport=53"));
    let ours = sw.take("w").bytes[26..30].to_vec();
    let (ours, other) = if ours[3] == 100 { ("100", "101") } else { ("101", "100") };
    sw.send("a", out_of(A, &format!("ip src=10.0.0.10 dst=203.0.113.{other} udp sport=4000 dport=6000")));
    sw.forget();
    let spoofed = format!("ip src=203.0.113.{other} dst=203.0.113.{ours} udp sport=6000 dport=4000");
    sw.send("w", from_world(&spoofed));
    sw.send("b", out_of(B, &spoofed));
    sw.expect_nothing("a");
    sw.advance(secs(0));
    sw.expect_counters(
        "w: rx_frames 1, rx_bytes 42, forwarded 1; \
         edge/public-v4: tx_frames 1, tx_bytes 42, martian_source 1; \
         b: rx_frames 1, rx_bytes 42, forwarded 1; \
         edge/blue-v4: tx_frames 1, tx_bytes 42, martian_source 1",
    );
}

/// They count as any others, and against the guest that sends.
#[test]
fn req9_attempts_are_bounded() {
    let few = format!("[conntrack]\nmax_entries_per_guest = 10\n{EDGE}");
    let (mut sw, port) = met(&few, "udp");
    for n in 0..50 {
        sw.send(
            "a",
            out_of(A, &format!("ip src=10.0.0.10 dst=203.0.113.100 udp sport=4000 dport={}", 7000 + n)),
        );
        sw.expect_nothing("b");
    }
    sw.forget();
    // The oldest went.
    sw.send("b", b_to_a(port, "udp ENDS").0);
    sw.expect_nothing("a");
    sw.forget();
}

/// With the first SYN dropped, and in silence.
#[test]
fn req8_tcp_opens_simultaneously() {
    for kind in &FILTERINGS[..2] {
        let (mut sw, port) = met(&filtering(kind), "tcp flags=S");
        sw.send("a", a_to_b(port, "tcp ENDS flags=S seq=100").0);
        sw.expect_nothing("a");
        sw.expect_nothing("b");
        for (from_a, tcp) in [
            (false, "tcp ENDS flags=S seq=500"),
            (true, "tcp ENDS flags=SA seq=100 ack=501"),
            (false, "tcp ENDS flags=SA seq=500 ack=101"),
            (true, "tcp ENDS flags=A seq=101 ack=501 len=10"),
            (false, "tcp ENDS flags=A seq=501 ack=111 len=20"),
            (true, "tcp ENDS flags=FA seq=111 ack=521"),
            (false, "tcp ENDS flags=FA seq=521 ack=112"),
            (true, "tcp ENDS flags=A seq=112 ack=522"),
        ] {
            let (sent, arrives) = if from_a { a_to_b(port, tcp) } else { b_to_a(port, tcp) };
            let (sender, receiver) = if from_a { ("a", "b") } else { ("b", "a") };
            sw.send(sender, sent);
            sw.expect(receiver, arrives);
        }
        sw.forget();
    }
}

/// A guest's own endpoint: it has sent to it by that very packet.
#[test]
fn req9_a_guest_reaches_its_own_endpoint_under_any_filtering() {
    for kind in FILTERINGS {
        let (mut sw, _) = met(&filtering(kind), "udp");
        let before = held(&mut sw);
        for _ in 0..3 {
            sw.send("a", out_of(A, "ip src=10.0.0.10 dst=203.0.113.100 udp sport=4000 dport=4000"));
            sw.expect("a", into(A, "ip src=203.0.113.100 dst=10.0.0.10 ttl=63 udp sport=4000 dport=4000"));
        }
        assert_eq!(held(&mut sw), before);
        sw.forget();
    }
}

/// Under every filtering the router answers pings of its address, also while other queries have the identifier.
#[test]
fn the_address_that_all_share_answers_a_guests_ping() {
    let (mut sw, _) = met(&filtering("address-and-port-dependent"), "udp");
    sw.send("b", out_of(B, "ip src=10.0.0.11 dst=198.51.100.9 icmp echo id=7 seq=1 len=8"));
    sw.send("a", out_of(A, "ip src=10.0.0.10 dst=198.51.100.9 icmp echo id=7 seq=1 len=8"));
    sw.forget();
    sw.send("a", out_of(A, "ip src=10.0.0.10 dst=203.0.113.100 icmp echo id=7 seq=1 len=8"));
    let reply = sw.take("a").bytes;
    assert_eq!((reply[34], &reply[26..30]), (0, &[203, 0, 113, 100][..]));
    sw.forget();
}

/// What was sent in vain while nobody had the endpoint is no reason to keep somebody out later, nor what was sent to an address
/// before it was ours.
#[test]
fn req9_what_was_in_vain_is_looked_at_again() {
    let open = filtering("endpoint-independent");
    let mut sw = settled(&open);
    let sent = out_of(A, "ip src=10.0.0.10 dst=203.0.113.100 udp sport=4000 dport=6000");
    let other = out_of(A, "ip src=10.0.0.10 dst=203.0.113.101 udp sport=4000 dport=7000");
    sw.send("a", sent.clone());
    sw.send("a", other.clone());
    sw.expect_nothing("b");
    sw.send("b", out_of(B, "ip src=10.0.0.11 dst=198.51.100.9 udp sport=6000 dport=3478"));
    sw.forget();
    sw.send("a", sent);
    sw.expect("b", into(B, "ip src=203.0.113.100 dst=10.0.0.11 ttl=63 udp sport=4000 dport=6000"));
    // Nobody outside has answered for that address.
    for _ in 0..4 {
        sw.advance(secs(1));
        sw.settle();
    }
    sw.reload(&format!("{open}{}", FLOATING.replace("150", "101")));
    sw.forget();
    sw.send("a", other);
    sw.expect("b", into(B, "ip src=203.0.113.100 dst=10.0.0.11 ttl=63 udp sport=4000 dport=7000"));
    sw.forget();
}

/// A trace says what becomes of such packets before they are sent, at every step.
#[test]
fn a_trace_foresees_who_is_let_in() {
    for kind in FILTERINGS {
        let (mut sw, port) = met(&filtering(kind), "udp");
        let (there, back) = (a_to_b(port, "udp ENDS len=9").0, b_to_a(port, "udp ENDS len=9").0);
        for (sender, receiver, sent) in
            [("a", "b", &there), ("b", "a", &back), ("a", "b", &there), ("b", "a", &back)]
        {
            let traced = sw.explain_live(sender, sent.clone());
            sw.send(sender, sent.clone());
            let arrived = sw.take_all(receiver);
            let outputs: Vec<_> =
                traced.outputs.iter().map(|out| (out.port.clone(), out.frame.clone())).collect();
            let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            let wanted: Vec<_> =
                arrived.iter().map(|frame| (receiver.to_owned(), hex(&frame.bytes))).collect();
            assert_eq!(outputs, wanted, "{kind}, from {sender}: {:?}", traced.steps);
            assert_eq!(arrived.is_empty(), traced.verdict == "dropped: nat_unmatched", "{}", traced.verdict);
        }
        sw.forget();
    }
}
