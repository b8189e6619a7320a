//! Routers, compiled: what the path needs to know of one, and of its interfaces.
//!
//! A router's interface is a port without a device: the FDB has its MAC as a static entry of its network, so that "for the
//! router" is the look-up that there is anyway. What a router cannot decide by its tables alone (its own addresses, next hops
//! that are not resolved) is done by the worker of the interface's port, its *home*.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;

use super::fib::{Fib, Route};
use super::nat::Nat;
use crate::services::ra::Advertisement;
use crate::types::{Mac, NetIdx, RouterIdx};

/// A router.
#[derive(Clone, Debug)]
pub struct RouterEntry {
    /// Its name.
    pub name: Arc<str>,
    /// Whether it forwards.
    pub up: bool,
    /// Its routes.
    pub fib: Fib,
    /// What it translates.
    pub nat: Nat,
    /// Whether the MSS of passing TCP SYNs is lowered to what the networks carry.
    pub mss_clamping: bool,
    /// What the FIB was made of, no prefix twice; to be shown, not to be looked up by packets.
    pub routes: Vec<RouteEntry>,
}

impl RouterEntry {
    /// The route that the FIB has for an address, with its prefix and why it is there.
    pub fn explain(&self, destination: IpAddr) -> Option<&RouteEntry> {
        let of = self.routes.iter().filter(|route| route.prefix.contains(&destination));
        of.max_by_key(|route| route.prefix.prefix_len())
    }
}

/// A route as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteEntry {
    /// Where to.
    pub prefix: IpNet,
    /// How.
    pub route: Route,
    /// Why.
    pub origin: RouteOrigin,
}

/// What a route comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteOrigin {
    /// A subnet that the router has an interface on, by name.
    Subnet(Arc<str>),
    /// The external gateway: its addresses, and the way to all else.
    Gateway,
    /// An extra route.
    Extra,
    /// A floating IP.
    FloatingIp,
    /// The service that the switch is, for guests that have no nearer way to it.
    Service,
}

/// An interface of a router, as a port.
#[derive(Clone, Debug)]
pub struct Interface {
    /// The router.
    pub router: RouterIdx,
    /// The network that it is on.
    pub network: NetIdx,
    /// Its MAC.
    pub mac: Mac,
    /// Its addresses with the subnets' prefix lengths.
    pub addresses: Vec<IpNet>,
    /// Whether it is the one to the world.
    pub is_gateway: bool,
    /// Longest packet of its network in bytes.
    pub mtu: u16,
    /// Next hops on its network that are kept resolved: those of routes, of which many packets will want one.
    pub next_hops: Vec<IpAddr>,
    /// Other addresses that lead to it, besides its own: floating IPs.
    pub further: Vec<IpAddr>,
    /// What it tells the hosts of its network, if it is to.
    pub ra: Option<Advertisement>,
}

impl Interface {
    /// Its address that a neighbour at `other` knows it by: of the same subnet, or else of the same IP version.
    pub fn address_towards(&self, other: IpAddr) -> Option<IpAddr> {
        let same = |net: &&IpNet| net.addr().is_ipv4() == other.is_ipv4();
        let on_link = self.addresses.iter().find(|net| net.contains(&other));
        on_link.or_else(|| self.addresses.iter().find(same)).map(IpNet::addr)
    }

    /// All addresses that lead to it.
    pub fn all_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().map(IpNet::addr).chain(self.further.iter().copied())
    }

    /// Its link-local IPv6 address (RFC 4291, appendix A).
    pub fn link_local(&self) -> Ipv6Addr {
        self.mac.address_on(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0))
    }
}
