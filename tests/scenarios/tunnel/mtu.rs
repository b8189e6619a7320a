//! How long packets may be: over-long ones are answered and not lost in silence; GSO frames are cut before they go in.

use nuswitch::frame::{Caps, Offload};

use super::super::frames::{Kind, Wire, gso, packet as whole, partial, verified};
use super::super::switch::{ABLE, PLAIN};
use super::*;

/// The MTU that an ICMP message tells, with the quoted packet; all else about it is right.
fn told(bytes: &[u8], v4: bool) -> (u32, Vec<u8>) {
    assert_eq!(bytes[..12], [A.0, B.0].concat(), "to its sender, as from the one it wrote to");
    let (at, kind) = if v4 { (34, [3, 4]) } else { (54, [2, 0]) };
    assert_eq!(bytes[at..at + 2], kind);
    assert_eq!(if v4 { bytes[23] } else { bytes[20] }, if v4 { 1 } else { 58 });
    let message = &bytes[at..];
    let sum = if v4 {
        Sum::of(message)
    } else {
        let len = u32::try_from(message.len()).unwrap();
        Sum::of(&bytes[22..54]) + Sum::of_u32(len) + Sum::from(58) + Sum::of(message)
    };
    assert_eq!(sum.checksum(), 0);
    let mtu = u32::from_be_bytes(message[4..8].try_into().unwrap());
    (if v4 { mtu & 0xffff } else { mtu }, message[8..].to_vec())
}

/// Networks have the underlay's MTU less 50 or 70, and packets of that length pass.
#[test]
fn the_longest_packet_passes_and_one_byte_more_is_answered() {
    for (text, mtu) in [(BLUE.to_owned(), 1450u16), (blue6(), 1430)] {
        let (peer, base): (_, fn(Vec<u8>) -> Packet) =
            if text == BLUE { (PEER, packet) } else { (PEER6, packet6) };
        let mut switch = resolved(Build::from(&text).caps("a", ABLE));
        switch.send("overlay", base(inner(A, B)).bytes());
        switch.forget();
        for v4 in [true, false] {
            let fits = long(v4, mtu);
            switch.send("a", fits.clone());
            let sent = switch.take("overlay").bytes;
            assert_eq!(sent.len(), 14 + 1500, "as long as the underlay carries");
            assert_ports_apart(&sent, &base(fits).ours(peer));
            switch.expect_counters(&format!(
                "a: rx_frames 1, rx_bytes {0}, forwarded 1; {peer}: tx_frames 1, tx_bytes {0}; \
                 overlay: tx_frames 1, tx_bytes 1514",
                mtu + 14
            ));
            let too_long = long(v4, mtu + 1);
            switch.send("a", too_long.clone());
            let message = switch.take("a").bytes;
            let (told, quote) = told(&message, v4);
            assert_eq!((told, &quote[..]), (mtu.into(), &too_long[14..14 + quote.len()]));
            // As much of it as may be: RFC 1812, 4.3.2.3; RFC 4443, 2.4(c).
            assert_eq!(message.len(), 14 + if v4 { 576 } else { 1280 });
            switch.expect_nothing("overlay");
            switch.expect_counters(&format!(
                "a: rx_frames 1, rx_bytes {}, answered 1, tx_frames 1, tx_bytes {}",
                mtu + 15,
                message.len()
            ));
        }
    }
}

/// A switch cannot fragment: who did not ask for "don't fragment" is told too, and Linux heeds it.
#[test]
fn without_dont_fragment_it_is_the_same() {
    let mut switch = blue();
    let mut may = long(true, 1451);
    may[20] = 0;
    may[24..26].copy_from_slice(&[0, 0]);
    let sum = Sum::of(&may[14..34]).checksum().to_be_bytes();
    may[24..26].copy_from_slice(&sum);
    switch.send("a", may);
    assert_eq!(told(&switch.take("a").bytes, true).0, 1450);
    switch.expect_counters("a: rx_frames 1, rx_bytes 1465, answered 1, tx_frames 1, tx_bytes 590");
}

/// RFC 1122, 3.2.2 and RFC 4443, 2.4(e) forbid a message about these; then they are counted.
#[test]
fn whom_nobody_may_be_told_about_is_counted() {
    let mut switch = blue();
    let patched = |bytes: Vec<u8>, at: usize, with: &[u8]| bytes.wire().patch(at, with).bytes;
    let cases = [
        patched(long(true, 1451), 0, &BROADCAST.0),
        patched(long(false, 1451), 0, &[0x33, 0x33, 0, 0, 0, 1]),
        patched(long(true, 1451), 12, &[0x88, 0xb5]), // not IP
        patched(long(true, 1451), 20, &[0, 9]),       // a later fragment
        patched(patched(long(true, 1451), 23, &[1]), 34, &[3]), // an ICMP error
        patched(patched(long(false, 1451), 20, &[58]), 54, &[1]),
        patched(long(true, 1451), 26, &[0; 4]), // from nobody
    ];
    for frame in cases {
        switch.send("a", frame);
        switch.expect_nothing("a");
        switch.expect_counters("a: rx_frames 1, rx_bytes 1465, mtu_exceeded 1");
    }
}

/// The answer too is no longer than its port takes.
#[test]
fn an_answer_that_does_not_fit_is_not_sent() {
    let narrow = Caps { mtu: 500, ..ABLE };
    let mut switch = resolved(Build::from(BLUE).caps("a", narrow));
    switch.send("a", long(true, 1451));
    switch.expect_nothing("a");
    switch.expect_counters("a: rx_frames 1, rx_bytes 1465, mtu_exceeded 1");
}

/// An inner packet of an honest peer is never too long; one that is ends as from any other port.
#[test]
fn what_comes_out_is_not_longer_than_its_network_either() {
    let mut switch = blue();
    switch.send("overlay", packet(long(true, 1451).wire().patch(0, &[A.0, B.0].concat()).bytes).bytes());
    switch.expect_nothing("overlay");
    switch.expect_counters(
        "overlay: rx_frames 1, rx_bytes 1515, consumed 1; 192.0.2.11: rx_frames 1, rx_bytes 1465, giant 1",
    );
}

/// A larger underlay: a network with an MTU of its own.
#[test]
fn a_jumbo_underlay_carries_jumbo_packets() {
    let mut switch =
        resolved(Build::from(&network(&overlay(BLUE, "mtu = 9000"), "mtu = 8950")).chunks(256, 32));
    switch.send("overlay", packet(inner(A, B)).bytes());
    switch.forget();
    switch.send("a", long(true, 8950));
    let sent = switch.take("overlay").bytes;
    assert_ports_apart(&sent, &packet(long(true, 8950)).ours(PEER));
    switch.forget();
    let mut back = long(true, 8950);
    back[..12].copy_from_slice(&[A.0, B.0].concat());
    switch.send("overlay", packet(back.clone()).bytes());
    switch.expect("a", back);
    switch.forget();
}

fn inner_of(sent: &[u8]) -> Vec<u8> {
    assert!(source_port(sent) >= 49152);
    sent[50..].to_vec()
}

#[test]
fn gso_frames_are_cut_before_they_go_in() {
    for kind in [Kind::Tcp4, Kind::Tcp6, Kind::Udp4, Kind::Udp6] {
        let mut switch = resolved(Build::from(BLUE).caps("overlay", PLAIN));
        switch.send("overlay", packet(inner(A, B)).bytes());
        switch.forget();
        let (payload, size) = (5000, 1200u16);
        let frame = gso(kind, payload, size);
        let len = frame.len();
        switch.send("a", frame.clone());
        let sent: Vec<Vec<u8>> = switch
            .take_all("overlay")
            .into_iter()
            .map(|wire| {
                assert_eq!(wire.offload, Offload::NONE);
                wire.bytes
            })
            .collect();
        assert_eq!(sent.len(), 5, "{kind:?}");
        let (mut carried, mut bytes) = (Vec::new(), 0);
        let port = source_port(&sent[0]);
        for outer in &sent {
            assert_eq!(source_port(outer), port, "one flow");
            let inner = inner_of(outer);
            assert_eq!(
                outer[..50],
                Packet { ports: [port, 4789], ..packet(inner.clone()).ours(PEER) }.bytes()[..50]
            );
            bytes += inner.len();
            carried.extend(verified(kind, &inner).0);
        }
        assert_eq!(carried, frame.bytes[kind.headers()..]);
        switch.expect_counters(&format!(
            "a: rx_frames 1, rx_bytes {len}, forwarded 1; 192.0.2.11: tx_frames 5, tx_bytes {bytes}; \
             overlay: tx_frames 5, tx_bytes {}",
            bytes + 250
        ));
    }
}

/// A device that finishes checksums gets the inner one to finish: its note moves behind the outer header.
#[test]
fn an_unfinished_checksum_is_finished_where_the_device_cannot() {
    for kind in [Kind::Tcp4, Kind::Udp6] {
        for able in [true, false] {
            let caps = if able { ABLE } else { PLAIN };
            let mut switch = resolved(Build::from(BLUE).caps("overlay", caps));
            switch.send("overlay", packet(inner(A, B)).bytes());
            switch.forget();
            let sent = {
                switch.send("a", partial(kind, 100));
                switch.take("overlay")
            };
            let wanted = if able { partial(kind, 100) } else { whole(kind, 100) };
            assert_eq!(inner_of(&sent.bytes), wanted.bytes);
            let note = if able {
                Offload { csum_start: wanted.offload.csum_start + 50, ..wanted.offload }
            } else {
                Offload::NONE
            };
            assert_eq!(sent.offload, note, "{kind:?}");
            switch.forget();
        }
    }
}

#[test]
fn each_peer_gets_its_own_segments() {
    let mut switch = resolved(Build::from(&format!("{BLUE}{SECOND}")).caps("overlay", PLAIN));
    let frame = gso(Kind::Tcp4, 3000, 1000); // for B, whom nobody knows
    switch.send("a", frame.clone());
    switch.expect("b", frame.clone());
    let sent = switch.take_all("overlay");
    let peers: Vec<u8> = sent.iter().map(|wire: &Wire| wire.bytes[33]).collect();
    assert_eq!(peers, [11, 11, 11, 12, 12, 12]);
    switch.expect_counters(
        "a: rx_frames 1, rx_bytes 3054, flooded 1; b: tx_frames 1, tx_bytes 3054; \
         192.0.2.11: tx_frames 3, tx_bytes 3162; 192.0.2.12: tx_frames 3, tx_bytes 3162; \
         overlay: tx_frames 6, tx_bytes 6624",
    );
}

/// Segments that would be too long are answered as packets are.
#[test]
fn gso_frames_with_segments_that_do_not_fit_are_answered() {
    for (kind, v4) in [(Kind::Tcp4, true), (Kind::Tcp6, false)] {
        let mut switch = resolved(Build::from(BLUE).caps("overlay", PLAIN));
        let fits = 1450 + 14 - kind.headers() as u16;
        let frame = gso(kind, 5000, fits + 1);
        let len = frame.len();
        switch.send("a", frame);
        let message = switch.take("a").bytes;
        assert_eq!(told(&message, v4).0, 1450);
        switch.expect_counters(&format!(
            "a: rx_frames 1, rx_bytes {len}, answered 1, tx_frames 1, tx_bytes {}",
            message.len()
        ));
        switch.send("overlay", packet(inner(A, B)).bytes());
        switch.forget();
        switch.send("a", gso(kind, 5000, fits));
        assert!(switch.take_all("overlay").iter().all(|wire| wire.len() <= 1514));
        switch.forget();
    }
}

/// A frame whose segments were merged by the kernel comes out as one, for a device that takes it.
#[test]
fn merged_frames_come_out_whole() {
    let mut switch = resolved(Build::from(BLUE).chunks(256, 32));
    let mut frame = gso(Kind::Tcp4, 4000, 1000);
    frame.bytes[..12].copy_from_slice(&[A.0, B.0].concat());
    let mut outer = packet(frame.bytes.clone()).bytes().wire();
    outer.offload = Offload {
        csum_start: frame.offload.csum_start + 50,
        hdr_len: frame.offload.hdr_len + 50,
        ..frame.offload
    };
    switch.send("overlay", outer);
    switch.expect("a", frame);
    switch.forget();
}
