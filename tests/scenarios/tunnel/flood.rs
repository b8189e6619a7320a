//! What is for all of a network: a copy to each peer that has it, or one to its group, and none from one tunnel into another.

use super::*;

const GROUP: &str = "239.129.1.1";
const GROUP6: &str = "ff05::1:aabb:ccdd";

/// Destinations of the tunnel packets that left, in order, with their VNIs.
fn left(switch: &mut Switch) -> Vec<(IpAddr, u32)> {
    let of = |bytes: Vec<u8>| {
        let v4 = bytes[12..14] == [8, 0];
        let to: IpAddr = if v4 {
            <[u8; 4]>::try_from(&bytes[30..34]).unwrap().into()
        } else {
            <[u8; 16]>::try_from(&bytes[38..54]).unwrap().into()
        };
        let at = if v4 { 46 } else { 66 };
        (to, u32::from_be_bytes([0, bytes[at], bytes[at + 1], bytes[at + 2]]))
    };
    switch.take_all("overlay").into_iter().map(|wire| of(wire.bytes)).collect()
}

#[test]
fn each_peer_gets_a_copy() {
    for (text, peers, outer) in [(BLUE.to_owned(), [PEER, OTHER], 110), (blue6(), [PEER6, OTHER6], 130)] {
        let mut switch = started(&format!("{text}{SECOND}"));
        for to in [BROADCAST, Mac([0x01, 0, 0x5e, 0, 0, 5]), C] {
            switch.send("a", inner(to, A));
            switch.expect("b", inner(to, A));
            for peer in peers {
                let wanted = if peer.contains(':') { packet6(inner(to, A)) } else { packet(inner(to, A)) };
                expect_packet(&mut switch, &wanted.ours(peer));
            }
            switch.expect_counters(&format!(
                "a: rx_frames 1, rx_bytes 60, flooded 1; b: tx_frames 1, tx_bytes 60; \
                 overlay: tx_frames 2, tx_bytes {}; {}: tx_frames 1, tx_bytes 60; {}: tx_frames 1, tx_bytes 60",
                2 * outer,
                peers[0],
                peers[1]
            ));
        }
    }
}

#[test]
fn a_peer_that_does_not_have_the_network_gets_none() {
    let mut switch = started(&format!("{BLUE}{RED}"));
    switch.send("r", inner(BROADCAST, C));
    assert_eq!(left(&mut switch), [(ip(OTHER), 2002)]);
    switch.expect_counters(
        "r: rx_frames 1, rx_bytes 60, flooded 1; overlay: tx_frames 1, tx_bytes 110; \
         192.0.2.12: tx_frames 1, tx_bytes 60",
    );
    switch.send("a", inner(BROADCAST, A));
    assert_eq!(left(&mut switch), [(ip(PEER), 1001), (ip(OTHER), 1001)]);
    switch.forget();
}

/// RFC 7348, section 4.2 makes one domain of all VTEPs: each has its own copy already.
#[test]
fn nothing_goes_from_one_tunnel_into_another() {
    let mut switch = started(&format!("{BLUE}{SECOND}"));
    // Broadcast, a group, and an address that nobody knows.
    for to in [BROADCAST, Mac([0x33, 0x33, 0, 0, 0, 1]), mac(0x77)] {
        switch.send("overlay", packet(inner(to, B)).bytes());
        switch.expect("a", inner(to, B));
        switch.expect("b", inner(to, B));
        switch.expect_counters(
            "overlay: rx_frames 1, rx_bytes 110, consumed 1; 192.0.2.11: rx_frames 1, rx_bytes 60, flooded 1; \
             a: tx_frames 1, tx_bytes 60; b: tx_frames 1, tx_bytes 60",
        );
    }
    // A station behind one peer, from another; and one behind the peer that it came from.
    switch.send("overlay", packet(inner(B, C)).from(OTHER).bytes());
    switch.expect_counters(
        "overlay: rx_frames 1, rx_bytes 110, consumed 1; 192.0.2.12: rx_frames 1, rx_bytes 60, split_horizon 1",
    );
    switch.send("overlay", packet(inner(B, mac(0x33))).bytes());
    switch.expect_counters(
        "overlay: rx_frames 1, rx_bytes 110, consumed 1; 192.0.2.11: rx_frames 1, rx_bytes 60, same_port 1",
    );
}

/// A network whose only members are its tunnels has nobody to give a frame to.
#[test]
fn a_network_without_guests_takes_in_and_passes_nothing_on() {
    let mut switch = started(&format!("{BLUE}{}", &RED[..RED.find("[[port]]").unwrap()]));
    switch.send("overlay", packet(inner(BROADCAST, B)).vni(2002).from(OTHER).bytes());
    switch.expect_counters(
        "overlay: rx_frames 1, rx_bytes 110, consumed 1; 192.0.2.12: rx_frames 1, rx_bytes 60, no_receiver 1",
    );
}

fn in_group(text: &str, group: &str) -> String {
    overlay(text, &format!("multicast_group = \"{group}\""))
}

/// RFC 7348, section 4.2: one packet for all of them; the MAC is the group's (RFC 1112, 6.4; RFC 2464, section 7).
#[test]
fn a_group_gets_one_packet_for_all() {
    for (text, group, group_mac, outer) in [
        (BLUE.to_owned(), GROUP, Mac([0x01, 0, 0x5e, 1, 1, 1]), 110),
        (blue6(), GROUP6, Mac([0x33, 0x33, 0xaa, 0xbb, 0xcc, 0xdd]), 130),
    ] {
        let mut switch = started(&in_group(&text, group));
        for to in [BROADCAST, C] {
            switch.send("a", inner(to, A));
            let wanted = if text == BLUE { packet(inner(to, A)) } else { packet6(inner(to, A)) };
            let wanted = Packet { macs: [group_mac, VTEP_MAC], ..wanted.ours(group) };
            expect_packet(&mut switch, &wanted);
            switch.expect_counters(&format!(
                "a: rx_frames 1, rx_bytes 60, flooded 1; overlay: tx_frames 1, tx_bytes {outer}; \
                 {group}: tx_frames 1, tx_bytes 60"
            ));
        }
    }
}

#[test]
fn what_is_sent_to_the_group_comes_out_as_from_its_sender() {
    for (text, group, group_mac, peer, outer) in [
        (BLUE.to_owned(), GROUP, Mac([0x01, 0, 0x5e, 1, 1, 1]), PEER, 110),
        (blue6(), GROUP6, Mac([0x33, 0x33, 0xaa, 0xbb, 0xcc, 0xdd]), PEER6, 130),
    ] {
        let mut switch = started(&in_group(&text, group));
        let base = if text == BLUE { packet } else { packet6 };
        let to_group = Packet { macs: [group_mac, PEER_MAC], ..base(inner(BROADCAST, B)).to(group) };
        switch.send("overlay", to_group.bytes());
        switch.expect("a", inner(BROADCAST, B));
        switch.expect_counters(&format!(
            "overlay: rx_frames 1, rx_bytes {outer}, consumed 1; {peer}: rx_frames 1, rx_bytes 60, flooded 1; \
             a: tx_frames 1, tx_bytes 60"
        ));
        assert_eq!(switch.knows("blue", B).as_deref(), Some(peer), "not behind the group");
        // Known now: the answer goes to the peer alone.
        switch.send("a", inner(B, A));
        expect_packet(&mut switch, &base(inner(B, A)).ours(peer));
        switch.forget();
        // Our own packet, given back by the underlay.
        let ours = Packet { macs: [group_mac, VTEP_MAC], ..base(inner(BROADCAST, A)).ours(group) };
        switch.send("overlay", ours.bytes());
        switch.expect_counters(&format!("overlay: rx_frames 1, rx_bytes {outer}, unknown_peer 1"));
        // A group that we are not in.
        let stranger = if text == BLUE { "239.129.1.2" } else { "ff05::2:aabb:ccdd" };
        switch.send("overlay", Packet { to: ip(stranger), ..to_group }.bytes());
        switch.expect_counters(&format!("overlay: rx_frames 1, rx_bytes {outer}, underlay_other 1"));
    }
}

/// Two networks, each with a group of its own; and one with peers beside one with a group.
#[test]
fn each_network_has_its_own_group() {
    let red = RED.replace("peers = [\"192.0.2.12\"]", "multicast_group = \"239.7.7.7\"");
    let mut switch = started(&format!("{}{red}", network(BLUE, &format!("multicast_group = \"{GROUP}\""))));
    switch.send("r", inner(BROADCAST, C));
    assert_eq!(left(&mut switch), [(ip("239.7.7.7"), 2002)]);
    switch.send("a", inner(BROADCAST, A));
    assert_eq!(left(&mut switch), [(ip(GROUP), 1001)]);
    switch.forget();
    let mut switch = started(&format!("{BLUE}{red}"));
    switch.send("a", inner(BROADCAST, A));
    assert_eq!(left(&mut switch), [(ip(PEER), 1001), (ip(OTHER), 1001)]);
    switch.send("r", inner(BROADCAST, C));
    assert_eq!(left(&mut switch), [(ip("239.7.7.7"), 2002)]);
    switch.forget();
}

/// The group is joined at once (RFC 3376, 4.2: a report with the mode "exclude nothing"; RFC 3810, 5.2), and left at the end.
#[test]
fn the_group_is_joined_and_left() {
    let reports = |switch: &mut Switch| -> Vec<Vec<u8>> {
        let is_igmp = |bytes: &Vec<u8>| bytes[12..14] == [8, 0] && bytes[23] == 2;
        let sent = switch.take_all("overlay").into_iter().map(|wire| wire.bytes);
        sent.filter(is_igmp).map(|bytes| bytes[38..].to_vec()).collect()
    };
    let mut switch = Switch::from(&in_group(BLUE, GROUP));
    switch.settle();
    let to_exclude = [&[0x22, 0][..], &[0, 0], &[0, 0, 0, 1], &[4, 0, 0, 0], &[239, 129, 1, 1]].concat();
    let said = reports(&mut switch);
    assert_eq!(said.len(), 1);
    assert_eq!((&said[0][..2], &said[0][4..]), (&to_exclude[..2], &to_exclude[4..]));
    switch.reload(BLUE);
    switch.settle();
    let said = reports(&mut switch);
    assert_eq!(said.len(), 1);
    assert_eq!(said[0][8..], [3, 0, 0, 0, 239, 129, 1, 1]);
    switch.forget();
}
