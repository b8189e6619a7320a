//! Subnets: their prefixes, gateways and allocation pools, and that those of a network do not overlap (Neutron's rules).
//! Later modules find the right ones by [`Subnets`].

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use toml::Spanned;

use super::read::DraftSubnet;
use crate::model::diagnostic::{Report, Reported};
use crate::model::read::DraftNetwork;
use crate::model::schema::*;
use crate::model::validate::{Names, refer, unique};

/// The smallest MTU that IPv6 works with (RFC 8200, section 5).
const IPV6_MTU_MIN: u16 = 1280;

const fn v4(a: u8, length: u8) -> IpNet {
    IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(a, 0, 0, 0)), length)
}

const fn v6(a: u16, length: u8) -> IpNet {
    IpNet::new_assert(IpAddr::V6(Ipv6Addr::new(a, 0, 0, 0, 0, 0, 0, 0)), length)
}

/// What routers must not forward (RFC 6890).
const RESERVED: &[(IpNet, &str)] = &[
    (v4(0, 8), "\"this network\""),
    (v4(127, 8), "loopback"),
    (IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(169, 254, 0, 0)), 16), "link-local"),
    (v4(224, 4), "multicast"),
    (v4(240, 4), "reserved"),
    (v6(0, 127), "loopback"),
    (v6(0xfe80, 10), "link-local"),
    (v6(0xff00, 8), "multicast"),
];

/// Subnets of a file that are right.
pub(super) struct Subnets<'d> {
    names: Names<'d>,
    /// In the order of the file; none where there is a mistake.
    all: Vec<Option<Known>>,
    of_network: HashMap<usize, Vec<usize>>,
    /// Err: more were meant, so what is not found may be right.
    pub(super) whole: Result<(), Reported>,
}

/// A subnet that is right.
pub(super) struct Known {
    pub(super) object: Subnet,
    /// Its network, by index.
    pub(super) network: usize,
}

impl<'d> Subnets<'d> {
    /// Judges all subnets.
    pub(super) fn new(
        report: &Report<'_>,
        drafts: &'d [DraftSubnet],
        networks: &[DraftNetwork],
        network_names: &Names<'_>,
    ) -> Subnets<'d> {
        let names = unique(report, drafts.iter().map(|s| (s.name.as_str(), &s.at, s.origin.line)));
        let mut subnets = Subnets { names, all: Vec::new(), of_network: HashMap::new(), whole: Ok(()) };
        for draft in drafts {
            let known = subnets.judge(report, draft, networks, network_names);
            match &known {
                Ok(known) => {
                    subnets.of_network.entry(known.network).or_default().push(subnets.all.len());
                }
                Err(reported) => subnets.whole = Err(*reported),
            }
            subnets.all.push(known.ok());
        }
        subnets
    }

    fn judge(
        &self,
        report: &Report<'_>,
        draft: &DraftSubnet,
        networks: &[DraftNetwork],
        network_names: &Names<'_>,
    ) -> Result<Known, Reported> {
        let path = |key: &str| format!("{}.{key}", draft.at.path);
        let network = draft.network.as_ref().map_err(|reported| *reported);
        let network =
            network.and_then(|name| refer(report, network_names, "network", name, &path("network")));
        let cidr = draft.cidr.as_ref().map_err(|reported| *reported)?;
        prefix(report, cidr, &path("cidr"))?;
        let net = *cidr.get_ref();
        let object = Subnet {
            id: crate::model::id("subnet", &draft.name),
            name: draft.name.clone(),
            network: networks.get(network?).map(|n| n.object.name.clone()).unwrap_or_default(),
            cidr: net,
            gateway_ip: gateway(report, draft, net)?,
            allocation_pools: Vec::new(),
            enable_dhcp: true,
            dns_nameservers: Vec::new(),
            ntp_servers: Vec::new(),
            host_routes: Vec::new(),
            ipv6_ra_mode: None,
            ipv6_address_mode: None,
            origin: draft.origin.clone(),
        };
        let network = network?;
        self.no_overlap(report, network, &object, cidr, &path("cidr"))?;
        let mtu = networks[network].object.mtu;
        if matches!(net, IpNet::V6(_)) && mtu < IPV6_MTU_MIN {
            let message = format!(
                "IPv6 needs an MTU of at least {IPV6_MTU_MIN}, network `{}` has {mtu}",
                object.network
            );
            return Err(report.add(cidr.span(), &path("cidr"), message, None));
        }
        let allocation_pools = pools(report, draft, &object)?;
        let object = super::told::told(report, draft, object)?;
        Ok(Known { object: Subnet { allocation_pools, ..object }, network })
    }

    fn no_overlap(
        &self,
        report: &Report<'_>,
        network: usize,
        object: &Subnet,
        cidr: &Spanned<IpNet>,
        path: &str,
    ) -> Result<(), Reported> {
        let others = self.of(network).map(|(_, other)| other);
        let Some(other) = others.into_iter().find(|other| overlap(other.cidr, object.cidr)) else {
            return Ok(());
        };
        let message = format!(
            "{} overlaps with {} of subnet `{}` of line {}, on the same network",
            object.cidr, other.cidr, other.name, other.origin.line
        );
        Err(report.add(cidr.span(), path, message, None))
    }

    /// The subnets of a network that are right, in the order of the file.
    pub(super) fn of(&self, network: usize) -> impl Iterator<Item = (usize, &Subnet)> {
        let indices = self.of_network.get(&network).into_iter().flatten();
        indices.filter_map(|index| Some((*index, &self.get(*index)?.object)))
    }

    /// A subnet by its place in the file; none where it has a mistake.
    pub(super) fn get(&self, index: usize) -> Option<&Known> {
        self.all.get(index)?.as_ref()
    }

    /// The subnet that a name means; none where it has a mistake.
    pub(super) fn named(&self, name: &str) -> Option<&Known> {
        self.get(*self.names.get(name)?)
    }

    /// How many there are, with and without mistakes.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// The place of the subnet that `name` means.
    pub(super) fn refer(
        &self,
        report: &Report<'_>,
        name: &Spanned<String>,
        path: &str,
    ) -> Result<usize, Reported> {
        let index = refer(report, &self.names, "subnet", name, path)?;
        self.get(index).map(|_| index).ok_or(Reported)
    }

    /// All that are right.
    pub(super) fn finished(self) -> Vec<Subnet> {
        self.all.into_iter().flatten().map(|known| known.object).collect()
    }
}

/// True when two prefixes have an address in common.
pub(super) fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

/// Refuses prefixes with addresses that no host of a subnet can have.
fn prefix(report: &Report<'_>, cidr: &Spanned<IpNet>, path: &str) -> Result<(), Reported> {
    let net = *cidr.get_ref();
    let Some((reserved, what)) = RESERVED.iter().find(|(reserved, _)| overlap(net, *reserved)) else {
        return Ok(());
    };
    let message = format!("{net} has addresses of {reserved} ({what}), which no router forwards");
    let hint = match net {
        IpNet::V4(_) => "private networks use 10.0.0.0/8, 172.16.0.0/12 and 192.168.0.0/16 (RFC 1918)",
        IpNet::V6(_) => "private networks use fd00::/8 (RFC 4193)",
    };
    Err(report.add(cidr.span(), path, message, Some(hint.to_owned())))
}

/// What a route cannot lead to, in words: all of the prefix is for no router to forward.
pub(super) fn unroutable(net: IpNet) -> Option<&'static str> {
    RESERVED.iter().find(|(reserved, _)| reserved.contains(&net)).map(|(_, what)| *what)
}

/// First and last address that a host can have. With 31 bits both addresses are hosts' (RFC 3021; RFC 6164 for 127);
/// else the first is the subnet's (RFC 4291, 2.6.1: its routers'), and the last of IPv4 is for broadcast.
fn hosts(net: IpNet) -> (IpAddr, IpAddr) {
    match net {
        IpNet::V4(net) if net.prefix_len() < 31 => {
            let (from, to) = (net.network().to_bits() + 1, net.broadcast().to_bits() - 1);
            (Ipv4Addr::from_bits(from).into(), Ipv4Addr::from_bits(to).into())
        }
        IpNet::V6(net) if net.prefix_len() < 127 => {
            (Ipv6Addr::from_bits(net.network().to_bits() + 1).into(), net.broadcast().into())
        }
        net => (net.network(), net.broadcast()),
    }
}

/// Why no host of `subnet` can have `ip`, if so.
pub(super) fn no_host(name: &str, net: IpNet, ip: IpAddr) -> Option<String> {
    let (first, last) = hosts(net);
    if !net.contains(&ip) {
        Some(format!("{ip} is not on subnet `{name}` ({net})"))
    } else if ip < first && ip.is_ipv6() {
        Some(format!("{ip} is the anycast address of the routers of subnet `{name}` ({net})"))
    } else if ip < first {
        Some(format!("{ip} is the address of subnet `{name}` ({net}) itself"))
    } else if ip > last {
        Some(format!("{ip} is the broadcast address of subnet `{name}` ({net})"))
    } else {
        None
    }
}

/// The gateway: given, or the first address; none where there is one address only, which is a host's.
fn gateway(report: &Report<'_>, draft: &DraftSubnet, net: IpNet) -> Result<Option<IpAddr>, Reported> {
    let Some(given) = draft.gateway_ip.as_ref().map_err(|reported| *reported)? else {
        let (first, last) = hosts(net);
        return Ok(Some(first).filter(|_| first != last));
    };
    let Some(ip) = given.get_ref().0 else { return Ok(None) };
    let Some(message) = no_host(&draft.name, net, ip) else { return Ok(Some(ip)) };
    let hint = Some("give one of its hosts' addresses, or `false` for no gateway".to_owned());
    Err(report.add(given.span(), &format!("{}.gateway_ip", draft.at.path), message, hint))
}

/// The pools: given, or all that the gateway leaves. Sorted.
fn pools(
    report: &Report<'_>,
    draft: &DraftSubnet,
    subnet: &Subnet,
) -> Result<Vec<(IpAddr, IpAddr)>, Reported> {
    let Some(given) = &draft.pools else { return Ok(default_pools(subnet)) };
    let path = format!("{}.allocation_pools", draft.at.path);
    let mut result = given.whole;
    let mut wrong = |pool: &Spanned<(IpAddr, IpAddr)>, message: String, hint: Option<&str>| {
        result = Err(report.add(pool.span(), &path, message, hint.map(str::to_owned)));
    };
    for (index, pool) in given.items.iter().enumerate() {
        let (from, to) = *pool.get_ref();
        let within = |ip: IpAddr| from.is_ipv4() == ip.is_ipv4() && from <= ip && ip <= to;
        if let Some(message) = [from, to].into_iter().find_map(|ip| no_host(&subnet.name, subnet.cidr, ip)) {
            wrong(pool, message, None);
        } else if let Some(gateway) = subnet.gateway_ip.filter(|ip| within(*ip)) {
            let hint = "leave it out of the pools: it is not handed out";
            wrong(pool, format!("{from}-{to} holds the gateway_ip {gateway}"), Some(hint));
        }
        let overlaps =
            |other: &&Spanned<(IpAddr, IpAddr)>| other.get_ref().0 <= to && from <= other.get_ref().1;
        if let Some(other) = given.items[..index].iter().find(overlaps) {
            let (other_from, other_to) = other.get_ref();
            wrong(pool, format!("{from}-{to} overlaps with {other_from}-{other_to}"), None);
        }
    }
    result?;
    let mut pools: Vec<(IpAddr, IpAddr)> = given.items.iter().map(|pool| *pool.get_ref()).collect();
    pools.sort_unstable();
    Ok(pools)
}

fn default_pools(subnet: &Subnet) -> Vec<(IpAddr, IpAddr)> {
    let (first, last) = hosts(subnet.cidr);
    let Some(gateway) = subnet.gateway_ip else { return vec![(first, last)] };
    let mut pools = Vec::new();
    if first < gateway {
        pools.push((first, neighbour(gateway, false)));
    }
    if gateway < last {
        pools.push((neighbour(gateway, true), last));
    }
    pools
}

/// The address behind or before `ip`, which is not the last or first of its family.
fn neighbour(ip: IpAddr, next: bool) -> IpAddr {
    let step = |bits: u128| if next { bits.wrapping_add(1) } else { bits.wrapping_sub(1) };
    match ip {
        IpAddr::V4(v4) => {
            let bits = if next { v4.to_bits().wrapping_add(1) } else { v4.to_bits().wrapping_sub(1) };
            Ipv4Addr::from_bits(bits).into()
        }
        IpAddr::V6(v6) => Ipv6Addr::from_bits(step(v6.to_bits())).into(),
    }
}
