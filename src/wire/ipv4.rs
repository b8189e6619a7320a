//! IPv4 headers (RFC 791, 3.1).

use std::net::Ipv4Addr;

use super::Malformed;
use super::checksum::Sum;

/// Bytes of a header without options.
pub const HEADER: usize = 20;

/// Flag "more fragments" of [`Ipv4::fragment`] (RFC 791, 3.1).
pub const MORE_FRAGMENTS: u16 = 0x2000;
/// Flag "don't fragment" of [`Ipv4::fragment`].
pub const DONT_FRAGMENT: u16 = 0x4000;
/// The offset in [`Ipv4::fragment`], in units of 8 bytes.
pub const FRAGMENT_OFFSET: u16 = 0x1fff;

/// A packet whose header, options included, is there in full.
#[derive(Clone, Copy, Debug)]
pub struct Ipv4<'a> {
    head: &'a [u8; HEADER],
    header_len: usize,
}

impl<'a> Ipv4<'a> {
    /// A view of a packet. Only the header must be there: a caller that needs the payload compares
    /// [`Ipv4::total_len`] with what it has.
    ///
    /// # Errors
    /// [`Malformed`] when it is not version 4, shorter than its header, or a length field is below the header's.
    #[inline]
    pub fn new_checked(bytes: &'a [u8]) -> Result<Ipv4<'a>, Malformed> {
        let head: &[u8; HEADER] = bytes.first_chunk().ok_or(Malformed::Truncated)?;
        if head[0] >> 4 != 4 {
            return Err(Malformed::Version);
        }
        let header_len = usize::from(head[0] & 0xf) * 4;
        let view = Ipv4 { head, header_len };
        if header_len < HEADER || usize::from(view.total_len()) < header_len {
            return Err(Malformed::HeaderLength);
        }
        if bytes.len() < header_len {
            return Err(Malformed::Truncated);
        }
        Ok(view)
    }

    /// Bytes of the header, options included.
    #[inline(always)]
    pub fn header_len(&self) -> usize {
        self.header_len
    }

    /// Bytes of header and payload.
    #[inline(always)]
    pub fn total_len(&self) -> u16 {
        u16::from_be_bytes([self.head[2], self.head[3]])
    }

    /// The identification of fragments.
    #[inline(always)]
    pub fn id(&self) -> u16 {
        u16::from_be_bytes([self.head[4], self.head[5]])
    }

    /// Fragment flags and offset in one field.
    #[inline(always)]
    pub fn fragment(&self) -> u16 {
        u16::from_be_bytes([self.head[6], self.head[7]])
    }

    /// True for a part of a packet, be it the first.
    #[inline(always)]
    pub fn is_fragment(&self) -> bool {
        self.fragment() & (MORE_FRAGMENTS | FRAGMENT_OFFSET) != 0
    }

    /// Time to live, in hops.
    #[inline(always)]
    pub fn ttl(&self) -> u8 {
        self.head[8]
    }

    /// The protocol of the payload.
    #[inline(always)]
    pub fn protocol(&self) -> u8 {
        self.head[9]
    }

    /// The checksum of the header.
    #[inline(always)]
    pub fn checksum(&self) -> u16 {
        u16::from_be_bytes([self.head[10], self.head[11]])
    }

    /// The source address.
    #[inline(always)]
    pub fn source(&self) -> Ipv4Addr {
        Ipv4Addr::new(self.head[12], self.head[13], self.head[14], self.head[15])
    }

    /// The destination address.
    #[inline(always)]
    pub fn destination(&self) -> Ipv4Addr {
        Ipv4Addr::new(self.head[16], self.head[17], self.head[18], self.head[19])
    }
}

/// A header to write to, options included.
#[derive(Debug)]
pub struct Ipv4Mut<'a> {
    head: &'a mut [u8; HEADER],
    options: &'a mut [u8],
}

impl<'a> Ipv4Mut<'a> {
    /// A view to write to, checked as in [`Ipv4::new_checked`].
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn new_checked(bytes: &'a mut [u8]) -> Result<Ipv4Mut<'a>, Malformed> {
        let options_len = Ipv4::new_checked(bytes)?.header_len() - HEADER;
        let (head, rest) = bytes.split_first_chunk_mut().ok_or(Malformed::Truncated)?;
        let options = rest.get_mut(..options_len).ok_or(Malformed::Truncated)?;
        Ok(Ipv4Mut { head, options })
    }

    /// Sets the bytes of header and payload.
    #[inline(always)]
    pub fn set_total_len(&mut self, len: u16) {
        [self.head[2], self.head[3]] = len.to_be_bytes();
    }

    /// Sets the identification of fragments.
    #[inline(always)]
    pub fn set_id(&mut self, id: u16) {
        [self.head[4], self.head[5]] = id.to_be_bytes();
    }

    /// Sets the checksum field.
    #[inline(always)]
    pub fn set_checksum(&mut self, checksum: u16) {
        [self.head[10], self.head[11]] = checksum.to_be_bytes();
    }

    /// Sums the header anew and sets the checksum (RFC 791, 3.1).
    #[inline]
    pub fn fill_checksum(&mut self) {
        self.set_checksum(0);
        let sum = Sum::of(self.head) + Sum::of(self.options);
        self.set_checksum(sum.checksum());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Vec<u8> {
        let mut bytes = vec![0x46, 0, 0, 26, 0x12, 0x34, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2];
        bytes.extend([1, 1, 1, 0, 0xaa, 0xbb]); // options, two bytes of payload
        bytes
    }

    #[test]
    fn fields_and_checksum() {
        let mut bytes = header();
        let mut packet = Ipv4Mut::new_checked(&mut bytes).unwrap();
        packet.set_id(0xfffe);
        packet.set_total_len(25);
        packet.fill_checksum();
        assert_eq!(Sum::of(&bytes[..24]).fold(), 0xffff, "options are summed, the payload is not");
        let packet = Ipv4::new_checked(&bytes).unwrap();
        assert_eq!((packet.id(), packet.total_len(), packet.header_len()), (0xfffe, 25, 24));
        assert_eq!((packet.ttl(), packet.protocol(), packet.fragment()), (64, 6, DONT_FRAGMENT));
        assert!(!packet.is_fragment());
        assert_eq!(packet.source().to_string(), "192.0.2.1");
        assert_eq!(packet.destination().to_string(), "192.0.2.2");
    }

    #[test]
    fn wrong_headers_are_refused() {
        let bytes = header();
        for len in 0..24 {
            assert!(Ipv4::new_checked(&bytes[..len]).is_err(), "{len}");
        }
        let with = |at: usize, value: u8| {
            let mut bytes = header();
            bytes[at] = value;
            Ipv4::new_checked(&bytes).err()
        };
        assert_eq!(with(0, 0x66), Some(Malformed::Version));
        assert_eq!(with(0, 0x44), Some(Malformed::HeaderLength));
        assert_eq!(with(3, 23), Some(Malformed::HeaderLength), "total length below the header's");
        assert_eq!(with(0, 0x4f), Some(Malformed::HeaderLength));
        assert_eq!(with(3, 24), None);
    }
}
