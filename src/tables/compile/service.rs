//! Compiles the service that the switch itself is: its port, where it is found, and whom it knows.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};

use super::{Places, put};
use crate::frame::Caps;
use crate::model::{
    Attachment, AttachmentKey, FixedIp, Ipv6Mode, MetadataMode, Model, Network, Port, Subnet,
};
use crate::services::{SERVICE_MAC, SERVICE_V4, SERVICE_V6, dhcp4, dhcp6, ra};
use crate::stats::PortCounters;
use crate::tables::{Guest, Host, PortEntry, Segments, Serves, Tables};
use crate::types::{Mac, NetIdx, PortIdx, WorkerIdx};
use crate::wire::dhcp4::Opt as Opt4;
use crate::wire::dhcp6::Opt as Opt6;

pub(super) fn compile(
    tables: &mut Tables,
    model: &Model,
    networks: &[(NetIdx, &Network)],
    places: &mut Places,
) {
    let index = PortIdx(places.ports.assign(&AttachmentKey::Service));
    let entry = PortEntry {
        name: "service".into(),
        // It has no home: whoever takes a frame in answers it.
        worker: WorkerIdx(0),
        up: true,
        segments: Segments::Service,
        caps: Caps { checksum: true, tso: true, uso: true, mtu: u16::MAX },
        plain_len: usize::MAX,
        mac_limit: 0,
        guest: None,
        guard: None,
        counters: Arc::new(PortCounters::default()),
    };
    put(&mut tables.ports, index.index(), entry);
    for &(network, wanted) in networks.iter().filter(|(_, network)| is_served(network, model)) {
        tables.static_macs.push((network, SERVICE_MAC, index));
        if let Some(Some(entry)) = tables.networks.get_mut(network.index()) {
            entry.admit(index);
            entry.serves = serves(wanted, model);
            let host = Host { mac: SERVICE_MAC, is_here: true };
            entry.hosts.extend([(IpAddr::V4(SERVICE_V4), host), (IpAddr::V6(SERVICE_V6), host)]);
        }
        let on_network =
            |port: &&Port| matches!(&port.attachment, Attachment::Access(name) if *name == wanted.name);
        for port in model.ports.iter().filter(on_network) {
            let Some(slot) = places.ports.get(&AttachmentKey::Port(port.name.clone())) else { continue };
            if let Some(Some(entry)) = tables.ports.get_mut(usize::from(slot)) {
                entry.guest = guest(port, wanted, model).map(Arc::new);
            }
        }
    }
}

/// Whether there is anything to tell guests of a network.
fn is_served(network: &Network, model: &Model) -> bool {
    network.metadata != MetadataMode::Off || network.dynamic_leases || on(network, model).next().is_some()
}

/// What DHCP tells the guests of a network.
fn serves(network: &Network, model: &Model) -> Serves {
    let subnets = || on(network, model);
    Serves {
        dhcp4: subnets().any(|subnet| subnet.cidr.addr().is_ipv4()),
        dhcp6: subnets().any(|subnet| by_dhcp6(subnet).is_some()),
        dynamic: network.dynamic_leases,
    }
}

/// The subnets of a network whose guests are told something.
fn on<'m>(network: &Network, model: &'m Model) -> impl Iterator<Item = &'m Subnet> {
    model.subnets.iter().filter(move |subnet| subnet.network == network.name && subnet.enable_dhcp)
}

/// Whether guests of a subnet use DHCPv6; true: for their addresses too.
fn by_dhcp6(subnet: &Subnet) -> Option<bool> {
    match subnet.ipv6_address_mode? {
        Ipv6Mode::Slaac => None,
        Ipv6Mode::Dhcpv6Stateful => Some(true),
        Ipv6Mode::Dhcpv6Stateless => Some(false),
    }
}

/// The station behind a port, if it is one.
fn guest(port: &Port, network: &Network, model: &Model) -> Option<Guest> {
    let mac = port.mac_address?;
    let lease = |fixed: &FixedIp| {
        let IpAddr::V4(address) = fixed.ip else { return None };
        let subnet = on(network, model).find(|subnet| subnet.name == fixed.subnet)?;
        let extra = port.extra_dhcp_opts.iter().filter(|opt| !opt.is_v6);
        let settings = dhcp4::Settings {
            hostname: Some(port.hostname()),
            extra: extra.filter_map(|opt| Opt4::parse(&opt.opt_name, &opt.opt_value).ok()).collect(),
            ..settings4(subnet, network, model)
        };
        Some(dhcp4::Lease::new(mac, address, &settings))
    };
    Some(Guest {
        mac,
        dhcp4: port.fixed_ips.iter().filter_map(lease).collect(),
        dhcp6: lease6(mac, port, network, model),
        metadata: network.metadata != MetadataMode::Off,
    })
}

/// What DHCPv4 tells the clients of a subnet alike.
pub fn settings4(subnet: &Subnet, network: &Network, model: &Model) -> dhcp4::Settings {
    let gateway = subnet.gateway_ip.and_then(v4);
    let routes = subnet.host_routes.iter().filter_map(|route| match route.destination {
        IpNet::V4(destination) => Some((destination, v4(route.nexthop)?)),
        IpNet::V6(_) => None,
    });
    let mut routes: Vec<(Ipv4Net, Ipv4Addr)> = routes.collect();
    if network.metadata != MetadataMode::Off {
        let ours = gateway.filter(|gateway| is_routers(*gateway, network, model));
        // 0.0.0.0: on the link (RFC 3442).
        routes.push((SERVICE_V4.into(), ours.unwrap_or(Ipv4Addr::UNSPECIFIED)));
    }
    if let Some(gateway) = gateway
        && routes.iter().all(|(destination, _)| destination.prefix_len() > 0)
    {
        // Who takes these routes takes no other default (RFC 3442).
        routes.push((Ipv4Net::default(), gateway));
    }
    let all = |servers: &[IpAddr]| servers.iter().copied().filter_map(v4).collect();
    dhcp4::Settings {
        prefix_len: subnet.cidr.prefix_len(),
        router: gateway,
        dns_servers: all(&subnet.dns_nameservers),
        ntp_servers: all(&subnet.ntp_servers),
        domain: network.dns_domain.clone(),
        hostname: None,
        mtu: network.mtu,
        routes,
        lease_time: model.dhcp.lease_time,
        extra: Vec::new(),
    }
}

fn v4(ip: IpAddr) -> Option<Ipv4Addr> {
    match ip {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    }
}

/// Whether an address is that of an interface of a router of ours.
fn is_routers(address: Ipv4Addr, network: &Network, model: &Model) -> bool {
    let mut interfaces = model.routers.iter().flat_map(|router| &router.interfaces);
    interfaces.any(|interface| {
        interface.network == network.name && interface.fixed_ips.iter().any(|fixed| fixed.ip == address)
    })
}

/// What DHCPv6 gives a port's guest: its addresses of all stateful subnets, and what any subnet tells.
fn lease6(mac: Mac, port: &Port, network: &Network, model: &Model) -> Option<dhcp6::Lease> {
    let subnets: Vec<(&Subnet, bool)> =
        on(network, model).filter_map(|subnet| Some((subnet, by_dhcp6(subnet)?))).collect();
    if subnets.is_empty() {
        return None;
    }
    let stateful = |fixed: &&FixedIp| subnets.iter().any(|(subnet, is)| *is && subnet.name == fixed.subnet);
    let addresses = port.fixed_ips.iter().filter(stateful).filter_map(|fixed| v6(fixed.ip)).collect();
    let extra = port.extra_dhcp_opts.iter().filter(|opt| opt.is_v6);
    let settings = dhcp6::Settings {
        dns_servers: servers6(subnets.iter().flat_map(|(subnet, _)| &subnet.dns_nameservers)),
        ntp_servers: servers6(subnets.iter().flat_map(|(subnet, _)| &subnet.ntp_servers)),
        domain: network.dns_domain.clone(),
        extra: extra.filter_map(|opt| Opt6::parse(&opt.opt_name, &opt.opt_value).ok()).collect(),
        lease_time: model.dhcp.lease_time,
        server_id: *network.id.as_bytes(),
    };
    Some(dhcp6::Lease::new(mac, addresses, &settings))
}

fn v6(ip: IpAddr) -> Option<Ipv6Addr> {
    match ip {
        IpAddr::V4(_) => None,
        IpAddr::V6(ip) => Some(ip),
    }
}

/// Servers of several subnets, each once.
fn servers6<'m>(servers: impl Iterator<Item = &'m IpAddr>) -> Vec<Ipv6Addr> {
    let mut all = Vec::new();
    for server in servers.copied().filter_map(v6) {
        if !all.contains(&server) {
            all.push(server);
        }
    }
    all
}

/// What a router's interface tells the hosts of a network, if its subnets want that.
pub(super) fn advertisement(
    fixed_ips: &[FixedIp],
    network: &Network,
    model: &Model,
) -> Option<ra::Advertisement> {
    let subnets = fixed_ips.iter().filter_map(|fixed| {
        let subnet = on(network, model).find(|subnet| subnet.name == fixed.subnet)?;
        Some((subnet, subnet.ipv6_ra_mode?))
    });
    let subnets: Vec<(&Subnet, Ipv6Mode)> = subnets.collect();
    if subnets.is_empty() {
        return None;
    }
    let prefixes = subnets.iter().filter_map(|(subnet, mode)| match subnet.cidr {
        IpNet::V6(prefix) => Some((prefix, mode.is_automatic())),
        IpNet::V4(_) => None,
    });
    Some(ra::Advertisement {
        managed: subnets.iter().any(|(_, mode)| *mode == Ipv6Mode::Dhcpv6Stateful),
        other: subnets.iter().any(|(_, mode)| *mode == Ipv6Mode::Dhcpv6Stateless),
        mtu: network.mtu,
        prefixes: prefixes.collect(),
        dns_servers: servers6(subnets.iter().flat_map(|(subnet, _)| &subnet.dns_nameservers)),
        domain: network.dns_domain.clone(),
        lifetime: ra::LIFETIME,
    })
}
