//! Explicit congestion notification: RFC 6040, each combination, over each IP version.

use super::super::frames::spec;
use super::*;

const NOT_ECT: u8 = 0;
const ECT_1: u8 = 1;
const ECT_0: u8 = 2;
const CE: u8 = 3;
const ALL: [u8; 4] = [NOT_ECT, ECT_1, ECT_0, CE];
/// DSCP of the guests' packets (AF41), which the tunnel neither shows nor changes.
const DSCP: u8 = 34;

/// A guest's TCP segment with this ECN field; all checksums are right.
fn segment(v4: bool, ecn: u8, (to, from): (Mac, Mac)) -> Vec<u8> {
    let addresses = if v4 { "src=10.0.0.2 dst=10.0.0.1" } else { "src=fd00::2 dst=fd00::1" };
    let mut bytes =
        spec(&format!("eth src={from} dst={to} ip {addresses} tcp sport=80 dport=90 len=20")).bytes;
    let class = DSCP << 2 | ecn;
    if v4 {
        bytes[15] = class;
        bytes[24..26].copy_from_slice(&[0, 0]);
        let sum = Sum::of(&bytes[14..34]).checksum().to_be_bytes();
        bytes[24..26].copy_from_slice(&sum);
    } else {
        bytes[14] = 0x60 | class >> 4;
        bytes[15] = class << 4;
    }
    bytes
}

/// Section 4.1, normal mode: the outer field is a copy of the inner one.
#[test]
fn what_goes_in_is_copied() {
    for text in [BLUE.to_owned(), blue6()] {
        let is_v4 = text == BLUE;
        let mut switch = started(&overlay(&text, "dscp = 10"));
        switch.send("overlay", if is_v4 { packet(inner(A, B)) } else { packet6(inner(A, B)) }.bytes());
        switch.forget();
        for inner_v4 in [true, false] {
            for ecn in ALL {
                let sent = segment(inner_v4, ecn, (B, A));
                switch.send("a", sent.clone());
                let wanted = if is_v4 { packet(sent).ours(PEER) } else { packet6(sent).ours(PEER6) };
                expect_packet(&mut switch, &wanted.class(10 << 2 | ecn));
            }
        }
        switch.forget();
        // What is not IP has no field.
        let arp = spec(&format!("eth src={A} dst={B} arp who-has 10.0.0.2 tell 10.0.0.1")).bytes;
        switch.send("a", arp.clone());
        let wanted = if is_v4 { packet(arp).ours(PEER) } else { packet6(arp).ours(PEER6) };
        expect_packet(&mut switch, &wanted.class(10 << 2));
        switch.forget();
    }
}

/// Figure 4: rows are the inner field, columns the outer one in the order of [`ALL`]; none: dropped.
const FIGURE_4: [(u8, [Option<u8>; 4]); 4] = [
    (NOT_ECT, [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None]),
    (ECT_0, [Some(ECT_0), Some(ECT_1), Some(ECT_0), Some(CE)]),
    (ECT_1, [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)]),
    (CE, [Some(CE), Some(CE), Some(CE), Some(CE)]),
];

#[test]
fn what_comes_out_follows_figure_4() {
    for (text, outer_v4) in [(BLUE.to_owned(), true), (blue6(), false)] {
        let mut switch = started(&text);
        for inner_v4 in [true, false] {
            for (was, row) in FIGURE_4 {
                for (outer, wanted) in ALL.into_iter().zip(row) {
                    let carried = segment(inner_v4, was, (A, B));
                    let packet = if outer_v4 { packet(carried.clone()) } else { packet6(carried.clone()) };
                    let bytes = packet.class(0xb8 | outer).bytes();
                    let (len, outer_len) = (carried.len(), bytes.len());
                    switch.send("overlay", bytes);
                    let peer = if outer_v4 { PEER } else { PEER6 };
                    println!("inner {was} outer {outer}, versions 4: {inner_v4} in {outer_v4}");
                    match wanted {
                        Some(now) => {
                            // The checksum too is that of the packet as it would have been made.
                            switch.expect("a", segment(inner_v4, now, (A, B)));
                            switch.expect_counters(&format!(
                                "overlay: rx_frames 1, rx_bytes {outer_len}, consumed 1; \
                                 {peer}: rx_frames 1, rx_bytes {len}, forwarded 1; a: tx_frames 1, tx_bytes {len}"
                            ));
                        }
                        None => switch.expect_counters(&format!(
                            "overlay: rx_frames 1, rx_bytes {outer_len}, congestion 1"
                        )),
                    }
                }
            }
        }
    }
}

/// Section 4.2 speaks of IP in IP. What is not IP cannot tell anyone, and dropping it would not help.
#[test]
fn congestion_does_not_cost_what_is_not_ip() {
    let mut switch = blue();
    let arp = spec(&format!("eth src={B} dst={A} arp reply 10.0.0.2 is-at {B} to=10.0.0.1")).bytes;
    switch.send("overlay", packet(arp.clone()).class(CE).bytes());
    switch.expect("a", arp);
    switch.forget();
    // Something that says to be IP and is too short for it.
    let cut = segment(true, ECT_0, (A, B))[..14].to_vec();
    switch.send("overlay", packet(cut).class(CE).bytes());
    switch.expect_counters("overlay: rx_frames 1, rx_bytes 64, congestion 1");
}
