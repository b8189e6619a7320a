//! Explicit congestion notification through tunnels (RFC 6040).

use crate::stats::DropReason;
use crate::wire::checksum::Sum;
use crate::wire::ethernet::{HEADER, IPV4, IPV6};

/// The field's values (RFC 3168, section 5).
const NOT_ECT: u8 = 0;
const ECT_1: u8 = 1;
const ECT_0: u8 = 2;
const CE: u8 = 3;

/// The ECN field of a frame's packet, 0 where it is not IP.
#[inline(always)]
pub(super) fn of(frame: &[u8]) -> u8 {
    let Some(&[k0, k1, first, second]) = frame.get(HEADER - 2..).and_then(<[u8]>::first_chunk) else {
        return 0;
    };
    match u16::from_be_bytes([k0, k1]) {
        IPV4 if first >> 4 == 4 => second & 3,
        IPV6 if first >> 4 == 6 => second >> 4 & 3,
        _ => NOT_ECT,
    }
}

/// What becomes of the inner field, by figure 4 of RFC 6040.
///
/// # Errors
/// Congestion was met and the inner packet's end points would not understand.
#[cold]
pub(super) fn carry_over(inner: &mut [u8], outer: u8) -> Result<(), DropReason> {
    let was = of(inner);
    let now = match (was, outer) {
        (NOT_ECT, CE) => {
            let is_ip = inner
                .get(HEADER - 2..HEADER)
                .is_some_and(|kind| kind == IPV4.to_be_bytes() || kind == IPV6.to_be_bytes());
            // What is not IP has no field, and the underlay's mark is lost.
            return if is_ip { Err(DropReason::Congestion) } else { Ok(()) };
        }
        (NOT_ECT, _) | (CE, _) => return Ok(()),
        (_, CE) => CE,
        (ECT_0, ECT_1) => ECT_1,
        _ => return Ok(()),
    };
    let Some([k0, k1, ip @ ..]) = inner.get_mut(HEADER - 2..) else { return Ok(()) };
    if u16::from_be_bytes([*k0, *k1]) == IPV6 {
        if let Some(byte) = ip.get_mut(1) {
            *byte = *byte & !0x30 | now << 4;
        }
    } else if let Some([_, tos, _, _, _, _, _, _, _, _, c0, c1]) = ip.first_chunk_mut() {
        *tos = *tos & !3 | now;
        // RFC 1624, equation 3: HC' = ~(~HC + ~m + m').
        let old = Sum::from(!u16::from_be_bytes([*c0, *c1]));
        let sum = old + Sum::from(!u16::from(was)) + Sum::from(u16::from(now));
        [*c0, *c1] = sum.checksum().to_be_bytes();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(ecn: u8) -> Vec<u8> {
        let mut frame = vec![0; HEADER + 20];
        frame[12..14].copy_from_slice(&IPV4.to_be_bytes());
        frame[HEADER..HEADER + 2].copy_from_slice(&[0x45, 0xb8 | ecn]);
        frame[HEADER + 9] = 6;
        let sum = Sum::of(&frame[HEADER..]).checksum().to_be_bytes();
        frame[HEADER + 10..HEADER + 12].copy_from_slice(&sum);
        frame
    }

    fn v6(ecn: u8) -> Vec<u8> {
        let mut frame = vec![0; HEADER + 40];
        frame[12..14].copy_from_slice(&IPV6.to_be_bytes());
        frame[HEADER..HEADER + 2].copy_from_slice(&[0x6b, 0x80 | ecn << 4]);
        frame
    }

    /// RFC 6040, figure 4: rows are the inner field, columns the outer one; none: dropped.
    const FIGURE_4: [(u8, [Option<u8>; 4]); 4] = [
        (NOT_ECT, [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None]),
        (ECT_0, [Some(ECT_0), Some(ECT_1), Some(ECT_0), Some(CE)]),
        (ECT_1, [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)]),
        (CE, [Some(CE), Some(CE), Some(CE), Some(CE)]),
    ];

    #[test]
    fn the_inner_field_follows_figure_4() {
        for (inner, row) in FIGURE_4 {
            for (outer, expected) in [NOT_ECT, ECT_1, ECT_0, CE].into_iter().zip(row) {
                for mut frame in [v4(inner), v6(inner)] {
                    let is_v4 = frame[12] == 8;
                    let result = carry_over(&mut frame, outer).map(|()| of(&frame));
                    assert_eq!(result.ok(), expected, "inner {inner} outer {outer}");
                    assert!(!is_v4 || Sum::of(&frame[HEADER..]).checksum() == 0, "the checksum holds");
                    assert_eq!(of(&frame), expected.unwrap_or(inner));
                    let dscp = if is_v4 { frame[HEADER + 1] >> 2 } else { 0x2e };
                    assert_eq!(dscp, 0x2e);
                }
            }
        }
    }

    #[test]
    fn what_is_not_ip_has_no_field() {
        let mut arp = vec![0xff; 60];
        arp[12..14].copy_from_slice(&[8, 6]);
        let before = arp.clone();
        assert_eq!((of(&arp), carry_over(&mut arp, CE)), (0, Ok(())));
        assert_eq!(arp, before);
        assert_eq!((of(&[0; 14]), carry_over(&mut [0; 14], CE)), (0, Ok(())));
    }
}
