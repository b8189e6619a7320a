//! New tables under tunnels: what changed takes effect at once, what did not is not touched.

use super::*;

fn forwards(switch: &mut Switch, station: Mac, wanted: &Packet) {
    switch.send("a", inner(station, A));
    expect_packet(switch, &Packet { inner: inner(station, A), ..wanted.clone() });
}

/// B is behind the first peer, C behind the second.
fn everyone_speaks(switch: &mut Switch) {
    switch.send("overlay", packet(inner(A, B)).bytes());
    switch.send("overlay", packet(inner(A, C)).from(OTHER).bytes());
    switch.forget();
}

fn without_other(text: &str) -> String {
    text.replace(", \"192.0.2.12\"]", "]")
}

#[test]
fn the_same_file_forgets_nothing() {
    let mut switch = blue();
    everyone_speaks(&mut switch);
    switch.reload(BLUE);
    assert_eq!(switch.knows("blue", B).as_deref(), Some(PEER));
    forwards(&mut switch, B, &packet(vec![]).ours(PEER));
    forwards(&mut switch, C, &packet(vec![]).ours(OTHER));
    switch.forget();
}

#[test]
fn a_peer_that_goes_takes_its_stations_along() {
    let mut switch = blue();
    everyone_speaks(&mut switch);
    switch.reload(&without_other(BLUE));
    switch.forget();
    assert_eq!((switch.knows("blue", C), switch.knows("blue", B).as_deref()), (None, Some(PEER)));
    switch.send("overlay", packet(inner(A, C)).from(OTHER).bytes());
    switch.expect_counters("overlay: rx_frames 1, rx_bytes 110, unknown_peer 1");
    forwards(&mut switch, C, &packet(vec![]).ours(PEER)); // flooded, to the one that is left
    switch.expect_counters(
        "a: rx_frames 1, rx_bytes 60, flooded 1; 192.0.2.11: tx_frames 1, tx_bytes 60; \
         overlay: tx_frames 1, tx_bytes 110",
    );
}

/// Another peer in the freed slot is not taken for the one that went.
#[test]
fn a_peer_that_comes_starts_with_nothing() {
    let mut switch = blue();
    everyone_speaks(&mut switch);
    switch.reload(&without_other(BLUE));
    switch.reload(&BLUE.replace(OTHER, "192.0.2.13"));
    assert_eq!(switch.knows("blue", C), None);
    resolve(&mut switch, &["192.0.2.13"]);
    switch.send("a", inner(C, A));
    for peer in [PEER, "192.0.2.13"] {
        expect_packet(&mut switch, &packet(inner(C, A)).ours(peer));
    }
    switch.expect_counters(
        "a: rx_frames 1, rx_bytes 60, flooded 1; overlay: tx_frames 2, tx_bytes 220; \
         192.0.2.11: tx_frames 1, tx_bytes 60; 192.0.2.13: tx_frames 1, tx_bytes 60",
    );
    switch.send("overlay", packet(inner(A, C)).from("192.0.2.13").bytes());
    switch.expect("a", inner(A, C));
    assert_eq!(switch.knows("blue", C).as_deref(), Some("192.0.2.13"));
    switch.forget();
}

#[test]
fn another_local_address_is_announced_and_used_and_the_old_one_is_nobodys() {
    for (text, now) in [(BLUE.to_owned(), "192.0.2.20"), (blue6(), "2001:db8::20")] {
        let v4 = text == BLUE;
        let (base, peer, local): (fn(Vec<u8>) -> Packet, _, _) =
            if v4 { (packet, PEER, LOCAL) } else { (packet6, PEER6, LOCAL6) };
        let mut switch = started(&text);
        switch.send("overlay", base(inner(A, B)).bytes());
        switch.forget();
        switch.reload(&text.replace(&format!("{local}/"), &format!("{now}/")));
        switch.settle();
        if v4 {
            let said = switch.take_all("overlay");
            let said: Vec<Arp> = said.iter().filter_map(|wire| Arp::parse(&wire.bytes)).collect();
            assert!(said.iter().any(|arp| arp.is_announcement() && IpAddr::from(arp.sender) == ip(now)));
        }
        switch.forget();
        let outer = if v4 { 110 } else { 130 };
        switch.send("a", inner(B, A));
        let wanted = Packet { from: ip(now), ..base(inner(B, A)).ours(peer) };
        expect_packet(&mut switch, &wanted);
        switch.expect_counters(&format!(
            "a: rx_frames 1, rx_bytes 60, forwarded 1; overlay: tx_frames 1, tx_bytes {outer}; \
             {peer}: tx_frames 1, tx_bytes 60"
        ));
        switch.send("overlay", base(inner(A, B)).bytes());
        switch.expect_counters(&format!("overlay: rx_frames 1, rx_bytes {outer}, underlay_other 1"));
        switch.send("overlay", base(inner(A, B)).to(now).bytes());
        switch.expect("a", inner(A, B));
        switch.forget();
    }
}

#[test]
fn another_udp_port_is_used_both_ways() {
    let mut switch = blue();
    everyone_speaks(&mut switch);
    switch.reload(&overlay(BLUE, "udp_port = 8472"));
    forwards(&mut switch, B, &Packet { ports: [0, 8472], ..packet(vec![]).ours(PEER) });
    switch.forget();
    switch.send("overlay", packet(inner(A, B)).bytes());
    switch.expect_counters("overlay: rx_frames 1, rx_bytes 110, underlay_other 1");
    switch.send("overlay", Packet { ports: [1, 8472], ..packet(inner(A, B)) }.bytes());
    switch.expect("a", inner(A, B));
    switch.forget();
}

#[test]
fn ttl_dscp_and_vni_are_the_new_ones() {
    let mut switch = blue();
    everyone_speaks(&mut switch);
    switch.reload(
        &overlay(BLUE, "ttl = 3\ndscp = 8").replace("segmentation_id = 1001", "segmentation_id = 1002"),
    );
    assert_eq!(switch.knows("blue", B).as_deref(), Some(PEER), "another VNI is the same network");
    forwards(&mut switch, B, &Packet { ttl: 3, ..packet(vec![]).ours(PEER) }.class(32).vni(1002));
    switch.forget();
    switch.send("overlay", packet(inner(A, B)).bytes());
    switch.expect_counters("overlay: rx_frames 1, rx_bytes 110, unknown_vni 1");
}

/// Two networks change places on the wire: no frame of one comes out in the other.
#[test]
fn networks_that_swap_their_vnis_stay_apart() {
    let mut switch = started(&format!("{BLUE}{RED}"));
    let swapped = format!("{BLUE}{RED}")
        .replace("= 1001", "= 9")
        .replace("= 2002", "= 1001")
        .replace("= 9\n", "= 2002\n");
    switch.reload(&swapped);
    switch.send("overlay", packet(inner(BROADCAST, B)).from(OTHER).bytes());
    switch.expect("r", inner(BROADCAST, B));
    switch.expect_nothing("a");
    switch.send("overlay", packet(inner(BROADCAST, B)).vni(2002).from(OTHER).bytes());
    switch.expect("a", inner(BROADCAST, B));
    switch.expect_nothing("r");
    switch.forget();
}

#[test]
fn a_network_that_leaves_the_tunnels_stays_at_home() {
    let mut switch = started(&format!("{BLUE}{SECOND}"));
    everyone_speaks(&mut switch);
    let local = format!("{BLUE}{SECOND}").replace("network_type = \"vxlan\"\nsegmentation_id = 1001\n", "");
    switch.reload(&local);
    assert_eq!(switch.knows("blue", B), None);
    switch.forget();
    switch.send("a", inner(B, A));
    switch.expect("b", inner(B, A));
    switch.expect_nothing("overlay");
    switch.expect_counters("a: rx_frames 1, rx_bytes 60, flooded 1; b: tx_frames 1, tx_bytes 60");
    switch.send("overlay", packet(inner(A, B)).bytes());
    switch.expect_counters("overlay: rx_frames 1, rx_bytes 110, unknown_vni 1");
}

/// The overlay goes altogether and comes back.
#[test]
fn no_overlay_no_tunnels() {
    let mut switch = started(&format!("{BLUE}{SECOND}"));
    everyone_speaks(&mut switch);
    let at = BLUE.find("[[network]]").unwrap();
    let local =
        format!("{}{SECOND}", &BLUE[at..]).replace("network_type = \"vxlan\"\nsegmentation_id = 1001\n", "");
    switch.reload(&local);
    switch.forget();
    switch.send("a", inner(B, A));
    switch.expect("b", inner(B, A));
    switch.forget();
    switch.reload(&format!("{BLUE}{SECOND}"));
    switch.forget();
    resolve(&mut switch, &[PEER, OTHER]);
    everyone_speaks(&mut switch);
    switch.take_all("a");
    switch.forget();
    forwards(&mut switch, B, &packet(vec![]).ours(PEER));
    switch.forget();
}

/// Frames that wait for a next hop when the device goes are lost, and counted as that.
#[test]
fn frames_that_wait_for_a_device_that_goes_are_counted() {
    let mut switch = unresolved(Build::from(&without_other(BLUE)));
    for _ in 0..5 {
        switch.send("a", inner(BROADCAST, A));
    }
    switch.forget();
    switch.take_down("overlay");
    switch.expect_counters("overlay: unresolved 5");
    switch.send("a", inner(BROADCAST, A));
    switch.expect_counters("a: rx_frames 1, rx_bytes 60, no_receiver 1");
    switch.bring_back("overlay");
    resolve(&mut switch, &[PEER]);
    switch.send("a", inner(BROADCAST, A));
    expect_packet(&mut switch, &packet(inner(BROADCAST, A)).ours(PEER));
    switch.forget();
}

#[test]
fn frames_on_their_way_during_a_reload_are_not_lost() {
    let mut switch = blue();
    everyone_speaks(&mut switch);
    for round in 0..10 {
        for _ in 0..10 {
            assert!(switch.queue("a", inner(B, A)));
            assert!(switch.queue("overlay", packet(inner(A, B)).bytes()));
        }
        let peers = format!("peers = [\"192.0.2.11\", \"192.0.2.12\", \"192.0.2.1{}\"]", 3 + round % 5);
        switch.reload(&BLUE.replace("peers = [\"192.0.2.11\", \"192.0.2.12\"]", &peers));
        switch.settle();
        assert_eq!(switch.take_all("a").len(), 10);
        let sent = switch.take_all("overlay");
        assert_eq!(sent.iter().filter(|wire| wire.bytes[12..14] == [8, 0]).count(), 10);
        switch.forget();
    }
}

/// The underlay goes over to the other IP version, and back.
#[test]
fn the_underlay_may_change_its_ip_version() {
    let mut switch = blue();
    everyone_speaks(&mut switch);
    for _ in 0..2 {
        switch.reload(&blue6());
        switch.settle();
        resolve(&mut switch, &[PEER6, OTHER6]);
        assert_eq!(switch.knows("blue", B), None, "its peer is gone");
        switch.send("overlay", packet6(inner(A, B)).bytes());
        switch.expect("a", inner(A, B));
        forwards(&mut switch, B, &packet6(vec![]).ours(PEER6));
        switch.forget();
        switch.send("overlay", packet(inner(A, B)).bytes());
        switch.expect_counters("overlay: rx_frames 1, rx_bytes 110, underlay_other 1");
        switch.reload(BLUE);
        switch.settle();
        resolve(&mut switch, &[PEER, OTHER]);
        switch.send("overlay", packet(inner(A, B)).bytes());
        switch.expect("a", inner(A, B));
        forwards(&mut switch, B, &packet(vec![]).ours(PEER));
        switch.forget();
    }
}

/// A gateway that comes, changes and goes: peers outside of the subnet are reached by it, and only by it.
#[test]
fn a_gateway_may_come_and_go() {
    let far = "198.51.100.11";
    let text = BLUE.replace(OTHER, far);
    let by = |gateway: &str| overlay(&text, &format!("gateway_ip = \"{gateway}\""));
    let mut switch = started(&by("192.0.2.1"));
    resolve(&mut switch, &["192.0.2.1"]);
    let sent_to_far = |switch: &mut Switch| {
        switch.send("a", inner(BROADCAST, A));
        let sent = switch.take_all("overlay");
        let of_far = sent.into_iter().map(|wire| wire.bytes).find(|b| b[12..14] == [8, 0] && b[30] == 198);
        of_far.map(|bytes| Mac(bytes[..6].try_into().unwrap()))
    };
    assert_eq!(sent_to_far(&mut switch), Some(PEER_MAC));
    switch.reload(&by("192.0.2.2"));
    assert_eq!(sent_to_far(&mut switch), None, "the new gateway has not answered yet");
    switch.send("overlay", answer("192.0.2.2", mac(0x82)));
    let waited = switch.take("overlay").bytes;
    assert_eq!((&waited[..6], waited[30]), (&mac(0x82).0[..], 198));
    switch.forget();
    assert_eq!(sent_to_far(&mut switch), Some(mac(0x82)));
    // With a wider subnet it is on the link, and asked for itself.
    switch.reload(&by("192.0.2.2").replace("192.0.2.10/24", "192.0.2.10/4"));
    assert_eq!(sent_to_far(&mut switch), None);
    switch.send("overlay", answer(far, mac(0x83)));
    assert_eq!(switch.take("overlay").bytes[..6], mac(0x83).0);
    switch.forget();
}
