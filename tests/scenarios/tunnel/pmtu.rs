//! The path to a peer: made narrower by ICMP about one of our packets, by nothing else, and wide again after ten minutes.

use super::super::frames::spec;
use super::super::switch::{ABLE, secs};
use super::*;

/// What a router of the underlay says about a packet of ours that it could not pass on.
fn too_big(about: &[u8], mtu: u16) -> Vec<u8> {
    too_big_from("192.0.2.1", "2001:db8::1", about, mtu)
}

fn too_big_from(router4: &str, router6: &str, about: &[u8], mtu: u16) -> Vec<u8> {
    let v4 = about[12..14] == [8, 0];
    let quote = &about[14..about.len().min(14 + if v4 { 548 } else { 1232 })];
    let mut message = if v4 { vec![3, 4, 0, 0, 0, 0] } else { vec![2, 0, 0, 0, 0, 0] };
    message.extend(mtu.to_be_bytes());
    message.extend(quote);
    let (from, to) = if v4 { (router4, LOCAL) } else { (router6, LOCAL6) };
    let kind = if v4 { 1 } else { 58 };
    let len = message.len();
    let mut bytes =
        spec(&format!("eth src={PEER_MAC} dst={VTEP_MAC} ip src={from} dst={to} proto={kind} len={len}"))
            .bytes;
    let at = bytes.len() - len;
    let sum = if v4 {
        Sum::of(&message)
    } else {
        Sum::of(&bytes[22..54]) + Sum::from(58) + Sum::from(u16::try_from(len).unwrap()) + Sum::of(&message)
    };
    message[2..4].copy_from_slice(&sum.checksum().to_be_bytes());
    bytes[at..].copy_from_slice(&message);
    bytes
}

/// B is behind the first peer, C behind the second; gives a packet to each that fills the underlay.
fn ready(text: &str) -> (Switch, Vec<u8>, Vec<u8>) {
    let v4 = text.contains("192.0.2.10");
    let (base, other, mtu): (fn(Vec<u8>) -> Packet, _, _) =
        if v4 { (packet, OTHER, 1450) } else { (packet6, OTHER6, 1430) };
    let mut switch = resolved(Build::from(text).caps("a", ABLE));
    switch.send("overlay", base(inner(A, B)).bytes());
    switch.send("overlay", base(inner(A, C)).from(other).bytes());
    switch.forget();
    let sent = [B, C].map(|to| {
        switch.send("a", long(true, mtu).wire().patch(0, &to.0).bytes);
        switch.take("overlay").bytes
    });
    switch.forget();
    let [to_b, to_c] = sent;
    (switch, to_b, to_c)
}

/// The MTU that a guest is told for a packet to `to` of this length; none: the packet passes.
fn told(switch: &mut Switch, to: Mac, v4: bool, len: u16) -> Option<u16> {
    switch.send("a", long(v4, len).wire().patch(0, &to.0).bytes);
    let message = switch.take_all("a");
    if message.is_empty() {
        assert_eq!(switch.take_all("overlay").len(), 1);
        return None;
    }
    switch.expect_nothing("overlay");
    let at = if v4 { 40 } else { 60 };
    Some(u16::from_be_bytes(message[0].bytes[at..at + 2].try_into().unwrap()))
}

#[test]
fn a_narrow_path_is_that_peers_alone() {
    for (text, full, less) in [(BLUE.to_owned(), 1450, 50), (blue6(), 1430, 70)] {
        let (mut switch, to_b, _) = ready(&text);
        let said = too_big(&to_b, 1400);
        let len = said.len();
        switch.send("overlay", said);
        switch.expect_counters(&format!("overlay: rx_frames 1, rx_bytes {len}, consumed 1"));
        for v4 in [true, false] {
            assert_eq!(told(&mut switch, B, v4, 1400 - less), None);
            assert_eq!(told(&mut switch, B, v4, 1400 - less + 1), Some(1400 - less));
            assert_eq!(told(&mut switch, C, v4, full), None, "the other peer's path is as it was");
        }
        switch.forget();
    }
}

#[test]
fn counters_of_a_narrow_path() {
    let (mut switch, to_b, _) = ready(BLUE);
    switch.send("overlay", too_big(&to_b, 1400));
    switch.forget();
    switch.send("a", long(true, 1351));
    switch.take("a");
    switch.expect_counters("a: rx_frames 1, rx_bytes 1365, answered 1, tx_frames 1, tx_bytes 590");
    switch.send("a", long(true, 1350));
    switch.take("overlay");
    switch.expect_counters(
        "a: rx_frames 1, rx_bytes 1364, forwarded 1; 192.0.2.11: tx_frames 1, tx_bytes 1364; \
         overlay: tx_frames 1, tx_bytes 1414",
    );
}

/// RFC 1191, section 6.3.
#[test]
fn a_path_is_tried_again_after_ten_minutes() {
    for (text, full, less) in [(BLUE.to_owned(), 1450, 50), (blue6(), 1430, 70)] {
        let (mut switch, to_b, _) = ready(&text);
        let peers = if less == 50 { [PEER, OTHER] } else { [PEER6, OTHER6] };
        switch.send("overlay", too_big(&to_b, 1400));
        let wait = |switch: &mut Switch, seconds: u64| {
            for _ in 0..seconds / 20 {
                switch.advance(secs(20));
                resolve(switch, &peers);
                let base = if less == 50 { packet } else { packet6 };
                switch.send("overlay", base(inner(A, B)).bytes());
                switch.forget();
            }
        };
        wait(&mut switch, 580);
        assert_eq!(told(&mut switch, B, true, full), Some(1400 - less));
        wait(&mut switch, 40);
        assert_eq!(told(&mut switch, B, true, full), None);
        switch.forget();
    }
}

/// RFC 1191, section 5: a router that does not tell its MTU. And what no router may say (RFC 8201, section 4).
#[test]
fn what_it_may_be_lowered_to() {
    let (mut switch, to_b, _) = ready(BLUE);
    switch.send("overlay", too_big(&to_b, 0));
    assert_eq!(told(&mut switch, B, true, 1450), Some(1492 - 50), "the plateau below 1500");
    switch.send("overlay", too_big(&to_b, 100));
    assert_eq!(told(&mut switch, B, true, 1450), Some(576 - 50), "RFC 791: every host takes 576");
    switch.send("overlay", too_big(&to_b, 1400));
    assert_eq!(told(&mut switch, B, true, 1450), Some(576 - 50), "never wider by being told");
    switch.forget();

    let (mut switch, to_b, _) = ready(&blue6());
    switch.send("overlay", too_big(&to_b, 1279));
    assert_eq!(told(&mut switch, B, true, 1430), None);
    switch.send("overlay", too_big(&to_b, 1280));
    assert_eq!(told(&mut switch, B, true, 1430), Some(1210));
    // An IPv6 guest cannot be told of less than 1280 (RFC 8200, section 5): the packet is counted.
    switch.forget();
    switch.send("a", long(false, 1280));
    switch.expect_counters("a: rx_frames 1, rx_bytes 1294, mtu_exceeded 1");
}

/// A lie changes nothing and is counted.
#[test]
fn forged_messages_lower_nothing() {
    for (text, full) in [(BLUE.to_owned(), 1450), (blue6(), 1430)] {
        let v4 = text == BLUE;
        let (mut switch, to_b, _) = ready(&text);
        let udp = if v4 { 34 } else { 54 };
        let patched = |at: usize, with: &[u8]| too_big(&to_b.clone().wire().patch(at, with).bytes, 1400);
        let good = too_big(&to_b, 1400);
        let icmp = if v4 { 34 } else { 54 };
        let mut cases = vec![
            // About a packet from somebody else, of another protocol, to another port.
            patched(udp - if v4 { 5 } else { 17 }, &[0x77]),
            patched(if v4 { 23 } else { 20 }, &[6]),
            patched(udp + 2, &[0, 53]),
            // About one that would have passed, and about none.
            too_big(&to_b, 1500),
            too_big(&to_b[..14], 1400),
            // A wrong checksum; another's MAC; another address; cut off.
            good.clone().wire().patch(icmp + 2, &[0xde, 0xad]).bytes,
            good.clone().wire().patch(0, &PEER_MAC.0).bytes,
            good[..good.len() - 100].to_vec(),
            // Another kind: unreachable; time exceeded.
            good.clone().wire().patch(icmp, if v4 { &[3, 1] } else { &[1, 0] }).bytes,
        ];
        if v4 {
            cases.push(patched(20, &[0, 9])); // about a later fragment
        }
        for (at, said) in cases.into_iter().enumerate() {
            let len = said.len();
            switch.send("overlay", said);
            println!("{at}, IPv4: {v4}");
            switch.expect_counters(&format!("overlay: rx_frames 1, rx_bytes {len}, underlay_other 1"));
            assert_eq!(told(&mut switch, B, true, full), None);
            switch.forget();
        }
    }
}

/// A flooded frame goes to the peers whose path carries it; its sender is told of the narrow one.
#[test]
fn a_flooded_frame_is_held_back_where_it_does_not_fit() {
    let (mut switch, to_b, _) = ready(BLUE);
    switch.send("overlay", too_big(&to_b, 1400));
    switch.forget();
    let unknown = mac(0x55);
    switch.send("a", long(true, 1450).wire().patch(0, &unknown.0).bytes);
    let message = switch.take("a").bytes;
    assert_eq!(u16::from_be_bytes([message[40], message[41]]), 1350);
    let sent = switch.take("overlay").bytes;
    assert_eq!(sent[30..34], [192, 0, 2, 12]);
    switch.expect_counters(
        "a: rx_frames 1, rx_bytes 1464, flooded 1, tx_frames 1, tx_bytes 590; \
         192.0.2.12: tx_frames 1, tx_bytes 1464; overlay: tx_frames 1, tx_bytes 1514",
    );
    // Nobody is told about a broadcast: the copy is counted.
    switch.send("a", long(true, 1450).wire().patch(0, &BROADCAST.0).bytes);
    switch.take("overlay");
    switch.expect_counters(
        "a: rx_frames 1, rx_bytes 1464, flooded 1, mtu_exceeded 1; \
         192.0.2.12: tx_frames 1, tx_bytes 1464; overlay: tx_frames 1, tx_bytes 1514",
    );
}

/// What was said about a path outlives neither the device nor is it lost by a reload.
#[test]
fn a_path_is_as_wide_as_its_host_knows() {
    let (mut switch, to_b, _) = ready(BLUE);
    switch.send("overlay", too_big(&to_b, 1400));
    switch.reload(&overlay(BLUE, "ttl = 32"));
    assert_eq!(told(&mut switch, B, true, 1450), Some(1350), "a reload does not make it wider");
    // The peer goes and comes back: the path is still narrow.
    switch.reload(&BLUE.replace("[\"192.0.2.11\", ", "["));
    switch.reload(BLUE);
    resolve(&mut switch, &[PEER]);
    switch.send("overlay", packet(inner(A, B)).bytes());
    switch.forget();
    assert_eq!(told(&mut switch, B, true, 1450), Some(1350), "nor does a peer that was away");
    // The device goes and comes back: another link, perhaps, and a host that knows nothing.
    switch.take_down("overlay");
    switch.bring_back("overlay");
    resolve(&mut switch, &[PEER, OTHER]);
    assert_eq!(told(&mut switch, B, true, 1450), None);
    switch.forget();
}
