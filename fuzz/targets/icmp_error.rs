//! ICMP errors that are translated, and such that a router writes itself, about any bytes:
//! - what is translated keeps each checksum as right, or as wrong, as it was, and nothing but addresses, ports, the TTL and
//!   those checksums changes; a second translation back gives the packet that there was;
//! - what is written is sound, goes back to where the packet came from, quotes it, is no longer than it may be, and is not
//!   about an error, a later fragment, a group, or a source that is no host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nuswitch::dataplane::rewrite::{self, Tuple};
use nuswitch::services::icmp::{self, Problem};
use nuswitch::types::Mac;

use super::input::Input;
use super::packets::{Packet, checksum_at, options, sum, transport, transport_sum, word};

const OWN: Mac = Mac([2, 0, 0, 0, 0, 1]);
const TO: Tuple = Tuple {
    source: Ipv4Addr::new(10, 0, 0, 10),
    destination: Ipv4Addr::new(198, 51, 100, 9),
    source_port: 4000,
    destination_port: 53,
};

pub fn run(data: &[u8]) {
    reach(data);
}

/// As [`run`]; gives errors that were translated, written, and refused.
pub fn reach(data: &[u8]) -> [u64; 3] {
    let mut input = Input::new(data);
    let mut ends = [0; 3];
    for _ in 0..16 {
        if input.is_empty() {
            break;
        }
        let mut packet = error(&mut input);
        for _ in 0..input.one_of(&[0u8, 0, 0, 1, 3]) {
            let at = usize::from(input.word()) % packet.len().max(1);
            if let Some(byte) = packet.get_mut(at) {
                *byte = input.byte();
            }
        }
        if input.byte() % 16 == 15 {
            let len = usize::from(input.byte());
            packet = input.bytes(len).to_vec();
        }
        ends[if translate(&mut input, &packet) { 0 } else { 2 }] += 1;
        ends[if written(&mut input, packet) { 1 } else { 2 }] += 1;
    }
    ends
}

/// An error about a packet, both as they should be.
fn error(input: &mut Input<'_>) -> Vec<u8> {
    let protocol = input.one_of(&[17u8, 6, 1, 47, 132]);
    let ports = (input.one_of(&[4000u16, 0, 0xffff]), input.word());
    let payload = usize::from(input.one_of(&[0u8, 1, 8, 20, 255]));
    let mut quoted = Packet {
        source: [203, 0, 113, 100],
        destination: input.one_of(&[[198, 51, 100, 9], [10, 0, 0, 1], [255, 255, 255, 255]]),
        protocol,
        ttl: 1,
        id: input.word(),
        field: input.one_of(&[0u16, 0x4000, 0x2000, 5]),
        options: options(input),
        transport: transport(protocol, ports, 8, payload),
    }
    .bytes();
    if protocol == 17 && input.byte() % 4 == 3 {
        let at = usize::from(quoted[0] & 15) * 4 + 6;
        quoted[at..at + 2].fill(0);
    }
    let cut = input.one_of(&[usize::MAX, 28, 27, 40, 36, 20, 19, 0]);
    quoted.truncate(cut);
    let kind = input.one_of(&[3u8, 11, 12, 3, 5, 8]);
    let mut message = vec![kind, input.byte() % 16, 0, 0, 0, 0, 0, 0];
    if input.flag() {
        // Extensions behind a quote that is filled up (RFC 4884).
        quoted.resize(128, 0);
        message[5] = 32;
        quoted.extend([0x20, 0, 0, 0, 0, 8, 1, 1, 0, 0, 0, 0]);
    }
    message.extend(quoted);
    Packet {
        source: input.one_of(&[[192, 0, 2, 254], [224, 0, 0, 1], [0, 0, 0, 0]]),
        destination: [203, 0, 113, 100],
        protocol: 1,
        ttl: 9,
        id: 1,
        field: 0,
        options: options(input),
        transport: message,
    }
    .bytes()
}

/// Whether a packet is an error about another one, by the header lengths in both.
fn parts(packet: &[u8]) -> Option<(usize, usize)> {
    let header = usize::from(packet.first()? & 15) * 4;
    let quote = header + 8;
    (header >= 20 && packet.len() >= quote + 20 && packet[quote] >> 4 == 4).then_some((header, quote))
}

fn translate(input: &mut Input<'_>, packet: &[u8]) -> bool {
    let at = match input.byte() {
        0..=239 => packet.first().map_or(20, |first| usize::from(first & 15) * 4),
        _ => usize::from(input.byte()),
    };
    let ends = (Ipv4Addr::new(192, 0, 2, 254), Ipv4Addr::new(10, 0, 0, 10));
    let mut bytes = packet.to_vec();
    let partial = input.byte() % 16 == 15;
    if rewrite::error_v4(&mut bytes, at, ends, &TO, partial).is_err() {
        return false;
    }
    assert_eq!(bytes.len(), packet.len());
    let Some((header, quote)) =
        parts(packet).filter(|(header, _)| *header == at && packet.len() >= header + 8)
    else {
        return true;
    };
    // The sums that were over whole parts of it stay what they were.
    let total = usize::from(word(packet, 2).unwrap_or(0)).min(packet.len());
    if total < quote + 20 {
        return true;
    }
    // A sum that counts nothing but zeros is a zero of another sign.
    let same = |a: u16, b: u16| a % 0xffff == b % 0xffff;
    let ttl = |bytes: &[u8]| u16::from_be_bytes([bytes[8], bytes[9]]);
    if ttl(packet) >= 0x100 {
        assert!(same(sum(&[&packet[..header]]), sum(&[&bytes[..header]])), "the header's checksum");
    }
    if !partial {
        assert!(
            same(sum(&[&packet[header..total]]), sum(&[&bytes[header..total]])),
            "the message's checksum"
        );
    }
    let inner = usize::from(packet[quote] & 15) * 4;
    if inner >= 20 && quote + inner <= total {
        let (before, after) = (&packet[quote..quote + inner], &bytes[quote..quote + inner]);
        assert!(same(sum(&[before]), sum(&[after])), "the quoted header's checksum");
        let whole = quote + usize::from(word(packet, quote + 2).unwrap_or(0));
        let words = usize::from(packet[header + 5]);
        let quoted = if words == 0 { total } else { total.min(quote + words * 4) };
        if (word(packet, quote + 6).unwrap_or(0)) & 0x3fff == 0
            && whole <= quoted
            && let Some(at) = checksum_at(packet[quote + 9])
            && quote + inner + at + 2 <= whole
        {
            let was = word(packet, quote + inner + at);
            let zero = packet[quote + 9] == 17 && was == Some(0);
            let (before, after) = (&packet[quote..whole], &bytes[quote..whole]);
            assert!(
                zero || same(transport_sum(before), transport_sum(after)),
                "the quoted transport's checksum"
            );
            assert!(!zero || word(&bytes, quote + inner + at) == Some(0), "no checksum became one");
        }
        assert_eq!(bytes[quote + 12..quote + 20], [TO.source.octets(), TO.destination.octets()].concat());
        let changed = (quote + inner + 20).min(bytes.len());
        assert_eq!(bytes[changed..], packet[changed..], "behind the headers");
    }
    true
}

fn written(input: &mut Input<'_>, packet: Vec<u8>) -> bool {
    let mtu = input.one_of(&[1400u16, 0, 68, 1280, 9000]);
    let at = u32::from(input.byte());
    let problem = input.one_of(&[
        Problem::HopsExceeded,
        Problem::NoRoute,
        Problem::HostUnreachable,
        Problem::ProtocolUnreachable(at),
        Problem::PortUnreachable,
        Problem::Prohibited,
        Problem::TooBig(mtu),
        Problem::WrongField(at),
        Problem::UnknownOption(at),
    ]);
    let v6 = input.byte() % 4 == 3;
    let from = input.one_of(&[[0x52, 0x54, 0, 0, 0, 10], [1, 0, 0x5e, 0, 0, 1], [0; 6]]);
    let mut frame = [&OWN.0[..], &from[..], if v6 { &[0x86, 0xdd] } else { &[8, 0] }].concat();
    frame.extend(if v6 { packet_v6(input, packet) } else { packet });
    let source: IpAddr = if v6 {
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()
    } else {
        Ipv4Addr::new(10, 0, 0, 1).into()
    };
    let Some(message) = icmp::error(&frame, problem, OWN, source) else { return false };
    assert_eq!(message[..14], [&frame[6..12], &OWN.0[..], &frame[12..14]].concat());
    let (packet, about) = (&message[14..], &frame[14..]);
    if v6 {
        assert!(packet.len() <= 1280 && packet[24..40] == about[8..24]);
        let len = u16::try_from(packet.len() - 40).expect("bounded").to_be_bytes();
        assert_eq!(word(packet, 4), Some(u16::from_be_bytes(len)));
        assert_eq!(sum(&[&packet[8..40], &len, &[0, 58], &packet[40..]]), 0xffff, "checksum");
        assert!(about.starts_with(&packet[48..]));
        assert_ne!(about[8], 0xff, "about what a group is said to have sent");
        return true;
    }
    assert!(packet.len() <= 576 && word(packet, 2).map(usize::from) == Some(packet.len()));
    assert_eq!(sum(&[&packet[..20]]), 0xffff, "the header's checksum");
    assert_eq!(sum(&[&packet[20..]]), 0xffff, "the message's checksum");
    assert_eq!(packet[16..20], about[12..16], "to whom sent it");
    assert!(about.starts_with(&packet[28..]));
    assert_eq!(word(about, 6).map(|field| field & 0x1fff), Some(0), "about a later fragment");
    assert!(!(224..).contains(&about[12]) && !(224..).contains(&about[16]), "about a group");
    let kind = about.get(usize::from(about[0] & 15) * 4);
    assert!(about[9] != 1 || !matches!(kind, Some(3 | 4 | 5 | 11 | 12)), "about an error");
    true
}

/// Around a payload: a packet with perhaps one extension header.
fn packet_v6(input: &mut Input<'_>, mut payload: Vec<u8>) -> Vec<u8> {
    let next = input.one_of(&[17u8, 58, 6, 44, 0, 60]);
    if next == 44 {
        payload.splice(0..0, [17, 0, 0, input.one_of(&[1u8, 8, 0]), 0, 0, 0, 1]);
    }
    let len = u16::try_from(payload.len()).unwrap_or(u16::MAX).to_be_bytes();
    let mut bytes = vec![0x60, 0, 0, 0, len[0], len[1], next, 64];
    bytes.extend([input.one_of(&[0x20u8, 0xff, 0]), 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    bytes.extend([0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]);
    bytes.extend(payload);
    bytes
}
