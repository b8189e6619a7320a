//! What only the whole file can show: unique names, references, segments, devices, MACs. Turns a [`Draft`] into a
//! [`Model`], handing out VLAN IDs and MACs that were left out.
//!
//! Nothing here reads the system: whether a CPU, a device or a user exists is found out when it is used.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::path::Path;

use toml::Spanned;

use super::boot;
use super::diagnostic::{Report, Reported, nearest};
use super::l3::{self, GivenMacs, L3};
use super::overlay::DraftOverlay;
use super::read::{Draft, DraftAttachment, DraftNetwork, DraftPhysical, DraftPort, NetworkType, Place};
use super::schema::*;
use super::security::{self, PortSecurity};
use super::tunnels::{self, OverlayDraft};
use crate::types::{Mac, VlanId};

/// The most ports and the most networks of one switch. Their tables are indexed by 16 bits; this leaves room for
/// indices that must not be used again at once.
pub const OBJECTS_MAX: usize = 4096;
/// The smallest MTU that IPv6 works with (RFC 8200, section 5).
const IPV6_MTU_MIN: u16 = 1280;

/// Names of one kind, each with its place in the file's order.
pub(super) type Names<'d> = HashMap<&'d str, usize>;

/// Checks the whole. The model is of use only if the report stays empty.
pub(super) fn validate(draft: Draft, report: &Report<'_>) -> Model {
    let Draft { switch, mut physical_networks, overlay, mut networks, ports, l3, boot, security } = draft;
    boot::modes(report, &mut networks, &boot);
    tunnels::mtus(report, &mut networks, &overlay);
    let physical_names = unique(
        report,
        physical_networks.iter().map(|p| (p.object.name.as_str(), &p.at, p.object.origin.line)),
    );
    let network_names =
        unique(report, networks.iter().map(|n| (n.object.name.as_str(), &n.at, n.object.origin.line)));
    let port_names = unique(report, ports.iter().map(|p| (p.name.as_str(), &p.at, p.origin.line)));
    limit(report, "networks", networks.iter().map(|n| &n.at));
    limit(report, "ports", ports.iter().map(|p| &p.at));
    tunnels::limit(report, &overlay, &networks);
    devices(report, &physical_networks, &overlay, &ports);
    pcap_files(report, &ports);
    for physical in &physical_networks {
        overlapping_ranges(report, &physical.ranges.items, &format!("{}.vlan_ranges", physical.at.path));
    }
    if let Ok(Some(overlay)) = &overlay {
        tunnels::overlay(report, overlay);
    }

    let mut segments = segments(report, &networks, &physical_networks, &physical_names);
    tunnels::segments(report, &networks, &overlay, &mut segments);
    let scene = Scene { report, networks: &networks, segments: &segments, network_names, physical_names };
    let attachments: Vec<_> = ports.iter().map(|port| scene.attachment(port)).collect();
    let macs = scene.macs(&ports, &attachments);
    scene.ipv6_mtu(&ports, &attachments);
    let ground = l3::Scene {
        report,
        networks: &networks,
        network_names: &scene.network_names,
        ports: &ports,
        port_names: &port_names,
        attachments: &attachments,
        macs,
    };
    let mut l3 = l3::validate(l3, ground);

    boot::dynamic_leases(report, &networks, &switch, &l3.subnets, l3.subnets_whole);
    let ground = security::Scene {
        report,
        networks: &networks,
        network_names: &scene.network_names,
        ports: &ports,
        attachments: &attachments,
        macs: &l3.macs,
        subnets: &l3.subnets,
        subnets_whole: l3.subnets_whole,
    };
    let security = security::validate(security, &ground);
    let ports = finished_ports(ports, attachments, security.ports, &mut l3);
    tunnels::stations(report, &networks, &ports, &l3);
    for (network, segment) in networks.iter_mut().zip(segments) {
        network.object.segment = segment.unwrap_or(Segment::Local);
    }
    for physical in &mut physical_networks {
        physical.object.vlan_ranges = physical.ranges.items.iter().map(|range| *range.get_ref()).collect();
    }
    Model {
        switch,
        overlay: overlay.ok().flatten().map(finished_overlay),
        physical_networks: physical_networks.into_iter().map(|physical| physical.object).collect(),
        networks: networks.into_iter().map(|network| network.object).collect(),
        ports,
        subnets: l3.subnets,
        routers: l3.routers,
        floating_ips: l3.floating_ips,
        security_groups: security.groups,
        address_groups: security.address_groups,
        conntrack: l3.conntrack,
        dhcp: boot.dhcp,
        metadata: boot.metadata,
    }
}

fn finished_overlay(draft: DraftOverlay) -> Overlay {
    let vni_ranges = draft.ranges.items.iter().map(|range| *range.get_ref()).collect();
    Overlay { vni_ranges, ..draft.object }
}

/// Each name once per kind.
pub(super) fn unique<'d>(
    report: &Report<'_>,
    objects: impl Iterator<Item = (&'d str, &'d Place, usize)>,
) -> Names<'d> {
    let mut names = HashMap::new();
    let mut lines = HashMap::new();
    for (index, (name, at, line)) in objects.enumerate().filter(|(_, (name, ..))| !name.is_empty()) {
        if let Some(first) = lines.get(name) {
            let message = format!("this name is taken, by line {first}");
            report.add(at.name.clone(), &format!("{}.name", at.path), message, None);
        } else {
            lines.insert(name, line);
            names.insert(name, index);
        }
    }
    names
}

pub(super) fn limit<'d>(report: &Report<'_>, kind: &str, mut objects: impl Iterator<Item = &'d Place>) {
    if let Some(at) = objects.nth(OBJECTS_MAX) {
        report.add(at.name.clone(), &at.path, format!("a switch has at most {OBJECTS_MAX} {kind}"), None);
    }
}

/// One attachment for each device of a namespace.
fn devices(
    report: &Report<'_>,
    physical_networks: &[DraftPhysical],
    overlay: &OverlayDraft,
    ports: &[DraftPort],
) {
    let physical =
        physical_networks.iter().filter_map(|p| Some((&p.at, "interface", p.object.interface.as_ref()?)));
    let ports = ports.iter().filter_map(|p| Some((&p.at, "interface.name", p.interface.as_ref().ok()?)));
    let mut users: HashMap<(Option<&str>, &str), &Place> = HashMap::new();
    let overlay = overlay.iter().flatten().map(|o| (&o.at, "interface", &o.object.interface));
    for (at, key, interface) in physical.chain(overlay).chain(ports) {
        let Some(device) = interface.device().filter(|(_, name)| !name.is_empty()) else { continue };
        match users.get(&device) {
            None => {
                users.insert(device, at);
            }
            Some(user) => {
                let inside = device.0.map(|netns| format!(" in namespace `{netns}`")).unwrap_or_default();
                let line = report.line(user.device.start);
                let message = format!("device `{}`{inside} is already used, by line {line}", device.1);
                report.add(at.device.clone(), &format!("{}.{key}", at.path), message, None);
            }
        }
    }
}

/// A file that is written belongs to one port.
fn pcap_files(report: &Report<'_>, ports: &[DraftPort]) {
    let mut files: HashMap<&Path, (bool, usize)> = HashMap::new();
    for (index, port) in ports.iter().enumerate() {
        let Ok(Interface::Pcap { read, write }) = &port.interface else { continue };
        for (path, writes) in [(read, false), (write, true)] {
            let Some(path) = path.as_deref() else { continue };
            let (written, user) = *files.entry(path).or_insert((writes, index));
            if user != index && (written || writes) {
                let line = ports[user].origin.line;
                let message = format!("`{}` is already used by the port of line {line}", path.display());
                let key = if writes { "write" } else { "read" };
                report.add(
                    port.at.device.clone(),
                    &format!("{}.interface.{key}", port.at.path),
                    message,
                    None,
                );
            }
        }
    }
}

/// No ID in two ranges of a list.
pub(super) fn overlapping_ranges<T: Copy + Ord + std::fmt::Display>(
    report: &Report<'_>,
    ranges: &[Spanned<(T, T)>],
    path: &str,
) {
    for (index, range) in ranges.iter().enumerate() {
        let (from, to) = *range.get_ref();
        let overlaps = |other: &Spanned<(T, T)>| other.get_ref().0 <= to && from <= other.get_ref().1;
        if let Some(other) = ranges[..index].iter().find(|other| overlaps(other)) {
            let (other_from, other_to) = other.get_ref();
            let message = format!("{from}:{to} overlaps with {other_from}:{other_to}");
            report.add(range.span(), path, message, None);
        }
    }
}

/// The object that `name` means.
pub(super) fn refer(
    report: &Report<'_>,
    names: &Names<'_>,
    kind: &str,
    name: &Spanned<String>,
    path: &str,
) -> Result<usize, Reported> {
    let word = name.get_ref().as_str();
    names.get(word).copied().ok_or_else(|| {
        let mut known: Vec<&str> = names.keys().copied().collect();
        known.sort_unstable();
        let hint = match nearest(word, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if known.is_empty() => format!("the file has no {kind}"),
            None if known.len() > 5 => format!("the file has {} others", known.len()),
            None => format!("the file has `{}`", known.join("`, `")),
        };
        report.add(name.span(), path, format!("there is no {kind} `{word}`"), Some(hint))
    })
}

/// What is taken on each physical network.
#[derive(Default)]
struct Taken {
    flat: Option<usize>,
    vlans: HashMap<VlanId, usize>,
}

/// The segment of each network; none where a mistake hides it, and in tunnels. Given VLAN IDs come first, then those left out
/// get the lowest free ones, in the order of the file.
fn segments(
    report: &Report<'_>,
    networks: &[DraftNetwork],
    physical_networks: &[DraftPhysical],
    physical_names: &Names<'_>,
) -> Vec<Option<Segment>> {
    let homes: Vec<Option<usize>> = networks.iter().map(|n| home(report, n, physical_names)).collect();
    let mut taken: HashMap<usize, Taken> = HashMap::new();
    let mut segments = vec![None; networks.len()];
    for (index, network) in networks.iter().enumerate() {
        let line = |other: usize| networks[other].object.origin.line;
        let name = homes[index].map(|home| physical_networks[home].object.name.clone());
        let taken = homes[index].map(|home| taken.entry(home).or_default());
        segments[index] = match (network.network_type, name, taken) {
            (Ok(NetworkType::Local), ..) => Some(Segment::Local),
            (Ok(NetworkType::Flat), Some(name), Some(taken)) => {
                let first = *taken.flat.get_or_insert(index);
                if first != index {
                    let message =
                        format!("`{name}` already carries the flat network of line {}", line(first));
                    let hint = Some("what is untagged can belong to one network only".to_owned());
                    report.add(reference(network), &key(network, "physical_network"), message, hint);
                }
                Some(Segment::Flat(name))
            }
            (Ok(NetworkType::Vlan), Some(name), Some(taken)) => match &network.segmentation_id {
                Ok(Some(given)) => vlan_id(given).map(|id| {
                    let first = *taken.vlans.entry(id).or_insert(index);
                    if first != index {
                        let message = format!("VLAN {id} of `{name}` is taken, by line {}", line(first));
                        report.add(given.span(), &key(network, "segmentation_id"), message, None);
                    }
                    Segment::Vlan(name, id)
                }),
                _ => None,
            },
            _ => None,
        };
    }
    for (index, network) in networks.iter().enumerate() {
        let (Ok(NetworkType::Vlan), Ok(None), Some(home)) =
            (network.network_type, &network.segmentation_id, homes[index])
        else {
            continue;
        };
        let physical = &physical_networks[home];
        if physical.ranges.whole.is_err() {
            continue;
        }
        let ranges = &physical.ranges.items;
        let vlans = &mut taken.entry(home).or_default().vlans;
        segments[index] = lowest_free(ranges, vlans).map(|id| {
            vlans.insert(id, index);
            Segment::Vlan(physical.object.name.clone(), id)
        });
        if segments[index].is_none() {
            no_vlan_left(report, network, physical, ranges.is_empty());
        }
    }
    segments
}

fn no_vlan_left(report: &Report<'_>, network: &DraftNetwork, physical: &DraftPhysical, no_ranges: bool) {
    let name = &physical.object.name;
    let message = if no_ranges {
        format!("is missing, and `{name}` has no vlan_ranges to take one from")
    } else {
        format!("is missing, and the vlan_ranges of `{name}` are used up")
    };
    let hint = Some("give segmentation_id = 1 to 4094, or more vlan_ranges".to_owned());
    report.add(network.at.device.clone(), &key(network, "segmentation_id"), message, hint);
}

fn lowest_free(ranges: &[Spanned<(VlanId, VlanId)>], taken: &HashMap<VlanId, usize>) -> Option<VlanId> {
    let ids = |range: &Spanned<(VlanId, VlanId)>| range.get_ref().0.get()..=range.get_ref().1.get();
    let free = |id: &VlanId| !taken.contains_key(id);
    ranges.iter().filter_map(|range| ids(range).filter_map(VlanId::new).find(free)).min()
}

fn vlan_id(given: &Spanned<u32>) -> Option<VlanId> {
    u16::try_from(*given.get_ref()).ok().and_then(VlanId::new)
}

/// The physical network of a network that has one.
fn home(report: &Report<'_>, network: &DraftNetwork, names: &Names<'_>) -> Option<usize> {
    let (Ok(NetworkType::Flat | NetworkType::Vlan) | Err(Reported), Ok(Some(name))) =
        (network.network_type, &network.physical_network)
    else {
        return None;
    };
    refer(report, names, "physical_network", name, &key(network, "physical_network")).ok()
}

pub(super) fn key(network: &DraftNetwork, key: &str) -> String {
    format!("{}.{key}", network.at.path)
}

fn reference(network: &DraftNetwork) -> std::ops::Range<usize> {
    network.physical_network.iter().flatten().next().map_or(network.at.name.clone(), Spanned::span)
}

/// Networks with their segments, for what ports are checked against.
struct Scene<'d, 'r> {
    report: &'r Report<'r>,
    networks: &'d [DraftNetwork],
    segments: &'d [Option<Segment>],
    network_names: Names<'d>,
    physical_names: Names<'d>,
}

impl Scene<'_, '_> {
    fn attachment(&self, port: &DraftPort) -> Result<Attachment, Reported> {
        let path = &port.at.path;
        match port.attachment.as_ref().map_err(|reported| *reported)? {
            DraftAttachment::Access(network) => {
                refer(self.report, &self.network_names, "network", network, &format!("{path}.network"))?;
                Ok(Attachment::Access(network.get_ref().clone()))
            }
            DraftAttachment::Trunk { physical_network, native, allowed } => {
                let trunk_path = format!("{path}.trunk.physical_network");
                let physical = refer(
                    self.report,
                    &self.physical_names,
                    "physical_network",
                    physical_network,
                    &trunk_path,
                );
                if let Some(native) = native {
                    self.native(native, physical.is_ok().then(|| physical_network.get_ref()), path)?;
                }
                physical?;
                Ok(Attachment::Trunk {
                    physical_network: physical_network.get_ref().clone(),
                    native: native.as_ref().map(|native| native.get_ref().clone()),
                    allowed: allowed.clone(),
                })
            }
        }
    }

    /// A native network must be one of the trunk's physical network.
    fn native(
        &self,
        native: &Spanned<String>,
        physical: Option<&String>,
        path: &str,
    ) -> Result<(), Reported> {
        let path = format!("{path}.trunk.native");
        let index = refer(self.report, &self.network_names, "network", native, &path)?;
        let (Some(physical), Some(segment)) = (physical, &self.segments[index]) else { return Ok(()) };
        if segment.physical_network() == Some(physical) {
            return Ok(());
        }
        let message = format!("network `{}` is not on physical network `{physical}`", native.get_ref());
        let hint = match segment {
            Segment::Flat(other) | Segment::Vlan(other, _) => format!("it is on `{other}`"),
            Segment::Local => "a local network cannot be part of a trunk".to_owned(),
            Segment::Vxlan(..) => "a vxlan network cannot be part of a trunk".to_owned(),
        };
        Err(self.report.add(native.span(), &path, message, Some(hint)))
    }

    /// The networks that a port reaches, by index.
    fn reach(&self, attachment: &Attachment) -> Vec<usize> {
        match attachment {
            Attachment::Access(network) => {
                self.network_names.get(network.as_str()).copied().into_iter().collect()
            }
            Attachment::Trunk { physical_network, native, allowed } => {
                let passes = |(index, segment): (usize, &Option<Segment>)| {
                    let name = self.networks[index].object.name.as_str();
                    let segment = segment.as_ref()?;
                    segment
                        .in_trunk(name, physical_network, native.as_deref(), allowed.as_ref())
                        .then_some(index)
                };
                self.segments.iter().enumerate().filter_map(passes).collect()
            }
        }
    }

    /// One MAC at one place of a network. Returns those that were given.
    fn macs(&self, ports: &[DraftPort], attachments: &[Result<Attachment, Reported>]) -> GivenMacs {
        let mut seen: HashMap<(usize, Mac), usize> = HashMap::new();
        for (index, (port, attachment)) in ports.iter().zip(attachments).enumerate() {
            let reach = attachment.as_ref().map(|attachment| self.reach(attachment)).unwrap_or_default();
            let mut own = HashSet::new();
            let given = port.mac_address.iter().flatten().map(|mac| (mac, "mac_address"));
            for (mac, key) in given.chain(port.static_macs.iter().map(|mac| (mac, "static_macs"))) {
                let path = format!("{}.{key}", port.at.path);
                if !own.insert(*mac.get_ref()) {
                    self.report.add(mac.span(), &path, format!("{} is listed twice", mac.get_ref()), None);
                    continue;
                }
                let mut claim = |network: usize| *seen.entry((network, *mac.get_ref())).or_insert(index);
                let owners: Vec<(usize, usize)> =
                    reach.iter().map(|network| (*network, claim(*network))).collect();
                if let Some((network, other)) = owners.into_iter().find(|(_, owner)| *owner != index) {
                    let (network, line) = (&self.networks[network].object.name, ports[other].origin.line);
                    let message = format!(
                        "{} is already in network `{network}`, at the port of line {line}",
                        mac.get_ref()
                    );
                    self.report.add(mac.span(), &path, message, None);
                }
            }
        }
        let words = |port: usize| format!("the port of line {}", ports[port].origin.line);
        seen.into_iter().map(|(place, port)| (place, words(port))).collect()
    }

    /// The kernel takes IPv6 away from a device whose MTU is too small for it.
    fn ipv6_mtu(&self, ports: &[DraftPort], attachments: &[Result<Attachment, Reported>]) {
        for (port, attachment) in ports.iter().zip(attachments) {
            let (Ok(Interface::Tap { address, .. }), Ok(attachment)) = (&port.interface, attachment) else {
                continue;
            };
            let mtu = self.reach(attachment).into_iter().map(|index| self.networks[index].object.mtu).max();
            let Some(mtu) = mtu.filter(|mtu| *mtu < IPV6_MTU_MIN) else { continue };
            if let Some((ip, _)) = address.iter().find(|(ip, _)| matches!(ip, IpAddr::V6(_))) {
                let message =
                    format!("{ip} needs an MTU of at least {IPV6_MTU_MIN}, the port's network has {mtu}");
                self.report.add(
                    port.at.device.clone(),
                    &format!("{}.interface.address", port.at.path),
                    message,
                    None,
                );
            }
        }
    }
}

/// Ports with their MACs, fixed IPs and security. Ports with mistakes are left out; they were reported.
fn finished_ports(
    ports: Vec<DraftPort>,
    attachments: Vec<Result<Attachment, Reported>>,
    security: Vec<Option<PortSecurity>>,
    l3: &mut L3,
) -> Vec<Port> {
    let mut finished = Vec::new();
    let owned = std::mem::take(&mut l3.macs).into_iter().zip(std::mem::take(&mut l3.fixed_ips)).zip(security);
    for ((port, attachment), ((mac_address, fixed_ips), port_security)) in
        ports.into_iter().zip(attachments).zip(owned)
    {
        let (Ok(attachment), Ok(mut interface), Ok(_)) = (attachment, port.interface, port.mac_address)
        else {
            continue;
        };
        if let (Interface::Tap { address, .. }, true) = (&mut interface, port.fixed_ips_are_address) {
            *address = fixed_ips.iter().map(|fixed| (fixed.ip, fixed.prefix_len)).collect();
        }
        finished.push(Port {
            id: super::id("port", &port.name),
            mac_address,
            name: port.name,
            attachment,
            interface,
            fixed_ips,
            static_macs: port.static_macs.into_iter().map(Spanned::into_inner).collect(),
            mac_limit: port.mac_limit,
            admin_state_up: port.admin_state_up,
            extra_dhcp_opts: port.extra_dhcp_opts,
            metadata: port.metadata,
            port_security,
            origin: port.origin,
        });
    }
    finished
}
