//! Routers: their interfaces, gateways and extra routes.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::ops::Range;

use ipnet::IpNet;
use toml::Spanned;

use super::address::{Asking, Owner, Space, Wanted, fixed_ip};
use super::read::{DraftGateway, DraftRouter};
use super::subnet::{no_host, overlap, unroutable};
use crate::model::diagnostic::Reported;
use crate::model::macs::generated_mac;
use crate::model::schema::*;
use crate::model::validate::{Names, OBJECTS_MAX, refer};
use crate::types::Mac;

/// MACs that were given, by network, and the object that has each in words.
pub(in crate::model) type GivenMacs = HashMap<(usize, Mac), String>;

/// A router with its given addresses claimed.
pub(super) struct Claimed<'d> {
    draft: &'d DraftRouter,
    gateway: Option<ClaimedGateway<'d>>,
    interfaces: Vec<ClaimedInterface>,
}

struct ClaimedGateway<'d> {
    draft: &'d DraftGateway,
    asking: Asking<'d>,
    wanted: Wanted,
}

/// One subnet of a router.
struct ClaimedInterface {
    at: Range<usize>,
    subnet: usize,
    network: usize,
    fixed_ip: FixedIp,
    mac: Option<Spanned<Mac>>,
}

/// A subnet that a router is on.
struct Connected {
    net: IpNet,
    ip: IpAddr,
    subnet: String,
}

/// Claims what routers have by the configuration.
pub(super) fn reserve<'d>(
    space: &mut Space<'d, '_>,
    routers: &'d [DraftRouter],
    network_names: &Names<'_>,
) -> Vec<Claimed<'d>> {
    limit(space, routers);
    let mut all = Vec::new();
    for draft in routers {
        let owner = Owner { kind: "router", name: &draft.object.name, line: draft.object.origin.line };
        let gateway = match &draft.gateway {
            Ok(Some(gateway)) => claim_gateway(space, draft, gateway, owner, network_names).ok(),
            _ => None,
        };
        let interfaces = claim_interfaces(space, draft, owner);
        all.push(Claimed { draft, gateway, interfaces });
    }
    all
}

/// An interface takes a place in the same tables as ports do.
fn limit(space: &Space<'_, '_>, routers: &[DraftRouter]) {
    let count =
        |router: &DraftRouter| router.interfaces.len() + usize::from(matches!(router.gateway, Ok(Some(_))));
    let mut sum = 0;
    for router in routers {
        let before = sum;
        sum += count(router);
        if before <= OBJECTS_MAX && sum > OBJECTS_MAX {
            let message = format!("a switch has at most {OBJECTS_MAX} router interfaces");
            space.report.add(router.at.name.clone(), &router.at.path, message, None);
        }
        if let Some(route) = router.routes.get(OBJECTS_MAX)
            && let Ok(destination) = &route.destination
        {
            let message = format!("a router has at most {OBJECTS_MAX} routes");
            space.report.add(destination.span(), &format!("{}.routes", router.at.path), message, None);
        }
    }
}

fn claim_gateway<'d>(
    space: &mut Space<'d, '_>,
    draft: &DraftRouter,
    gateway: &'d DraftGateway,
    owner: Owner<'d>,
    network_names: &Names<'_>,
) -> Result<ClaimedGateway<'d>, Reported> {
    let path = format!("{}.external_gateway", draft.at.path);
    let name = gateway.network.as_ref().map_err(|reported| *reported)?;
    let network_path = format!("{path}.network");
    let network = refer(space.report, network_names, "network", name, &network_path)?;
    if !space.networks[network].object.external {
        let message = format!("network `{}` is not external", name.get_ref());
        let hint = Some("give the network `external = true`".to_owned());
        return Err(space.report.add(name.span(), &network_path, message, hint));
    }
    if space.subnets.of(network).next().is_none() {
        space.subnets.whole?;
        let message = format!("network `{}` has no subnet, so there is no address for it", name.get_ref());
        let hint = Some("write [[subnet]] with its `network` and `cidr`".to_owned());
        return Err(space.report.add(name.span(), &network_path, message, hint));
    }
    let path = format!("{path}.external_fixed_ips");
    let asking = Asking { owner, network, at: gateway.at.clone(), path };
    if let Some(listed) = &gateway.fixed_ips
        && listed.items.is_empty()
    {
        listed.whole?;
        let hint = Some("leave it out for the next free ones".to_owned());
        return Err(space.report.add(listed.at.clone(), &asking.path, "a gateway needs an address", hint));
    }
    let wanted = space.reserve(&asking, gateway.fixed_ips.as_ref());
    Ok(ClaimedGateway { draft: gateway, asking, wanted })
}

fn claim_interfaces<'d>(
    space: &mut Space<'d, '_>,
    draft: &'d DraftRouter,
    owner: Owner<'d>,
) -> Vec<ClaimedInterface> {
    let path = format!("{}.interfaces", draft.at.path);
    let mut seen = HashSet::new();
    let mut interfaces = Vec::new();
    for interface in &draft.interfaces {
        let Ok(name) = &interface.subnet else { continue };
        let Ok(subnet) = space.subnets.refer(space.report, name, &path) else { continue };
        let Some(known) = space.subnets.get(subnet) else { continue };
        if !seen.insert(subnet) {
            let message = format!("subnet `{}` is listed twice", name.get_ref());
            space.report.add(name.span(), &path, message, None);
            continue;
        }
        let fixed_ip = match (&interface.ip, known.object.gateway_ip) {
            (Ok(Some(ip)), _) => space.claim_on(owner, subnet, ip, &format!("{path}.ip")),
            (Ok(None), Some(gateway)) => space
                .claim(
                    owner,
                    known.network,
                    gateway,
                    name.span(),
                    &path,
                    Some("give it another address by `ip`"),
                )
                .map(|()| fixed_ip(&known.object, gateway)),
            (Ok(None), None) => {
                let message =
                    format!("subnet `{}` has no gateway_ip that would be the router's", name.get_ref());
                let hint = format!("write {{ subnet = \"{}\", ip = \"…\" }}", name.get_ref());
                Err(space.report.add(name.span(), &path, message, Some(hint)))
            }
            (Err(reported), _) => Err(*reported),
        };
        if let (Ok(fixed_ip), Ok(mac)) = (fixed_ip, &interface.mac_address) {
            let (network, mac) = (known.network, mac.clone());
            interfaces.push(ClaimedInterface { at: name.span(), subnet, network, fixed_ip, mac });
        }
    }
    interfaces
}

/// MACs of routers that were given: each once on a network.
pub(super) fn macs(space: &Space<'_, '_>, routers: &[Claimed<'_>], given: &mut GivenMacs) {
    for router in routers {
        let owner =
            format!("router `{}` of line {}", router.draft.object.name, router.draft.object.origin.line);
        let mut own: HashMap<(usize, Mac), bool> = HashMap::new();
        let gateway = router.gateway.iter().filter_map(|gateway| {
            let mac = gateway.draft.mac_address.as_ref().ok()?.as_ref()?;
            Some((gateway.asking.network, mac, "external_gateway", false))
        });
        let interfaces = router.interfaces.iter().filter_map(|interface| {
            Some((interface.network, interface.mac.as_ref()?, "interfaces", interface.fixed_ip.ip.is_ipv6()))
        });
        for (network, mac, key, is_ipv6) in gateway.chain(interfaces) {
            // IPv6 subnets of a network share an interface, and may all say its MAC.
            if own.insert((network, *mac.get_ref()), is_ipv6) == Some(true) && is_ipv6 {
                continue;
            }
            if let Some(other) = given.get(&(network, *mac.get_ref())) {
                let name = space.network(network);
                let message = format!("{} is already in network `{name}`, at {other}", mac.get_ref());
                let path = format!("{}.{key}.mac_address", router.draft.at.path);
                space.report.add(mac.span(), &path, message, None);
            } else {
                given.insert((network, *mac.get_ref()), owner.clone());
            }
        }
    }
}

/// Routers with their gateways' addresses filled in, and MACs of zeroes where none was given. False: a mistake hides
/// some of what they are on.
pub(super) fn finish<'d>(space: &mut Space<'d, '_>, routers: Vec<Claimed<'d>>) -> (Vec<Router>, bool) {
    let mut finished = Vec::new();
    let mut all_whole = true;
    for router in routers {
        let draft = router.draft;
        let interfaces_whole = draft.whole.is_ok() && router.interfaces.len() == draft.interfaces.len();
        let wants_gateway = !matches!(draft.gateway, Ok(None));
        let mut connected = Vec::new();
        let mut gateway =
            router.gateway.and_then(|gateway| finish_gateway(space, draft, gateway, &mut connected));
        for interface in &router.interfaces {
            connect(space, draft, interface, &mut connected);
        }
        let whole = interfaces_whole && (gateway.is_some() || !wants_gateway);
        all_whole &= whole;
        let routes = routes(space, draft, &connected, whole);
        if let Some(gateway) = &mut gateway {
            gateway.gateway_ips.retain(|ip| !routes.iter().any(|route| is_default(route, *ip)));
        }
        let interfaces = grouped(space, draft, router.interfaces);
        finished.push(Router { external_gateway: gateway, interfaces, routes, ..draft.object.clone() });
    }
    (finished, all_whole)
}

/// True for a route to all of the family of `ip`.
fn is_default(route: &Route, ip: IpAddr) -> bool {
    route.destination.prefix_len() == 0 && route.nexthop.is_ipv4() == ip.is_ipv4()
}

fn finish_gateway<'d>(
    space: &mut Space<'d, '_>,
    draft: &DraftRouter,
    gateway: ClaimedGateway<'d>,
    connected: &mut Vec<Connected>,
) -> Option<ExternalGateway> {
    let fixed_ips = space.hand_out(&gateway.asking, gateway.wanted, None).ok()?;
    let mut gateway_ips: Vec<IpAddr> = Vec::new();
    for fixed in &fixed_ips {
        let subnet = &space.subnets.named(&fixed.subnet)?.object;
        connected.push(Connected { net: subnet.cidr, ip: fixed.ip, subnet: subnet.name.clone() });
        let Some(ip) = subnet.gateway_ip else { continue };
        if ip == fixed.ip {
            let message =
                format!("{ip} is the gateway_ip of subnet `{}`, which the router sends to", subnet.name);
            let hint = "take another one, or say gateway_ip = false there: the world ends at this router";
            let path = format!("{}.external_gateway.external_fixed_ips", draft.at.path);
            let listed = gateway.draft.fixed_ips.as_ref().map_or(gateway.asking.at.clone(), |l| l.at.clone());
            space.report.add(listed, &path, message, Some(hint.to_owned()));
        } else if !gateway_ips.iter().any(|other| other.is_ipv4() == ip.is_ipv4()) {
            gateway_ips.push(ip);
        }
    }
    Some(ExternalGateway {
        network: space.network(gateway.asking.network).to_owned(),
        enable_snat: gateway.draft.enable_snat,
        mac_address: given_mac(&gateway.draft.mac_address),
        fixed_ips,
        gateway_ips,
    })
}

fn given_mac(mac: &Result<Option<Spanned<Mac>>, Reported>) -> Mac {
    mac.iter().flatten().next().map_or(Mac::default(), |mac| *mac.get_ref())
}

/// Adds an interface's subnet to those that the router is on, which must not overlap: a destination has one of them.
fn connect(
    space: &Space<'_, '_>,
    draft: &DraftRouter,
    interface: &ClaimedInterface,
    connected: &mut Vec<Connected>,
) {
    let Some(known) = space.subnets.get(interface.subnet) else { return };
    let net = known.object.cidr;
    if let Some(other) = connected.iter().find(|other| overlap(other.net, net)) {
        let path = format!("{}.interfaces", draft.at.path);
        let (message, hint) = if other.subnet == known.object.name {
            let message = format!("subnet `{}` is that of the router's external_gateway", other.subnet);
            (message, "leave it out: the gateway is on it")
        } else {
            let message =
                format!("{net} overlaps with {} of subnet `{}`, of the same router", other.net, other.subnet);
            (message, "a destination must be on one subnet only: use another router")
        };
        space.report.add(interface.at.clone(), &path, message, Some(hint.to_owned()));
    }
    connected.push(Connected { net, ip: interface.fixed_ip.ip, subnet: known.object.name.clone() });
}

/// The extra routes that are right. `whole`: `connected` is all that the router is on.
fn routes(space: &Space<'_, '_>, draft: &DraftRouter, connected: &[Connected], whole: bool) -> Vec<Route> {
    let path = |key: &str| format!("{}.routes.{key}", draft.at.path);
    let mut seen = HashSet::new();
    let mut routes = Vec::new();
    for route in &draft.routes {
        let (Ok(destination), Ok(nexthop)) = (&route.destination, &route.nexthop) else { continue };
        let route = Route { destination: *destination.get_ref(), nexthop: *nexthop.get_ref() };
        let (at, key, message, hint) = if let Some(what) = unroutable(route.destination) {
            (
                destination,
                "destination",
                format!("{} ({what}) is for no router to forward", route.destination),
                None,
            )
        } else if let Some(own) = connected.iter().find(|own| own.net == route.destination) {
            let message = format!("{} is subnet `{}`, which the router is on", route.destination, own.subnet);
            (destination, "destination", message, None)
        } else if !seen.insert(route.clone()) {
            (
                destination,
                "destination",
                format!("{} via {} is listed twice", route.destination, route.nexthop),
                None,
            )
        } else if let Some((message, hint)) = wrong_nexthop(&route, connected, whole) {
            space.report.add(nexthop.span(), &path("nexthop"), message, hint);
            continue;
        } else {
            routes.push(route);
            continue;
        };
        space.report.add(at.span(), &path(key), message, hint);
    }
    routes
}

/// Why a router cannot send to a next hop, and what to do.
fn wrong_nexthop(route: &Route, connected: &[Connected], whole: bool) -> Option<(String, Option<String>)> {
    let (net, ip) = (route.destination, route.nexthop);
    if net.addr().is_ipv4() != ip.is_ipv4() {
        return Some((format!("{ip} and {net} are of different families"), None));
    }
    let Some(own) = connected.iter().find(|own| own.net.contains(&ip)) else {
        let nets: Vec<String> = connected.iter().map(|own| own.net.to_string()).collect();
        let hint = match nets.len() {
            0 => "it is on none: give it `interfaces` or an `external_gateway`".to_owned(),
            1..=5 => format!("it is on {}", nets.join(", ")),
            count => format!("it is on {count} others"),
        };
        return whole.then(|| (format!("{ip} is on no subnet of the router"), Some(hint)));
    };
    if connected.iter().any(|own| own.ip == ip) {
        return Some((
            format!("{ip} is the router's own address"),
            Some("another router's address stands here".into()),
        ));
    }
    no_host(&own.subnet, own.net, ip).map(|message| (message, None))
}

/// Interfaces as Neutron makes them: one for each IPv4 subnet, one for all IPv6 subnets of a network.
fn grouped(
    space: &Space<'_, '_>,
    draft: &DraftRouter,
    interfaces: Vec<ClaimedInterface>,
) -> Vec<RouterInterface> {
    let mut grouped: Vec<RouterInterface> = Vec::new();
    for interface in interfaces {
        let network = space.network(interface.network);
        let mac = interface.mac.as_ref().map_or(Mac::default(), |mac| *mac.get_ref());
        let is_ipv6 = interface.fixed_ip.ip.is_ipv6();
        let shares = |other: &&mut RouterInterface| {
            other.network == network && is_ipv6 && other.fixed_ips.iter().all(|fixed| fixed.ip.is_ipv6())
        };
        let Some(shared) = grouped.iter_mut().find(shares) else {
            let fixed_ips = vec![interface.fixed_ip];
            grouped.push(RouterInterface { network: network.to_owned(), mac_address: mac, fixed_ips });
            continue;
        };
        if shared.mac_address == Mac::default() {
            shared.mac_address = mac;
        } else if let Some(mac) = interface.mac.filter(|mac| *mac.get_ref() != shared.mac_address) {
            let message = format!(
                "the IPv6 subnets of network `{network}` share an interface, which has {} already",
                shared.mac_address
            );
            let path = format!("{}.interfaces.mac_address", draft.at.path);
            space.report.add(mac.span(), &path, message, None);
        }
        shared.fixed_ips.push(interface.fixed_ip);
    }
    grouped
}

/// Fills in the MACs that were not given; stable for the names of router and subnet, or network for IPv6.
pub(super) fn generate_macs(routers: &mut [Router], taken: &mut BTreeSet<Mac>) {
    for router in routers {
        let name = &router.name;
        if let Some(gateway) = &mut router.external_gateway
            && gateway.mac_address == Mac::default()
        {
            gateway.mac_address = generated_mac(&format!("router/{name}/gateway"), taken);
        }
        for interface in router.interfaces.iter_mut().filter(|i| i.mac_address == Mac::default()) {
            let seed = match interface.fixed_ips.first() {
                Some(fixed) if fixed.ip.is_ipv4() => format!("router/{name}/subnet/{}", fixed.subnet),
                _ => format!("router/{name}/ipv6/{}", interface.network),
            };
            interface.mac_address = generated_mac(&seed, taken);
        }
    }
}
