//! There and back is the identity: whatever the way of translation, an answer made by changing the ends of what arrived
//! arrives where the question came from, with exactly the question's ends; every checksum on the way is right in full,
//! nothing else has changed but the TTL; and ICMP errors quote what those that they reach have sent.

use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::ipv4::*;

/// Which way a packet takes: from a port with this source to this destination, seen by another port.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Way {
    Snat,
    FloatingOut,
    FloatingIn,
    Forwarded,
    /// From one guest to another's floating IP.
    Hairpin,
}

impl Way {
    fn ends(self) -> (&'static str, Ipv4Addr, &'static str, Ipv4Addr) {
        let ip = Ipv4Addr::from;
        let (a, b, world) = (ip([10, 0, 0, 10]), ip([10, 0, 0, 11]), ip([198, 51, 100, 9]));
        match self {
            Way::Snat => ("a", a, "w", world),
            Way::FloatingOut => ("b", b, "w", world),
            Way::FloatingIn => ("w", world, "b", ip([203, 0, 113, 150])),
            Way::Forwarded => ("w", world, "a", ip([203, 0, 113, 151])),
            Way::Hairpin => ("a", a, "b", ip([203, 0, 113, 150])),
        }
    }
}

/// MACs of a port and of the router there.
fn macs(port: &str) -> (Mac, Mac) {
    let mac = |text: &str| text.parse().unwrap();
    match port {
        "a" => (A, mac(GATEWAY)),
        "b" => (B, mac(GATEWAY)),
        _ => (mac(W), mac(EDGE_MAC)),
    }
}

#[derive(Clone, Debug)]
struct Case {
    way: Way,
    protocol: u8,
    ports: (u16, u16),
    payload: Vec<u8>,
    options: Vec<u8>,
    ttl: u8,
    id: u16,
    no_checksum: bool,
    partial: bool,
    /// The size of the parts, and in which order they come.
    parts: Option<(usize, u8)>,
}

fn case() -> impl Strategy<Value = Case> {
    let way = prop::sample::select(vec![
        Way::Snat,
        Way::FloatingOut,
        Way::FloatingIn,
        Way::Forwarded,
        Way::Hairpin,
    ]);
    let options = prop::sample::select(vec![
        vec![],
        vec![],
        vec![1, 1, 1, 0],
        vec![7, 7, 4, 0, 0, 0, 0, 0],
        vec![0x94, 4, 0, 0],
    ]);
    let parts = prop::option::of((1usize..40, any::<u8>()));
    let payload = prop::collection::vec(any::<u8>(), 0..600);
    let protocol = prop::sample::select(vec![6u8, 17, 1]);
    (
        way,
        protocol,
        any::<(u16, u16)>(),
        payload,
        options,
        (2u8.., any::<u16>()),
        any::<(bool, bool)>(),
        parts,
    )
        .prop_map(
            |(way, protocol, ports, payload, options, (ttl, id), (no_checksum, partial), parts)| {
                let forwarded = way == Way::Forwarded;
                Case {
                    way,
                    protocol: if forwarded { 6 } else { protocol },
                    ports: if forwarded { (ports.0, 8080) } else { ports },
                    payload,
                    options,
                    ttl,
                    id,
                    no_checksum: no_checksum && protocol == 17 && !forwarded,
                    partial: partial && !no_checksum && (protocol != 1 || forwarded) && parts.is_none(),
                    parts: parts.map(|(eighths, order)| (eighths.max(3) * 8, order)),
                }
            },
        )
}

/// A whole packet of the case, with these ends, TCP flags or ICMP type.
fn packet(
    case: &Case,
    (source, destination): ([u8; 4], [u8; 4]),
    (from, to): (u16, u16),
    kind: u8,
) -> Vec<u8> {
    let ports = [from.to_be_bytes(), to.to_be_bytes()].concat();
    let transport = match case.protocol {
        6 => {
            let (seq, ack) = if kind & 0x10 == 0 { (100u32, 0u32) } else { (9000, 101) };
            [&ports[..], &seq.to_be_bytes(), &ack.to_be_bytes(), &[0x50, kind, 255, 255, 0, 0, 0, 0]].concat()
        }
        17 => {
            let mark = u8::from(!case.no_checksum);
            [&ports[..], &((case.payload.len() + 8) as u16).to_be_bytes(), &[0, mark]].concat()
        }
        _ => [&[kind, 0, 0, 0], &ports[..2], &[0, 1]].concat(),
    };
    let [i0, i1] = case.id.to_be_bytes();
    let mut bytes = vec![0x45, 0x28, 0, 0, i0, i1, 0, 0, case.ttl, case.protocol, 0, 0];
    bytes.extend([source, destination].concat());
    bytes.extend([&transport[..], if case.protocol == 6 { &[] } else { &case.payload }].concat());
    let mut bytes = with_options(&bytes, &case.options);
    seal_transport(&mut bytes);
    bytes
}

/// Sends a packet as the case says, and gives the whole one that arrives.
fn pass(sw: &mut Switch, case: &Case, from: &str, to: &str, packet: &[u8]) -> Vec<u8> {
    let (own, router) = macs(from);
    let parts =
        case.parts.filter(|(size, _)| case.protocol != 6 && packet.len() - header_len(packet) > *size);
    if let Some((size, order)) = parts {
        let mut parts = in_parts(packet, size);
        let middle = usize::from(order) % parts.len();
        parts.rotate_left(middle);
        if order & 1 == 1 {
            parts.reverse();
        }
        for part in &parts {
            sw.send(from, framed(own, router, part));
        }
        let arrived: Vec<Vec<u8>> = sw.take_all(to).iter().map(finished).collect();
        assert_eq!(arrived.len(), parts.len(), "all parts arrive");
        return together(arrived);
    }
    let wire = match case.partial {
        true => unfinished(own, router, packet),
        false => framed(own, router, packet),
    };
    sw.send(from, wire);
    let arrived = sw.take(to);
    assert_eq!(arrived.bytes[..12], [macs(to).0.0, macs(to).1.0].concat());
    assert_eq!(arrived.offload.needs_csum(), case.partial);
    finished(&arrived)
}

fn ends(packet: &[u8]) -> ([u8; 4], [u8; 4], u16, u16) {
    let header = header_len(packet);
    let (from, to) = match packet[9] {
        1 => (word(packet, header + 4), 0),
        _ => (word(packet, header), word(packet, header + 2)),
    };
    let address = |at: usize| *packet[at..].first_chunk().unwrap();
    (address(12), address(16), from, to)
}

/// Apart from their ends, sums and TTL, which is one less, the packets are the same.
fn same_but_for_ends(before: &[u8], after: &[u8]) {
    verify(after);
    assert_eq!(after[8], before[8] - 1, "one hop");
    let stripped = |packet: &[u8]| {
        let mut bytes = packet.to_vec();
        let header = header_len(packet);
        bytes[8] = 0;
        bytes[10..20].fill(0);
        let (ports, at) = if packet[9] == 1 { (4..6, 2) } else { (0..4, checksum_at(packet[9]).unwrap()) };
        bytes[header + ports.start..header + ports.end].fill(0);
        if packet[9] != 17 || word(packet, header + at) != 0 {
            bytes[header + at..header + at + 2].fill(1);
        }
        bytes
    };
    assert_eq!(stripped(after), stripped(before));
}

/// With one hop less.
fn hopped(packet: &[u8]) -> Vec<u8> {
    let mut bytes = packet.to_vec();
    bytes[8] -= 1;
    seal(&mut bytes);
    bytes
}

/// An ICMP error by `to` about a packet that it got reaches the one who sent that, and quotes what was sent.
fn told(sw: &mut Switch, case: &Case, (from, sent): (&str, &[u8]), (to, got): (&str, &[u8])) {
    let whole = Case { parts: None, partial: false, protocol: 1, ..case.clone() };
    let quote = &got[..got.len().min(header_len(got) + 64)];
    let (source, destination, ..) = ends(got);
    for (kind, speaker) in [((3, 3), destination), ((3, 4), destination)] {
        let error = icmp_error((speaker, source), kind, [0, 0, 5, 0x14], quote);
        let heard = pass(sw, &whole, to, from, &error);
        verify(&heard);
        let (source, destination, ..) = ends(sent);
        assert_eq!(ends(&heard).0, destination, "from whom the packet was sent to");
        assert_eq!(ends(&heard).1, source, "to whom sent the packet");
        assert_eq!(heard[20..22], [kind.0, kind.1]);
        assert_eq!(heard[24..28], [0, 0, 5, 0x14]);
        assert_eq!(heard[28..], hopped(sent)[..quote.len()], "what was sent");
    }
}

fn there_and_back(case: &Case) {
    let mut sw = settled(&format!("{EDGE}{FLOATING}{}", FORWARDED.replace("port = \"b\"", "port = \"a\"")));
    let (from, source, to, destination) = case.way.ends();
    let (there, back) = match case.protocol {
        6 => (0x02, 0x12),
        _ => (8, 0),
    };
    let sent = packet(case, (source.octets(), destination.octets()), case.ports, there);
    let got = pass(&mut sw, case, from, to, &sent);
    same_but_for_ends(&sent, &got);
    let (seen_from, seen_to, from_port, to_port) = ends(&got);
    let ports = if case.protocol == 1 { (from_port, 0) } else { (to_port, from_port) };
    let answer = packet(case, (seen_to, seen_from), ports, back);
    let heard = pass(&mut sw, case, to, from, &answer);
    same_but_for_ends(&answer, &heard);
    let expected = match case.protocol {
        1 => (destination.octets(), source.octets(), case.ports.0, 0),
        _ => (destination.octets(), source.octets(), case.ports.1, case.ports.0),
    };
    assert_eq!(ends(&heard), expected, "the answer's ends");
    told(&mut sw, case, (from, &sent), (to, &got));
    told(&mut sw, case, (to, &answer), (from, &heard));
    sw.forget();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn there_and_back_is_the_identity(case in case()) {
        there_and_back(&case);
    }
}
