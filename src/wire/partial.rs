//! Finds frames whose TCP or UDP checksum is unfinished.
//!
//! A sender that leaves checksums to its device (a veth's peer, a virtio guest, a TAP) puts the folded sum of the
//! pseudo-header into the field, and AF_XDP carries no note of it. So a frame counts as unfinished when its checksum
//! equals that sum. A finished checksum equals it for one frame in 65 536, by chance; finishing such a frame again gives
//! the same checksum, so nothing is lost.
//!
//! Limits: IPv6 extension headers are not walked, and SCTP's CRC is not found. What is inside of a tunnel is found when it has come out.

const TCP: u8 = 6;
const UDP: u8 = 17;

/// Where the unfinished checksum of a frame stands: the start of what is summed, in bytes from the start of the frame,
/// and the offset of the field from there. `head` is the frame, or its first piece; one VLAN tag is understood.
#[inline(always)]
pub fn partial_checksum(head: &[u8]) -> Option<(u16, u16)> {
    let ip = match head.get(12..14)? {
        [0x81, 0x00] | [0x88, 0xa8] => 18,
        _ => 14,
    };
    let (kind, packet) = (head.get(ip - 2..ip)?, head.get(ip..)?);
    // RFC 791, 3.1 and RFC 8200, section 3: the sum over addresses, protocol and length (RFC 9293, 3.1; RFC 8200, 8.1).
    let (protocol, header, sum) = match kind {
        [0x08, 0x00] => ipv4(packet)?,
        [0x86, 0xdd] => ipv6(packet)?,
        _ => return None,
    };
    let offset = match protocol {
        UDP => 6,
        TCP => 16,
        _ => return None,
    };
    let [a, b] = *packet.get(header + offset..)?.first_chunk()?;
    let partial = u16::from_ne_bytes([a, b]) == fold(sum);
    // Both are below 100.
    #[allow(clippy::cast_possible_truncation)]
    partial.then_some(((ip + header) as u16, offset as u16))
}

/// Protocol, length of the header, and the pseudo-header's sum in the machine's byte order (RFC 1071, 2: the order of
/// bytes does not matter to a ones' complement sum).
#[inline(always)]
fn ipv4(packet: &[u8]) -> Option<(u8, usize, u64)> {
    let fixed: &[u8; 20] = packet.first_chunk()?;
    let header = usize::from(fixed[0] & 15) * 4;
    let fragment = u16::from_be_bytes([fixed[6], fixed[7]]) & 0x3fff;
    if fixed[0] >> 4 != 4 || header < 20 || fragment != 0 {
        return None;
    }
    let total = u16::from_be_bytes([fixed[2], fixed[3]]);
    let len = total.checked_sub(u16::from(fixed[0] & 15) * 4)?;
    let source = u32::from_ne_bytes([fixed[12], fixed[13], fixed[14], fixed[15]]);
    let destination = u32::from_ne_bytes([fixed[16], fixed[17], fixed[18], fixed[19]]);
    Some((fixed[9], header, u64::from(source) + u64::from(destination) + tail(fixed[9], len)))
}

#[inline(always)]
fn ipv6(packet: &[u8]) -> Option<(u8, usize, u64)> {
    let fixed: &[u8; 40] = packet.first_chunk()?;
    if fixed[0] >> 4 != 6 {
        return None;
    }
    let len = u16::from_be_bytes([fixed[4], fixed[5]]);
    let addresses = fixed[8..].as_chunks::<4>().0;
    let sum: u64 = addresses.iter().map(|&word| u64::from(u32::from_ne_bytes(word))).sum();
    Some((fixed[6], 40, sum + tail(fixed[6], len)))
}

#[inline(always)]
fn tail(protocol: u8, len: u16) -> u64 {
    u64::from(u16::from(protocol).to_be()) + u64::from(len.to_be())
}

#[inline(always)]
#[allow(clippy::cast_possible_truncation)] // folded: what is above 16 bits is zero
fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    sum as u16
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation)] // small numbers
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071 in the plainest way, as a yardstick.
    fn naive_sum(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
            sum = (sum >> 16) + (sum & 0xffff);
        }
        sum as u16
    }

    struct Made {
        bytes: Vec<u8>,
        start: usize,
        offset: usize,
        pseudo: u16,
    }

    fn make(v6: bool, tcp: bool, tagged: bool, options: usize, addresses: [u8; 32], payload: &[u8]) -> Made {
        let mut bytes = vec![2; 12];
        if tagged {
            bytes.extend([0x81, 0, 0, 5]);
        }
        let (protocol, header, offset) = if tcp { (6, 20, 16) } else { (17, 8, 6) };
        let len = u16::try_from(header + payload.len()).unwrap();
        let addresses = if v6 { &addresses[..] } else { &addresses[..8] };
        if v6 {
            bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            bytes.extend(len.to_be_bytes());
            bytes.extend([protocol, 64]);
            bytes.extend(addresses);
        } else {
            let total = len + 20 + options as u16 * 4;
            bytes.extend([0x08, 0x00, 0x45 + options as u8, 0]);
            bytes.extend(total.to_be_bytes());
            bytes.extend([0, 1, 0x40, 0, 64, protocol, 0, 0]);
            bytes.extend(addresses);
            bytes.extend(vec![0; options * 4]);
        }
        let pseudo = naive_sum(&[addresses, &[0, protocol], &len.to_be_bytes()].concat());
        let start = bytes.len();
        bytes.extend(vec![7; header]);
        bytes.extend(payload);
        Made { bytes, start, offset, pseudo }
    }

    proptest! {
        #[test]
        fn the_pseudo_headers_sum_is_found_and_nothing_else(
            (v6, tcp, tagged) in any::<(bool, bool, bool)>(), options in 0usize..=10,
            addresses: [u8; 32], payload in prop::collection::vec(any::<u8>(), 0..100), other: u16,
        ) {
            let mut made = make(v6, tcp, tagged, options, addresses, &payload);
            let field = made.start + made.offset;
            made.bytes[field..field + 2].copy_from_slice(&made.pseudo.to_be_bytes());
            let padded = [&made.bytes[..], &[0; 20]].concat();
            let found = Some((made.start as u16, made.offset as u16));
            prop_assert_eq!(partial_checksum(&made.bytes), found);
            prop_assert_eq!(partial_checksum(&padded), found, "padding is no part of the packet");
            made.bytes[field..field + 2].copy_from_slice(&other.to_be_bytes());
            prop_assert_eq!(partial_checksum(&made.bytes).is_some(), other == made.pseudo);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = partial_checksum(&bytes);
        }

        #[test]
        fn a_cut_frame_has_none(cut in 0usize..60) {
            let mut made = make(false, true, false, 0, [9; 32], &[]);
            let field = made.start + made.offset;
            made.bytes[field..field + 2].copy_from_slice(&made.pseudo.to_be_bytes());
            made.bytes.truncate(cut.min(field + 1));
            prop_assert_eq!(partial_checksum(&made.bytes), None);
        }
    }

    #[test]
    fn a_fragment_has_none() {
        let mut made = make(false, false, false, 0, [9; 32], &[1, 2, 3]);
        let field = made.start + made.offset;
        made.bytes[field..field + 2].copy_from_slice(&made.pseudo.to_be_bytes());
        made.bytes[20] |= 0x20;
        assert_eq!(partial_checksum(&made.bytes), None);
    }
}
