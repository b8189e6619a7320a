//! The pools of networks with dynamic leases, made of the model.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use crate::model::{Attachment, Interface, Model, Network, Segment, Subnet};
use crate::slowpath::leases::{Config, NetworkLeases, limits};
use crate::tables::compile::Places;
use crate::tables::compile::service::settings4;
use crate::types::NetIdx;

/// The networks, as the slow path wants them.
pub(super) fn networks(model: &Model, places: &Places) -> Vec<NetworkLeases> {
    let of = |network: &Network| {
        let subnets: Vec<(&Subnet, Ipv4Net)> = subnets(network, model).collect();
        let all: Vec<Ipv4Net> = subnets.iter().map(|(_, cidr)| *cidr).collect();
        Some(NetworkLeases {
            network: NetIdx(places.networks.get(&network.name)?),
            name: network.name.clone(),
            subnets: subnets
                .into_iter()
                .filter(|(subnet, _)| subnet.enable_dhcp)
                .map(|(subnet, cidr)| {
                    (config(subnet, cidr, &all, network, model), settings4(subnet, network, model))
                })
                .collect(),
        })
    };
    model.networks.iter().filter(|network| network.dynamic_leases).filter_map(of).collect()
}

/// The IPv4 subnets of a network.
fn subnets<'m>(network: &Network, model: &'m Model) -> impl Iterator<Item = (&'m Subnet, Ipv4Net)> {
    model.subnets.iter().filter(|subnet| subnet.network == network.name).filter_map(|subnet| {
        match subnet.cidr {
            IpNet::V4(cidr) => Some((subnet, cidr)),
            IpNet::V6(_) => None,
        }
    })
}

fn config(subnet: &Subnet, cidr: Ipv4Net, all: &[Ipv4Net], network: &Network, model: &Model) -> Config {
    let ranges: Vec<(Ipv4Addr, Ipv4Addr)> = subnet
        .allocation_pools
        .iter()
        .filter_map(|&(from, to)| match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => Some((from, to)),
            _ => None,
        })
        .collect();
    let mut reserved = taken(subnet, network, model);
    reserved.retain(|address| cidr.contains(address));
    reserved.sort_unstable();
    reserved.dedup();
    let within = |address: &&Ipv4Addr| ranges.iter().any(|(from, to)| (from..=to).contains(address));
    let length = |(from, to): &(Ipv4Addr, Ipv4Addr)| to.to_bits().saturating_sub(from.to_bits()) as usize + 1;
    let addresses = ranges.iter().map(length).sum::<usize>() - reserved.iter().filter(within).count();
    Config { subnet: cidr, network: all.to_vec(), limits: limits(addresses), ranges, reserved }
}

/// The addresses of a subnet that somebody has by the configuration.
fn taken(subnet: &Subnet, network: &Network, model: &Model) -> Vec<Ipv4Addr> {
    let ports = model.ports.iter().flat_map(|port| &port.fixed_ips);
    let routers = model.routers.iter().flat_map(|router| {
        let gateway = router.external_gateway.iter().flat_map(|gateway| &gateway.fixed_ips);
        router.interfaces.iter().flat_map(|interface| &interface.fixed_ips).chain(gateway)
    });
    let fixed = ports.chain(routers).filter(|fixed| fixed.subnet == subnet.name).map(|fixed| fixed.ip);
    let floating = model.floating_ips.iter().filter(|floating| floating.floating_network == network.name);
    let remote = match &network.segment {
        Segment::Vxlan(_, tunnels) => &tunnels.remote_ports[..],
        _ => &[],
    };
    // A TAP of the host's may have an address that is no fixed IP.
    let is_here = |of: &Attachment| matches!(of, Attachment::Access(name) if *name == network.name);
    let taps =
        model.ports.iter().filter(|port| is_here(&port.attachment)).flat_map(|port| match &port.interface {
            Interface::Tap { address, .. } => &address[..],
            _ => &[],
        });
    let all = fixed
        .chain(subnet.gateway_ip)
        .chain(floating.map(|floating| floating.floating_ip_address.into()))
        .chain(remote.iter().flat_map(|port| port.fixed_ips.iter().copied()))
        .chain(taps.map(|(address, _)| *address));
    all.filter_map(|address| match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    })
    .collect()
}
