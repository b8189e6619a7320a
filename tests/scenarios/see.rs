//! What captures and traces say of tunnels.

use nuswitch::control::hex;
use nuswitch::daemon::trace::Traced;
use nuswitch::stats::DropReason;
use nuswitch::worker::capture::{CaptureRecord, Direction};
use tokio::sync::mpsc::Receiver;

use super::frames::{A, B, BROADCAST, C};
use super::switch::{Switch, VTEP_MAC};
use super::tunnel::{BLUE, LOCAL, OTHER, PEER, PEER_MAC, blue, inner, packet, resolve};

const UDP_PORT: u16 = 4789;

fn all(records: &mut Receiver<CaptureRecord>) -> Vec<CaptureRecord> {
    std::iter::from_fn(|| records.try_recv().ok()).collect()
}

/// What a record's tunnel is: the peer and the VNI.
fn tunnel(record: &CaptureRecord) -> Option<(String, u32)> {
    record.tunnel.map(|tunnel| (tunnel.remote.to_string(), tunnel.vni.get()))
}

fn steps(traced: &Traced) -> String {
    traced.steps.iter().map(|step| format!("{}: {}\n", step.stage, step.text)).collect()
}

fn lines(lines: &[&str]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[test]
fn a_capture_of_inner_frames_has_these_and_whose_they_are() {
    let mut switch = blue();
    let mut records = switch.capture_inner("overlay", 65535, Some(UDP_PORT));
    switch.send("overlay", packet(inner(A, B)).bytes());
    switch.send("a", inner(B, A));
    switch.send("overlay", packet(inner(BROADCAST, C)).from(OTHER).bytes());
    switch.forget();
    let records = all(&mut records);
    let seen: Vec<_> = records
        .iter()
        .map(|record| {
            (record.direction, record.dropped, tunnel(record).unwrap(), &record.bytes, record.original_len)
        })
        .collect();
    let of = |peer: &str| (peer.to_owned(), 1001);
    assert_eq!(
        seen,
        [
            (Direction::Rx, None, of(PEER), &inner(A, B), 60),
            (Direction::Tx, None, of(PEER), &inner(B, A), 60),
            (Direction::Rx, None, of(OTHER), &inner(BROADCAST, C), 60),
        ]
    );
}

#[test]
fn a_capture_of_inner_frames_passes_over_what_is_in_no_tunnel() {
    let mut switch = Switch::from(BLUE);
    switch.forget();
    let mut inner_ones = switch.capture_inner("overlay", 65535, Some(UDP_PORT));
    let mut outer_ones = switch.capture("overlay", 65535);
    resolve(&mut switch, &[PEER, OTHER]);
    assert!(all(&mut inner_ones).is_empty());
    let outer_ones = all(&mut outer_ones);
    assert_eq!(
        outer_ones.iter().filter(|record| record.bytes[12..14] == [8, 6]).count(),
        2,
        "{outer_ones:?}"
    );
}

#[test]
fn a_capture_without_inner_has_the_packets_as_they_are() {
    let mut switch = blue();
    let mut records = switch.capture("overlay", 65535);
    let sent = packet(inner(A, B)).bytes();
    switch.send("overlay", sent.clone());
    switch.forget();
    let records = all(&mut records);
    assert_eq!(records.len(), 1);
    assert_eq!((&records[0].bytes, records[0].tunnel), (&sent, None));
}

#[test]
fn a_snaplen_is_that_of_the_inner_frame_and_padding_is_not_in_it() {
    let mut switch = blue();
    let mut short = switch.capture_inner("overlay", 20, Some(UDP_PORT));
    let mut whole = switch.capture_inner("overlay", 65535, Some(UDP_PORT));
    let padded = [packet(inner(A, B)).bytes(), vec![0; 7]].concat();
    switch.send("overlay", padded);
    switch.forget();
    let (short, whole) = (all(&mut short), all(&mut whole));
    assert_eq!((&short[0].bytes[..], short[0].original_len), (&inner(A, B)[..20], 60));
    assert_eq!((&whole[0].bytes, whole[0].original_len), (&inner(A, B), 60));
}

#[test]
fn dropped_frames_are_in_the_capture_with_their_tunnel_and_their_reason() {
    let mut switch = blue();
    let mut records = switch.capture_inner("overlay", 65535, Some(UDP_PORT));
    switch.send("overlay", packet(inner(A, B)).vni(1002).bytes());
    switch.send("overlay", packet(inner(A, B)).from("192.0.2.99").bytes());
    switch.send("overlay", packet(inner(A, BROADCAST)).bytes());
    // One that cannot be read as a tunnel's is in captures of outer packets alone.
    switch.send("overlay", packet(inner(A, B)).flags(0).bytes());
    switch.forget();
    let seen: Vec<_> =
        all(&mut records).iter().map(|record| (tunnel(record).unwrap(), record.dropped)).collect();
    let expected = [
        ((PEER.to_owned(), 1002), Some(DropReason::UnknownVni)),
        (("192.0.2.99".to_owned(), 1001), Some(DropReason::UnknownPeer)),
        ((PEER.to_owned(), 1001), Some(DropReason::SourceMulticast)),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn a_trace_of_an_outer_packet_tells_what_becomes_of_the_frame_in_it() {
    let mut switch = blue();
    let traced = switch.explain("overlay", packet(inner(A, B)).bytes());
    // The port's MAC is in the configuration, so the frame has one way to go.
    assert_eq!(traced.verdict, "forwarded");
    assert_eq!(
        steps(&traced),
        lines(&[
            "ingress: a tunnel packet from 192.0.2.11 to 192.0.2.10, VNI 1001",
            "ingress: out of the tunnel from 192.0.2.11 into network blue",
            "bridge: learns 52:54:00:00:00:0b behind port 192.0.2.11",
            "bridge: 52:54:00:00:00:0a is behind port a",
            "egress: leaves by port a untagged",
        ])
    );
    assert_eq!(traced.outputs.len(), 1);
    assert_eq!((&traced.outputs[0].port[..], &traced.outputs[0].frame), ("a", &hex::encode(&inner(A, B))));
    assert_eq!(switch.knows("blue", B), None, "a trace teaches nothing");
    switch.expect_counters("");
}

#[test]
fn a_trace_towards_another_host_ends_in_the_packet_that_would_be_sent() {
    let mut switch = blue();
    switch.send("overlay", packet(inner(A, B)).bytes());
    switch.forget();
    let traced = switch.explain("a", inner(B, A));
    assert_eq!(traced.verdict, "forwarded");
    assert!(steps(&traced).contains("52:54:00:00:00:0b is behind port 192.0.2.11"), "{}", steps(&traced));
    assert_eq!(traced.outputs.len(), 1);
    let (port, sent) = (&traced.outputs[0].port, hex::decode(&traced.outputs[0].frame).unwrap());
    assert_eq!((&port[..], sent.len()), ("overlay", 110));
    assert_eq!(sent[..12], [PEER_MAC.0, VTEP_MAC.0].concat());
    assert_eq!((&sent[26..30], &sent[30..34]), (&[192, 0, 2, 10][..], &[192, 0, 2, 11][..]));
    assert_eq!((&sent[36..38], &sent[46..49]), (&UDP_PORT.to_be_bytes()[..], &[0, 3, 0xe9][..]));
    assert_eq!(sent[50..], inner(B, A));
    // What the trace sends is what the switch sends.
    switch.send("a", inner(B, A));
    assert_eq!(switch.take("overlay").bytes, sent);
    switch.forget();
}

#[test]
fn a_traced_flood_has_a_packet_for_each_peer() {
    let mut switch = blue();
    let traced = switch.explain("a", inner(BROADCAST, A));
    assert_eq!(traced.verdict, "flooded");
    let to: Vec<Vec<u8>> =
        traced.outputs.iter().map(|output| hex::decode(&output.frame).unwrap()[30..34].to_vec()).collect();
    assert_eq!(to, [[192, 0, 2, 11], [192, 0, 2, 12]]);
}

#[test]
fn a_traced_frame_that_has_to_wait_says_so_and_nothing_is_sent() {
    let mut switch = Switch::from(BLUE);
    switch.forget();
    let traced = switch.explain("a", inner(BROADCAST, A));
    for peer in [PEER, OTHER] {
        let line = format!("egress: the next hop to {peer} is not resolved: it waits for that\n");
        assert!(steps(&traced).contains(&line), "{}", steps(&traced));
    }
    assert_eq!(traced.verdict, "flooded");
    assert!(traced.outputs.is_empty(), "nothing leaves before the next hop is known: {:?}", traced.outputs);
    switch.forget();
    // What the VTEP says when it comes up.
    switch.settle();
    switch.forget();
}

#[test]
fn the_verdict_on_an_outer_packet_is_that_on_the_frame_in_it() {
    let mut switch = blue();
    let good = packet(inner(A, B));
    let cases = [
        (good.clone().vni(1002).bytes(), "dropped: unknown_vni"),
        (good.clone().from("192.0.2.99").bytes(), "dropped: unknown_peer"),
        (good.clone().flags(0).bytes(), "dropped: tunnel_header"),
        (packet(inner(A, BROADCAST)).bytes(), "dropped: source_multicast"),
        (packet(inner(B, C)).from(OTHER).bytes(), "dropped: split_horizon"),
        (packet(inner(B, C)).bytes(), "dropped: same_port"),
        (packet(inner(A, B)[..9].to_vec()).bytes(), "dropped: inner_runt"),
        (packet(inner(BROADCAST, B)).bytes(), "flooded"),
        (good.bytes(), "forwarded"),
    ];
    switch.send("overlay", good.bytes());
    switch.forget();
    for (packet, verdict) in cases {
        let traced = switch.explain("overlay", packet);
        assert_eq!(traced.verdict, verdict, "{}", steps(&traced));
    }
}

#[test]
fn what_the_local_vtep_is_asked_it_answers_in_a_trace_too() {
    let mut switch = blue();
    let request =
        nuswitch::services::arp::request(PEER_MAC, PEER.parse().unwrap(), LOCAL.parse().unwrap(), None);
    let traced = switch.explain("overlay", request.to_vec());
    assert_eq!(traced.verdict, "answered", "{}", steps(&traced));
    // The copy knows no neighbours, so it may ask who asks.
    let answer = traced.outputs.last().unwrap();
    let reply = hex::decode(&answer.frame).unwrap();
    assert_eq!((&answer.port[..], &reply[..6], reply[21]), ("overlay", &PEER_MAC.0[..], 2));
    let before = switch.way_to(PEER);
    assert_eq!(before.0, Some(PEER_MAC));
    // Another MAC for the peer, in a trace: the switch goes on to use the one that it knows.
    let claim = nuswitch::services::arp::Arp {
        operation: nuswitch::services::arp::Operation::Reply,
        sender_mac: C,
        sender: PEER.parse().unwrap(),
        target_mac: VTEP_MAC,
        target: LOCAL.parse().unwrap(),
    };
    let traced = switch.explain("overlay", claim.message(VTEP_MAC).to_vec());
    assert_eq!(traced.verdict, "consumed", "{}", steps(&traced));
    assert_eq!(switch.way_to(PEER), before);
    let foreign = inner(PEER_MAC, A);
    assert_eq!(switch.explain("overlay", foreign).verdict, "dropped: underlay_other");
    switch.expect_counters("");
}
