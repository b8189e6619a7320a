//! The hash of a frame's flow: the same for all frames of one transport connection, or of one pair of addresses where there
//! are no ports or they may be missing (fragments). A router spreads flows by it over equal routes; as the source port of
//! a tunnel packet the underlay spreads them by it over equal paths and over a receiver's queues (RFC 7348, section 5). Each
//! flow stays in order.

use crate::wire::ethernet::{HEADER, IPV4, IPV6};
use crate::wire::protocol::{TCP, UDP};

/// A frame's hash as a port of the dynamic range (RFC 6335, section 6).
#[inline(always)]
#[allow(clippy::cast_possible_truncation)] // a hash folds
pub(super) fn source_port(frame: &[u8]) -> u16 {
    0xc000 | (hash(frame) >> 50) as u16
}

/// A frame's hash; its high bits are the best ones.
#[inline(always)]
pub(super) fn hash(frame: &[u8]) -> u64 {
    flow(frame).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[inline(always)]
fn flow(frame: &[u8]) -> u64 {
    match load::<2>(frame, 12).map(u16::from_be_bytes) {
        Some(IPV4) => ipv4(frame),
        Some(IPV6) => ipv6(frame),
        _ => None,
    }
    .unwrap_or_else(|| macs(frame))
}

#[inline(always)]
fn ipv4(frame: &[u8]) -> Option<u64> {
    let addresses = u64::from_ne_bytes(load(frame, HEADER + 12)?);
    let [version, _, _, _, _, _, f0, f1, _, protocol] = load(frame, HEADER)?;
    // With options the ports stand elsewhere; in all fragments but the first they are missing.
    let has_ports = version == 0x45 && f0 & 0x3f == 0 && f1 == 0 && matches!(protocol, TCP | UDP);
    let ports = if has_ports { load(frame, HEADER + 20).map_or(0, u32::from_ne_bytes) } else { 0 };
    Some(mix(addresses, u64::from(ports) << 8 | u64::from(protocol)))
}

#[inline(always)]
fn ipv6(frame: &[u8]) -> Option<u64> {
    let addresses: [u8; 32] = load(frame, HEADER + 8)?;
    let protocol = *frame.get(HEADER + 6)?;
    let ports = if matches!(protocol, TCP | UDP) {
        load(frame, HEADER + 40).map_or(0, u32::from_ne_bytes)
    } else {
        0
    };
    let words = addresses.as_chunks::<8>().0.iter().map(|&word| u64::from_ne_bytes(word));
    Some(words.fold(u64::from(ports) << 8 | u64::from(protocol), mix))
}

#[inline(always)]
fn macs(frame: &[u8]) -> u64 {
    let low = load(frame, 0).map_or(0, u64::from_ne_bytes);
    mix(low, load(frame, 8).map_or(0, |bytes| u64::from(u32::from_ne_bytes(bytes))))
}

#[inline(always)]
fn mix(a: u64, b: u64) -> u64 {
    (a ^ b.rotate_left(32)).wrapping_mul(0xd6e8_feb8_6659_fd93).rotate_left(29) ^ b
}

#[inline(always)]
fn load<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation)] // small numbers
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn v4(source: u8, port: u16, fragment: u16) -> Vec<u8> {
        let mut frame = vec![0; HEADER + 40];
        frame[12..14].copy_from_slice(&IPV4.to_be_bytes());
        frame[HEADER] = 0x45;
        frame[HEADER + 6..HEADER + 8].copy_from_slice(&fragment.to_be_bytes());
        frame[HEADER + 9] = UDP;
        frame[HEADER + 15] = source;
        frame[HEADER + 22..HEADER + 24].copy_from_slice(&port.to_be_bytes());
        frame
    }

    #[test]
    fn flows_spread_over_the_dynamic_ports() {
        let ports: HashSet<u16> = (0..10_000).map(|n| source_port(&v4((n >> 8) as u8, n, 0))).collect();
        assert!(ports.iter().all(|port| *port >= 49152));
        // Of 16 384 ports, 10 000 balls thrown at random hit 7 483.
        assert!(ports.len() > 7_000, "{}", ports.len());
    }

    #[test]
    fn fragments_of_a_packet_take_one_way() {
        let first = source_port(&v4(1, 53, 0x2000));
        assert_eq!(first, source_port(&v4(1, 99, 0x00b9)));
        assert_ne!(first, source_port(&v4(2, 53, 0x2000)));
    }

    #[test]
    fn any_bytes_have_a_flow() {
        for len in 0..80 {
            let mut frame = v4(1, 2, 0);
            frame.resize(len, 0xaa);
            assert!(source_port(&frame) >= 49152);
        }
    }
}
