//! Frames that no switch may carry, and those that do not fit: each has its own counter.

use super::frames::*;
use super::switch::*;
use super::{CAMPUS, LAN};
use nuswitch::frame::Offload;
use nuswitch::ports::Caps;
use nuswitch::types::Mac;

#[test]
fn runts() {
    let mut sw = Switch::from(LAN);
    for len in 0..14 {
        sw.send("a", frame().wire().cut(len));
        let bytes = if len == 0 { String::new() } else { format!("rx_bytes {len}, ") };
        sw.expect_counters(&format!("a: rx_frames 1, {bytes}runt 1"));
    }
    sw.send("a", frame().to(BROADCAST).payload(0));
    sw.expect("b", frame().to(BROADCAST).payload(0));
    sw.expect("c", frame().to(BROADCAST).payload(0));
    sw.expect_counters(
        "a: rx_frames 1, rx_bytes 14, flooded 1; b: tx_frames 1, tx_bytes 14; c: tx_frames 1, tx_bytes 14",
    );
}

#[test]
fn giants_are_longer_than_the_networks_mtu() {
    let mut sw = Switch::from(LAN);
    sw.send("a", frame().to(BROADCAST).payload(1500));
    sw.expect("b", frame().to(BROADCAST).payload(1500));
    sw.expect("c", frame().to(BROADCAST).payload(1500));
    sw.expect_counters(
        "a: rx_frames 1, rx_bytes 1514, flooded 1; b: tx_frames 1, tx_bytes 1514; c: tx_frames 1, tx_bytes 1514",
    );
    sw.send("a", frame().to(BROADCAST).payload(1501));
    sw.expect_counters("a: rx_frames 1, rx_bytes 1515, giant 1");
}

#[test]
fn a_payload_tag_does_not_count_for_the_mtu() {
    let mut sw = Switch::from(CAMPUS);
    let inner = || frame().to(BROADCAST).tag(20).tag(77);
    sw.send("all", inner().payload(1500));
    sw.expect("up", inner().payload(1500));
    sw.expect("some", inner().payload(1500));
    sw.expect("b", frame().to(BROADCAST).tag(77).payload(1500));
    sw.expect_counters(
        "all: rx_frames 1, rx_bytes 1522, flooded 1; up: tx_frames 1, tx_bytes 1522; \
         some: tx_frames 1, tx_bytes 1522; b: tx_frames 1, tx_bytes 1518",
    );
    sw.send("all", inner().payload(1501));
    sw.expect_counters("all: rx_frames 1, rx_bytes 1523, giant 1");
}

#[test]
fn a_tag_does_not_count_for_the_mtu() {
    let mut sw = Switch::from(CAMPUS);
    sw.send("b", frame().to(BROADCAST).payload(1500));
    for port in ["up", "all", "some"] {
        sw.expect(port, frame().to(BROADCAST).tag(20).payload(1500));
    }
    sw.forget();
    sw.send("all", frame().to(BROADCAST).tag(20).payload(1501));
    sw.expect_counters("all: rx_frames 1, rx_bytes 1519, giant 1");
}

#[test]
fn jumbo_frames_pass_where_the_network_says_so() {
    let mut sw = Switch::from(&LAN.replace("name = \"lan\"\n", "name = \"lan\"\nmtu = 9000\n"));
    sw.send("a", frame().to(BROADCAST).payload(9000));
    sw.expect("b", frame().to(BROADCAST).payload(9000));
    sw.expect("c", frame().to(BROADCAST).payload(9000));
    sw.expect_counters(
        "a: rx_frames 1, rx_bytes 9014, flooded 1; b: tx_frames 1, tx_bytes 9014; c: tx_frames 1, tx_bytes 9014",
    );
    sw.send("a", frame().to(BROADCAST).payload(9001));
    sw.expect_counters("a: rx_frames 1, rx_bytes 9015, giant 1");
}

#[test]
fn an_exit_with_a_smaller_mtu_gets_no_longer_frames() {
    let mut sw = Build::from(LAN).caps("b", Caps { mtu: 1400, ..ABLE }).start();
    sw.send("b", frame().from(B).to(BROADCAST));
    sw.forget();
    sw.send("a", frame().payload(1400));
    sw.expect("b", frame().payload(1400));
    sw.expect_counters("a: rx_frames 1, rx_bytes 1414, forwarded 1; b: tx_frames 1, tx_bytes 1414");
    sw.send("a", frame().payload(1401));
    sw.expect_counters("a: rx_frames 1, rx_bytes 1415, mtu_exceeded 1");
    sw.send("a", frame().to(BROADCAST).payload(1401));
    sw.expect("c", frame().to(BROADCAST).payload(1401));
    sw.expect_counters(
        "a: rx_frames 1, rx_bytes 1415, flooded 1, mtu_exceeded 1; c: tx_frames 1, tx_bytes 1415",
    );
}

#[test]
fn truncated_tags() {
    let mut sw = Switch::from(CAMPUS);
    for len in 14..18 {
        sw.send("all", frame().tag(10).wire().cut(len));
        sw.expect_counters(&format!("all: rx_frames 1, rx_bytes {len}, truncated_tag 1"));
        sw.send("r", frame().tag(10).wire().cut(len));
        sw.expect_counters(&format!("r: rx_frames 1, rx_bytes {len}, truncated_tag 1"));
    }
    for len in 18..22 {
        sw.send("all", frame().tag(10).tag(77).wire().cut(len));
        sw.expect_counters(&format!("all: rx_frames 1, rx_bytes {len}, truncated_tag 1"));
    }
    sw.send("all", frame().to(BROADCAST).tag(30).wire().cut(18));
    sw.expect("up", frame().to(BROADCAST).tag(30).payload(0));
    sw.expect_counters("all: rx_frames 1, rx_bytes 18, flooded 1; up: tx_frames 1, tx_bytes 18");
}

#[test]
fn bad_802_3_lengths() {
    let mut sw = Switch::from(LAN);
    let length = |length| frame().to(BROADCAST).ethertype(length);
    for good in [0, 1, 46] {
        sw.send("a", length(good));
        sw.expect("b", length(good));
        sw.expect("c", length(good));
        sw.expect_counters(
            "a: rx_frames 1, rx_bytes 60, flooded 1; b: tx_frames 1, tx_bytes 60; c: tx_frames 1, tx_bytes 60",
        );
    }
    for bad in [47, 1500, 1501, 1535] {
        sw.send("a", length(bad));
        sw.expect_counters("a: rx_frames 1, rx_bytes 60, bad_length 1");
    }
    sw.send("a", length(1501).payload(1501));
    sw.expect_counters("a: rx_frames 1, rx_bytes 1515, bad_length 1");
    let mut sw = Switch::from(CAMPUS);
    sw.send("all", length(46).tag(30));
    sw.expect("up", length(46).tag(30));
    sw.expect_counters("all: rx_frames 1, rx_bytes 64, flooded 1; up: tx_frames 1, tx_bytes 64");
    sw.send("all", length(47).tag(30));
    sw.expect_counters("all: rx_frames 1, rx_bytes 64, bad_length 1");
}

#[test]
fn sources_that_are_no_station() {
    let mut sw = Switch::from(LAN);
    for group in [Mac::BROADCAST, Mac([0x01, 0, 0x5e, 0, 0, 1]), Mac([1, 0, 0, 0, 0, 0])] {
        sw.send("a", frame().from(group).to(B));
        assert_eq!(sw.knows("lan", group), None);
        sw.expect_counters("a: rx_frames 1, rx_bytes 60, source_multicast 1");
    }
    sw.send("a", frame().from(Mac([0; 6])).to(B));
    sw.expect_counters("a: rx_frames 1, rx_bytes 60, source_zero 1");
}

#[test]
fn a_dropped_frame_teaches_nothing() {
    let mut sw = Switch::from(LAN);
    sw.send("a", frame().from(A).payload(1501));
    sw.send("a", frame().from(A).to(Mac([1, 0x80, 0xc2, 0, 0, 0])));
    sw.send("a", frame().from(A).ethertype(1535));
    assert_eq!(sw.knows("lan", A), None);
    sw.expect_counters("a: rx_frames 3, rx_bytes 1635, giant 1, reserved_mac 1, bad_length 1");
}

#[test]
fn offload_notes_that_do_not_fit_their_frame() {
    let mut sw = Switch::from(LAN);
    let good = gso(Kind::Tcp4, 3000, 1000);
    let note = |change: &dyn Fn(&mut Offload)| {
        let mut wire = good.clone();
        change(&mut wire.offload);
        wire
    };
    let hostile: [(&str, Wire); 12] = [
        ("a segment size of nothing", note(&|note| note.gso_size = 0)),
        ("too many segments", note(&|note| note.gso_size = 1)),
        ("another IP's type", note(&|note| note.gso_type = Offload::GSO_TCPV6)),
        ("another transport's type", note(&|note| note.gso_type = Offload::GSO_UDP_L4)),
        ("UDP fragmentation", note(&|note| note.gso_type = Offload::GSO_UDP)),
        ("no such type", note(&|note| note.gso_type = 7)),
        ("ECN alone", note(&|note| note.gso_type = Offload::GSO_ECN)),
        ("a finished checksum", note(&|note| note.flags = 0)),
        ("a sum from elsewhere", note(&|note| note.csum_start = 20)),
        ("a sum to elsewhere", note(&|note| note.csum_offset = 6)),
        ("a total length that is not the frame's", good.clone().patch(16, &[0, 60])),
        ("a fragment", good.clone().patch(20, &[0x20, 0])),
    ];
    for (what, wire) in hostile {
        let bytes = wire.len();
        sw.send("a", wire);
        println!("{what}");
        sw.expect_counters(&format!("a: rx_frames 1, rx_bytes {bytes}, bad_offload 1"));
    }
    for (start, offset) in [(0, 16), (13, 0), (34, 100), (200, 0), (65535, 65535), (65535, 0), (34, 65535)] {
        let mut wire = partial(Kind::Tcp4, 10);
        (wire.offload.csum_start, wire.offload.csum_offset) = (start, offset);
        let bytes = wire.len();
        sw.send("a", wire);
        println!("sum from {start} to {offset}");
        sw.expect_counters(&format!("a: rx_frames 1, rx_bytes {bytes}, bad_offload 1"));
    }
}
