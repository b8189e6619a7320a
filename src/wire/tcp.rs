//! TCP headers (RFC 9293, 3.1).

use super::Malformed;

/// Bytes of a header without options.
pub const HEADER: usize = 20;
/// Where its destination port stands.
pub const DESTINATION: usize = 2;
/// Where the checksum is, in bytes from the start of the header.
pub const CHECKSUM: u16 = 16;

/// Flag: no more data from the sender (RFC 9293, 3.1).
pub const FIN: u8 = 0x01;
/// Flag: synchronise sequence numbers.
pub const SYN: u8 = 0x02;
/// Flag: reset the connection.
pub const RST: u8 = 0x04;
/// Flag: push.
pub const PSH: u8 = 0x08;
/// Flag: the acknowledgement number counts.
pub const ACK: u8 = 0x10;
/// Flag: the urgent pointer counts.
pub const URG: u8 = 0x20;
/// Flag: congestion experienced, echoed (RFC 3168, 6.1).
pub const ECE: u8 = 0x40;
/// Flag: congestion window reduced (RFC 3168, 6.1).
pub const CWR: u8 = 0x80;

/// A segment whose header, options included, is there in full.
#[derive(Clone, Copy, Debug)]
pub struct Tcp<'a> {
    head: &'a [u8; HEADER],
    header_len: usize,
}

impl<'a> Tcp<'a> {
    /// A view of a segment.
    ///
    /// # Errors
    /// [`Malformed`] when it is shorter than its header, or the data offset is below 5 words.
    #[inline]
    pub fn new_checked(bytes: &'a [u8]) -> Result<Tcp<'a>, Malformed> {
        let head: &[u8; HEADER] = bytes.first_chunk().ok_or(Malformed::Truncated)?;
        let header_len = usize::from(head[12] >> 4) * 4;
        if header_len < HEADER {
            return Err(Malformed::HeaderLength);
        }
        if bytes.len() < header_len {
            return Err(Malformed::Truncated);
        }
        Ok(Tcp { head, header_len })
    }

    /// Bytes of the header, options included.
    #[inline(always)]
    pub fn header_len(&self) -> usize {
        self.header_len
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

    /// The sequence number of the first byte of payload.
    #[inline(always)]
    pub fn sequence(&self) -> u32 {
        u32::from_be_bytes([self.head[4], self.head[5], self.head[6], self.head[7]])
    }

    /// The low eight flags.
    #[inline(always)]
    pub fn flags(&self) -> u8 {
        self.head[13]
    }

    /// The checksum field.
    #[inline(always)]
    pub fn checksum(&self) -> u16 {
        u16::from_be_bytes([self.head[16], self.head[17]])
    }
}

/// A header to write to.
#[derive(Debug)]
pub struct TcpMut<'a> {
    head: &'a mut [u8; HEADER],
}

impl<'a> TcpMut<'a> {
    /// A view to write to, checked as in [`Tcp::new_checked`].
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn new_checked(bytes: &'a mut [u8]) -> Result<TcpMut<'a>, Malformed> {
        Tcp::new_checked(bytes)?;
        Ok(TcpMut { head: bytes.first_chunk_mut().ok_or(Malformed::Truncated)? })
    }

    /// Sets the sequence number.
    #[inline(always)]
    pub fn set_sequence(&mut self, sequence: u32) {
        [self.head[4], self.head[5], self.head[6], self.head[7]] = sequence.to_be_bytes();
    }

    /// Sets the low eight flags.
    #[inline(always)]
    pub fn set_flags(&mut self, flags: u8) {
        self.head[13] = flags;
    }

    /// Sets the checksum field.
    #[inline(always)]
    pub fn set_checksum(&mut self, checksum: u16) {
        [self.head[16], self.head[17]] = checksum.to_be_bytes();
    }
}

/// The shift of the window scale option (RFC 7323, 2.2), if a segment that begins with this header has one.
pub fn window_scale(segment: &[u8]) -> Option<u8> {
    let header = usize::from(segment.get(12)? >> 4) * 4;
    let mut options = segment.get(HEADER..header)?;
    loop {
        match *options {
            [1, ref rest @ ..] => options = rest,
            [3, 3, shift, ..] => return Some(shift),
            [kind, len, ..] if kind != 0 && len >= 2 => options = options.get(usize::from(len)..)?,
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_read_back_and_wrong_headers_are_refused() {
        let mut bytes = vec![0; 24];
        bytes[..4].copy_from_slice(&[0x12, 0x34, 0x00, 0x50]);
        bytes[12] = 6 << 4;
        let mut segment = TcpMut::new_checked(&mut bytes).unwrap();
        segment.set_sequence(0xdead_beef);
        segment.set_flags(FIN | CWR);
        segment.set_checksum(0xabcd);
        let segment = Tcp::new_checked(&bytes).unwrap();
        assert_eq!((segment.source_port(), segment.destination_port()), (0x1234, 80));
        assert_eq!((segment.sequence(), segment.flags()), (0xdead_beef, 0x81));
        assert_eq!((segment.checksum(), segment.header_len()), (0xabcd, 24));
        assert_eq!(bytes[usize::from(CHECKSUM)..][..2], [0xab, 0xcd]);
        assert_eq!(Tcp::new_checked(&bytes[..23]).err(), Some(Malformed::Truncated));
        assert_eq!(Tcp::new_checked(&bytes[..19]).err(), Some(Malformed::Truncated));
        bytes[12] = 4 << 4;
        assert_eq!(Tcp::new_checked(&bytes).err(), Some(Malformed::HeaderLength));
    }
}
