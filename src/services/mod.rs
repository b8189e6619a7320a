//! Answers that the switch gives itself, sans-IO: messages come in as bytes and time as an argument, answers go out as
//! bytes. Nothing here opens, waits, reads a clock or draws a number at random.
//!
//! | module | what it knows |
//! |---|---|
//! | [`host`] | an IP host on a link: the underlay's end point, and later a router's interface |
//! | [`neighbour`] | IP-to-MAC bindings and frames that wait for one |
//! | [`arp`], [`nd`] | address resolution for IPv4 and IPv6, for ourselves and by proxy |
//! | [`dhcp4`] | a DHCPv4 server: fixed leases, and pools of addresses |
//! | [`icmp`] | echo, errors about packets, and what the underlay says of its paths |
//! | [`dhcp6`] | addresses and options for the client behind a port, over IPv6 |
//! | [`membership`] | IGMP and MLD for the groups that we listen to |
//! | [`ra`] | router advertisements, and when they are due |
//! | [`packet`] | what all of them read and write: an IP packet in an Ethernet frame |
//!
//! Nothing here panics, whatever the bytes are, and all memory is bounded by constants or by the configuration.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::panic, clippy::expect_used))]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use thiserror::Error;

use crate::types::Mac;

pub mod arp;
pub mod dhcp4;
pub mod dhcp6;
pub mod host;
pub mod icmp;
pub mod membership;
pub mod nd;
pub mod neighbour;
pub mod packet;
pub mod ra;

/// The MAC of the service that the switch itself is on every network.
pub const SERVICE_MAC: Mac = Mac::SERVICE;
/// Its IPv4 address: where clouds have their metadata. No subnet has it (RFC 3927, 2.1).
pub const SERVICE_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// Its IPv6 address: Neutron's for metadata.
pub const SERVICE_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe);

/// Why a frame that was offered to a service is not for it. It is no error of anyone's: another takes it, or none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Error)]
pub enum Ignored {
    /// Too short, or a length or version does not fit.
    #[error("malformed")]
    Malformed,
    /// It carries a VLAN tag.
    #[error("tagged")]
    Tagged,
    /// Addressed to another MAC.
    #[error("another MAC")]
    OtherMac,
    /// Addressed to, or about, another IP address.
    #[error("another address")]
    OtherAddress,
    /// A protocol or message that the service does not speak.
    #[error("another protocol")]
    Protocol,
    /// A part of a packet; the service puts none together.
    #[error("a fragment")]
    Fragment,
    /// A checksum is wrong.
    #[error("bad checksum")]
    Checksum,
    /// Its source cannot be one: a group, loopback, or our own.
    #[error("impossible source")]
    Source,
    /// Not valid by its protocol's own rules (hop limit, options, scope).
    #[error("invalid")]
    Invalid,
    /// One answer more would be more than the limit allows.
    #[error("rate limit")]
    RateLimit,
}

/// True for an address that one host may send from: no group, no loopback, not unspecified (RFC 1122, 3.2.1.3; RFC 4291,
/// 2.5 and 2.7).
pub fn is_host(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_host_v4(ip),
        IpAddr::V6(ip) => is_host_v6(ip),
    }
}

fn is_host_v4(ip: Ipv4Addr) -> bool {
    let [first, ..] = ip.octets();
    first != 0 && first != 127 && first < 224
}

fn is_host_v6(ip: Ipv6Addr) -> bool {
    !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast()
}

/// True for a MAC that one device may have.
fn is_device(mac: Mac) -> bool {
    !mac.is_group() && mac != Mac::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_addresses_of_one_device() {
        for ip in
            ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "240.0.0.1", "::", "::1", "ff02::1"]
        {
            assert!(!is_host(ip.parse().unwrap()), "{ip}");
        }
        for ip in ["192.0.2.1", "169.254.0.1", "2001:db8::1", "fe80::1"] {
            assert!(is_host(ip.parse().unwrap()), "{ip}");
        }
        assert!(!is_device(Mac::BROADCAST) && !is_device(Mac([0; 6])) && is_device(Mac([2, 0, 0, 0, 0, 1])));
    }
}
