//! The outer UDP checksum: none is sent; none is taken, over IPv6 too (RFC 6935, section 5); one that is there must be right.

use super::super::switch::PLAIN;
use super::*;

/// An inner TCP segment; its checksum is finished or, as a veth's peer leaves it, the pseudo-header's sum.
fn segment(finished: bool) -> Vec<u8> {
    let mut tcp = [&[0x30, 0x39, 0, 80][..], &[0; 8], &[0x50, 0x10, 1, 0, 0, 0, 0, 0], b"payload!"].concat();
    let len = u16::try_from(tcp.len()).unwrap();
    let pseudo = Sum::of(&[10, 0, 0, 2, 10, 0, 0, 1, 0, 6]) + Sum::from(len);
    let sum = if finished { (pseudo + Sum::of(&tcp)).checksum() } else { pseudo.fold() };
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    let mut ip = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1];
    ip[2..4].copy_from_slice(&(20 + len).to_be_bytes());
    let sum = Sum::of(&ip).checksum().to_be_bytes();
    ip[10..12].copy_from_slice(&sum);
    [&A.0[..], &B.0, &[8, 0], &ip, &tcp].concat()
}

fn both() -> [(String, Packet); 2] {
    [(BLUE.to_owned(), packet(segment(true))), (blue6(), packet6(segment(true)))]
}

#[test]
fn one_that_is_there_must_be_right() {
    for (text, packet) in both() {
        let mut switch = started(&text);
        let good = packet.with_checksum(packet.inner.clone());
        let len = good.len();
        switch.send("overlay", good.clone());
        switch.expect("a", segment(true));
        switch.forget();
        // A bit anywhere that the sum is over: the addresses, the ports, the header of the tunnel, what it carries.
        let udp = packet.udp();
        for at in [udp, udp + 6, udp + 9, udp + 20, len - 1] {
            let mut broken = good.clone();
            broken[at] ^= 1;
            switch.send("overlay", broken);
            switch.expect_counters(&format!("overlay: rx_frames 1, rx_bytes {len}, outer_checksum 1"));
        }
        // The pseudo-header has the addresses: a packet that lost its way, with the same sum.
        let other = if text == BLUE { OTHER } else { OTHER6 };
        let lost = packet.clone().from(other).patched(udp + 6, &good[udp + 6..udp + 8]);
        switch.send("overlay", lost);
        switch.expect_counters(&format!("overlay: rx_frames 1, rx_bytes {len}, outer_checksum 1"));
    }
}

#[test]
fn none_is_taken() {
    for (text, packet) in both() {
        let mut switch = started(&text);
        assert_eq!(packet.bytes()[packet.udp() + 6..packet.udp() + 8], [0, 0]);
        switch.send("overlay", packet.bytes());
        switch.expect("a", segment(true));
        switch.forget();
    }
}

/// Odd lengths, and what Ethernet adds to short frames.
#[test]
fn it_is_over_all_of_the_packet_and_no_more() {
    for (text, packet) in both() {
        let mut switch = started(&text);
        for len in [14, 15, 59, 60, 1443, 1444] {
            let carried = [&A.0[..], &B.0, &[0x88, 0xb5], &vec![0x77; len - 14]].concat();
            let mut bytes =
                Packet { inner: carried.clone(), ..packet.clone() }.with_checksum(carried.clone());
            bytes.extend([0xee; 5]);
            switch.send("overlay", bytes);
            switch.expect("a", carried);
        }
        switch.forget();
    }
}

/// A sender's kernel may leave an inner checksum to a device that there is none of, and make up the outer one for it.
#[test]
fn it_may_stand_for_an_inner_one_that_is_still_unfinished() {
    for (text, packet) in both() {
        let mut switch = resolved(Build::from(&text).caps("a", PLAIN));
        let unfinished = Packet { inner: segment(false), ..packet };
        let good = unfinished.with_checksum(segment(true));
        let len = good.len();
        switch.send("overlay", good.clone());
        switch.expect("a", segment(true));
        switch.forget();
        let mut broken = good;
        broken[unfinished.udp() + 7] ^= 1;
        switch.send("overlay", broken);
        switch.expect_counters(&format!("overlay: rx_frames 1, rx_bytes {len}, outer_checksum 1"));
    }
}
