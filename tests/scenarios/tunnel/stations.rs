//! Where stations are: learned from tunnel frames, and moving between peers and ports of ours.

use super::super::switch::secs;
use super::*;

fn two_guests() -> Switch {
    started(&format!("{BLUE}{SECOND}"))
}

fn comes_from(switch: &mut Switch, peer: &str, station: Mac) {
    switch.send("overlay", packet(inner(A, station)).from(peer).bytes());
    switch.expect("a", inner(A, station));
    assert_eq!(switch.knows("blue", station).as_deref(), Some(peer));
    switch.expect_counters(&format!(
        "overlay: rx_frames 1, rx_bytes 110, consumed 1; {peer}: rx_frames 1, rx_bytes 60, forwarded 1; \
         a: tx_frames 1, tx_bytes 60"
    ));
}

fn is_sent_to(switch: &mut Switch, peer: &str, station: Mac) {
    switch.send("a", inner(station, A));
    expect_packet(switch, &packet(inner(station, A)).ours(peer));
    switch.expect_counters(&format!(
        "a: rx_frames 1, rx_bytes 60, forwarded 1; overlay: tx_frames 1, tx_bytes 110; \
         {peer}: tx_frames 1, tx_bytes 60"
    ));
}

#[test]
fn the_last_frame_says_where_a_station_is() {
    let mut switch = two_guests();
    comes_from(&mut switch, PEER, C);
    is_sent_to(&mut switch, PEER, C);
    // From one peer to the other.
    comes_from(&mut switch, OTHER, C);
    is_sent_to(&mut switch, OTHER, C);
    // To a port of ours.
    switch.send("b", inner(A, C));
    switch.expect("a", inner(A, C));
    assert_eq!(switch.knows("blue", C).as_deref(), Some("b"));
    switch.forget();
    switch.send("a", inner(C, A));
    switch.expect("b", inner(C, A));
    switch.expect_counters("a: rx_frames 1, rx_bytes 60, forwarded 1; b: tx_frames 1, tx_bytes 60");
    // A peer's frame for it gets there too.
    switch.send("overlay", packet(inner(C, B)).bytes());
    switch.expect("b", inner(C, B));
    switch.forget();
    // And back to a peer.
    comes_from(&mut switch, PEER, C);
    is_sent_to(&mut switch, PEER, C);
}

#[test]
fn one_that_is_silent_is_forgotten() {
    let mut switch = two_guests();
    comes_from(&mut switch, PEER, C);
    switch.advance(secs(200));
    switch.forget();
    comes_from(&mut switch, PEER, C);
    switch.advance(secs(299));
    assert_eq!(switch.knows("blue", C).as_deref(), Some(PEER));
    for _ in 0..5 {
        switch.advance(secs(1));
    }
    assert_eq!(switch.knows("blue", C), None);
    switch.forget();
}

/// A MAC of our own guest's port is known without learning: no VTEP takes it away.
#[test]
fn a_configured_address_is_not_taken_by_a_peer() {
    let mut switch = two_guests();
    switch.send("overlay", packet(inner(BROADCAST, A)).bytes());
    switch.expect("a", inner(BROADCAST, A));
    switch.expect("b", inner(BROADCAST, A));
    assert_eq!(switch.knows("blue", A).as_deref(), Some("a"));
    switch.forget();
}

#[test]
fn a_station_of_one_network_is_none_of_another() {
    let mut switch = started(&format!("{BLUE}{RED}"));
    comes_from(&mut switch, OTHER, C);
    assert_eq!(switch.knows("red", C), None);
    // The same address in the other network, at our own port.
    switch.send("r", inner(B, C));
    expect_packet(&mut switch, &packet(inner(B, C)).vni(2002).ours(OTHER));
    switch.forget();
    assert_eq!(switch.knows("red", C).as_deref(), Some("r"));
    is_sent_to(&mut switch, OTHER, C);
}

/// The network's limit counts stations behind peers as all others.
#[test]
fn a_limit_holds_for_stations_behind_peers() {
    let mut switch = started(&network(BLUE, "mac_limit = 3"));
    for n in 1..=5 {
        switch.send("overlay", packet(inner(A, mac(n))).bytes());
        switch.expect("a", inner(A, mac(n)));
    }
    let known: Vec<u8> = (1..=5).filter(|n| switch.knows("blue", mac(*n)).is_some()).collect();
    assert_eq!(known, [1, 2, 3]);
    switch.forget();
}

/// A peer that is known, and does not have the network.
#[test]
fn a_peer_of_another_network_is_none_of_this() {
    let mut switch = started(&format!("{BLUE}{RED}"));
    switch.send("overlay", packet(inner(BROADCAST, B)).vni(2002).bytes());
    switch.expect_counters("overlay: rx_frames 1, rx_bytes 110, unknown_peer 1");
    assert_eq!(switch.knows("red", B), None);
    switch.send("overlay", packet(inner(BROADCAST, B)).vni(2002).from(OTHER).bytes());
    switch.expect("r", inner(BROADCAST, B));
    switch.expect_counters(
        "overlay: rx_frames 1, rx_bytes 110, consumed 1; 192.0.2.12: rx_frames 1, rx_bytes 60, flooded 1; \
         r: tx_frames 1, tx_bytes 60",
    );
}

/// The frames of one burst count each at its own peer.
#[test]
fn a_burst_from_several_peers_is_counted_apart() {
    let mut switch = two_guests();
    for (peer, station) in [(PEER, B), (PEER, B), (OTHER, C), (PEER, B), ("192.0.2.99", B)] {
        assert!(switch.queue("overlay", packet(inner(A, station)).from(peer).bytes()));
    }
    assert!(switch.queue("overlay", packet(inner(A, B)).flags(0).bytes()));
    assert!(switch.queue("overlay", packet(vec![1, 2]).from(OTHER).bytes()));
    switch.settle();
    for station in [B, B, C, B] {
        switch.expect("a", inner(A, station));
    }
    switch.expect_counters(
        "overlay: rx_frames 7, rx_bytes 712, consumed 5, unknown_peer 1, tunnel_header 1; \
         192.0.2.11: rx_frames 3, rx_bytes 180, forwarded 3; \
         192.0.2.12: rx_frames 2, rx_bytes 62, forwarded 1, inner_runt 1; a: tx_frames 4, tx_bytes 240",
    );
}
