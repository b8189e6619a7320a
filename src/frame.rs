//! Frames as they travel the path: where they live is [`crate::sys::pool`]'s matter, what is left to do on them is
//! [`Offload`]'s.
//!
//! Guests and namespaces send with unfinished checksums and in segments of up to 64 KiB. The note about that travels
//! with the frame, in the shape in which virtio-net, TAP and AF_PACKET pass it on, and only an exit that cannot carry it
//! does the work in software.

pub use crate::sys::pool::{
    CHUNK, CHUNK_DATA, Frame, HEADROOM, LARGE_CHUNK, MAX_FRAME, Pool, Region, put, take_each,
};

use serde::Serialize;

/// Most frames that one turn takes from one port. Buffers for bursts are made for this many.
pub const BURST: usize = 32;

/// Frames that are worked on together, at most [`BURST`] of them.
pub type Burst = arrayvec::ArrayVec<Frame, BURST>;

/// What a device can take beyond plain frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Caps {
    /// Frames whose checksum is unfinished ([`Offload::NEEDS_CSUM`]).
    pub checksum: bool,
    /// TCP GSO frames, IPv4 and IPv6.
    pub tso: bool,
    /// UDP GSO frames (`GSO_UDP_L4`).
    pub uso: bool,
    /// Longest packet that the device takes, without the Ethernet header and one VLAN tag, in bytes. GSO frames are
    /// measured by their segments.
    pub mtu: u16,
}

/// Checksum and segmentation work that is still to be done on a frame: the header of virtio-net
/// (`struct virtio_net_hdr`, linux/virtio_net.h; VIRTIO 1.2, section 5.1.6), offsets from the start of the frame.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Offload {
    /// [`Offload::NEEDS_CSUM`], [`Offload::DATA_VALID`].
    pub flags: u8,
    /// One of the `GSO_…` constants, possibly with [`Offload::GSO_ECN`].
    pub gso_type: u8,
    /// Length of all headers of a GSO frame in bytes: a hint, never trusted; 0 is none.
    pub hdr_len: u16,
    /// Bytes of payload of each segment.
    pub gso_size: u16,
    /// Where the sum begins, in bytes from the start of the frame.
    pub csum_start: u16,
    /// Where the sum goes, in bytes from `csum_start`.
    pub csum_offset: u16,
}

impl Offload {
    /// Nothing to be done.
    pub const NONE: Offload =
        Offload { flags: 0, gso_type: 0, hdr_len: 0, gso_size: 0, csum_start: 0, csum_offset: 0 };
    /// The field at `csum_start + csum_offset` holds the pseudo-header's sum; the rest is to be added.
    pub const NEEDS_CSUM: u8 = 1;
    /// The checksum was checked already.
    pub const DATA_VALID: u8 = 2;
    /// Not to be segmented.
    pub const GSO_NONE: u8 = 0;
    /// TCP over IPv4.
    pub const GSO_TCPV4: u8 = 1;
    /// UDP fragmentation (obsolete; refused).
    pub const GSO_UDP: u8 = 3;
    /// TCP over IPv6.
    pub const GSO_TCPV6: u8 = 4;
    /// UDP segmentation, over either IP.
    pub const GSO_UDP_L4: u8 = 5;
    /// Flag beside a TCP type: the first segment alone carries CWR (RFC 3168, 6.1.2).
    pub const GSO_ECN: u8 = 0x80;
    /// Bytes of the header on the wire.
    pub const LEN: usize = 10;

    /// True when an exit without offloads can send the frame as it is.
    #[inline(always)]
    pub fn is_done(&self) -> bool {
        self.flags & Self::NEEDS_CSUM == 0 && self.gso_type == 0
    }

    /// True when a checksum is to be finished.
    #[inline(always)]
    pub fn needs_csum(&self) -> bool {
        self.flags & Self::NEEDS_CSUM != 0
    }

    /// The GSO type without the ECN flag.
    #[inline(always)]
    pub fn gso(&self) -> u8 {
        self.gso_type & !Self::GSO_ECN
    }

    /// As virtio-net's header in the machine's byte order (legacy layout, the kernel's default for TAP and AF_PACKET).
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[0] = self.flags;
        bytes[1] = self.gso_type;
        bytes[2..4].copy_from_slice(&self.hdr_len.to_ne_bytes());
        bytes[4..6].copy_from_slice(&self.gso_size.to_ne_bytes());
        bytes[6..8].copy_from_slice(&self.csum_start.to_ne_bytes());
        bytes[8..10].copy_from_slice(&self.csum_offset.to_ne_bytes());
        bytes
    }

    /// The inverse of [`Offload::to_bytes`]; what it says is checked against the frame on ingress.
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Offload {
        let [flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1] = bytes;
        Offload {
            flags,
            gso_type,
            hdr_len: u16::from_ne_bytes([h0, h1]),
            gso_size: u16::from_ne_bytes([g0, g1]),
            csum_start: u16::from_ne_bytes([s0, s1]),
            csum_offset: u16::from_ne_bytes([o0, o1]),
        }
    }

    #[inline(always)]
    pub(crate) fn shift_right(&mut self, count: u16) {
        if !self.is_done() {
            self.csum_start = self.csum_start.wrapping_add(count);
            if self.hdr_len > 0 {
                self.hdr_len = self.hdr_len.saturating_add(count);
            }
        }
    }

    #[inline(always)]
    pub(crate) fn shift_left(&mut self, count: u16) {
        if !self.is_done() {
            self.csum_start = self.csum_start.wrapping_sub(count);
            // No hint stays none: one longer than the frame would be refused by a TAP (EINVAL).
            self.hdr_len = self.hdr_len.saturating_sub(count);
        }
    }
}

impl std::fmt::Debug for Offload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if *self == Self::NONE {
            return f.write_str("none");
        }
        write!(
            f,
            "flags {} gso {} size {} header {} csum {}+{}",
            self.flags, self.gso_type, self.gso_size, self.hdr_len, self.csum_start, self.csum_offset
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_move_with_the_start_of_the_frame() {
        let note = Offload { flags: Offload::NEEDS_CSUM, csum_start: 38, csum_offset: 16, ..Offload::NONE };
        for (hdr_len, moved) in [(0, 0), (58, 54), (3, 0)] {
            let mut offload = Offload { hdr_len, ..note };
            offload.shift_left(4);
            assert_eq!((offload.csum_start, offload.hdr_len), (34, moved), "a tag is taken off");
        }
        for (hdr_len, moved) in [(0, 0), (54, 58)] {
            let mut offload = Offload { hdr_len, ..note };
            offload.shift_right(4);
            assert_eq!((offload.csum_start, offload.hdr_len), (42, moved), "a tag is put on");
        }
    }
}
