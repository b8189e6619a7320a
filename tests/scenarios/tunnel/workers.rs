//! Guests and the underlay with different workers: packets are made where the guest is and sent where the device is; the
//! next hop is found by the device's worker, for all.

use super::super::switch::PLAIN;
use super::*;

/// `a` is worker 1's; the underlay and `b` are worker 0's.
fn two_workers(text: &str) -> Build {
    Build::from(&format!("[switch]\nworkers = [0, 1]\n{text}{SECOND}")).worker("a", 1)
}

#[test]
fn both_ways_between_workers() {
    let mut switch = resolved(two_workers(BLUE));
    switch.send("overlay", packet(inner(A, B)).bytes());
    switch.expect("a", inner(A, B));
    for worker in [0, 1] {
        assert_eq!(switch.worker_knows(worker, "blue", B).as_deref(), Some(PEER));
    }
    switch.send("a", inner(B, A));
    expect_packet(&mut switch, &packet(inner(B, A)).ours(PEER));
    switch.expect_counters(
        "overlay: rx_frames 1, rx_bytes 110, consumed 1, tx_frames 1, tx_bytes 110; \
         192.0.2.11: rx_frames 1, rx_bytes 60, forwarded 1, tx_frames 1, tx_bytes 60; \
         a: rx_frames 1, rx_bytes 60, forwarded 1, tx_frames 1, tx_bytes 60",
    );
}

#[test]
fn a_flood_from_either_worker_reaches_all() {
    let mut switch = resolved(two_workers(BLUE));
    for (from, station, other) in [("a", A, "b"), ("b", B, "a")] {
        switch.send(from, inner(BROADCAST, station));
        switch.expect(other, inner(BROADCAST, station));
        for peer in [PEER, OTHER] {
            expect_packet(&mut switch, &packet(inner(BROADCAST, station)).ours(peer));
        }
        switch.expect_counters(&format!(
            "{from}: rx_frames 1, rx_bytes 60, flooded 1; {other}: tx_frames 1, tx_bytes 60; \
             overlay: tx_frames 2, tx_bytes 220; 192.0.2.11: tx_frames 1, tx_bytes 60; \
             192.0.2.12: tx_frames 1, tx_bytes 60"
        ));
    }
}

/// The other worker knows no next hop: its frames go to the resolver, and wait with the device's worker.
#[test]
fn the_resolver_takes_frames_of_other_workers() {
    let mut switch = unresolved(two_workers(&BLUE.replace(", \"192.0.2.12\"]", "]")));
    for _ in 0..3 {
        switch.send("a", inner(BROADCAST, A));
        switch.expect("b", inner(BROADCAST, A));
    }
    switch.expect_nothing("overlay");
    switch.expect_counters(
        "a: rx_frames 3, rx_bytes 180, flooded 3; b: tx_frames 3, tx_bytes 180; \
         192.0.2.11: tx_frames 3, tx_bytes 180",
    );
    switch.send("overlay", answer(PEER, PEER_MAC));
    for _ in 0..3 {
        expect_packet(&mut switch, &packet(inner(BROADCAST, A)).ours(PEER));
    }
    switch.expect_counters("overlay: rx_frames 1, rx_bytes 42, consumed 1, tx_frames 3, tx_bytes 330");
}

/// A frame that was on its way to the resolver when the answer came is sent all the same.
#[test]
fn an_answer_overtakes_a_frame_between_workers() {
    let mut switch = unresolved(two_workers(&BLUE.replace(", \"192.0.2.12\"]", "]")));
    assert!(switch.queue("a", inner(mac(0x55), A)));
    switch.turn(1);
    assert!(switch.queue("overlay", answer(PEER, PEER_MAC)));
    switch.settle();
    switch.expect("b", inner(mac(0x55), A));
    expect_packet(&mut switch, &packet(inner(mac(0x55), A)).ours(PEER));
    switch.forget();
}

/// The other worker's peers are resolved as soon as its own.
#[test]
fn what_the_device_s_worker_finds_out_all_workers_know() {
    let mut switch = resolved(two_workers(BLUE).caps("overlay", PLAIN));
    switch.send("overlay", packet(inner(A, B)).bytes());
    switch.forget();
    // One turn of the guest's worker makes the packet with its next hop; the other only sends it.
    assert!(switch.queue("a", inner(B, A)));
    switch.turn(1);
    switch.turn(0);
    expect_packet(&mut switch, &packet(inner(B, A)).ours(PEER));
    switch.settle();
    switch.forget();
}

#[test]
fn too_long_packets_are_answered_by_the_guests_worker() {
    let mut switch = resolved(two_workers(BLUE));
    switch.send("a", long(true, 1451));
    assert_eq!(switch.take("a").bytes[34..36], [3, 4]);
    switch.expect_counters("a: rx_frames 1, rx_bytes 1465, answered 1, tx_frames 1, tx_bytes 590");
}

#[test]
fn a_reload_moves_both_workers_on() {
    let mut switch = resolved(two_workers(BLUE));
    switch.send("overlay", packet(inner(A, B)).bytes());
    switch.forget();
    let text = format!("[switch]\nworkers = [0, 1]\n{}{SECOND}", overlay(BLUE, "udp_port = 8472"));
    switch.reload(&text);
    switch.forget();
    switch.send("a", inner(B, A));
    expect_packet(&mut switch, &Packet { ports: [0, 8472], ..packet(inner(B, A)).ours(PEER) });
    switch.forget();
}

/// Frames handed over from many turns ago: a full ring loses, and counts at the port that they should have left by.
#[test]
fn a_full_ring_to_the_underlays_worker_is_counted() {
    let mut switch = resolved(two_workers(BLUE).chunks(4096, 8));
    switch.send("overlay", packet(inner(A, B)).bytes());
    switch.forget();
    for _ in 0..1030 {
        assert!(switch.queue("a", inner(B, A)));
    }
    while switch.turn(1) > 0 {}
    switch.settle();
    assert_eq!(switch.take_all("overlay").len(), 1024);
    switch.expect_counters(
        "a: rx_frames 1030, rx_bytes 61800, forwarded 1030; \
         192.0.2.11: tx_frames 1030, tx_bytes 61800; overlay: tx_frames 1024, tx_bytes 112640, handoff_full 6",
    );
}
