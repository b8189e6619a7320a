//! IPv4 packets out of choices, their sums worked out the slow way.

use super::input::Input;

/// The sum of 16-bit words, folded (RFC 1071); 0xffff where it is over bytes with their right checksum.
pub fn sum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u32 =
        words.map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).expect("folded")
}

pub fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Where the checksum of a transport is, from its first byte on.
pub fn checksum_at(protocol: u8) -> Option<usize> {
    match protocol {
        6 => Some(16),
        17 => Some(6),
        1 => Some(2),
        _ => None,
    }
}

/// The sum over a whole transport, its pseudo-header included where it has one.
pub fn transport_sum(packet: &[u8]) -> u16 {
    let header = usize::from(packet[0] & 15) * 4;
    let segment = &packet[header..];
    let len = u16::try_from(segment.len()).unwrap_or(u16::MAX).to_be_bytes();
    match packet[9] {
        1 => sum(&[segment]),
        protocol => sum(&[&packet[12..20], &[0, protocol], &len, segment]),
    }
}

/// A packet that is as long as it says.
pub struct Packet {
    pub source: [u8; 4],
    pub destination: [u8; 4],
    pub protocol: u8,
    pub ttl: u8,
    pub id: u16,
    /// Flags and offset.
    pub field: u16,
    /// Of four bytes each.
    pub options: Vec<u8>,
    /// From the transport header on; its checksum is filled in.
    pub transport: Vec<u8>,
}

impl Packet {
    pub fn bytes(&self) -> Vec<u8> {
        let header = 20 + self.options.len();
        let total = u16::try_from(header + self.transport.len()).unwrap_or(u16::MAX).to_be_bytes();
        let ([i0, i1], [f0, f1]) = (self.id.to_be_bytes(), self.field.to_be_bytes());
        let version = 0x40 | u8::try_from(header / 4).unwrap_or(5);
        let mut bytes = vec![version, 0, total[0], total[1], i0, i1, f0, f1, self.ttl, self.protocol, 0, 0];
        bytes.extend([self.source, self.destination].concat());
        bytes.extend(&self.options);
        let checksum = !sum(&[&bytes]);
        bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
        bytes.extend(&self.transport);
        if let Some(at) = checksum_at(self.protocol).map(|at| header + at)
            && bytes.len() >= at + 2
        {
            bytes[at..at + 2].fill(0);
            let checksum = match (self.protocol, !transport_sum(&bytes)) {
                (17, 0) => 0xffff,
                (_, checksum) => checksum,
            };
            bytes[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        }
        bytes
    }
}

/// A transport header with these ports, or this identifier, and `payload` bytes behind it.
pub fn transport(protocol: u8, (from, to): (u16, u16), kind: u8, payload: usize) -> Vec<u8> {
    let ports = [from.to_be_bytes(), to.to_be_bytes()].concat();
    let mut bytes = match protocol {
        6 => [&ports[..], &[0, 0, 0, 9, 0, 0, 0, 0, 0x50, kind, 1, 0, 0, 0, 0, 0]].concat(),
        17 => [&ports[..], &u16::try_from(payload + 8).unwrap_or(u16::MAX).to_be_bytes(), &[0, 0]].concat(),
        1 => [&[kind, 0, 0, 0], &ports[..2], &[0, 1]].concat(),
        _ => [&ports[..], &[0; 8]].concat(),
    };
    bytes.extend((0..payload).map(|at| u8::try_from(at % 251).unwrap_or(0)));
    bytes
}

/// Options of IPv4: most often none.
pub fn options(input: &mut Input<'_>) -> Vec<u8> {
    let choices: [&[u8]; 8] = [
        &[],
        &[],
        &[],
        &[],
        &[1, 1, 1, 0],
        &[0x94, 4, 0, 0],
        &[7, 7, 4, 0, 0, 0, 0, 1],
        &[0x83, 7, 4, 1, 2, 3, 4, 0],
    ];
    input.one_of(&choices).to_vec()
}
