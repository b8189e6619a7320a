//! The FIB: a router's routing table, compiled for longest-prefix match.
//!
//! Prefixes are flattened to ranges of addresses that do not overlap, each with the route of its longest prefix; a look-up is
//! a binary search for the range that an address is in, without a branch that depends on it.

use ipnet::IpNet;

use crate::types::PortIdx;

/// Where packets of a destination go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// To the router itself.
    Local,
    /// To an address that NAT gives to others.
    Translated,
    /// To all hosts of a subnet: not forwarded (RFC 2644).
    Broadcast,
    /// To a neighbour on this interface: the destination itself.
    Connected(PortIdx),
    /// To one of these next hops, by the flow's hash.
    Via(Vec<Hop>),
}

/// A next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hop {
    /// The interface that it is on.
    pub interface: PortIdx,
    /// Its address, by [`crate::tables::tunnel::address_key`].
    pub address: u128,
}

/// See the module's documentation.
#[derive(Clone, Debug, Default)]
pub struct Fib {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
    /// By what a range says, less one; 0 is no route.
    routes: Vec<Route>,
}

impl Fib {
    /// A table of these prefixes; of two that are equal the earlier one counts.
    pub fn new(prefixes: impl IntoIterator<Item = (IpNet, Route)>) -> Fib {
        let mut fib = Fib::default();
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (prefix, route) in prefixes {
            let known = fib.routes.iter().position(|known| *known == route);
            let index = known.unwrap_or(fib.routes.len());
            if known.is_none() {
                fib.routes.push(route);
            }
            let route = u32::try_from(index + 1).unwrap_or(0);
            match prefix {
                IpNet::V4(net) => v4.push((net.network().to_bits(), net.broadcast().to_bits(), route)),
                IpNet::V6(net) => v6.push((net.network().to_bits(), net.broadcast().to_bits(), route)),
            }
        }
        fib.v4 = Ranges::new(v4);
        fib.v6 = Ranges::new(v6);
        fib
    }

    /// The route to an IPv4 address.
    #[inline(always)]
    pub fn v4(&self, destination: u32) -> Option<&Route> {
        self.route(self.v4.find(destination))
    }

    /// The route to an IPv6 address.
    #[inline(always)]
    pub fn v6(&self, destination: u128) -> Option<&Route> {
        self.route(self.v6.find(destination))
    }

    #[inline(always)]
    fn route(&self, index: u32) -> Option<&Route> {
        self.routes.get((index as usize).wrapping_sub(1))
    }
}

/// Where each range begins, and its route. The first begins at 0.
#[derive(Clone, Debug)]
pub(super) struct Ranges<A> {
    starts: Vec<A>,
    routes: Vec<u32>,
}

impl<A> Default for Ranges<A> {
    fn default() -> Ranges<A> {
        Ranges { starts: Vec::new(), routes: Vec::new() }
    }
}

/// An address as a number.
pub(super) trait Number: Copy + Ord + Default {
    /// The one after it; none after the last.
    fn next(self) -> Option<Self>;
}

impl Number for u32 {
    fn next(self) -> Option<u32> {
        self.checked_add(1)
    }
}

impl Number for u128 {
    fn next(self) -> Option<u128> {
        self.checked_add(1)
    }
}

impl<A: Number> Ranges<A> {
    /// From prefixes as first address, last address and route.
    pub(super) fn new(mut prefixes: Vec<(A, A, u32)>) -> Ranges<A> {
        // Wider prefixes first where several begin at one address; prefixes nest, they never overlap in part.
        prefixes.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
        prefixes.dedup_by(|later, earlier| (later.0, later.1) == (earlier.0, earlier.1));
        let mut ranges = Ranges { starts: vec![A::default()], routes: vec![0] };
        let mut open: Vec<(A, u32)> = Vec::new();
        for (first, last, route) in prefixes {
            ranges.close(&mut open, Some(first));
            ranges.begin(first, route);
            open.push((last, route));
        }
        ranges.close(&mut open, None);
        ranges
    }

    /// Goes back to what is around the prefixes that end before `next`.
    fn close(&mut self, open: &mut Vec<(A, u32)>, next: Option<A>) {
        while let Some(&(last, _)) = open.last()
            && next.is_none_or(|next| last < next)
        {
            open.pop();
            if let Some(after) = last.next() {
                self.begin(after, open.last().map_or(0, |(_, route)| *route));
            }
        }
    }

    fn begin(&mut self, start: A, route: u32) {
        if self.starts.last() == Some(&start) {
            if let Some(last) = self.routes.last_mut() {
                *last = route;
            }
        } else {
            self.starts.push(start);
            self.routes.push(route);
        }
    }

    /// The route of the longest prefix that an address is in; 0: none.
    #[inline(always)]
    pub(super) fn find(&self, address: A) -> u32 {
        let at = self.starts.partition_point(|start| *start <= address);
        self.routes.get(at.wrapping_sub(1)).copied().unwrap_or(0)
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation)] // a mix of bits
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn via(port: u16) -> Route {
        Route::Connected(PortIdx(port))
    }

    fn look(fib: &Fib, address: IpAddr) -> Option<&Route> {
        match address {
            IpAddr::V4(address) => fib.v4(address.to_bits()),
            IpAddr::V6(address) => fib.v6(address.to_bits()),
        }
    }

    #[test]
    fn the_longest_prefix_counts() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let fib = Fib::new([
            (net("0.0.0.0/0"), via(0)),
            (net("10.0.0.0/8"), via(1)),
            (net("10.0.0.0/24"), via(2)),
            (net("10.0.0.1/32"), Route::Local),
            (net("10.0.0.255/32"), Route::Broadcast),
            (net("255.255.255.255/32"), via(3)),
            (net("2001:db8::/64"), via(4)),
            (net("2001:db8::/32"), via(5)),
            (net("10.0.0.0/24"), via(9)),
        ]);
        for (address, route) in [
            ("0.0.0.0", Some(via(0))),
            ("9.255.255.255", Some(via(0))),
            ("10.0.0.0", Some(via(2))),
            ("10.0.0.1", Some(Route::Local)),
            ("10.0.0.2", Some(via(2))),
            ("10.0.0.255", Some(Route::Broadcast)),
            ("10.0.1.0", Some(via(1))),
            ("10.255.255.255", Some(via(1))),
            ("11.0.0.0", Some(via(0))),
            ("255.255.255.255", Some(via(3))),
            ("2001:db8::1", Some(via(4))),
            ("2001:db8:1::1", Some(via(5))),
            ("2001:db9::", None),
            ("::", None),
            ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", None),
        ] {
            assert_eq!(look(&fib, address.parse().unwrap()), route.as_ref(), "{address}");
        }
        assert_eq!(look(&Fib::default(), "10.0.0.1".parse().unwrap()), None);
    }

    proptest! {
        /// Against the plainest way there is, on prefixes and addresses that are near each other.
        #[test]
        fn equals_a_walk_over_all_prefixes(
            prefixes in prop::collection::vec((any::<bool>(), any::<u128>(), 0u8..=128), 0..40),
            asked in prop::collection::vec((any::<u8>(), any::<u8>()), 100),
        ) {
            let prefixes: Vec<(IpNet, Route)> = (0..).zip(prefixes).map(|(n, (v4, bits, len))| {
                let near = bits & 0xff | bits << 124;
                let address = if v4 {
                    IpAddr::from(Ipv4Addr::from_bits((near as u32) | (near >> 96) as u32))
                } else {
                    IpAddr::from(Ipv6Addr::from_bits(near))
                };
                let len = if v4 { len % 33 } else { len };
                (IpNet::new(address, len).unwrap().trunc(), via(n))
            }).collect();
            let fib = Fib::new(prefixes.clone());
            for (low, high) in asked {
                for address in [
                    IpAddr::from(Ipv4Addr::from_bits(u32::from(low) | u32::from(high) << 24)),
                    IpAddr::from(Ipv6Addr::from_bits(u128::from(low) | u128::from(high) << 120)),
                ] {
                    let mut best: Option<&(IpNet, Route)> = None;
                    for entry in prefixes.iter().filter(|(net, _)| net.contains(&address)) {
                        if best.is_none_or(|best| entry.0.prefix_len() > best.0.prefix_len()) {
                            best = Some(entry);
                        }
                    }
                    prop_assert_eq!(look(&fib, address), best.map(|(_, route)| route));
                }
            }
        }
    }
}
