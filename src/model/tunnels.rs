//! What only the whole file can show about tunnels: VNIs, the other ends of each network, MTUs, and that no station is
//! at two places.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::ops::Range;

use toml::Spanned;

use super::diagnostic::{Report, Reported};
use super::l3::L3;
use super::overlay::{DraftOverlay, DraftTunnels};
use super::read::{DraftNetwork, MTU_MAX, NetworkType};
use super::schema::*;
use super::validate::{OBJECTS_MAX, key, overlapping_ranges};
use crate::types::{Mac, Vni};

/// `[overlay]` of a file, if it has one.
pub(super) type OverlayDraft = Result<Option<DraftOverlay>, Reported>;

/// Bytes that a tunnel takes from the underlay's MTU: inner Ethernet, VXLAN, UDP and IP (RFC 7348, section 5).
fn overhead(local_ip: IpAddr) -> u16 {
    14 + 8 + 8 + if local_ip.is_ipv4() { 20 } else { 40 }
}

/// The overlay by itself.
pub(super) fn overlay(report: &Report<'_>, overlay: &DraftOverlay) {
    overlapping_ranges(report, &overlay.ranges.items, "overlay.vni_ranges");
    let underlay = Underlay { report, overlay: Some(overlay) };
    if let Ok(Some(gateway)) = &overlay.gateway_ip {
        underlay.gateway(gateway);
    }
    underlay.peers(&overlay.peers.items, "overlay.peers");
    if let Ok(Some(group)) = &overlay.multicast_group {
        underlay.group(group, "overlay.multicast_group");
    }
}

/// The segments of VXLAN networks, into their places. A network with a mistake stays without.
pub(super) fn segments(
    report: &Report<'_>,
    networks: &[DraftNetwork],
    overlay: &OverlayDraft,
    segments: &mut [Option<Segment>],
) {
    let vnis = vnis(report, networks, overlay);
    let overlay = overlay.as_ref();
    for ((network, vni), segment) in networks.iter().zip(vnis).zip(segments) {
        if !matches!(network.network_type, Ok(NetworkType::Vxlan)) {
            continue;
        }
        if let Ok(None) = overlay {
            let hint = "write [overlay] with the `interface` and the `local_ip` that tunnels leave from";
            let path = key(network, "network_type");
            report.add(network.type_at.clone(), &path, "a vxlan network needs [overlay]", Some(hint.into()));
        }
        let overlay = overlay.ok().and_then(Option::as_ref);
        let tunnels = Underlay { report, overlay }.tunnels(network);
        *segment = vni.map(|vni| Segment::Vxlan(vni, tunnels));
    }
}

/// Given VNIs come first, then those left out get the lowest free ones, in the order of the file.
fn vnis(report: &Report<'_>, networks: &[DraftNetwork], overlay: &OverlayDraft) -> Vec<Option<Vni>> {
    let is_vxlan = |network: &DraftNetwork| matches!(network.network_type, Ok(NetworkType::Vxlan));
    let mut taken: HashMap<Vni, usize> = HashMap::new();
    let mut vnis = vec![None; networks.len()];
    for (index, network) in networks.iter().enumerate().filter(|(_, network)| is_vxlan(network)) {
        let Ok(Some(id)) = &network.segmentation_id else { continue };
        vnis[index] = Vni::new(*id.get_ref());
        let Some(vni) = vnis[index] else { continue };
        let first = *taken.entry(vni).or_insert(index);
        if first != index {
            let first = &networks[first].object;
            let message =
                format!("VNI {vni} is taken, by network `{}` of line {}", first.name, first.origin.line);
            report.add(id.span(), &key(network, "segmentation_id"), message, None);
        }
    }
    let Ok(Some(overlay)) = overlay else { return vnis };
    if overlay.ranges.whole.is_err() {
        return vnis;
    }
    let mut ranges: Vec<(Vni, Vni)> = overlay.ranges.items.iter().map(|range| *range.get_ref()).collect();
    ranges.sort_unstable();
    let no_ranges = ranges.is_empty();
    let all = ranges.into_iter().flat_map(|(from, to)| from.get()..=to.get()).filter_map(Vni::new);
    let mut free = all.filter(|vni| !taken.contains_key(vni));
    for (index, network) in networks.iter().enumerate().filter(|(_, network)| is_vxlan(network)) {
        if !matches!(network.segmentation_id, Ok(None)) {
            continue;
        }
        vnis[index] = free.next();
        if vnis[index].is_none() {
            no_vni_left(report, network, no_ranges);
        }
    }
    vnis
}

fn no_vni_left(report: &Report<'_>, network: &DraftNetwork, no_ranges: bool) {
    let message = if no_ranges {
        "is missing, and the overlay has no vni_ranges to take one from"
    } else {
        "is missing, and the overlay's vni_ranges are used up"
    };
    let hint = Some("give segmentation_id = 0 to 16777215, or the overlay more vni_ranges".to_owned());
    report.add(network.at.device.clone(), &key(network, "segmentation_id"), message, hint);
}

/// The MTU of each VXLAN network is what the underlay leaves, unless it says less. More would be a black hole: the outer
/// packets must not be fragmented (RFC 7348, section 4.3).
pub(super) fn mtus(report: &Report<'_>, networks: &mut [DraftNetwork], overlay: &OverlayDraft) {
    let Ok(Some(overlay)) = overlay else { return };
    let (underlay, overhead) = (overlay.object.mtu, overhead(overlay.object.local_ip));
    let room = underlay - overhead;
    for network in networks.iter_mut().filter(|n| matches!(n.network_type, Ok(NetworkType::Vxlan))) {
        let given = match &network.mtu {
            Ok(None) => {
                network.object.mtu = room;
                continue;
            }
            Ok(Some(given)) if overlay.mtu.is_ok() && overlay.local_ip.is_ok() => given,
            _ => continue,
        };
        let mtu = *given.get_ref();
        if mtu > room {
            let message =
                format!("{mtu} is more than the {room} bytes that the overlay's mtu of {underlay} leaves");
            let wanted = u32::from(mtu) + u32::from(overhead);
            let hint = if wanted <= MTU_MAX {
                format!("make it at most {room}, or the overlay's mtu at least {wanted}")
            } else {
                format!(
                    "make it at most {room}; an overlay's mtu of {MTU_MAX} leaves {}",
                    MTU_MAX - u32::from(overhead)
                )
            };
            report.add(given.span(), &key(network, "mtu"), message, Some(hint));
        }
    }
}

/// The IP network that tunnels cross, as far as it is known.
struct Underlay<'d, 'r> {
    report: &'r Report<'r>,
    overlay: Option<&'d DraftOverlay>,
}

impl Underlay<'_, '_> {
    /// The overlay, when its address is right.
    fn local(&self) -> Option<&Overlay> {
        self.overlay.filter(|draft| draft.local_ip.is_ok()).map(|draft| &draft.object)
    }

    fn gateway(&self, gateway: &Spanned<IpAddr>) {
        let Some(local) = self.local() else { return };
        let ip = *gateway.get_ref();
        let path = "overlay.gateway_ip";
        if self.stranger(gateway, path) {
            return;
        }
        if !in_subnet(local, ip) {
            let message = format!("{ip} is outside of the subnet of {}/{}", local.local_ip, local.prefix_len);
            let hint = "it must be reached without a gateway: look at the prefix length of local_ip";
            self.report.add(gateway.span(), path, message, Some(hint.to_owned()));
        }
    }

    /// Reports an address that cannot be another host's of this underlay.
    fn stranger(&self, ip: &Spanned<IpAddr>, path: &str) -> bool {
        let Some(local) = self.local() else { return false };
        let (span, ip) = (ip.span(), *ip.get_ref());
        let (message, hint) = if ip.is_ipv4() != local.local_ip.is_ipv4() {
            let family = |ip: IpAddr| if ip.is_ipv4() { "IPv4" } else { "IPv6" };
            let message = format!("{ip} is {}, local_ip is {}", family(ip), family(local.local_ip));
            (message, "an overlay has one family")
        } else if ip == local.local_ip {
            (format!("{ip} is the overlay's own local_ip"), "another host's address stands here")
        } else if is_edge(local, ip) {
            (format!("{ip} is the first or last address of its subnet"), "no host can have it")
        } else {
            return false;
        };
        self.report.add(span, path, message, Some(hint.to_owned()));
        true
    }

    /// Judges a peer: it must be another host, and reached.
    fn peer(&self, peer: &Spanned<IpAddr>, path: &str) {
        if self.stranger(peer, path) {
            return;
        }
        let Some(local) = self.local() else { return };
        let ip = *peer.get_ref();
        let no_gateway = self.overlay.is_some_and(|draft| matches!(draft.gateway_ip, Ok(None)));
        if no_gateway && !in_subnet(local, ip) {
            let subnet = format!("{}/{}", local.local_ip, local.prefix_len);
            let message = format!("{ip} is outside of the subnet of {subnet}, and there is no gateway to it");
            let hint =
                "give the overlay a gateway_ip, or local_ip the prefix length of its subnet".to_owned();
            self.report.add(peer.span(), path, message, Some(hint));
        }
    }

    fn peers(&self, peers: &[Spanned<IpAddr>], path: &str) {
        let mut seen = HashSet::new();
        for peer in peers {
            if seen.insert(*peer.get_ref()) {
                self.peer(peer, path);
            } else {
                self.report.add(peer.span(), path, format!("{} is listed twice", peer.get_ref()), None);
            }
        }
    }

    fn group(&self, group: &Spanned<IpAddr>, path: &str) {
        let Some(local) = self.local() else { return };
        if group.get_ref().is_ipv4() != local.local_ip.is_ipv4() {
            let message = format!("{} is not of the family of local_ip", group.get_ref());
            let hint =
                if local.local_ip.is_ipv4() { "take one of 239.0.0.0/8" } else { "take one of ff05::/16" };
            self.report.add(group.span(), path, message, Some(hint.to_owned()));
        }
    }

    /// The other ends of a VXLAN network.
    fn tunnels(&self, network: &DraftNetwork) -> Tunnels {
        let own = &network.tunnels;
        if let Some(peers) = &own.peers {
            self.peers(&peers.items, &key(network, "peers"));
        }
        if let Ok(Some(group)) = &own.multicast_group {
            self.group(group, &key(network, "multicast_group"));
            if own.l2population {
                let hint = "leave one of them out: with l2population nothing is flooded";
                let message = "`multicast_group` and `l2population` exclude each other";
                self.report.add(
                    group.span(),
                    &key(network, "multicast_group"),
                    message,
                    Some(hint.to_owned()),
                );
            }
        }
        self.remote_ports(network);
        let tunnels = self.effective(own);
        self.reach(network, &tunnels);
        tunnels
    }

    fn remote_ports(&self, network: &DraftNetwork) {
        let path = |part: &str| format!("{}.remote_ports.{part}", network.at.path);
        let mut macs: HashMap<Mac, usize> = HashMap::new();
        let mut ips: HashMap<IpAddr, usize> = HashMap::new();
        let twice = |span: Range<usize>, what: String, first: usize, part: &str| {
            let message = format!("{what} is listed twice, first in line {first}");
            self.report.add(span, &path(part), message, None);
        };
        for port in &network.tunnels.remote_ports {
            if let Ok(mac) = &port.mac_address {
                let line = self.report.line(mac.span().start);
                if let Some(first) = macs.insert(*mac.get_ref(), line) {
                    twice(mac.span(), mac.get_ref().to_string(), first, "mac_address");
                }
            }
            for ip in &port.fixed_ips {
                let line = self.report.line(ip.span().start);
                if let Some(first) = ips.insert(*ip.get_ref(), line) {
                    twice(ip.span(), ip.get_ref().to_string(), first, "fixed_ips");
                }
            }
            if let Ok(vtep) = &port.vtep {
                self.peer(vtep, &path("vtep"));
            }
        }
    }

    /// What a network and the overlay say together.
    fn effective(&self, own: &DraftTunnels) -> Tunnels {
        let overlay = self.overlay;
        let peers = own.peers.as_ref().or(overlay.map(|overlay| &overlay.peers));
        let peers = peers.into_iter().flat_map(|peers| &peers.items).map(|peer| *peer.get_ref());
        let remote_ports: Vec<RemotePort> = own
            .remote_ports
            .iter()
            .filter_map(|port| {
                Some(RemotePort {
                    mac_address: *port.mac_address.as_ref().ok()?.get_ref(),
                    fixed_ips: port.fixed_ips.iter().map(|ip| *ip.get_ref()).collect(),
                    vtep: *port.vtep.as_ref().ok()?.get_ref(),
                })
            })
            .collect();
        let peers: BTreeSet<IpAddr> = peers.chain(remote_ports.iter().map(|port| port.vtep)).collect();
        let of_overlay = || overlay?.multicast_group.as_ref().ok()?.as_ref();
        let group = own.multicast_group.as_ref().ok().and_then(Option::as_ref).or_else(of_overlay);
        Tunnels {
            peers: peers.into_iter().collect(),
            // Nothing is flooded then, so the overlay's group is of no use.
            multicast_group: group.map(|group| *group.get_ref()).filter(|_| !own.l2population),
            remote_ports,
            l2population: own.l2population,
        }
    }

    /// A network in tunnels must have somewhere to go. Silent where a mistake hides it.
    fn reach(&self, network: &DraftNetwork, tunnels: &Tunnels) {
        let own = &network.tunnels;
        let Some(overlay) = self.overlay else { return };
        let certain = own.whole.is_ok()
            && own.peers.as_ref().unwrap_or(&overlay.peers).whole.is_ok()
            && own.multicast_group.is_ok()
            && overlay.multicast_group.is_ok();
        let (at, path) = (network.at.name.clone(), &network.at.path);
        if !certain || overlay.object.learn_peers && !own.l2population {
            return;
        }
        if own.l2population && tunnels.remote_ports.is_empty() {
            let hint = "list the `remote_ports`, or leave `l2population` out";
            let message = "reaches no other host: with l2population remote_ports are all there is";
            self.report.add(at, path, message, Some(hint.to_owned()));
        } else if tunnels.peers.is_empty() && tunnels.multicast_group.is_none() {
            let hint =
                "give it or the overlay `peers` or a `multicast_group`, or the overlay learn_peers = true";
            self.report.add(at, path, "reaches no other host", Some(hint.to_owned()));
        }
    }
}

/// True when `ip` is reached without a gateway.
fn in_subnet(local: &Overlay, ip: IpAddr) -> bool {
    match (local.local_ip, ip) {
        (IpAddr::V4(local_ip), IpAddr::V4(ip)) => {
            (local_ip.to_bits() ^ ip.to_bits()).checked_shr(32 - u32::from(local.prefix_len)) == Some(0)
        }
        (IpAddr::V6(local_ip), IpAddr::V6(ip)) => {
            (local_ip.to_bits() ^ ip.to_bits()).checked_shr(128 - u32::from(local.prefix_len)) == Some(0)
        }
        _ => false,
    }
}

/// True for the address of the subnet itself and its broadcast address, which no host has. With 31 bits both are hosts
/// (RFC 3021).
fn is_edge(local: &Overlay, ip: IpAddr) -> bool {
    let IpAddr::V4(v4) = ip else { return false };
    let last = u32::MAX.checked_shr(u32::from(local.prefix_len)).unwrap_or(0);
    let host = v4.to_bits() & last;
    local.prefix_len < 31 && in_subnet(local, ip) && (host == 0 || host == last)
}

/// Each peer and each group takes a place in the same tables as ports do.
pub(super) fn limit(report: &Report<'_>, overlay: &OverlayDraft, networks: &[DraftNetwork]) {
    let Ok(Some(overlay)) = overlay else { return };
    let of_overlay = overlay.peers.items.iter().chain(overlay.multicast_group.iter().flatten());
    let of_overlay = of_overlay.map(|ip| (ip, "overlay"));
    let of_networks = networks.iter().flat_map(|network| {
        let own = &network.tunnels;
        let peers = own.peers.iter().flat_map(|peers| &peers.items);
        let vteps = own.remote_ports.iter().filter_map(|port| port.vtep.as_ref().ok());
        let all = peers.chain(own.multicast_group.iter().flatten()).chain(vteps);
        all.map(|ip| (ip, network.at.path.as_str()))
    });
    let mut seen = HashSet::new();
    for (ip, path) in of_overlay.chain(of_networks) {
        if seen.insert(*ip.get_ref()) && seen.len() > OBJECTS_MAX {
            let message = format!("an overlay has at most {OBJECTS_MAX} peers and groups");
            report.add(ip.span(), path, message, None);
            return;
        }
    }
}

/// A station is on one host: no remote port has a MAC or an address of a port or a router of ours. Generated MACs are
/// known by now.
pub(super) fn stations(report: &Report<'_>, networks: &[DraftNetwork], ports: &[Port], l3: &L3) {
    let own = own_stations(ports, l3);
    for network in networks.iter().filter(|network| !network.tunnels.remote_ports.is_empty()) {
        let mut macs: HashMap<Mac, &str> = HashMap::new();
        let mut ips: HashMap<IpAddr, &str> = HashMap::new();
        for station in own.get(network.object.name.as_str()).into_iter().flatten() {
            macs.extend(station.macs.iter().map(|mac| (*mac, station.words.as_str())));
            ips.extend(station.ips.iter().map(|ip| (*ip, station.words.as_str())));
        }
        let ours = |span: Range<usize>, what: String, part: &str, whose: &str| {
            let message = format!("{what} is that of {whose}");
            let hint = Some("list ports of other hosts only".to_owned());
            report.add(span, &format!("{}.remote_ports.{part}", network.at.path), message, hint);
        };
        for remote in &network.tunnels.remote_ports {
            if let Ok(mac) = &remote.mac_address
                && let Some(whose) = macs.get(mac.get_ref())
            {
                ours(mac.span(), mac.get_ref().to_string(), "mac_address", whose);
            }
            for ip in &remote.fixed_ips {
                if let Some(whose) = ips.get(ip.get_ref()) {
                    ours(ip.span(), ip.get_ref().to_string(), "fixed_ips", whose);
                }
            }
        }
    }
}

/// Something of ours on a network.
struct Station {
    /// What it is, for messages.
    words: String,
    macs: Vec<Mac>,
    ips: Vec<IpAddr>,
}

/// All stations of ours, by the name of their network.
fn own_stations<'m>(ports: &'m [Port], l3: &'m L3) -> HashMap<&'m str, Vec<Station>> {
    let mut own: HashMap<&str, Vec<Station>> = HashMap::new();
    let mut add = |network: &'m str, words: String, macs: Vec<Mac>, ips: Vec<IpAddr>| {
        own.entry(network).or_default().push(Station { words, macs, ips });
    };
    let addresses =
        |fixed_ips: &[FixedIp]| -> Vec<IpAddr> { fixed_ips.iter().map(|fixed| fixed.ip).collect() };
    for port in ports {
        // Trunks carry no tunnelled network.
        let Attachment::Access(network) = &port.attachment else { continue };
        let mut ips = addresses(&port.fixed_ips);
        if let Interface::Tap { address, .. } = &port.interface {
            ips.extend(address.iter().map(|(ip, _)| *ip));
        }
        let macs = port.mac_address.iter().chain(&port.static_macs).copied().collect();
        add(network, format!("port `{}` of line {}", port.name, port.origin.line), macs, ips);
    }
    for router in &l3.routers {
        let words = || format!("router `{}` of line {}", router.name, router.origin.line);
        if let Some(gateway) = &router.external_gateway {
            add(&gateway.network, words(), vec![gateway.mac_address], addresses(&gateway.fixed_ips));
        }
        for interface in &router.interfaces {
            add(&interface.network, words(), vec![interface.mac_address], addresses(&interface.fixed_ips));
        }
    }
    for floating in &l3.floating_ips {
        let words = format!("the floating IP of line {}", floating.origin.line);
        add(&floating.floating_network, words, Vec::new(), vec![floating.floating_ip_address.into()]);
    }
    own
}
