//! VTEPs that nobody named: dropped, unless learning of peers is switched on. Then one becomes a peer of the networks that it
//! sends to, and ceases to be one when it is silent.

use super::super::switch::secs;
use super::*;

const STRANGER: &str = "192.0.2.77";

fn learning() -> Switch {
    started(&format!("{}{RED}", overlay(BLUE, "learn_peers = true")))
}

/// The stranger has sent to `blue`, is a peer of it by now, and is resolved.
fn learned() -> Switch {
    let mut switch = learning();
    switch.send("overlay", packet(inner(A, B)).from(STRANGER).bytes());
    assert_eq!(switch.learn_peers(), [format!("{STRANGER} blue")]);
    resolve(&mut switch, &[STRANGER]);
    switch
}

#[test]
fn without_learning_a_stranger_is_dropped() {
    let mut switch = blue();
    switch.send("overlay", packet(inner(A, B)).from(STRANGER).bytes());
    switch.expect_counters("overlay: rx_frames 1, rx_bytes 110, unknown_peer 1");
    assert!(switch.learn_peers().is_empty());
    switch.forget();
}

/// Its first frames are taken in already, for the switch would lose an ARP request else; where it is cannot be known yet.
#[test]
fn the_first_frame_is_taken_in_and_teaches_no_station() {
    let mut switch = learning();
    switch.send("overlay", packet(inner(A, B)).from(STRANGER).bytes());
    switch.expect("a", inner(A, B));
    assert_eq!(switch.knows("blue", B), None);
    switch.expect_counters(
        "overlay: rx_frames 1, rx_bytes 110, consumed 1; 0.0.0.0: rx_frames 1, rx_bytes 60, forwarded 1; \
         a: tx_frames 1, tx_bytes 60",
    );
    // It gets nothing yet, and neither is anything sent to nobody.
    switch.send("a", inner(BROADCAST, A));
    for peer in [PEER, OTHER] {
        expect_packet(&mut switch, &packet(inner(BROADCAST, A)).ours(peer));
    }
    switch.forget();
}

#[test]
fn a_learned_peer_is_as_a_named_one() {
    let mut switch = learned();
    switch.send("overlay", packet(inner(A, B)).from(STRANGER).bytes());
    switch.expect("a", inner(A, B));
    assert_eq!(switch.knows("blue", B).as_deref(), Some(STRANGER));
    switch.expect_counters(
        "overlay: rx_frames 1, rx_bytes 110, consumed 1; 192.0.2.77: rx_frames 1, rx_bytes 60, forwarded 1; \
         a: tx_frames 1, tx_bytes 60",
    );
    switch.send("a", inner(B, A));
    expect_packet(&mut switch, &packet(inner(B, A)).ours(STRANGER));
    switch.forget();
    switch.send("a", inner(BROADCAST, A));
    for peer in [PEER, OTHER, STRANGER] {
        expect_packet(&mut switch, &packet(inner(BROADCAST, A)).ours(peer));
    }
    switch.forget();
}

/// It is a peer of what it has sent to, and of nothing else.
#[test]
fn it_is_a_peer_of_the_networks_that_it_has() {
    let mut switch = learned();
    switch.send("r", inner(BROADCAST, C));
    expect_packet(&mut switch, &packet(inner(BROADCAST, C)).vni(2002).ours(OTHER));
    switch.forget();
    switch.send("overlay", packet(inner(BROADCAST, B)).vni(2002).from(STRANGER).bytes());
    switch.expect("r", inner(BROADCAST, B));
    assert_eq!(switch.learn_peers(), [format!("{STRANGER} red")]);
    switch.forget();
    switch.send("r", inner(BROADCAST, C));
    for peer in [OTHER, STRANGER] {
        expect_packet(&mut switch, &packet(inner(BROADCAST, C)).vni(2002).ours(peer));
    }
    switch.forget();
    // A VNI that is not here is no network to learn a peer of.
    switch.send("overlay", packet(inner(A, B)).vni(3003).from("192.0.2.78").bytes());
    switch.expect_counters("overlay: rx_frames 1, rx_bytes 110, unknown_vni 1");
    assert!(switch.learn_peers().is_empty());
    switch.forget();
}

/// A named peer of another network may become one of this.
#[test]
fn a_named_peer_is_learned_for_a_network_that_it_was_not_named_for() {
    let mut switch = learning();
    switch.send("overlay", packet(inner(BROADCAST, B)).vni(2002).from(PEER).bytes());
    switch.expect("r", inner(BROADCAST, B));
    assert_eq!(switch.learn_peers(), [format!("{PEER} red")]);
    switch.forget();
    switch.send("overlay", packet(inner(BROADCAST, B)).vni(2002).from(PEER).bytes());
    switch.expect("r", inner(BROADCAST, B));
    assert_eq!(switch.knows("red", B).as_deref(), Some(PEER));
    switch.forget();
}

#[test]
fn what_no_vtep_can_be_is_not_learned() {
    let mut switch = learning();
    for from in ["0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.5", "255.255.255.255", "240.0.0.1", LOCAL] {
        switch.send("overlay", packet(inner(A, B)).from(from).bytes());
        switch.expect_counters("overlay: rx_frames 1, rx_bytes 110, unknown_peer 1");
    }
    let mut switch6 = started(&overlay(&blue6(), "learn_peers = true"));
    for from in ["::", "::1", "ff02::1", LOCAL6] {
        switch6.send("overlay", packet6(inner(A, B)).from(from).bytes());
        switch6.expect_counters("overlay: rx_frames 1, rx_bytes 130, unknown_peer 1");
    }
    assert!(switch.learn_peers().is_empty() && switch6.learn_peers().is_empty());
    switch.forget();
    switch6.forget();
}

/// The peer lives as long as it speaks: 375 s after its last word, a quarter more than its stations, it is forgotten.
#[test]
fn a_silent_peer_is_forgotten_and_gets_no_copies_any_more() {
    let mut switch = learned();
    assert!(switch.age_peers().is_empty());
    for _ in 0..5 {
        switch.send("overlay", packet(inner(A, B)).from(STRANGER).bytes());
        switch.advance(secs(290));
        assert!(switch.age_peers().is_empty(), "it speaks");
    }
    switch.advance(secs(80));
    assert!(switch.age_peers().is_empty(), "370 s");
    switch.advance(secs(6));
    assert_eq!(switch.age_peers(), [format!("{STRANGER} blue")]);
    assert_eq!(switch.knows("blue", B), None);
    resolve(&mut switch, &[PEER, OTHER]);
    switch.send("a", inner(BROADCAST, A));
    for peer in [PEER, OTHER] {
        expect_packet(&mut switch, &packet(inner(BROADCAST, A)).ours(peer));
    }
    switch.forget();
    // It comes back as it came first.
    switch.send("overlay", packet(inner(A, B)).from(STRANGER).bytes());
    switch.expect("a", inner(A, B));
    assert_eq!(switch.learn_peers(), [format!("{STRANGER} blue")]);
    switch.forget();
}

/// One that speaks in one network only is forgotten in the other.
#[test]
fn silence_is_counted_by_network() {
    let mut switch = learned();
    switch.send("overlay", packet(inner(BROADCAST, B)).vni(2002).from(STRANGER).bytes());
    switch.learn_peers();
    assert!(switch.age_peers().is_empty());
    for _ in 0..4 {
        switch.advance(secs(100));
        switch.send("overlay", packet(inner(BROADCAST, B)).vni(2002).from(STRANGER).bytes());
    }
    assert_eq!(switch.age_peers(), [format!("{STRANGER} blue")]);
    switch.forget();
    switch.send("overlay", packet(inner(BROADCAST, B)).vni(2002).from(STRANGER).bytes());
    switch.expect("r", inner(BROADCAST, B));
    assert_eq!(switch.knows("red", B).as_deref(), Some(STRANGER));
    switch.forget();
}

/// The next owner of its slot does not inherit its stations, nor is a peer's place kept by one that is gone.
#[test]
fn a_forgotten_peers_slot_is_free_for_another() {
    let mut switch = learned();
    switch.send("overlay", packet(inner(A, B)).from(STRANGER).bytes());
    assert!(switch.age_peers().is_empty());
    switch.advance(secs(376));
    assert_eq!(switch.age_peers().len(), 1);
    switch.send("overlay", packet(inner(A, C)).from("192.0.2.99").bytes());
    switch.learn_peers();
    assert_eq!(switch.knows("blue", B), None);
    switch.forget();
}

/// What was learned does not outlive the setting, the network, or the overlay.
#[test]
fn a_reload_that_ends_learning_forgets_the_learned() {
    let text = format!("{}{RED}", overlay(BLUE, "learn_peers = true"));
    let at = BLUE.find("[[network]]").unwrap();
    let local = BLUE[at..].replace("network_type = \"vxlan\"\nsegmentation_id = 1001\n", "");
    let renamed = text.replace("\"blue\"", "\"navy\"");
    for between in [format!("{BLUE}{RED}"), local, renamed] {
        let mut switch = learned();
        switch.reload(&between);
        switch.reload(&text);
        resolve(&mut switch, &[PEER, OTHER, STRANGER]);
        switch.send("a", inner(BROADCAST, A));
        let mut copies: Vec<u8> = switch.take_all("overlay").iter().map(|wire| wire.bytes[33]).collect();
        copies.sort_unstable();
        assert_eq!(copies, [11, 12]);
        switch.forget();
    }
}

/// As many as may be: the table is full, and the rest are strangers still.
#[test]
fn no_more_than_so_many_are_learned() {
    let mut switch = started(&overlay(BLUE, "learn_peers = true"));
    let mut told = 0;
    for n in 0..1200u32 {
        let from = format!("198.51.{}.{}", 100 + n / 250, 1 + n % 250);
        switch.send("overlay", packet(inner(mac(0x55), B)).from(&from).bytes());
        if n % 50 == 49 {
            switch.advance(secs(1));
            told += switch.learn_peers().len();
        }
    }
    assert_eq!(told, 1200);
    assert_eq!(switch.learn_peers().len(), 0);
    switch.forget();
    switch.send("overlay", packet(inner(A, B)).from("198.51.104.200").bytes());
    switch.expect("a", inner(A, B));
    switch.expect_counters(
        "overlay: rx_frames 1, rx_bytes 110, consumed 1; 0.0.0.0: rx_frames 1, rx_bytes 60, forwarded 1; \
         a: tx_frames 1, tx_bytes 60",
    );
}

/// Whoever sends from thousands of addresses keeps the control thread from nothing else.
#[test]
fn the_control_thread_is_told_of_so_many_a_second() {
    let mut switch = started(&overlay(BLUE, "learn_peers = true"));
    for n in 0..5000u32 {
        let from = format!("198.18.{}.{}", n / 250, 1 + n % 250);
        switch.send("overlay", packet(inner(A, B)).from(&from).bytes());
    }
    assert!(switch.learn_peers().len() <= 2 * 64);
    switch.forget();
}
