//! UDP headers (RFC 768).

use super::Malformed;

/// Bytes of the header.
pub const HEADER: usize = 8;
/// Where the checksum is, in bytes from the start of the header.
pub const CHECKSUM: u16 = 6;

/// What stands in the field for a computed checksum: 0 would mean "none" and is sent as all ones (RFC 768, "Fields").
#[inline(always)]
pub const fn never_zero(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

/// A datagram whose header is there.
#[derive(Clone, Copy, Debug)]
pub struct Udp<'a> {
    head: &'a [u8; HEADER],
}

impl<'a> Udp<'a> {
    /// A view of a datagram. Only the header must be there: a caller that needs the payload compares [`Udp::len`] with
    /// what it has.
    ///
    /// # Errors
    /// [`Malformed`] when it is shorter than its header, or the length field is.
    #[inline]
    pub fn new_checked(bytes: &'a [u8]) -> Result<Udp<'a>, Malformed> {
        let view = Udp { head: bytes.first_chunk().ok_or(Malformed::Truncated)? };
        if usize::from(view.len()) < HEADER {
            return Err(Malformed::HeaderLength);
        }
        Ok(view)
    }

    /// The source port.
    #[inline(always)]
    pub fn source_port(&self) -> u16 {
        u16::from_be_bytes([self.head[0], self.head[1]])
    }

    /// The destination port.
    #[inline(always)]
    pub fn destination_port(&self) -> u16 {
        u16::from_be_bytes([self.head[2], self.head[3]])
    }

    /// Bytes of header and payload.
    #[inline(always)]
    #[allow(clippy::len_without_is_empty)] // a datagram has a header at least
    pub fn len(&self) -> u16 {
        u16::from_be_bytes([self.head[4], self.head[5]])
    }

    /// The checksum field; 0 is none.
    #[inline(always)]
    pub fn checksum(&self) -> u16 {
        u16::from_be_bytes([self.head[6], self.head[7]])
    }
}

/// A header to write to.
#[derive(Debug)]
pub struct UdpMut<'a> {
    head: &'a mut [u8; HEADER],
}

impl<'a> UdpMut<'a> {
    /// A view to write to, checked as in [`Udp::new_checked`].
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn new_checked(bytes: &'a mut [u8]) -> Result<UdpMut<'a>, Malformed> {
        Udp::new_checked(bytes)?;
        Ok(UdpMut { head: bytes.first_chunk_mut().ok_or(Malformed::Truncated)? })
    }

    /// Sets the bytes of header and payload.
    #[inline(always)]
    pub fn set_len(&mut self, len: u16) {
        [self.head[4], self.head[5]] = len.to_be_bytes();
    }

    /// Sets the checksum field.
    #[inline(always)]
    pub fn set_checksum(&mut self, checksum: u16) {
        [self.head[6], self.head[7]] = checksum.to_be_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_read_back_and_wrong_headers_are_refused() {
        let mut bytes = vec![0x12, 0x34, 0, 53, 0, 9, 0, 0, 0xff];
        let mut datagram = UdpMut::new_checked(&mut bytes).unwrap();
        datagram.set_len(8);
        datagram.set_checksum(0xabcd);
        let datagram = Udp::new_checked(&bytes).unwrap();
        assert_eq!((datagram.source_port(), datagram.destination_port()), (0x1234, 53));
        assert_eq!((datagram.len(), datagram.checksum()), (8, 0xabcd));
        assert_eq!(Udp::new_checked(&bytes[..7]).err(), Some(Malformed::Truncated));
        bytes[5] = 7;
        assert_eq!(Udp::new_checked(&bytes).err(), Some(Malformed::HeaderLength));
        assert_eq!((never_zero(0), never_zero(7)), (0xffff, 7));
    }
}
