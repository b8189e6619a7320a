//! What the control API tells of routers from the configuration and the tables: all but connections and bindings.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use super::state::{Daemon, State};
use crate::control::view::{
    self, AllocationPool, ExtraRoute, FixedIp, FloatingIp, GatewayInfo, Mapping, Neighbour, NextHop,
    PortForwarding, Route, RouteKind, Router, RouterInterface, Subnet,
};
use crate::control::view::{Problem, State as Status};
use crate::dataplane::nat::live::protocol_name;
use crate::model::{self, Model};
use crate::stats::PortSnapshot;
use crate::tables::router::{Interface, RouteEntry, RouteOrigin};
use crate::tables::tunnel::key_address;
use crate::tables::{PortEntry, Tables, fib};
use crate::types::{PortIdx, RouterIdx, WorkerIdx};
use crate::worker::inspect::{Facts, Question};

impl Daemon {
    pub(super) async fn all_routers(&self) -> Result<Vec<Router>, Problem> {
        let counts = self.count_connections().await?;
        let (mut routers, pools) = {
            let state = self.state();
            let tables = state.workers.tables();
            let slots = state.model.routers.iter().map(|router| state.places.routers.get(&router.name));
            let slots: Vec<Option<RouterIdx>> = slots.map(|slot| slot.map(RouterIdx)).collect();
            let routers: Vec<Router> =
                state.model.routers.iter().map(|router| state.router(router, &tables)).collect();
            (routers, slots)
        };
        for (router, slot) in routers.iter_mut().zip(pools) {
            let (Some(slot), Some(worker)) = (slot, router.worker) else { continue };
            router.connections = counts.get(slot.index()).copied().unwrap_or(0);
            let worker = WorkerIdx(u16::try_from(worker).unwrap_or(0));
            if let Facts::Pool(usage, exhausted) = self.ask(worker, Question::Pool(slot)).await?.facts {
                let used = |usage: &crate::dataplane::conntrack::binding::Usage| {
                    u64::from(usage.tcp.0) + u64::from(usage.udp.0) + u64::from(usage.icmp.0)
                };
                router.bindings = usage.iter().map(used).sum();
                router.exhausted = exhausted;
            }
        }
        Ok(routers)
    }

    pub(super) async fn all_neighbours(&self) -> Result<Vec<Neighbour>, Problem> {
        let tables = self.state().workers.tables();
        let mut found: Vec<Neighbour> = Vec::new();
        for &(port, address, mac) in &tables.known_hosts {
            found.extend(neighbour(&tables, port, key_address(address), Some(mac), "known"));
        }
        let (workers, mut asked) = (self.state().workers.len(), HashMap::new());
        for worker in (0..workers).filter_map(|worker| u16::try_from(worker).ok()) {
            let mut from = Some(0);
            while let Some(at) = from {
                let answer = self.ask(WorkerIdx(worker), Question::Neighbours { from: at }).await?;
                from = answer.next;
                let Facts::Neighbours(Some((port, neighbours))) = answer.facts else { break };
                for (ip, mac, state) in neighbours {
                    if let Some(neighbour) = neighbour(&answer.tables, port, ip, mac, state) {
                        asked.insert((port, ip), neighbour);
                    }
                }
            }
        }
        // What the configuration names is not asked for; where both say something, the tables count.
        let known: HashSet<(PortIdx, IpAddr)> =
            tables.known_hosts.iter().map(|&(port, address, _)| (port, key_address(address))).collect();
        found.extend(
            asked.into_iter().filter(|(key, _)| !known.contains(key)).map(|(_, neighbour)| neighbour),
        );
        found.sort_by(|a, b| (&a.router, &a.interface, a.address).cmp(&(&b.router, &b.interface, b.address)));
        Ok(found)
    }
}

fn neighbour(
    tables: &Tables,
    port: PortIdx,
    address: IpAddr,
    mac: Option<crate::types::Mac>,
    state: &str,
) -> Option<Neighbour> {
    let entry = tables.port(port)?;
    let interface = entry.interface()?;
    Some(Neighbour {
        router: tables.router(interface.router)?.name.to_string(),
        network: tables.network(interface.network)?.name.to_string(),
        interface: entry.name.to_string(),
        address,
        mac,
        state: state.to_owned(),
    })
}

/// The ports and interfaces of a router.
fn legs(tables: &Tables, router: RouterIdx) -> impl Iterator<Item = (&PortEntry, &Interface)> {
    let legs = tables.ports.iter().flatten().filter_map(|port| Some((port, port.interface()?)));
    legs.filter(move |(_, interface)| interface.router == router)
}

impl State {
    fn router(&self, router: &model::Router, tables: &Tables) -> Router {
        let index = self.places.routers.get(&router.name).map(RouterIdx);
        let interfaces: Vec<(&PortEntry, &Interface)> =
            index.into_iter().flat_map(|index| legs(tables, index)).collect();
        let home = interfaces.iter().find(|(_, interface)| interface.is_gateway).or(interfaces.first());
        let fixed_ips_of = |interface: &Interface| {
            let fixed = router.interfaces.iter().find(|leg| leg.mac_address == interface.mac);
            let gateway = || router.external_gateway.as_ref().map(|gateway| &gateway.fixed_ips);
            fixed.map(|leg| &leg.fixed_ips).or_else(gateway).map_or_else(Vec::new, |ips| fixed_ips(ips))
        };
        Router {
            id: router.id,
            name: router.name.clone(),
            status: if router.admin_state_up { Status::Active } else { Status::Down },
            admin_state_up: router.admin_state_up,
            external_gateway_info: router.external_gateway.as_ref().map(|gateway| GatewayInfo {
                network_id: model::id("network", &gateway.network),
                network: gateway.network.clone(),
                enable_snat: gateway.enable_snat,
                external_fixed_ips: fixed_ips(&gateway.fixed_ips),
            }),
            routes: router.routes.iter().map(extra_route).collect(),
            worker: home.map(|(port, _)| port.worker.index()),
            interfaces: interfaces
                .iter()
                .map(|(port, interface)| RouterInterface {
                    name: port.name.to_string(),
                    network: tables
                        .network(interface.network)
                        .map_or_else(String::new, |n| n.name.to_string()),
                    mac_address: interface.mac,
                    fixed_ips: fixed_ips_of(interface),
                    is_gateway: interface.is_gateway,
                    mtu: interface.mtu,
                    counters: port.counters.snapshot(),
                })
                .collect(),
            connections: 0,
            bindings: 0,
            exhausted: 0,
        }
    }
}

fn extra_route(route: &model::Route) -> ExtraRoute {
    ExtraRoute { destination: route.destination.to_string(), nexthop: route.nexthop }
}

fn fixed_ips(ips: &[model::FixedIp]) -> Vec<FixedIp> {
    let view = |fixed: &model::FixedIp| FixedIp {
        subnet_id: model::id("subnet", &fixed.subnet),
        subnet: fixed.subnet.clone(),
        ip_address: fixed.ip,
    };
    ips.iter().map(view).collect()
}

/// Names and counters of all interfaces, in the order of their routers' slots.
pub(super) fn interfaces(tables: &Tables) -> Vec<(String, PortSnapshot)> {
    let mut found: Vec<(RouterIdx, String, PortSnapshot)> = tables
        .ports
        .iter()
        .flatten()
        .filter_map(|port| Some((port.interface()?.router, port.name.to_string(), port.counters.snapshot())))
        .collect();
    found.sort_by_key(|(router, ..)| *router);
    found.into_iter().map(|(_, name, counters)| (name, counters)).collect()
}

pub(super) fn subnets(model: &Model) -> Vec<Subnet> {
    let view = |subnet: &model::Subnet| Subnet {
        id: subnet.id,
        name: subnet.name.clone(),
        network_id: model::id("network", &subnet.network),
        network: subnet.network.clone(),
        ip_version: if subnet.cidr.addr().is_ipv4() { 4 } else { 6 },
        cidr: subnet.cidr.to_string(),
        gateway_ip: subnet.gateway_ip,
        allocation_pools: subnet
            .allocation_pools
            .iter()
            .map(|&(start, end)| AllocationPool { start, end })
            .collect(),
        enable_dhcp: subnet.enable_dhcp,
        dns_nameservers: subnet.dns_nameservers.clone(),
        ntp_servers: subnet.ntp_servers.clone(),
        host_routes: subnet.host_routes.iter().map(extra_route).collect(),
        ipv6_ra_mode: subnet.ipv6_ra_mode.map(ipv6_mode),
        ipv6_address_mode: subnet.ipv6_address_mode.map(ipv6_mode),
    };
    model.subnets.iter().map(view).collect()
}

/// As Neutron spells it, and the configuration.
fn ipv6_mode(mode: model::Ipv6Mode) -> String {
    match mode {
        model::Ipv6Mode::Slaac => "slaac",
        model::Ipv6Mode::Dhcpv6Stateful => "dhcpv6-stateful",
        model::Ipv6Mode::Dhcpv6Stateless => "dhcpv6-stateless",
    }
    .to_owned()
}

/// `8080`, or `6000:6009` as Neutron writes ranges.
fn range((first, last): (u16, u16)) -> String {
    if first == last { first.to_string() } else { format!("{first}:{last}") }
}

fn forwarding(floating: &model::FloatingIp, of: &model::PortForwarding) -> PortForwarding {
    let name = format!("{}/{}/{}", floating.id, of.protocol, of.external_ports.0);
    let one = |(first, last): (u16, u16)| (first == last).then_some(first);
    let whole = |(first, last): (u16, u16)| format!("{first}:{last}");
    PortForwarding {
        id: model::id("port_forwarding", &name),
        protocol: protocol_name(of.protocol),
        external_port: one(of.external_ports),
        external_port_range: whole(of.external_ports),
        internal_port_id: model::id("port", &of.internal_port),
        internal_ip_address: of.internal_ip_address,
        internal_port: one(of.internal_ports),
        internal_port_range: whole(of.internal_ports),
    }
}

pub(super) fn floating_ips(model: &Model) -> Vec<FloatingIp> {
    let view = |floating: &model::FloatingIp| {
        let router = model.routers.iter().find(|router| Some(&router.name) == floating.router.as_ref());
        let leads = floating.target.is_some() || !floating.port_forwardings.is_empty();
        let is_active = leads && router.is_some_and(|router| router.admin_state_up);
        FloatingIp {
            id: floating.id,
            floating_ip_address: floating.floating_ip_address,
            floating_network_id: model::id("network", &floating.floating_network),
            floating_network: floating.floating_network.clone(),
            router_id: router.map(|router| router.id),
            router: floating.router.clone(),
            port_id: floating.target.as_ref().map(|target| model::id("port", &target.port)),
            port: floating.target.as_ref().map(|target| target.port.clone()),
            fixed_ip_address: floating.target.as_ref().map(|target| target.fixed_ip_address),
            status: if is_active { Status::Active } else { Status::Down },
            port_forwardings: floating.port_forwardings.iter().map(|of| forwarding(floating, of)).collect(),
        }
    };
    model.floating_ips.iter().map(view).collect()
}

/// What floating IPs stand for, a line for each range of ports.
pub(super) fn mappings(model: &Model) -> Vec<Mapping> {
    let mut found = Vec::new();
    for floating in &model.floating_ips {
        let Some(router) = &floating.router else { continue };
        let line = |port: &str, fixed_ip_address| Mapping {
            router: router.clone(),
            floating_ip_address: floating.floating_ip_address,
            protocol: None,
            external_ports: None,
            port: port.to_owned(),
            fixed_ip_address,
            internal_ports: None,
        };
        found.extend(floating.target.iter().map(|target| line(&target.port, target.fixed_ip_address)));
        found.extend(floating.port_forwardings.iter().map(|of| Mapping {
            protocol: Some(protocol_name(of.protocol)),
            external_ports: Some(range(of.external_ports)),
            internal_ports: Some(range(of.internal_ports)),
            ..line(&of.internal_port, of.internal_ip_address)
        }));
    }
    found
}

/// The FIBs, longest prefixes first within a router, IPv4 before IPv6.
pub(super) fn routes(tables: &Tables) -> Vec<Route> {
    let mut found = Vec::new();
    for router in tables.routers.iter().flatten() {
        let mut routes: Vec<&RouteEntry> = router.routes.iter().collect();
        routes.sort_by_key(|route| route.prefix);
        found.extend(routes.into_iter().map(|entry| route(tables, &router.name, entry)));
    }
    found
}

fn route(tables: &Tables, router: &str, entry: &RouteEntry) -> Route {
    let name = |port: PortIdx| tables.port(port).map_or_else(String::new, |port| port.name.to_string());
    let hop = |hop: &fib::Hop| NextHop { address: key_address(hop.address), interface: name(hop.interface) };
    let (kind, interface, nexthops) = match &entry.route {
        fib::Route::Local => (RouteKind::Local, None, Vec::new()),
        fib::Route::Translated => (RouteKind::Translated, None, Vec::new()),
        fib::Route::Broadcast => (RouteKind::Broadcast, None, Vec::new()),
        fib::Route::Connected(port) => (RouteKind::Connected, Some(name(*port)), Vec::new()),
        fib::Route::Via(hops) => {
            let hops: Vec<NextHop> = hops.iter().map(hop).collect();
            let first = hops.first().map(|hop| hop.interface.clone());
            let same = hops.iter().all(|hop| Some(&hop.interface) == first.as_ref());
            (RouteKind::Via, first.filter(|_| same), hops)
        }
    };
    let (origin, subnet) = match &entry.origin {
        RouteOrigin::Subnet(subnet) => ("subnet", Some(subnet.to_string())),
        RouteOrigin::Gateway => ("gateway", None),
        RouteOrigin::Extra => ("extra", None),
        RouteOrigin::FloatingIp => ("floating_ip", None),
        RouteOrigin::Service => ("service", None),
    };
    let (router, origin) = (router.to_owned(), origin.to_owned());
    let destination = entry.prefix.to_string();
    view::Route { router, destination, kind, interface, nexthops, origin, subnet }
}
