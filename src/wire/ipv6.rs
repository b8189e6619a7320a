//! IPv6 headers and the way through extension headers to the transport (RFC 8200, 3 and 4).

use std::net::Ipv6Addr;

use super::{Malformed, protocol};

/// Bytes of the fixed header.
pub const HEADER: usize = 40;
/// Most extension headers that are walked over: each of the six kinds once, destination options twice (RFC 8200, 4.1),
/// and one to spare.
pub const MAX_EXTENSIONS: usize = 8;

/// A packet whose fixed header is there.
#[derive(Clone, Copy, Debug)]
pub struct Ipv6<'a> {
    bytes: &'a [u8],
    head: &'a [u8; HEADER],
}

/// Where the transport header is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transport {
    /// Its protocol number: the first next header that is not an extension.
    pub protocol: u8,
    /// Where it begins, in bytes from the start of the IPv6 header; for a fragment that is not the first, where its
    /// data begin.
    pub offset: usize,
    /// The field of flags and offset of a fragment header, where there is one (RFC 8200, 4.5).
    pub fragment: Option<u16>,
    /// A routing header has segments left, so the destination of the fixed header is not the final one, which the
    /// pseudo-header wants (RFC 8200, 8.1).
    pub en_route: bool,
}

impl<'a> Ipv6<'a> {
    /// A view of a packet. Only the fixed header must be there: a caller that needs the payload compares
    /// [`Ipv6::payload_len`] with what it has.
    ///
    /// # Errors
    /// [`Malformed`] when it is not version 6 or shorter than the fixed header.
    #[inline]
    pub fn new_checked(bytes: &'a [u8]) -> Result<Ipv6<'a>, Malformed> {
        let head: &[u8; HEADER] = bytes.first_chunk().ok_or(Malformed::Truncated)?;
        if head[0] >> 4 != 6 {
            return Err(Malformed::Version);
        }
        Ok(Ipv6 { bytes, head })
    }

    /// Bytes behind the fixed header, extension headers included.
    #[inline(always)]
    pub fn payload_len(&self) -> u16 {
        u16::from_be_bytes([self.head[4], self.head[5]])
    }

    /// What follows the fixed header.
    #[inline(always)]
    pub fn next_header(&self) -> u8 {
        self.head[6]
    }

    /// Hops left.
    #[inline(always)]
    pub fn hop_limit(&self) -> u8 {
        self.head[7]
    }

    /// The source address.
    #[inline(always)]
    pub fn source(&self) -> Ipv6Addr {
        let &[_, _, _, _, _, _, _, _, ref rest @ ..] = self.head;
        rest.first_chunk::<16>().map_or(Ipv6Addr::UNSPECIFIED, |&octets| octets.into())
    }

    /// The destination address of the fixed header.
    #[inline(always)]
    pub fn destination(&self) -> Ipv6Addr {
        self.head.last_chunk::<16>().map_or(Ipv6Addr::UNSPECIFIED, |&octets| octets.into())
    }

    /// Walks over extension headers to the transport header.
    ///
    /// # Errors
    /// [`Malformed`] when the bytes end inside of an extension header, or there are more than [`MAX_EXTENSIONS`].
    #[inline]
    pub fn transport(&self) -> Result<Transport, Malformed> {
        let mut found =
            Transport { protocol: self.next_header(), offset: HEADER, fragment: None, en_route: false };
        for _ in 0..=MAX_EXTENSIONS {
            if !is_extension(found.protocol) || found.fragment.is_some_and(|f| f & 0xfff8 != 0) {
                return Ok(found);
            }
            let rest = self.bytes.get(found.offset..).ok_or(Malformed::Truncated)?;
            // The shortest extension header has 8 bytes (RFC 8200, 4).
            let &[next, len, b2, b3, ..] = rest.first_chunk::<8>().ok_or(Malformed::Truncated)?;
            let len = match found.protocol {
                protocol::FRAGMENT => {
                    found.fragment = Some(u16::from_be_bytes([b2, b3]));
                    8
                }
                // In units of 4 bytes, less 2 (RFC 4302, 2.2).
                protocol::AUTHENTICATION => (usize::from(len) + 2) * 4,
                // In units of 8 bytes, without the first (RFC 8200, 4.2).
                _ => (usize::from(len) + 1) * 8,
            };
            found.en_route |= found.protocol == protocol::ROUTING && b3 != 0;
            if rest.len() < len {
                return Err(Malformed::Truncated);
            }
            found.protocol = next;
            found.offset += len;
        }
        Err(Malformed::TooManyExtensions)
    }
}

/// True for the headers that [`Ipv6::transport`] walks over.
#[inline(always)]
pub const fn is_extension(next_header: u8) -> bool {
    matches!(
        next_header,
        protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::FRAGMENT
            | protocol::AUTHENTICATION
            | protocol::DESTINATION_OPTIONS
    )
}

/// A fixed header to write to.
#[derive(Debug)]
pub struct Ipv6Mut<'a> {
    head: &'a mut [u8; HEADER],
}

impl<'a> Ipv6Mut<'a> {
    /// A view to write to, checked as in [`Ipv6::new_checked`].
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn new_checked(bytes: &'a mut [u8]) -> Result<Ipv6Mut<'a>, Malformed> {
        Ipv6::new_checked(bytes)?;
        Ok(Ipv6Mut { head: bytes.first_chunk_mut().ok_or(Malformed::Truncated)? })
    }

    /// Sets the bytes behind the fixed header.
    #[inline(always)]
    pub fn set_payload_len(&mut self, len: u16) {
        [self.head[4], self.head[5]] = len.to_be_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(next: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x60, 0, 0, 0, 0, 0, next, 64];
        bytes.extend(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).octets());
        bytes.extend(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2).octets());
        bytes.extend(rest);
        bytes
    }

    fn transport(next: u8, rest: &[u8]) -> Result<Transport, Malformed> {
        Ipv6::new_checked(&packet(next, rest)).unwrap().transport()
    }

    #[test]
    fn fields() {
        let mut bytes = packet(17, &[]);
        Ipv6Mut::new_checked(&mut bytes).unwrap().set_payload_len(0x1234);
        let view = Ipv6::new_checked(&bytes).unwrap();
        assert_eq!((view.payload_len(), view.next_header(), view.hop_limit()), (0x1234, 17, 64));
        assert_eq!(view.source().to_string(), "2001:db8::1");
        assert_eq!(view.destination().to_string(), "2001:db8::2");
        assert_eq!(Ipv6::new_checked(&bytes[..39]).err(), Some(Malformed::Truncated));
        bytes[0] = 0x45;
        assert_eq!(Ipv6::new_checked(&bytes).err(), Some(Malformed::Version));
    }

    #[test]
    fn the_walk_ends_at_the_transport() {
        let plain = Transport { protocol: 6, offset: 40, fragment: None, en_route: false };
        assert_eq!(transport(6, &[]), Ok(plain));
        let mut rest = vec![43, 0, 1, 4, 0, 0, 0, 0]; // hop-by-hop, then routing
        rest.extend([51, 2, 2, 1].into_iter().chain([0; 20])); // one segment left, then AH
        rest.extend([60, 4, 0, 0].into_iter().chain([0; 20])); // AH of 24 bytes, then options
        rest.extend([17, 0, 1, 4, 0, 0, 0, 0]);
        let all = Transport { protocol: 17, offset: 40 + 8 + 24 + 24 + 8, fragment: None, en_route: true };
        assert_eq!(transport(0, &rest), Ok(all));
        for len in 0..rest.len() {
            assert_eq!(transport(0, &rest[..len]), Err(Malformed::Truncated), "{len}");
        }
    }

    #[test]
    fn fragments_and_the_bound() {
        let first = Transport { protocol: 6, offset: 48, fragment: Some(1), en_route: false };
        assert_eq!(transport(44, &[6, 0, 0, 1, 0, 0, 0, 9]), Ok(first));
        let later = Transport { protocol: 60, offset: 48, fragment: Some(8), en_route: false };
        assert_eq!(
            transport(44, &[60, 0, 0, 8, 0, 0, 0, 9]),
            Ok(later),
            "no header follows in a later fragment"
        );
        let options = |count: usize| {
            let mut rest = [60, 0, 1, 4, 0, 0, 0, 0].repeat(count);
            rest[(count - 1) * 8] = 6;
            transport(60, &rest).map(|found| found.offset)
        };
        assert_eq!(options(MAX_EXTENSIONS), Ok(40 + 8 * MAX_EXTENSIONS));
        assert_eq!(options(MAX_EXTENSIONS + 1), Err(Malformed::TooManyExtensions));
    }
}
