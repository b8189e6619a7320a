//! The underlay and its tunnels, compiled for look-up.
//!
//! The device of the underlay is a port whose frames are tunnels. Every other end, a peer's VTEP or a multicast group, is a
//! port too, a *tunnel port*, without a device of its own: what is behind a peer is behind its port, so the FDB, its
//! limits and its events need not know of tunnels. Frames whose next hop is not resolved go to one more port, the
//! *resolver*.
//!
//! What the worker of the underlay's device finds out about a peer, its next hop and its path MTU, stands in a
//! [`TunnelState`] that every worker reads.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::exact::Exact;
use crate::types::{Mac, NetIdx, PortIdx, Vni};
use crate::wire::checksum::Sum;
use crate::wire::ethernet;
use crate::wire::{ipv4, ipv6, protocol, udp};

/// Bytes of the longest outer header: Ethernet, IPv6, UDP, and eight of the tunnel protocol.
pub const OUTER_MAX: usize = ethernet::HEADER + ipv6::HEADER + udp::HEADER + 8;

/// An address as a key: IPv4 ones as IPv4-mapped (RFC 4291, 2.5.5.2).
#[inline(always)]
pub fn address_key(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => v4_key(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The inverse of [`address_key`].
pub fn key_address(key: u128) -> IpAddr {
    IpAddr::V6(key.into()).to_canonical()
}

/// As [`address_key`], for an IPv4 address as an integer.
#[inline(always)]
pub fn v4_key(address: u32) -> u128 {
    0xffff_0000_0000 | u128::from(address)
}

/// The local VTEP.
#[derive(Clone, Debug)]
pub struct Underlay {
    /// The port of its device.
    pub port: PortIdx,
    /// Where frames wait for their next hop.
    pub resolver: PortIdx,
    /// The local address.
    pub local: IpAddr,
    /// The same as a key, by [`address_key`].
    pub local_key: u128,
    /// Prefix length of its subnet.
    pub prefix_len: u8,
    /// The next hop to all that is not in the subnet.
    pub gateway: Option<IpAddr>,
    /// The device's address.
    pub mac: Mac,
    /// Longest outer packet in bytes.
    pub mtu: u16,
    /// UDP port of tunnels.
    pub udp_port: u16,
    /// The network of each VNI.
    pub networks: Exact<Vni, NetIdx>,
    /// The port of each peer, by [`address_key`].
    pub peers: Exact<u128, PortIdx>,
    /// Multicast groups that networks use.
    pub groups: Vec<IpAddr>,
    /// The port of VTEPs that are not yet peers; none: their frames are dropped.
    pub strangers: Option<PortIdx>,
}

/// The other end of tunnels, as a port.
#[derive(Clone, Debug)]
pub struct Tunnel {
    /// The peer's VTEP, a multicast group, or unspecified for VTEPs that are not yet peers.
    pub remote: IpAddr,
    /// The outer header.
    pub outer: Outer,
    /// What is found out about the way there.
    pub state: Arc<TunnelState>,
}

impl Tunnel {
    /// Longest inner frame in bytes that the path there takes, as far as is known.
    #[inline(always)]
    pub fn longest_inner(&self) -> usize {
        (self.state.longest() as usize).saturating_sub(self.outer.len - ethernet::HEADER)
    }
}

/// An outer header, but for what differs from packet to packet.
#[derive(Clone, Debug)]
pub struct Outer {
    bytes: [u8; OUTER_MAX],
    /// Bytes that are in use.
    pub len: usize,
    /// The sum of the IPv4 header's words that stay the same.
    pub sum: Sum,
}

impl Outer {
    /// The header of tunnels from one VTEP to another; its length fields, its ECN, its source port and the tunnel
    /// protocol's own bytes are zero.
    pub fn new(from: (IpAddr, Mac), to: (IpAddr, Mac), ttl: u8, dscp: u8, udp_port: u16) -> Outer {
        let mut bytes = Vec::with_capacity(OUTER_MAX);
        bytes.extend(to.1.0);
        bytes.extend(from.1.0);
        let traffic_class = dscp << 2;
        let mut sum = Sum::ZERO;
        match (from.0, to.0) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                bytes.extend(ethernet::IPV4.to_be_bytes());
                // RFC 791, 3.1. Never fragmented (RFC 7348, 4.3), so the identification says nothing (RFC 6864, 4.1).
                bytes.extend([0x45, traffic_class, 0, 0, 0, 0, 0x40, 0, ttl, protocol::UDP, 0, 0]);
                bytes.extend(from.octets());
                bytes.extend(to.octets());
                sum = Sum::of(bytes.get(ethernet::HEADER..).unwrap_or_default());
            }
            (from, to) => {
                let v6 = |address: IpAddr| match address {
                    IpAddr::V4(address) => address.to_ipv6_mapped(),
                    IpAddr::V6(address) => address,
                };
                bytes.extend(ethernet::IPV6.to_be_bytes());
                // RFC 8200, section 3.
                bytes.extend([0x60 | traffic_class >> 4, traffic_class << 4, 0, 0, 0, 0, protocol::UDP, ttl]);
                bytes.extend(v6(from).octets());
                bytes.extend(v6(to).octets());
            }
        }
        bytes.extend([0, 0]);
        bytes.extend(udp_port.to_be_bytes());
        bytes.extend([0; 4 + 8]);
        let len = bytes.len();
        bytes.resize(OUTER_MAX, 0);
        Outer { bytes: bytes.try_into().unwrap_or([0; OUTER_MAX]), len, sum }
    }

    /// The header of tunnels over IPv4.
    #[inline(always)]
    pub fn v4(&self) -> Option<&[u8; OUTER_V4]> {
        self.bytes.first_chunk().filter(|_| self.len == OUTER_V4)
    }

    /// The header of tunnels over IPv6.
    #[inline(always)]
    pub fn v6(&self) -> &[u8; OUTER_MAX] {
        &self.bytes
    }
}

/// Bytes of the outer header over IPv4.
pub const OUTER_V4: usize = ethernet::HEADER + ipv4::HEADER + udp::HEADER + 8;

/// What is known of the way to a peer: written by the worker of the underlay's device, read by all.
#[derive(Debug)]
pub struct TunnelState {
    /// The next hop's MAC, with [`RESOLVED`] set; 0 while it is not known.
    next_hop: AtomicU64,
    /// Longest outer packet in bytes that passes; `u32::MAX` as long as nothing was heard.
    path_mtu: AtomicU32,
}

const RESOLVED: u64 = 1 << 63;

impl Default for TunnelState {
    fn default() -> TunnelState {
        TunnelState { next_hop: AtomicU64::new(0), path_mtu: AtomicU32::new(u32::MAX) }
    }
}

impl TunnelState {
    /// What is known now, on its own from here on.
    pub fn copy(&self) -> TunnelState {
        let copy = TunnelState::default();
        copy.set_next_hop(self.next_hop());
        copy.set_path_mtu(self.path_mtu());
        copy
    }

    /// The next hop's MAC.
    #[inline(always)]
    pub fn next_hop(&self) -> Option<Mac> {
        let bits = self.next_hop.load(Ordering::Relaxed);
        (bits != 0).then(|| Mac::from_bits(bits))
    }

    /// Sets or forgets the next hop's MAC.
    pub fn set_next_hop(&self, mac: Option<Mac>) {
        self.next_hop.store(mac.map_or(0, |mac| mac.to_bits() | RESOLVED), Ordering::Relaxed);
    }

    /// The path's MTU in bytes of the outer packet, where the underlay said that it is lower than its own.
    pub fn path_mtu(&self) -> Option<u16> {
        u16::try_from(self.path_mtu.load(Ordering::Relaxed)).ok()
    }

    #[inline(always)]
    fn longest(&self) -> u32 {
        self.path_mtu.load(Ordering::Relaxed)
    }

    /// Sets or forgets the path's MTU.
    pub fn set_path_mtu(&self, mtu: Option<u16>) {
        self.path_mtu.store(mtu.map_or(u32::MAX, u32::from), Ordering::Relaxed);
    }
}

/// What a network does with tunnels.
#[derive(Clone, Debug)]
pub struct NetTunnels {
    /// Its identifier on the underlay.
    pub vni: Vni,
    /// Tunnel ports that get a copy of what is flooded: its peers, its group, or none.
    pub flood: Vec<PortIdx>,
    /// Frames of this network in tunnels; they live as long as the network.
    pub counters: Arc<TunnelCounters>,
}

/// Frames of one network, or of all, that went through tunnels. Bytes are those of inner frames.
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub struct TunnelCounters {
    pub rx_frames: AtomicU64,
    pub rx_bytes: AtomicU64,
    pub tx_frames: AtomicU64,
    pub tx_bytes: AtomicU64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outer_header_is_that_of_rfc_7348() {
        let (from, to) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
        let outer = Outer::new(
            ("192.0.2.1".parse().unwrap(), from),
            ("192.0.2.2".parse().unwrap(), to),
            64,
            10,
            4789,
        );
        let bytes = outer.v4().unwrap();
        assert_eq!(bytes.len(), 50);
        assert_eq!(bytes[12..16], [8, 0, 0x45, 40]);
        assert_eq!(outer.sum.fold(), Sum::of(&bytes[14..34]).fold());

        let outer = Outer::new(
            ("2001:db8::1".parse().unwrap(), from),
            ("2001:db8::2".parse().unwrap(), to),
            64,
            10,
            4789,
        );
        assert!(outer.v4().is_none());
        assert_eq!((outer.len, outer.v6()[12..16].to_vec()), (70, vec![0x86, 0xdd, 0x62, 0x80]));
    }

    #[test]
    fn the_state_of_a_tunnel_reads_back() {
        let state = TunnelState::default();
        assert_eq!((state.next_hop(), state.path_mtu()), (None, None));
        state.set_next_hop(Some(Mac([2, 0, 0, 0, 0, 9])));
        state.set_path_mtu(Some(1400));
        assert_eq!((state.next_hop(), state.path_mtu()), (Some(Mac([2, 0, 0, 0, 0, 9])), Some(1400)));
        state.set_next_hop(None);
        state.set_path_mtu(None);
        assert_eq!((state.next_hop(), state.path_mtu()), (None, None));
    }
}
