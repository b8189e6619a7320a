//! What a router translates, compiled: its SNAT addresses, floating IPs and forwarded ports.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use super::exact::{Exact, Key};
pub use crate::model::NatFiltering;
use crate::types::PortIdx;

impl Key for u32 {
    #[inline(always)]
    fn bits(self) -> u64 {
        self.into()
    }
}

/// See the module's documentation. IPv4 addresses are numbers as [`Ipv4Addr::to_bits`] gives them.
#[derive(Clone, Debug, Default)]
pub struct Nat {
    /// The interface to the world. Its home does all of the router's translation.
    pub gateway: Option<PortIdx>,
    /// Addresses that inside hosts share; none: without SNAT.
    pub addresses: Vec<u32>,
    /// Who may send to a port of theirs.
    pub filtering: NatFiltering,
    /// The inside address of each floating IP that stands for one.
    pub inside: Exact<u32, u32>,
    /// The floating IP of each inside address that has one.
    pub outside: Exact<u32, u32>,
    /// Forwarded ports by floating IP.
    pub forwards: HashMap<u32, Vec<Forward>>,
    /// The port of each inside address that is one of ours: on whose account its connections go.
    pub guests: Exact<u32, PortIdx>,
}

/// A range of forwarded ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// IP protocol.
    pub protocol: u8,
    /// First and last port outside.
    pub outside: (u16, u16),
    /// The inside address.
    pub address: u32,
    /// The first port inside.
    pub inside: u16,
}

impl Nat {
    /// Where a connection to this outside endpoint leads, if it is a floating IP's.
    pub fn forwarded(&self, protocol: u8, address: u32, port: u16) -> Option<(u32, u16)> {
        if let Some(inside) = self.inside.get(address) {
            return Some((inside, port));
        }
        let leads = |forward: &&Forward| {
            forward.protocol == protocol && (forward.outside.0..=forward.outside.1).contains(&port)
        };
        let forward = self.forwards.get(&address)?.iter().find(leads)?;
        Some((forward.address, forward.inside + (port - forward.outside.0)))
    }

    /// Whether it is one of the addresses that inside hosts share.
    pub fn is_shared(&self, address: Ipv4Addr) -> bool {
        self.addresses.contains(&address.to_bits())
    }
}
