//! VXLAN's own header (RFC 7348, section 5): all that the switch knows of the protocol. Another tunnel protocol over UDP is
//! another file with these three items.
//!
//! ```text
//!  0                   1                   2                   3
//! |R|R|R|R|I|R|R|R|            Reserved                           |
//! |                VXLAN Network Identifier (VNI) |   Reserved    |
//! ```

use crate::types::Vni;

/// Bytes of the header.
pub const LEN: usize = 8;

/// The VNI is valid.
const I: u8 = 0x08;

/// The network of a packet with this header; nothing where its I flag is not set. Reserved bits are ignored.
#[inline(always)]
pub fn decode(header: [u8; LEN]) -> Option<Vni> {
    let [flags, _, _, _, a, b, c, _] = header;
    if flags & I == 0 {
        return None;
    }
    Vni::new(u32::from_be_bytes([0, a, b, c]))
}

/// The header of a packet of this network. Reserved bits are zero.
#[inline(always)]
pub fn encode(vni: Vni) -> [u8; LEN] {
    let [_, a, b, c] = vni.get().to_be_bytes();
    [I, 0, 0, 0, a, b, c, 0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_that_of_rfc_7348() {
        let vni = Vni::new(0x01_e2_40).unwrap();
        assert_eq!(encode(vni), [8, 0, 0, 0, 0x01, 0xe2, 0x40, 0]);
        assert_eq!(decode([0xff, 0xff, 0xff, 0xff, 0x01, 0xe2, 0x40, 0xff]), Some(vni), "reserved bits");
        assert_eq!(decode([0xf7, 0, 0, 0, 0x01, 0xe2, 0x40, 0]), None, "no I flag");
        assert_eq!(decode(encode(Vni::new(0).unwrap())), Vni::new(0));
    }
}
