//! A port with port security on the way through the switch: what it sends in another's name is dropped before anything is
//! learned of it, whatever stands around it.

use std::sync::Arc;

use nuswitch::frame::Offload;
use nuswitch::tables::security::{Claims, Guard, Station};
use nuswitch::types::Mac;

use super::frames::*;
use super::switch::*;
use super::{LAN, tunnel};

/// LAN, with port `a` for A alone, which has 10.0.0.1 and 2001:db8::1.
fn guarded() -> Switch {
    guard(Build::from(LAN).caps("b", PLAIN).caps("c", PLAIN).start())
}

fn guard(mut sw: Switch) -> Switch {
    let at = sw.index("a").index();
    sw.publish_with(|tables| {
        let v4 = vec!["10.0.0.1/32".parse().unwrap()];
        let station = Station { mac: A, v4, v6: vec!["2001:db8::1/128".parse().unwrap()] };
        let claims = Claims { stations: vec![station], any_address: false };
        tables.ports[at].as_mut().unwrap().guard = Some(Arc::new(Guard { claims, policy: None }));
    });
    sw.forget();
    sw
}

fn from(mac: Mac, source: &str) -> Wire {
    spec(&format!("eth src={mac} dst={B} ip src={source} dst=10.0.0.2 udp sport=4000 dport=5000 len=18"))
}

#[test]
fn a_spoofed_mac_is_not_learned() {
    let mut sw = guarded();
    sw.send("c", frame().from(C).to(BROADCAST));
    sw.forget();
    sw.send("a", from(C, "10.0.0.1"));
    sw.expect_nothing("b");
    sw.expect_counters("a: rx_frames 1, rx_bytes 60, spoofed_mac 1");
    assert_eq!(sw.knows("lan", C), Some("c".into()));
    sw.send("a", from(B, "10.0.0.1"));
    sw.expect_counters("a: rx_frames 1, rx_bytes 60, spoofed_mac 1");
    assert_eq!(sw.knows("lan", B), None);
    sw.send("a", from(A, "10.0.0.7"));
    sw.expect_counters("a: rx_frames 1, rx_bytes 60, spoofed_ip 1");
    assert_eq!(sw.knows("lan", A), None, "nor is its own from such a frame");
    sw.send("a", from(A, "10.0.0.1"));
    sw.expect("b", from(A, "10.0.0.1"));
    sw.expect("c", from(A, "10.0.0.1"));
    assert_eq!(sw.knows("lan", A), Some("a".into()));
    sw.forget();
}

#[test]
fn other_ports_are_trusted() {
    let mut sw = guarded();
    sw.send("b", from(C, "10.0.0.1"));
    sw.expect("c", from(C, "10.0.0.1"));
    // A guest is not sent what is for a MAC that is not its own.
    sw.expect_nothing("a");
    sw.forget();
}

#[test]
fn each_frame_of_a_burst_is_judged_by_itself() {
    let mut sw = guarded();
    for source in ["10.0.0.9", "10.0.0.1", "10.0.0.8", "10.0.0.1"] {
        assert!(sw.queue("a", from(A, source)));
    }
    assert!(sw.queue("a", frame().from(A).to(BROADCAST).ethertype(0x88cc)));
    sw.settle();
    for _ in 0..2 {
        sw.expect("b", from(A, "10.0.0.1"));
        sw.expect("c", from(A, "10.0.0.1"));
    }
    sw.expect_counters(
        "a: rx_frames 5, rx_bytes 300, flooded 2, spoofed_ip 2, ethertype_not_allowed 1; \
         b: tx_frames 2, tx_bytes 120; c: tx_frames 2, tx_bytes 120",
    );
}

#[test]
fn a_priority_tag_hides_nothing() {
    let mut sw = guarded();
    let tagged = |wire| tagged(wire, 0);
    sw.send("a", tagged(from(A, "10.0.0.9")));
    sw.expect_counters("a: rx_frames 1, rx_bytes 64, spoofed_ip 1");
    sw.send("a", tagged(from(A, "10.0.0.1")));
    sw.expect("b", from(A, "10.0.0.1"));
    sw.expect("c", from(A, "10.0.0.1"));
    sw.forget();
    sw.send("a", tagged(tagged(from(A, "10.0.0.1"))));
    sw.expect_counters("a: rx_frames 1, rx_bytes 68, ethertype_not_allowed 1");
}

/// The sum is finished where the frame leaves, and may come out as its sender likes: so it could be half of an address.
#[test]
fn a_checksum_is_not_written_over_the_source() {
    let mut sw = guarded();
    let mut wire = from(A, "10.0.0.1");
    for (csum_start, csum_offset) in [(14, 12), (14, 14), (34, 2)] {
        wire.offload = Offload { flags: Offload::NEEDS_CSUM, csum_start, csum_offset, ..Offload::NONE };
        sw.send("a", wire.clone());
        sw.expect_counters("a: rx_frames 1, rx_bytes 60, bad_offload 1");
    }
    for kind in [Kind::Tcp4, Kind::Udp4, Kind::Tcp6, Kind::Udp6] {
        sw.send("a", partial(kind, 100));
        assert_eq!(verified(kind, &sw.take("b").bytes).0.len(), 100);
        sw.send("a", gso(kind, 3000, 1000));
        assert_eq!(sw.take_all("b").len(), 3);
        sw.forget();
    }
}

/// Else it would be told of what it asked in another's name.
#[test]
fn a_spoofed_packet_that_is_too_big_is_not_answered() {
    let mut sw = guard(tunnel::blue());
    let long = |source| spec(&format!("eth src={A} dst={B} ip src={source} dst=10.0.0.2 udp len=1450"));
    sw.send("a", long("10.0.0.7"));
    sw.expect_nothing("a");
    sw.expect_counters("a: rx_frames 1, rx_bytes 1492, spoofed_ip 1");
    sw.send("a", long("10.0.0.1"));
    sw.take("a");
    sw.expect_counters("a: rx_frames 1, rx_bytes 1492, answered 1, tx_frames 1, tx_bytes 590");
}

#[test]
fn the_trace_says_what_would_have_been_right() {
    let mut sw = guarded();
    let said = sw.trace("a", from(C, "10.0.0.1"));
    assert!(said.contains(&format!("guard: comes from {C}; its port may send from {A}\n")), "{said}");
    assert!(said.contains("drop: spoofed_mac: "), "{said}");
    let said = sw.trace("a", from(A, "10.0.0.9"));
    assert!(said.contains(&format!("{A} may claim 10.0.0.1/32, 2001:db8::1/128\n")), "{said}");
    assert!(said.contains("drop: spoofed_ip: "), "{said}");
    assert!(sw.trace("a", from(A, "10.0.0.1")).contains("guard: its port may send from these addresses\n"));
    assert!(!sw.trace("b", from(C, "10.0.0.9")).contains("guard: "));
}

/// QEMU says by it where a guest is, after it has moved.
#[test]
fn a_guest_announces_itself_by_rarp() {
    let mut sw = guarded();
    let rarp = |operation: u8, [sender, target]: [Mac; 2], addresses: [u8; 2]| {
        let address = |last: u8| if last == 0 { [0; 4] } else { [10, 0, 0, last] };
        let head = [&BROADCAST.0[..], &A.0, &[0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, operation]].concat();
        let ends = [(sender, addresses[0]), (target, addresses[1])];
        let ends = ends.map(|(mac, last)| [&mac.0[..], &address(last)].concat()).concat();
        [head, ends, vec![0; 18]].concat()
    };
    for addresses in [[0, 0], [1, 1], [0, 1]] {
        let says = rarp(3, [A, A], addresses);
        sw.send("a", says.clone());
        sw.expect("b", says.clone());
        sw.expect("c", says);
    }
    assert_eq!(sw.knows("lan", A), Some("a".into()));
    sw.forget();
    for (operation, macs, addresses, reason) in [
        (3, [B, A], [0, 0], "spoofed_arp"),
        (3, [A, B], [0, 0], "spoofed_arp"),
        (3, [A, A], [7, 0], "spoofed_arp"),
        (3, [A, A], [0, 7], "spoofed_arp"),
        // An answer, which only a server gives.
        (4, [A, A], [1, 1], "arp_malformed"),
    ] {
        sw.send("a", rarp(operation, macs, addresses));
        sw.expect_counters(&format!("a: rx_frames 1, rx_bytes 60, {reason} 1"));
    }
    sw.send("a", rarp(3, [A, A], [0, 0])[..40].to_vec());
    sw.expect_counters("a: rx_frames 1, rx_bytes 40, arp_malformed 1");
}
