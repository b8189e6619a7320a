//! IPv4 packets with options, in parts, in ICMP errors, and a full look at all their checksums: by naive sums, none of which
//! is the switch's own.

use nuswitch::frame::Offload;
use nuswitch::types::Mac;

use super::frames::{IntoWire, Wire};

/// The checksum of these bytes (RFC 1071); over bytes that hold their right one it is 0.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let sum: u64 = words.map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !(((sum & 0xffff) + (sum >> 16)) as u16)
}

pub fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Bytes of an IP header.
pub fn header_len(packet: &[u8]) -> usize {
    usize::from(packet[0] & 15) * 4
}

/// Makes the header's checksum right again.
pub fn seal(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let sum = checksum(&[&packet[..header_len(packet)]]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

fn pseudo(packet: &[u8]) -> Vec<u8> {
    let len = (packet.len() - header_len(packet)) as u16;
    [&packet[12..20], &[0, packet[9]], &len.to_be_bytes()].concat()
}

/// Where the transport's checksum is, in bytes from its header on.
pub fn checksum_at(protocol: u8) -> Option<usize> {
    match protocol {
        6 => Some(16),
        17 => Some(6),
        1 => Some(2),
        _ => None,
    }
}

/// Makes the transport's checksum right again; one of zero of UDP stays so.
pub fn seal_transport(packet: &mut [u8]) {
    let header = header_len(packet);
    let Some(at) = checksum_at(packet[9]).map(|at| header + at) else { return };
    if packet[9] == 17 && word(packet, at) == 0 {
        return;
    }
    packet[at..at + 2].fill(0);
    let before = if packet[9] == 1 { Vec::new() } else { pseudo(packet) };
    let sum = match (packet[9], checksum(&[&before, &packet[header..]])) {
        (17, 0) => 0xffff,
        (_, sum) => sum,
    };
    packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// All lengths and checksums of a whole packet are right.
#[track_caller]
pub fn verify(packet: &[u8]) {
    let header = header_len(packet);
    assert_eq!(usize::from(word(packet, 2)), packet.len(), "total length");
    assert_eq!(checksum(&[&packet[..header]]), 0, "the header's checksum");
    let segment = &packet[header..];
    match packet[9] {
        1 => assert_eq!(checksum(&[segment]), 0, "ICMP's checksum"),
        17 if word(segment, 6) == 0 => {}
        6 | 17 => assert_eq!(checksum(&[&pseudo(packet), segment]), 0, "the transport's checksum"),
        _ => {}
    }
}

/// A packet with other words in its header: a frame's bytes from the IP header on, to be sealed.
pub fn with_options(packet: &[u8], options: &[u8]) -> Vec<u8> {
    assert!(packet[0] == 0x45 && options.len().is_multiple_of(4));
    let mut bytes = [&packet[..20], options, &packet[20..]].concat();
    bytes[0] += (options.len() / 4) as u8;
    let len = bytes.len() as u16;
    bytes[2..4].copy_from_slice(&len.to_be_bytes());
    seal(&mut bytes);
    bytes
}

/// The packet of a frame as it would be on a wire: what its note leaves to do is done.
pub fn finished(wire: &Wire) -> Vec<u8> {
    let mut bytes = wire.bytes.clone();
    let note = wire.offload;
    assert_eq!(note.gso_type, Offload::GSO_NONE);
    if note.needs_csum() {
        let (start, at) = (usize::from(note.csum_start), usize::from(note.csum_start + note.csum_offset));
        let sum = match (bytes[23], checksum(&[&bytes[start..]])) {
            (17, 0) => 0xffff,
            (_, sum) => sum,
        };
        bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
    bytes.split_off(14)
}

/// Leaves the transport's checksum to whoever sends the packet.
pub fn unfinished(from: Mac, to: Mac, packet: &[u8]) -> Wire {
    let mut wire = framed(from, to, packet);
    let header = header_len(packet);
    let at = checksum_at(packet[9]).unwrap();
    let seed = !checksum(&[&pseudo(packet)]);
    wire.bytes[14 + header + at..][..2].copy_from_slice(&seed.to_be_bytes());
    let (csum_start, csum_offset) = ((14 + header) as u16, at as u16);
    wire.offload = Offload { flags: Offload::NEEDS_CSUM, csum_start, csum_offset, ..Offload::NONE };
    wire
}

/// The packet in a frame.
pub fn framed(from: Mac, to: Mac, packet: &[u8]) -> Wire {
    [&to.0[..], &from.0, &[8, 0], packet].concat().wire()
}

/// A packet in parts of so many bytes of data, a multiple of 8; options that are not to be copied (RFC 791, 3.1) are not in
/// it.
pub fn in_parts(packet: &[u8], size: usize) -> Vec<Vec<u8>> {
    let (head, data) = packet.split_at(header_len(packet));
    let count = data.len().div_ceil(size);
    let part = |n: usize| {
        let piece = &data[n * size..data.len().min((n + 1) * size)];
        let mut bytes = [head, piece].concat();
        let len = bytes.len() as u16;
        bytes[2..4].copy_from_slice(&len.to_be_bytes());
        let more = if n + 1 < count { 0x2000 } else { 0 };
        bytes[6..8].copy_from_slice(&(more | (n * size / 8) as u16).to_be_bytes());
        seal(&mut bytes);
        bytes
    };
    (0..count).map(part).collect()
}

/// The packet that parts in any order are of (RFC 791, 3.2).
pub fn together(mut parts: Vec<Vec<u8>>) -> Vec<u8> {
    parts.sort_by_key(|part| word(part, 6) & 0x1fff);
    let mut whole = parts[0][..header_len(&parts[0])].to_vec();
    let header = whole.len();
    let last = parts.len() - 1;
    for (n, part) in parts.iter().enumerate() {
        assert_eq!(usize::from(word(part, 6) & 0x1fff) * 8, whole.len() - header, "parts without a gap");
        assert_eq!(word(part, 6) & 0x2000 != 0, n != last, "more fragments");
        assert_eq!((word(part, 4), part[9]), (word(&whole, 4), whole[9]), "identification and protocol");
        assert_eq!(part[12..20], whole[12..20], "ends");
        assert_eq!(usize::from(word(part, 2)), part.len(), "total length");
        assert_eq!(checksum(&[&part[..header_len(part)]]), 0, "the header's checksum");
        whole.extend(&part[header_len(part)..]);
    }
    let len = whole.len() as u16;
    whole[2..4].copy_from_slice(&len.to_be_bytes());
    whole[6..8].fill(0);
    seal(&mut whole);
    whole
}

/// An ICMP error (RFC 792): its last word, and what it quotes.
pub fn icmp_error(
    (source, destination): ([u8; 4], [u8; 4]),
    (kind, code): (u8, u8),
    rest: [u8; 4],
    quote: &[u8],
) -> Vec<u8> {
    let len = ((28 + quote.len()) as u16).to_be_bytes();
    let mut packet = vec![0x45, 0, len[0], len[1], 0, 9, 0, 0, 64, 1, 0, 0];
    packet.extend([source, destination].concat());
    packet.extend([&[kind, code, 0, 0][..], &rest, quote].concat());
    seal(&mut packet);
    seal_transport(&mut packet);
    packet
}
