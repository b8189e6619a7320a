//! Unfinished checksums and GSO frames between ports of different abilities: untouched where both can, summed and segmented
//! exactly where the exit cannot.

use super::frames::*;
use super::ipv4::seal;
use super::switch::*;
use super::{CAMPUS, LAN};
use nuswitch::frame::Offload;
use nuswitch::ports::Caps;

const KINDS: [Kind; 4] = [Kind::Tcp4, Kind::Tcp6, Kind::Udp4, Kind::Udp6];

/// `b` is known, so that frames for it are forwarded.
fn lan(b: Caps, c: Caps) -> Switch {
    let mut sw = Build::from(LAN).caps("b", b).caps("c", c).start();
    sw.send("b", frame().from(B).to(A));
    sw.forget();
    sw
}

/// Frames that make up `whole` again, each with right sums.
fn expect_segments(sw: &mut Switch, port: &str, whole: &Wire, kind: Kind, size: usize) {
    let payload = &whole.bytes[kind.headers()..];
    let mut sent = Vec::new();
    for chunk in payload.chunks(size) {
        let wire = sw.take(port);
        assert_eq!(wire.offload, Offload::NONE);
        let (got, sequence) = verified(kind, &wire.bytes);
        assert_eq!(wire.bytes[..12], whole.bytes[..12]);
        if matches!(kind, Kind::Tcp4 | Kind::Tcp6) {
            assert_eq!(sequence as usize, 1000 + sent.len());
        }
        assert_eq!(got, chunk);
        sent.extend(got);
    }
    assert_eq!(sent, payload);
}

#[test]
fn what_both_ends_can_passes_untouched() {
    for kind in KINDS {
        let mut sw = lan(ABLE, ABLE);
        for wire in [partial(kind, 100), gso(kind, 5000, 1000), gso(kind, 60_000, 1400)] {
            let bytes = wire.len();
            sw.send("a", wire.clone());
            sw.expect("b", wire);
            sw.expect_counters(&format!(
                "a: rx_frames 1, rx_bytes {bytes}, forwarded 1; b: tx_frames 1, tx_bytes {bytes}"
            ));
        }
    }
}

#[test]
fn a_partial_checksum_is_finished_for_an_exit_that_cannot() {
    for kind in KINDS {
        let mut sw = lan(PLAIN, PLAIN);
        sw.send("a", partial(kind, 101));
        sw.expect("b", packet(kind, 101));
        let bytes = packet(kind, 101).len();
        sw.expect_counters(&format!(
            "a: rx_frames 1, rx_bytes {bytes}, forwarded 1; b: tx_frames 1, tx_bytes {bytes}"
        ));
    }
}

/// Where the switch, or a device behind it, would write the sum over what was decided by.
#[test]
fn an_unfinished_checksum_is_written_over_nothing_else() {
    let mut sw = lan(ABLE, ABLE);
    let note = |csum_start, csum_offset| Offload {
        flags: Offload::NEEDS_CSUM,
        csum_start,
        csum_offset,
        ..Offload::NONE
    };
    let from = |what: &str| spec(&format!("eth src={A} dst={B} {what}"));
    let udp = from("ip src=10.0.0.1 dst=10.0.0.2 udp sport=1 dport=2 len=40");
    let mut part = udp.clone();
    part.bytes[20] |= 0x20;
    seal(&mut part.bytes[14..34]);
    for (wire, note) in [
        (udp.clone(), note(14, 12)),
        (udp.clone(), note(14, 18)),
        (udp.clone(), note(34, 0)),
        (udp.clone(), note(34, 2)),
        (udp.clone(), note(38, 2)),
        (tagged(udp.clone(), 0), note(14, 2)),
        (tagged(udp, 0), note(18, 16)),
        (from("ip src=2001:db8::1 dst=2001:db8::2 udp sport=1 dport=2 len=40"), note(54, 2)),
        (part, note(34, 6)),
    ] {
        let bytes = wire.len();
        sw.send("a", Wire { offload: note, ..wire });
        sw.expect_counters(&format!("a: rx_frames 1, rx_bytes {bytes}, bad_offload 1"));
    }
    // One of a packet inside is finished before anyone looks, though the exit could do it.
    let carried = from("ip src=10.0.0.1 dst=10.0.0.2 proto=47 len=60");
    sw.send("a", Wire { offload: note(58, 16), ..carried.clone() });
    let sum = !carried.bytes[58..].chunks(2).fold(0u16, |sum, pair| {
        let (sum, carry) = sum.overflowing_add(u16::from_be_bytes([pair[0], pair[1]]));
        sum + u16::from(carry)
    });
    sw.expect("b", carried.patch(74, &sum.to_be_bytes()));
    sw.forget();
}

#[test]
fn a_gso_frame_is_cut_and_summed_for_an_exit_that_cannot() {
    for kind in KINDS {
        let mut sw = lan(PLAIN, PLAIN);
        let whole = gso(kind, 2500, 1000);
        sw.send("a", whole.clone());
        expect_segments(&mut sw, "b", &whole, kind, 1000);
        let (rx, tx) = (whole.len(), whole.len() + 2 * kind.headers());
        sw.expect_counters(&format!(
            "a: rx_frames 1, rx_bytes {rx}, forwarded 1; b: tx_frames 3, tx_bytes {tx}"
        ));
    }
}

#[test]
fn only_what_the_exit_cannot_is_done() {
    // It sums but does not cut: segments leave with the sum still to be done.
    let mut sw = lan(Caps { tso: false, uso: false, ..ABLE }, ABLE);
    sw.send("a", gso(Kind::Tcp4, 2500, 1000));
    let payload = packet(Kind::Tcp4, 2500).bytes.split_off(54);
    for chunk in payload.chunks(1000) {
        let wire = sw.take("b");
        let note = wire.offload;
        assert_eq!((note.flags, note.gso_type, note.csum_start, note.csum_offset), (1, 0, 34, 16));
        assert_eq!(&wire.bytes[54..], chunk);
        // The seed: what finishing it naively must give a right checksum from.
        assert_eq!(wire.bytes[50..52], partial(Kind::Tcp4, chunk.len()).bytes[50..52]);
    }
    sw.expect_counters("a: rx_frames 1, rx_bytes 2554, forwarded 1; b: tx_frames 3, tx_bytes 2662");
    // TCP whole, UDP cut.
    let mut sw = lan(Caps { uso: false, ..ABLE }, ABLE);
    sw.send("a", gso(Kind::Tcp6, 2500, 1000));
    sw.expect("b", gso(Kind::Tcp6, 2500, 1000));
    sw.send("a", gso(Kind::Udp6, 2500, 1000));
    for _ in 0..3 {
        assert_eq!(sw.take("b").offload.gso_type, 0);
    }
    sw.expect_counters("a: rx_frames 2, rx_bytes 5136, forwarded 2; b: tx_frames 4, tx_bytes 5260");
}

#[test]
fn a_tag_is_pushed_and_the_sums_are_right_behind_it() {
    for kind in KINDS {
        let mut sw = Build::from(CAMPUS).caps("up", PLAIN).start();
        sw.send("up", frame().from(B).to(A).tag(10));
        sw.forget();
        sw.send("r", partial(kind, 33));
        sw.expect("up", tagged(packet(kind, 33), 10));
        sw.forget();
        let whole = gso(kind, 2500, 1000);
        sw.send("r", whole.clone());
        for (index, chunk) in whole.bytes[kind.headers()..].chunks(1000).enumerate() {
            let wire = sw.take("up");
            assert_eq!(wire.offload, Offload::NONE, "segment {index}");
            let (inner, id) = untagged(wire);
            assert_eq!(id, 10);
            assert_eq!(verified(kind, &inner.bytes).0, chunk);
        }
        let (rx, tx) = (whole.len(), whole.len() + 2 * kind.headers() + 3 * 4);
        sw.expect_counters(&format!(
            "r: rx_frames 1, rx_bytes {rx}, forwarded 1; up: tx_frames 3, tx_bytes {tx}"
        ));
    }
}

#[test]
fn a_note_moves_with_the_headers_when_a_tag_comes_or_goes() {
    for kind in KINDS {
        let mut sw = Switch::from(CAMPUS);
        sw.send("up", frame().from(B).to(A).tag(10));
        sw.forget();
        let whole = gso(kind, 2500, 1000);
        let bytes = whole.len();
        sw.send("r", whole.clone());
        sw.expect("up", tagged(whole.clone(), 10));
        sw.expect_counters(&format!(
            "r: rx_frames 1, rx_bytes {bytes}, forwarded 1; up: tx_frames 1, tx_bytes {}",
            bytes + 4
        ));
        sw.send("some", tagged(whole.clone(), 10));
        sw.expect("up", tagged(whole, 10));
        sw.forget();
    }
}

#[test]
fn a_flood_to_mixed_ports_gives_each_what_it_can_take() {
    let mut sw = lan(ABLE, PLAIN);
    let mut whole = gso(Kind::Tcp4, 2500, 1000);
    whole = whole.patch(0, &BROADCAST.0);
    sw.send("a", whole.clone());
    sw.expect("b", whole.clone());
    expect_segments(&mut sw, "c", &whole, Kind::Tcp4, 1000);
    sw.expect_counters(
        "a: rx_frames 1, rx_bytes 2554, flooded 1; b: tx_frames 1, tx_bytes 2554; c: tx_frames 3, tx_bytes 2662",
    );
}

#[test]
fn gso_frames_are_measured_by_their_segments() {
    let mut sw = lan(ABLE, ABLE);
    // 1460 and 40 bytes of headers are 1500.
    sw.send("a", gso(Kind::Tcp4, 5000, 1460));
    sw.expect("b", gso(Kind::Tcp4, 5000, 1460));
    sw.forget();
    sw.send("a", gso(Kind::Tcp4, 5000, 1461));
    sw.expect_counters("a: rx_frames 1, rx_bytes 5054, giant 1");
    let mut sw = lan(Caps { mtu: 1400, ..PLAIN }, ABLE);
    sw.send("a", gso(Kind::Tcp4, 5000, 1461 - 100));
    sw.expect_counters("a: rx_frames 1, rx_bytes 5054, mtu_exceeded 1");
}

#[test]
fn congestion_is_told_by_the_first_segment_and_the_end_by_the_last() {
    let mut sw = lan(PLAIN, PLAIN);
    let mut whole = gso(Kind::Tcp4, 3000, 1000);
    whole.offload.gso_type |= Offload::GSO_ECN;
    whole.bytes[47] = 0x80 | 0x10 | 0x08 | 0x01; // CWR, ACK, PSH, FIN
    sw.send("a", whole);
    let flags: Vec<u8> = (0..3).map(|_| sw.take("b").bytes[47]).collect();
    assert_eq!(flags, [0x90, 0x10, 0x19]);
    sw.forget();
}

#[test]
fn segments_that_find_no_chunk_are_lost_and_counted() {
    let mut sw = Build::from(LAN).caps("b", PLAIN).chunks(8, 4).start();
    sw.send("b", frame().from(B).to(A));
    sw.forget();
    sw.send("a", gso(Kind::Tcp4, 20_000, 1000));
    for _ in 0..8 {
        assert_eq!(sw.take("b").len(), 1054);
    }
    sw.expect_counters("a: rx_frames 1, rx_bytes 20054, no_buffer 1; b: tx_frames 8, tx_bytes 8432");
    sw.send("a", gso(Kind::Tcp4, 3000, 1000));
    expect_segments(&mut sw, "b", &gso(Kind::Tcp4, 3000, 1000), Kind::Tcp4, 1000);
    sw.expect_counters("a: rx_frames 1, rx_bytes 3054, forwarded 1; b: tx_frames 3, tx_bytes 3162");
}
