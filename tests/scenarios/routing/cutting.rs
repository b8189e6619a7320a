//! Packets that are longer than the network that they leave by carries (RFC 791, 3.2; RFC 1812, 4.2.2.7 and 5.2.6). Network
//! `blue` carries 1400 bytes.

use super::*;

/// A UDP packet from `a` to `b` that may be cut, from its IP header on.
fn long(payload: usize, options: &[u8]) -> Vec<u8> {
    let fields = format!("ip src=10.0.1.10 dst=10.0.2.11 udp sport=7 dport=9 len={payload}");
    let mut packet = spec(&format!("eth src={A} dst={RED} {fields}")).bytes.split_off(14);
    packet[4..8].copy_from_slice(&[0xbe, 0xef, 0, 0]);
    with_options(&packet, options)
}

fn hopped(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    packet[8] -= 1;
    seal(&mut packet);
    packet
}

fn to_router(packet: &[u8]) -> Wire {
    framed(A, mac_of(RED), packet)
}

/// The parts that arrived at `b`, from their IP headers on.
fn arrived(sw: &mut Switch) -> Vec<Vec<u8>> {
    let frames = sw.take_all("b");
    assert!(frames.iter().all(|frame| frame.bytes[..12] == [B.0, mac_of(BLUE).0].concat()));
    assert!(frames.iter().all(|frame| frame.bytes.len() <= 1414 && frame.offload.is_done()));
    frames.iter().map(|frame| frame.bytes[14..].to_vec()).collect()
}

#[test]
fn rfc1812_s4_2_2_7_a_packet_that_may_be_cut_is() {
    let mut sw = settled(TWO);
    let sent = long(1430, &[]);
    sw.send("a", to_router(&sent));
    let parts = arrived(&mut sw);
    assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [1396, 20 + 1438 - 1376]);
    assert_eq!(together(parts), hopped(&sent));
    sw.advance(secs(0));
    sw.expect_counters(
        "a: rx_frames 1, rx_bytes 1472, forwarded 1; r/red-v4: tx_frames 1, tx_bytes 1472; \
         r/blue-v4: rx_frames 2, rx_bytes 1506, forwarded 2; b: tx_frames 2, tx_bytes 1506",
    );
}

#[test]
fn rfc1812_s4_2_2_7_one_that_must_not_be_cut_is_told_about() {
    let mut sw = settled(TWO);
    let mut sent = long(1430, &[]);
    sent[6] = 0x40;
    seal(&mut sent);
    sw.send("a", to_router(&sent));
    let told = sw.take("a").bytes;
    assert_eq!((told[34], told[35], word(&told, 40)), (3, 4, 1400));
    sw.expect_nothing("b");
    sw.forget();
}

#[test]
fn one_that_just_fits_is_not_cut() {
    let mut sw = settled(TWO);
    for (payload, count) in [(1372, 1), (1373, 2)] {
        sw.send("a", to_router(&long(payload, &[])));
        let parts = arrived(&mut sw);
        assert_eq!(parts.len(), count, "{payload}");
        assert_eq!(together(parts), hopped(&long(payload, &[])));
    }
    sw.forget();
}

#[test]
fn a_part_is_cut_into_parts_of_the_whole() {
    let mut sw = settled(TWO);
    let sent = long(4000, &[]);
    for part in in_parts(&sent, 1440) {
        sw.send("a", to_router(&part));
    }
    let parts = arrived(&mut sw);
    assert_eq!(parts.len(), 5, "two, two, and the last one as it was");
    assert_eq!(together(parts), hopped(&sent));
    sw.forget();
}

#[test]
fn rfc791_options_are_copied_as_their_flag_says() {
    let mut sw = settled(TWO);
    // A filler and record route, which the first part has alone, around router alert.
    let sent = long(1430, &[1, 0x94, 4, 0, 0, 7, 3, 4]);
    sw.send("a", to_router(&sent));
    let parts = arrived(&mut sw);
    assert_eq!(parts[0][20..28], sent[20..28]);
    assert_eq!((header_len(&parts[1]), &parts[1][20..24]), (24, &[0x94, 4, 0, 0][..]));
    assert_eq!(together(parts), hopped(&sent));
    sw.forget();
}

#[test]
fn an_unfinished_checksum_is_finished_before() {
    let mut sw = settled(TWO);
    let sent = long(1430, &[]);
    sw.send("a", unfinished(A, mac_of(RED), &sent));
    let whole = together(arrived(&mut sw));
    verify(&whole);
    assert_eq!(whole, hopped(&sent));
    sw.forget();
}

#[test]
fn parts_wait_for_their_next_hop_as_packets_do() {
    let mut sw = settled(TWO);
    let mut sent = long(1430, &[]);
    sent[16..20].copy_from_slice(&[10, 0, 2, 50]);
    seal_transport(&mut sent);
    seal(&mut sent);
    sw.send("a", to_router(&sent));
    sw.forget();
    sw.send("c", spec(&format!("eth src={C} dst={BLUE} arp reply 10.0.2.50 is-at {C} to=10.0.2.1")));
    let parts = sw.take_all("c").iter().map(|frame| frame.bytes[14..].to_vec()).collect();
    assert_eq!(together(parts), hopped(&sent));
    sw.forget();
}

#[test]
fn segments_of_gso_frames_are_cut_where_they_are_too_long() {
    let mut sw = settled(TWO);
    for (size, whole) in [(1000, true), (1390, false)] {
        let mut frame = gso(Kind::Tcp4, 5000, size);
        frame.bytes[..6].copy_from_slice(&mac_of(RED).0);
        frame.bytes[26..34].copy_from_slice(&[10, 0, 1, 10, 10, 0, 2, 11]);
        frame.bytes[20] = 0;
        seal(&mut frame.bytes[14..]);
        sw.send("a", frame);
        sw.expect_nothing("a");
        let arrived = sw.take_all("b");
        if whole {
            assert_eq!(arrived.len(), 1, "as it came");
            continue;
        }
        let mut segments: Vec<Vec<Vec<u8>>> = Vec::new();
        for part in arrived.iter().map(|frame| frame.bytes[14..].to_vec()) {
            assert!(part.len() <= 1400, "as long as the network carries");
            match segments.last_mut().filter(|segment| segment[0][4..6] == part[4..6]) {
                Some(segment) => segment.push(part),
                None => segments.push(vec![part]),
            }
        }
        let lengths: Vec<usize> = segments.into_iter().map(|parts| together(parts).len()).collect();
        assert_eq!(lengths, [1430, 1430, 1430, 870], "each segment is a packet");
    }
    sw.forget();
}

#[test]
fn the_longest_header_is_cut_too() {
    let mut sw = settled(TWO);
    let sent = long(1430, &[1; 40]);
    sw.send("a", to_router(&sent));
    assert_eq!(together(arrived(&mut sw)), hopped(&sent));
    sw.forget();
}
