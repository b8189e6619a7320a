//! Which addresses of a subnet's allocation pools are free. Pure: ranges in a tree, so that reserving an address and
//! finding the next free one take logarithmic time, however long the pools are.
//!
//! Invariant: ranges are disjoint, and of the family of the pools that they were made of.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The free addresses of one subnet.
#[derive(Clone, Debug, Default)]
pub(super) struct Ipam {
    /// First to last address of each range, as numbers.
    free: BTreeMap<u128, u128>,
    is_ipv4: bool,
}

impl Ipam {
    /// All of `pools`, which are of one family. Where they overlap, an address is free once.
    pub(super) fn new(pools: &[(IpAddr, IpAddr)]) -> Ipam {
        let mut ranges: Vec<(u128, u128)> = pools.iter().map(|(from, to)| (bits(*from), bits(*to))).collect();
        ranges.sort_unstable();
        let mut free: BTreeMap<u128, u128> = BTreeMap::new();
        for (from, to) in ranges.into_iter().filter(|(from, to)| from <= to) {
            match free.last_entry() {
                Some(mut last) if from <= *last.get() => {
                    let end = to.max(*last.get());
                    last.insert(end);
                }
                _ => {
                    free.insert(from, to);
                }
            }
        }
        Ipam { free, is_ipv4: pools.iter().any(|(from, _)| from.is_ipv4()) }
    }

    /// Takes `ip` out of what is free; nothing to do where it is not.
    pub(super) fn reserve(&mut self, ip: IpAddr) {
        let at = bits(ip);
        if ip.is_ipv4() != self.is_ipv4 {
            return;
        }
        let Some((&from, &to)) = self.free.range(..=at).next_back().filter(|(_, to)| at <= **to) else {
            return;
        };
        self.free.remove(&from);
        if from < at {
            self.free.insert(from, at - 1);
        }
        if at < to {
            self.free.insert(at + 1, to);
        }
    }

    /// Takes the lowest free address; none when all are taken.
    pub(super) fn next(&mut self) -> Option<IpAddr> {
        let ip = ip(*self.free.first_key_value()?.0, self.is_ipv4);
        self.reserve(ip);
        Some(ip)
    }
}

/// An address as a number; families do not mix.
fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn ip(bits: u128, is_ipv4: bool) -> IpAddr {
    match u32::try_from(bits) {
        Ok(v4) if is_ipv4 => IpAddr::V4(Ipv4Addr::from_bits(v4)),
        _ => IpAddr::V6(Ipv6Addr::from_bits(bits)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_pool_as_long_as_a_family_is_no_work() {
        let mut v6 = Ipam::new(&[(address("::"), address("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"))]);
        assert_eq!(v6.next(), Some(address("::")));
        v6.reserve(address("::1"));
        v6.reserve(address("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"));
        assert_eq!(v6.next(), Some(address("::2")));
        let mut v4 = Ipam::new(&[(address("255.255.255.254"), address("255.255.255.255"))]);
        v4.reserve(address("::ffff:fffe"));
        assert_eq!(v4.next(), Some(address("255.255.255.254")));
        assert_eq!(v4.next(), Some(address("255.255.255.255")));
        assert_eq!(v4.next(), None);
        assert_eq!(Ipam::new(&[]).next(), None);
    }

    proptest! {
        /// Against a set of single addresses.
        #[test]
        fn it_equals_a_set_of_addresses(
            is_ipv4: bool,
            // 256 addresses at the end of each family, where there is no next one.
            pools in prop::collection::vec((0..256_u128, 0..256_u128), 0..6),
            // None: the next free one.
            steps in prop::collection::vec(prop::option::of(0..256_u128), 0..300),
        ) {
            let last = if is_ipv4 { u128::from(u32::MAX) } else { u128::MAX };
            let at = |offset: u128| super::ip(last - 255 + offset, is_ipv4);
            let pools: Vec<(IpAddr, IpAddr)> =
                pools.into_iter().map(|(a, b)| (at(a.min(b)), at(a.max(b)))).collect();
            let within = |ip: &IpAddr| pools.iter().any(|(from, to)| from <= ip && ip <= to);
            let mut naive: BTreeSet<IpAddr> = (0..256).map(at).filter(within).collect();
            let mut ipam = Ipam::new(&pools);
            for step in steps {
                match step {
                    Some(offset) => {
                        naive.remove(&at(offset));
                        ipam.reserve(at(offset));
                    }
                    None => prop_assert_eq!(ipam.next(), naive.pop_first()),
                }
                let left: u128 = ipam.free.iter().map(|(from, to)| to - from + 1).sum();
                prop_assert_eq!(left, naive.len() as u128);
            }
            while let Some(expected) = naive.pop_first() {
                prop_assert_eq!(ipam.next(), Some(expected));
            }
            prop_assert_eq!(ipam.next(), None);
        }
    }
}
