//! The internet checksum (RFC 1071): one's complement sums of 16-bit words.
//!
//! A [`Sum`] holds a running sum in network order, so sums of fields (`u16`), of bytes and of pseudo-headers add up
//! freely. Bytes are summed in the machine's own order and turned once at the end (RFC 1071, 2(B)), 64 at a time in
//! independent lanes, which the compiler turns into vector code.
//!
//! A sum of zero comes from zeros alone; any other multiple of 65535 folds to 0xffff.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::{Add, Sub};

const LANES: usize = 8;
const LOW: u64 = 0xffff_ffff;

/// A running one's complement sum. Takes up 2^48 words before it could overflow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// The sum of nothing.
    pub const ZERO: Sum = Sum(0);

    /// The sum of `bytes`, the first of which is the high half of a word; a last odd byte is padded with zero (RFC
    /// 1071, 4.1).
    #[inline]
    pub fn of(bytes: &[u8]) -> Sum {
        let (blocks, rest) = bytes.as_chunks::<{ 8 * LANES }>();
        let mut total = if blocks.is_empty() { 0 } else { sum_blocks(blocks) };
        let (words, rest) = rest.as_chunks::<8>();
        for &word in words {
            let word = u64::from_ne_bytes(word);
            total += (word & LOW) + (word >> 32);
        }
        let (pairs, rest) = rest.as_chunks::<2>();
        for &pair in pairs {
            total += u64::from(u16::from_ne_bytes(pair));
        }
        if let &[last] = rest {
            total += u64::from(u16::from_ne_bytes([last, 0]));
        }
        Sum(u64::from(u16::from_be(fold(total))))
    }

    /// As [`of`](Self::of), for a few bytes whose number is known.
    #[inline(always)]
    pub fn of_array<const N: usize>(bytes: &[u8; N]) -> Sum {
        let (words, rest) = bytes.as_chunks::<4>();
        let words: u64 = words.iter().map(|&word| u64::from(u32::from_ne_bytes(word))).sum();
        let (pairs, rest) = rest.as_chunks::<2>();
        let pairs: u64 = pairs.iter().map(|&pair| u64::from(u16::from_ne_bytes(pair))).sum();
        let last: u64 = rest.iter().map(|&last| u64::from(u16::from_ne_bytes([last, 0]))).sum();
        Sum(u64::from(u16::from_be(fold(words + pairs + last))))
    }

    /// The sum of one 32-bit field: of its two halves.
    #[inline(always)]
    pub const fn of_u32(field: u32) -> Sum {
        Sum((field >> 16) as u64 + (field & 0xffff) as u64)
    }

    /// The sum of two pieces that follow each other: this one's, of `len` bytes, and `next`'s. Behind an odd length the
    /// halves of `next`'s words have changed places (RFC 1071, 2(B)).
    #[inline(always)]
    pub fn combine(self, len: usize, next: Sum) -> Sum {
        if len.is_multiple_of(2) { self + next } else { self + Sum(u64::from(next.fold().swap_bytes())) }
    }

    /// The sum in 16 bits, carries added in: what an unfinished checksum field holds.
    #[inline(always)]
    pub fn fold(self) -> u16 {
        fold(self.0)
    }

    /// The complement of the sum: what a finished checksum field holds.
    #[inline(always)]
    pub fn checksum(self) -> u16 {
        !self.fold()
    }
}

impl From<u16> for Sum {
    #[inline(always)]
    fn from(field: u16) -> Sum {
        Sum(u64::from(field))
    }
}

impl Add for Sum {
    type Output = Sum;

    #[inline(always)]
    fn add(self, other: Sum) -> Sum {
        Sum(self.0.wrapping_add(other.0))
    }
}

impl Sub for Sum {
    type Output = Sum;

    /// Takes words out of a sum: adds their complement.
    #[inline(always)]
    fn sub(self, other: Sum) -> Sum {
        Sum(self.0.wrapping_add(u64::from(other.checksum())))
    }
}

/// Sums 32-bit halves into 64-bit lanes: no carry is lost in fewer than 2^32 blocks.
#[inline]
fn sum_blocks(blocks: &[[u8; 8 * LANES]]) -> u64 {
    let (mut low, mut high) = ([0u64; LANES], [0u64; LANES]);
    for block in blocks {
        let (words, _) = block.as_chunks::<8>();
        for ((low, high), &word) in low.iter_mut().zip(&mut high).zip(words) {
            let word = u64::from_ne_bytes(word);
            *low += word & LOW;
            *high += word >> 32;
        }
    }
    low.iter().chain(&high).map(|&lane| (lane & LOW) + (lane >> 32)).sum()
}

#[inline(always)]
#[allow(clippy::cast_possible_truncation)] // after the last step at most 0xffff is left
const fn fold(sum: u64) -> u16 {
    let sum = (sum & LOW) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// The sum of the pseudo-header of TCP (RFC 9293, 3.1) or UDP (RFC 768) over IPv4; `len` is that of the transport's
/// header and payload in bytes.
#[inline]
pub fn pseudo_v4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, len: u16) -> Sum {
    Sum::of_u32(source.to_bits())
        + Sum::of_u32(destination.to_bits())
        + Sum::from(u16::from(protocol))
        + Sum::from(len)
}

/// The sum of the pseudo-header over IPv6 (RFC 8200, 8.1). `destination` is the final one, `protocol` that of the
/// transport, `len` that of its header and payload in bytes.
#[inline]
pub fn pseudo_v6(source: Ipv6Addr, destination: Ipv6Addr, protocol: u8, len: u32) -> Sum {
    Sum::of(&source.octets())
        + Sum::of(&destination.octets())
        + Sum::from(u16::from(protocol))
        + Sum::of_u32(len)
}

/// A finished checksum after a 16-bit field under it went from `old` to `new` (RFC 1624, equation 3).
///
/// Equal to a full sum, but where all words are zero; no IP, TCP or UDP checksum (with its pseudo-header) covers such.
/// For UDP the caller looks after 0, which means "none" both before and after.
#[inline(always)]
pub fn update_u16(checksum: u16, old: u16, new: u16) -> u16 {
    (Sum::from(!checksum) + Sum::from(!old) + Sum::from(new)).checksum()
}

/// As [`update_u16`], for a 32-bit field that begins at an even offset: an IPv4 address, a sequence number.
#[inline(always)]
pub fn update_u32(checksum: u16, old: u32, new: u32) -> u16 {
    (Sum::from(!checksum) + Sum::of_u32(!old) + Sum::of_u32(new)).checksum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As the RFC defines it, a word at a time.
    fn naive(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::try_from(sum).unwrap()
    }

    #[test]
    fn rfc_1071_section_3() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::of(&bytes).fold(), 0xddf2);
        assert_eq!(Sum::of(&bytes).checksum(), 0x220d);
        // The same by the byte-swapped order, and split in three as the RFC shows it.
        let (first, rest) = bytes.split_at(3);
        assert_eq!(Sum::of(first).combine(3, Sum::of(rest)).fold(), 0xddf2);
    }

    #[test]
    fn rfc_1624_section_4() {
        // The example at which equation 4 fails: HC = 0xdd2f, m = 0x5555, m' = 0x3285, HC' = 0x0000.
        assert_eq!(update_u16(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn zero_comes_from_zeros_alone() {
        assert_eq!(Sum::of(&[0; 100]).fold(), 0);
        assert_eq!(Sum::of(&[0xff; 100]).fold(), 0xffff);
        assert_eq!(Sum::of(&[0xff; 65535]).fold(), naive(&[0xff; 65535]));
        assert_eq!(Sum::of(&[]).checksum(), 0xffff);
    }

    #[test]
    fn a_known_ipv4_header_and_its_pseudo_header() {
        // 192.0.2.1 to 198.51.100.2, UDP, 32 bytes; summed by hand.
        let header = [
            0x45, 0x00, 0x00, 0x20, 0x12, 0x34, 0x40, 0x00, 0x40, 0x11, 0x00, 0x00, 192, 0, 2, 1, 198, 51,
            100, 2,
        ];
        let sum = 0x4500 + 0x0020 + 0x1234 + 0x4000 + 0x4011 + 0xc000 + 0x0201 + 0xc633 + 0x6402u32;
        assert_eq!(u32::from(Sum::of(&header).fold()), (sum & 0xffff) + (sum >> 16));
        let pseudo = 0xc000 + 0x0201 + 0xc633 + 0x6402 + 17 + 12u32;
        let (source, destination) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(198, 51, 100, 2));
        assert_eq!(
            u32::from(pseudo_v4(source, destination, 17, 12).fold()),
            (pseudo & 0xffff) + (pseudo >> 16)
        );
    }

    proptest! {
        #[test]
        fn as_the_naive_sum(bytes in proptest::collection::vec(any::<u8>(), 0..3000), skip in 0usize..9) {
            let bytes = bytes.get(skip..).unwrap_or(&[]);
            prop_assert_eq!(Sum::of(bytes).fold(), naive(bytes));
        }

        #[test]
        fn any_split_gives_the_whole(bytes in proptest::collection::vec(any::<u8>(), 0..600), cuts in (0usize..600, 0usize..600)) {
            let (a, b) = (cuts.0.min(cuts.1).min(bytes.len()), cuts.0.max(cuts.1).min(bytes.len()));
            let sum = Sum::of(&bytes[..a]).combine(a, Sum::of(&bytes[a..b])).combine(b, Sum::of(&bytes[b..]));
            prop_assert_eq!(sum.fold(), Sum::of(&bytes).fold());
        }

        #[test]
        fn incremental_gives_the_full_sum(mut bytes in proptest::collection::vec(any::<u8>(), 8..100), at in 0usize..50, new16: u16, new32: u32) {
            bytes[0] |= 0x40; // as an IP version: never all zeros
            let at = 2 + 2 * (at % ((bytes.len() - 6) / 2 + 1));
            let before = Sum::of(&bytes).checksum();
            let old = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
            bytes[at..at + 2].copy_from_slice(&new16.to_be_bytes());
            let after = Sum::of(&bytes).checksum();
            prop_assert_eq!(update_u16(before, old, new16), after);
            let taken = Sum::from(!before) - Sum::from(old) + Sum::from(new16);
            prop_assert_eq!(taken.checksum(), after);
            let old = u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
            bytes[at..at + 4].copy_from_slice(&new32.to_be_bytes());
            prop_assert_eq!(update_u32(after, old, new32), Sum::of(&bytes).checksum());
        }

        #[test]
        fn pseudo_headers_are_sums_of_their_bytes(source: [u8; 16], destination: [u8; 16], protocol: u8, len: u32) {
            let bytes = [&source[..], &destination, &len.to_be_bytes(), &[0, 0, 0, protocol]].concat();
            prop_assert_eq!(pseudo_v6(source.into(), destination.into(), protocol, len).fold(), naive(&bytes));
            let [s0, s1, s2, s3, d0, d1, d2, d3, ..] = source;
            let len = u16::try_from(len & 0xffff).unwrap();
            let [l0, l1] = len.to_be_bytes();
            let bytes = [s0, s1, s2, s3, d0, d1, d2, d3, 0, protocol, l0, l1];
            prop_assert_eq!(pseudo_v4([s0, s1, s2, s3].into(), [d0, d1, d2, d3].into(), protocol, len).fold(), naive(&bytes));
        }
    }
}
