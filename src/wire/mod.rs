//! Checked views and emitters of headers, and checksums. No policy.
//!
//! A view is made by `new_checked`, which proves all lengths once; after that its accessors cannot fail, because they
//! read a fixed-size array. A view lends the bytes and copies nothing. Nothing here panics, whatever the bytes are.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::panic, clippy::expect_used))]

use thiserror::Error;

pub mod checksum;
pub mod dhcp4;
pub mod dhcp6;
pub mod ethernet;
pub mod ipv4;
pub mod ipv6;
pub mod partial;
pub mod tcp;
pub mod udp;

/// IP protocol numbers (IANA, "Assigned Internet Protocol Numbers"), which are also IPv6's next headers.
pub mod protocol {
    /// IPv6 hop-by-hop options (RFC 8200, 4.3).
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP (RFC 792).
    pub const ICMP: u8 = 1;
    /// IGMP (RFC 3376).
    pub const IGMP: u8 = 2;
    /// TCP (RFC 9293).
    pub const TCP: u8 = 6;
    /// UDP (RFC 768).
    pub const UDP: u8 = 17;
    /// DCCP (RFC 4340).
    pub const DCCP: u8 = 33;
    /// IPv6 routing header (RFC 8200, 4.4).
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header (RFC 8200, 4.5).
    pub const FRAGMENT: u8 = 44;
    /// Authentication header (RFC 4302).
    pub const AUTHENTICATION: u8 = 51;
    /// ICMPv6 (RFC 4443).
    pub const ICMPV6: u8 = 58;
    /// IPv6: nothing follows (RFC 8200, 4.7).
    pub const NO_NEXT_HEADER: u8 = 59;
    /// IPv6 destination options (RFC 8200, 4.6).
    pub const DESTINATION_OPTIONS: u8 = 60;
    /// SCTP (RFC 9260).
    pub const SCTP: u8 = 132;
    /// UDP-Lite (RFC 3828).
    pub const UDP_LITE: u8 = 136;
}

/// Why bytes are not the header that they were taken for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Malformed {
    /// The bytes end inside of the header, or before the length that it tells.
    #[error("the packet ends before its header does, or before the length that the header tells")]
    Truncated,
    /// An IP header of another version.
    #[error("the IP version does not fit the EtherType")]
    Version,
    /// A length field that is below the header's own length.
    #[error("a length field is below the length of its own header")]
    HeaderLength,
    /// More IPv6 extension headers than [`ipv6::MAX_EXTENSIONS`].
    #[error("too many IPv6 extension headers")]
    TooManyExtensions,
}
