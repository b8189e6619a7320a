//! Compiles routers: a port for each interface, a FIB for each router, and who answers for which address.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::{Device, Places, put, service};
use crate::frame::Caps;
use crate::model::{
    Attachment, AttachmentKey, ExternalGateway, FixedIp, MetadataMode, Model, Network, Router,
    RouterInterface, Segment,
};
use crate::services::SERVICE_V4;
use crate::stats::PortCounters;
use crate::tables::exact::Exact;
use crate::tables::fib::{Fib, Hop, Route};
use crate::tables::nat::{Forward, Nat};
use crate::tables::router::{Interface, RouteEntry, RouteOrigin, RouterEntry};
use crate::tables::tunnel::address_key;
use crate::tables::{Host, PortEntry, Segments, Tables};
use crate::types::{Mac, NetIdx, PortIdx, RouterIdx, WorkerIdx};
use crate::wire::ethernet::HEADER;

/// An interface or a gateway, as far as they are alike.
struct Leg<'m> {
    port: PortIdx,
    network: (NetIdx, &'m Network),
    mac: Mac,
    fixed_ips: &'m [FixedIp],
    is_gateway: bool,
}

pub(super) fn compile(
    tables: &mut Tables,
    model: &Model,
    devices: &HashMap<AttachmentKey, Device>,
    networks: &[(NetIdx, &Network)],
    places: &mut Places,
) {
    let mut interfaces = HashMap::new();
    for router in &model.routers {
        let index = RouterIdx(places.routers.assign(&router.name));
        let legs = legs(router, networks, places);
        let hops = next_hops(router, &legs);
        let routes = routes(router, &legs, model, &hops);
        let entry = RouterEntry {
            name: router.name.as_str().into(),
            up: router.admin_state_up,
            fib: Fib::new(routes.iter().map(|entry| (entry.prefix, entry.route.clone()))),
            nat: nat(router, &legs, model, places),
            mss_clamping: router.mss_clamping,
            routes,
        };
        for leg in &legs {
            let key = (router.name.clone(), leg.mac);
            let counters = places.interfaces.remove(&key).unwrap_or_default();
            add_interface(tables, model, (index, router), leg, &hops, devices, counters.clone());
            interfaces.insert(key, counters);
        }
        put(&mut tables.routers, index.index(), entry);
    }
    tables.note_advertising();
    places.interfaces = interfaces;
    known_hosts(tables, model, networks);
}

fn legs<'m>(router: &'m Router, networks: &[(NetIdx, &'m Network)], places: &mut Places) -> Vec<Leg<'m>> {
    let gateway = router.external_gateway.as_ref().map(
        |ExternalGateway { network, mac_address, fixed_ips, .. }| (network, *mac_address, fixed_ips, true),
    );
    let interfaces = router
        .interfaces
        .iter()
        .map(|RouterInterface { network, mac_address, fixed_ips }| (network, *mac_address, fixed_ips, false));
    interfaces
        .chain(gateway)
        .filter_map(|(name, mac, fixed_ips, is_gateway)| {
            let network = networks.iter().find(|(_, network)| network.name == *name).copied()?;
            let port = PortIdx(places.ports.assign(&AttachmentKey::Interface(router.name.clone(), mac)));
            Some(Leg { port, network, mac, fixed_ips, is_gateway })
        })
        .collect()
}

impl Leg<'_> {
    fn nets(&self) -> impl Iterator<Item = IpNet> {
        self.on_subnets().map(|(net, _)| net)
    }

    /// Its addresses, each with its subnet's prefix length and name.
    fn on_subnets(&self) -> impl Iterator<Item = (IpNet, &str)> {
        let net = |fixed: &FixedIp| IpNet::new(fixed.ip, fixed.prefix_len).ok();
        self.fixed_ips.iter().filter_map(move |fixed| Some((net(fixed)?, fixed.subnet.as_str())))
    }
}

fn nat(router: &Router, legs: &[Leg<'_>], model: &Model, places: &Places) -> Nat {
    let Some(gateway) = &router.external_gateway else { return Nat::default() };
    let floating =
        || model.floating_ips.iter().filter(|floating| floating.router.as_ref() == Some(&router.name));
    let pairs: Vec<(u32, u32)> = floating()
        .filter_map(|floating| {
            let target = floating.target.as_ref()?;
            Some((floating.floating_ip_address.to_bits(), target.fixed_ip_address.to_bits()))
        })
        .collect();
    let forwards = floating().filter(|floating| !floating.port_forwardings.is_empty()).map(|floating| {
        let forwards = floating.port_forwardings.iter().map(|forwarding| Forward {
            protocol: forwarding.protocol,
            outside: forwarding.external_ports,
            address: forwarding.internal_ip_address.to_bits(),
            inside: forwarding.internal_ports.0,
        });
        (floating.floating_ip_address.to_bits(), forwards.collect())
    });
    let v4 = |fixed: &FixedIp| match fixed.ip {
        IpAddr::V4(ip) => Some(ip.to_bits()),
        IpAddr::V6(_) => None,
    };
    let guests: Vec<(u32, PortIdx)> = (model.ports.iter())
        .filter(|port| {
            legs.iter().any(|leg| port.attachment == Attachment::Access(leg.network.1.name.clone()))
        })
        .filter_map(|port| Some((port, PortIdx(places.ports.get(&AttachmentKey::Port(port.name.clone()))?))))
        .flat_map(|(port, index)| port.fixed_ips.iter().filter_map(v4).map(move |ip| (ip, index)))
        .collect();
    Nat {
        gateway: legs.iter().find(|leg| leg.is_gateway).map(|leg| leg.port),
        addresses: gateway.fixed_ips.iter().filter(|_| gateway.enable_snat).filter_map(v4).collect(),
        filtering: router.nat_filtering,
        inside: Exact::new(pairs.iter().copied()),
        outside: Exact::new(pairs.iter().map(|(outside, inside)| (*inside, *outside))),
        forwards: forwards.collect(),
        guests: Exact::new(guests.into_iter()),
    }
}

/// Next hops by destination, those of one destination together, and what they come from.
type Hops = Vec<(IpNet, Vec<Hop>, RouteOrigin)>;

fn next_hops(router: &Router, legs: &[Leg<'_>]) -> Hops {
    let defaults =
        router.external_gateway.iter().flat_map(|gateway| &gateway.gateway_ips).filter_map(|address| {
            let whole = if address.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
            Some((whole.parse::<IpNet>().ok()?, *address, RouteOrigin::Gateway))
        });
    let extra =
        router.routes.iter().map(|route| (route.destination.trunc(), route.nexthop, RouteOrigin::Extra));
    let mut found = Hops::new();
    // An extra route counts before the default one of the same prefix.
    for (destination, nexthop, origin) in extra.chain(defaults) {
        let on_link = |leg: &&Leg<'_>| leg.nets().any(|net| net.contains(&nexthop));
        let Some(leg) = legs.iter().find(on_link) else { continue };
        let hop = Hop { interface: leg.port, address: address_key(nexthop) };
        match found.iter_mut().find(|(known, ..)| *known == destination) {
            Some((_, hops, _)) if !hops.contains(&hop) => hops.push(hop),
            Some(_) => {}
            None => found.push((destination, vec![hop], origin)),
        }
    }
    found
}

/// All routes; of two with the same prefix the earlier one counts, and the other one is left out.
fn routes(router: &Router, legs: &[Leg<'_>], model: &Model, hops: &Hops) -> Vec<RouteEntry> {
    let mut routes = Vec::new();
    let mut seen = HashSet::new();
    let mut add = |prefix: IpNet, route, origin| {
        if seen.insert(prefix) {
            routes.push(RouteEntry { prefix, route, origin });
        }
    };
    let of = |leg: &Leg<'_>, subnet: &str| match leg.is_gateway {
        true => RouteOrigin::Gateway,
        false => RouteOrigin::Subnet(subnet.into()),
    };
    for leg in legs {
        for (net, subnet) in leg.on_subnets() {
            let is_translated = leg.is_gateway
                && net.addr().is_ipv4()
                && router.external_gateway.as_ref().is_some_and(|gateway| gateway.enable_snat);
            let own = if is_translated { Route::Translated } else { Route::Local };
            add(IpNet::from(net.addr()), own, of(leg, subnet));
        }
    }
    let floating =
        model.floating_ips.iter().filter(|floating| floating.router.as_ref() == Some(&router.name));
    for floating in floating {
        let prefix = IpNet::from(IpAddr::V4(floating.floating_ip_address));
        add(prefix, Route::Translated, RouteOrigin::FloatingIp);
    }
    let is_metadata = |leg: &Leg<'_>| leg.network.1.metadata != MetadataMode::Off && !leg.is_gateway;
    if legs.iter().any(is_metadata) {
        add(IpNet::from(IpAddr::V4(SERVICE_V4)), Route::Local, RouteOrigin::Service);
    }
    for leg in legs {
        for (net, subnet) in leg.on_subnets() {
            let origin = RouteOrigin::Subnet(subnet.into());
            if let IpNet::V4(v4) = net
                && v4.prefix_len() < 31
            {
                for all in [v4.network(), v4.broadcast()] {
                    add(IpNet::from(IpAddr::V4(all)), Route::Broadcast, origin.clone());
                }
            }
            add(net.trunc(), Route::Connected(leg.port), origin);
        }
    }
    for (destination, hops, origin) in hops {
        add(*destination, Route::Via(hops.clone()), origin.clone());
    }
    routes
}

#[allow(clippy::too_many_arguments)]
fn add_interface(
    tables: &mut Tables,
    model: &Model,
    (index, router): (RouterIdx, &Router),
    leg: &Leg<'_>,
    hops: &Hops,
    devices: &HashMap<AttachmentKey, Device>,
    counters: Arc<PortCounters>,
) {
    let (network_index, network) = leg.network;
    let further = model.floating_ips.iter().filter(|floating| {
        leg.is_gateway
            && floating.router.as_ref() == Some(&router.name)
            && floating.floating_network == network.name
    });
    let mut next_hops: Vec<IpAddr> = hops
        .iter()
        .flat_map(|(_, hops, _)| hops)
        .filter(|hop| hop.interface == leg.port)
        .map(|hop| crate::tables::tunnel::key_address(hop.address))
        .collect();
    next_hops.sort();
    next_hops.dedup();
    let interface = Interface {
        router: index,
        network: network_index,
        mac: leg.mac,
        is_gateway: leg.is_gateway,
        addresses: leg.nets().collect(),
        mtu: network.mtu,
        next_hops,
        further: further.map(|floating| floating.floating_ip_address.into()).collect(),
        ra: service::advertisement(leg.fixed_ips, network, model).filter(|_| !leg.is_gateway),
    };
    tables.static_macs.push((network_index, leg.mac, leg.port));
    if let Some(Some(entry)) = tables.networks.get_mut(network_index.index()) {
        entry.admit(leg.port);
        let known = interface.all_addresses().chain([IpAddr::V6(interface.link_local())]);
        let known = known.filter(|_| router.admin_state_up);
        entry.hosts.extend(known.map(|address| (address, Host { mac: leg.mac, is_here: true })));
    }
    let entry = PortEntry {
        // A router has a subnet once only, so this is the interface's alone.
        name: format!("{}/{}", router.name, leg.fixed_ips.first().map_or("", |fixed| &fixed.subnet)).into(),
        worker: home(router, network, model, devices),
        up: router.admin_state_up,
        segments: Segments::Router(Box::new(interface)),
        caps: Caps { checksum: true, tso: true, uso: true, mtu: network.mtu },
        plain_len: usize::from(network.mtu) + HEADER,
        mac_limit: 0,
        guest: None,
        guard: None,
        counters,
    };
    put(&mut tables.ports, leg.port.index(), entry);
}

/// The worker that does an interface's chores: the one that the way to the world is with, which does the translation for the
/// whole router; or that of the network's way out of the host, if there is one.
fn home(
    router: &Router,
    network: &Network,
    model: &Model,
    devices: &HashMap<AttachmentKey, Device>,
) -> WorkerIdx {
    let gateway = router.external_gateway.as_ref().map(|gateway| &gateway.network);
    let outside = model.networks.iter().find(|network| Some(&network.name) == gateway);
    let network = outside.unwrap_or(network);
    let key = match &network.segment {
        Segment::Local => None,
        Segment::Flat(physical) | Segment::Vlan(physical, _) => {
            Some(AttachmentKey::Physical(physical.clone()))
        }
        Segment::Vxlan(..) => Some(AttachmentKey::Overlay),
    };
    key.and_then(|key| devices.get(&key)).map_or(WorkerIdx(0), |device| device.worker)
}

/// Whom routers need not ask for: ports of ours, ports on other hosts that the configuration names, and other routers.
fn known_hosts(tables: &mut Tables, model: &Model, networks: &[(NetIdx, &Network)]) {
    let interfaces: Vec<(PortIdx, NetIdx, Mac)> = (0..)
        .zip(&tables.ports)
        .filter_map(|(slot, port)| match &port.as_ref()?.segments {
            Segments::Router(interface) => Some((PortIdx(slot), interface.network, interface.mac)),
            _ => None,
        })
        .collect();
    for &(index, network) in networks {
        let ports =
            model.ports.iter().filter(|port| port.attachment == Attachment::Access(network.name.clone()));
        let ports =
            ports.filter_map(|port| Some((port.mac_address?, port.fixed_ips.iter().map(|fixed| fixed.ip))));
        let mut known: Vec<(IpAddr, Mac)> =
            ports.flat_map(|(mac, ips)| ips.map(move |ip| (ip, mac))).collect();
        if let Some(Some(entry)) = tables.networks.get(index.index()) {
            known.extend(entry.hosts.iter().map(|(address, host)| (*address, host.mac)));
        }
        for (port, _, mac) in interfaces.iter().filter(|(_, on, _)| *on == index) {
            let others = known.iter().filter(|(_, other)| other != mac);
            let entries = others.map(|(address, mac)| (*port, address_key(*address), *mac));
            tables.known_hosts.extend(entries);
        }
    }
}
