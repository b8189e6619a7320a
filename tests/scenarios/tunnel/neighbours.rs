//! Next hops of the underlay: asked for, waited for in a bounded queue, kept fresh, forgotten, and a gateway for what is not on
//! the link.

use nuswitch::services::nd;

use super::super::frames::Wire;
use super::super::switch::secs;
use super::*;

/// One peer only, so that what waits is easily counted.
fn one_peer(text: &str) -> String {
    let text = text.replace(", \"192.0.2.12\"]", "]");
    assert!(!text.contains(OTHER));
    text
}

fn is_tunnel(wire: &Wire) -> bool {
    let bytes = &wire.bytes;
    bytes[12..14] == [8, 0] && bytes[23] == 17 || bytes[12..14] == [0x86, 0xdd] && bytes[20] == 17
}

/// Tunnel packets that left, and the others.
fn left(switch: &mut Switch) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let (tunnels, other): (Vec<Wire>, Vec<Wire>) =
        switch.take_all("overlay").into_iter().partition(is_tunnel);
    let bytes = |wires: Vec<Wire>| wires.into_iter().map(|wire| wire.bytes).collect();
    (bytes(tunnels), bytes(other))
}

fn numbered(n: u8) -> Vec<u8> {
    let mut bytes = inner(BROADCAST, A);
    bytes[20] = n;
    bytes
}

#[test]
fn frames_wait_for_their_next_hop_in_order() {
    for (text, peer) in [(one_peer(BLUE), PEER), (over_ipv6(&one_peer(BLUE)), PEER6)] {
        let mut switch = unresolved(Build::from(&text));
        for n in 0..3 {
            switch.send("a", numbered(n));
        }
        switch.expect_nothing("overlay");
        switch.expect_counters(&format!(
            "a: rx_frames 3, rx_bytes 180, flooded 3; {peer}: tx_frames 3, tx_bytes 180"
        ));
        let outer = if peer == PEER { 110 } else { 130 };
        let said = answer(peer, PEER_MAC);
        let len = said.len();
        switch.send("overlay", said);
        for n in 0..3 {
            let base = if peer == PEER { packet } else { packet6 };
            expect_packet(&mut switch, &base(numbered(n)).ours(peer));
        }
        switch.expect_counters(&format!(
            "overlay: rx_frames 1, rx_bytes {len}, consumed 1, tx_frames 3, tx_bytes {}",
            3 * outer
        ));
        // From now on nothing waits.
        switch.send("a", numbered(9));
        let base = if peer == PEER { packet } else { packet6 };
        expect_packet(&mut switch, &base(numbered(9)).ours(peer));
        switch.forget();
    }
}

#[test]
fn no_more_than_64_wait_for_one_and_the_oldest_go() {
    let mut switch = unresolved(Build::from(&one_peer(BLUE)));
    for n in 0..70 {
        switch.send("a", numbered(n));
    }
    switch.expect_counters(
        "a: rx_frames 70, rx_bytes 4200, flooded 70; 192.0.2.11: tx_frames 70, tx_bytes 4200; \
         overlay: unresolved 6",
    );
    switch.send("overlay", answer(PEER, PEER_MAC));
    let (sent, _) = left(&mut switch);
    let numbers: Vec<u8> = sent.iter().map(|bytes| bytes[70]).collect();
    assert_eq!(numbers, (6..70).collect::<Vec<u8>>());
    switch.forget();
}

#[test]
fn no_more_than_256_wait_in_all() {
    let peers: Vec<String> = (11..17).map(|n| format!("\"192.0.2.{n}\"")).collect();
    let text = BLUE.replace("\"192.0.2.11\", \"192.0.2.12\"", &peers.join(", "));
    let mut switch = unresolved(Build::from(&text));
    for n in 0..64 {
        switch.send("a", numbered(n));
    }
    let (_, other) = left(&mut switch);
    assert!(other.is_empty());
    let lost = 64 * 6 - 256;
    let each: Vec<String> = (11..17).map(|n| format!("192.0.2.{n}: tx_frames 64, tx_bytes 3840")).collect();
    switch.expect_counters(&format!(
        "a: rx_frames 64, rx_bytes 3840, flooded 64; overlay: unresolved {lost}; {}",
        each.join("; ")
    ));
}

#[test]
fn who_does_not_answer_gets_nothing_and_costs_nothing() {
    let mut switch = unresolved(Build::from(&one_peer(BLUE)));
    switch.send("a", numbered(0));
    // Asked at once and twice more, a second apart; then what waits is let go.
    let mut asked = 0;
    for _ in 0..3 {
        switch.advance(secs(1));
        let (tunnels, other) = left(&mut switch);
        assert!(tunnels.is_empty());
        asked += other.iter().filter(|bytes| !Arp::parse(bytes).unwrap().is_announcement()).count();
    }
    assert_eq!(asked, 3, "the last is the first of the slower ones");
    switch.expect_counters(
        "a: rx_frames 1, rx_bytes 60, flooded 1; 192.0.2.11: tx_frames 1, tx_bytes 60; \
         overlay: tx_frames 4, tx_bytes 168, unresolved 1",
    );
    // Now frames are lost at once, and counted.
    switch.send("a", numbered(1));
    switch.expect_counters(
        "a: rx_frames 1, rx_bytes 60, flooded 1; 192.0.2.11: tx_frames 1, tx_bytes 60; overlay: unresolved 1",
    );
    // It is asked for less and less often, and taken back when it answers.
    for _ in 0..100 {
        switch.advance(secs(1));
    }
    let asked = left(&mut switch).1.len();
    assert!((4..=8).contains(&asked), "asked {asked} times in 100 s");
    switch.send("overlay", answer(PEER, PEER_MAC));
    switch.forget();
    switch.send("a", numbered(2));
    expect_packet(&mut switch, &packet(numbered(2)).ours(PEER));
    switch.forget();
}

/// A peer that answers is asked again every 30 s, and one that ceases to is no next hop any more.
#[test]
fn a_next_hop_is_kept_fresh_and_expires() {
    let mut switch = started(&one_peer(BLUE));
    for _ in 0..4 {
        switch.advance(secs(30));
        let asked: Vec<Vec<u8>> = left(&mut switch).1;
        let probe = asked.iter().find(|bytes| !Arp::parse(bytes).unwrap().is_announcement()).unwrap();
        assert_eq!(probe[..6], PEER_MAC.0, "of the peer itself");
        switch.send("overlay", answer(PEER, PEER_MAC));
        switch.send("a", numbered(1));
        assert_eq!(left(&mut switch).0.len(), 1);
    }
    switch.forget();
    switch.advance(secs(30));
    for _ in 0..3 {
        switch.send("a", numbered(2));
        assert_eq!(left(&mut switch).0.len(), 1, "used until it is known to be gone");
        switch.advance(secs(1));
    }
    switch.forget();
    switch.send("a", numbered(3));
    assert_eq!(left(&mut switch).0.len(), 0);
    switch.forget();
    switch.send("overlay", answer(PEER, mac(0x72)));
    let (sent, _) = left(&mut switch);
    assert_eq!((sent.len(), &sent[0][..6]), (1, &mac(0x72).0[..]), "it is back, with another MAC");
    switch.forget();
}

/// A spoofer cannot take a living peer's place; a peer with a new MAC is followed.
#[test]
fn a_claim_is_proved_before_it_is_believed() {
    let claim = |mac: Mac| {
        let mut said = nuswitch::services::arp::announcement(mac, PEER.parse().unwrap()).to_vec();
        said[..6].copy_from_slice(&BROADCAST.0);
        said
    };
    let hop = |switch: &mut Switch| {
        switch.send("a", numbered(1));
        let sent = left(switch).0;
        Mac(sent[0][..6].try_into().unwrap())
    };
    let spoofer = mac(0x66);
    let mut switch = started(&one_peer(BLUE));
    switch.advance(secs(5));
    switch.send("overlay", claim(spoofer));
    assert_eq!(hop(&mut switch), PEER_MAC);
    switch.send("overlay", answer(PEER, PEER_MAC));
    switch.advance(secs(3));
    assert_eq!(hop(&mut switch), PEER_MAC, "it answered, so the claim is forgotten");
    switch.send("overlay", claim(spoofer));
    switch.advance(secs(1));
    switch.advance(secs(1));
    assert_eq!(hop(&mut switch), spoofer, "nobody answers at the old one");
    switch.forget();
}

/// A claim for a peer that nobody asked about, from anywhere, makes no entry.
#[test]
fn answers_to_no_question_are_not_heard() {
    let mut switch = blue();
    for n in 100..200 {
        switch.send("overlay", answer(&format!("192.0.2.{n}"), PEER_MAC));
    }
    switch.expect_counters("overlay: rx_frames 100, rx_bytes 4200, underlay_other 100");
}

/// A peer outside of the subnet is reached by the gateway's MAC, which alone is asked for.
#[test]
fn a_gateway_is_the_next_hop_to_what_is_not_on_the_link() {
    for (text, gateway, far) in
        [(BLUE.to_owned(), "192.0.2.1", "198.51.100.11"), (blue6(), "2001:db8::1", "2001:db8:5::11")]
    {
        let near = if text == BLUE { PEER } else { PEER6 };
        let other = if text == BLUE { OTHER } else { OTHER6 };
        let text = overlay(&text, &format!("gateway_ip = \"{gateway}\"")).replace(other, far);
        let mut switch = Switch::from(&text);
        switch.settle();
        let asked: Vec<IpAddr> =
            switch.take_all("overlay").iter().filter_map(|wire| asked_for(&wire.bytes)).collect();
        assert_eq!(asked, [ip(gateway), ip(near)]);
        let router = mac(0x81);
        switch.send("overlay", answer(near, PEER_MAC));
        switch.send("overlay", answer(gateway, router));
        switch.forget();
        switch.send("a", inner(BROADCAST, A));
        let base = if near == PEER { packet } else { packet6 };
        expect_packet(&mut switch, &base(inner(BROADCAST, A)).ours(near));
        let far_away = Packet { macs: [router, VTEP_MAC], ..base(inner(BROADCAST, A)).ours(far) };
        expect_packet(&mut switch, &far_away);
        // What comes back comes from the router's MAC, and is the peer's.
        let back = Packet { macs: [VTEP_MAC, router], ..base(inner(A, B)).from(far) };
        switch.send("overlay", back.bytes());
        switch.expect("a", inner(A, B));
        assert_eq!(switch.knows("blue", B).as_deref(), Some(far));
        switch.forget();
    }
}

/// Whom a request or solicitation asks for.
fn asked_for(bytes: &[u8]) -> Option<IpAddr> {
    if bytes[12..14] == [8, 6] {
        let arp = Arp::parse(bytes)?;
        return (!arp.is_announcement()).then(|| arp.target.into());
    }
    let message = nuswitch::services::packet::Packet::parse(bytes).ok()?;
    match nd::Nd::parse(&message) {
        Ok(nd::Nd::Solicitation { target, .. }) => Some(target.into()),
        _ => None,
    }
}
