//! From a spanned TOML tree to a [`Draft`]: each object by itself, each value in its bounds. What concerns several
//! objects is left to [`super::validate`].
//!
//! A wrong value is reported and replaced by its default or left out; that is harmless, because a single report fails the
//! whole file. Where a replacement would raise a false alarm later, the draft says so by [`Reported`].

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::Range;
use std::path::PathBuf;

use toml::Spanned;

use super::boot::{self, DraftBoot};
use super::diagnostic::{Report, Reported};
use super::l3::{self, DraftFixedIps, DraftL3};
use super::later;
use super::overlay::{self, DraftOverlay, DraftTunnels};
use super::reader::{Field, List, Reader};
use super::schema::*;
use super::security::{self, DraftPortSecurity, DraftSecurity};
use super::text::{Cidr, IdRange, Mode, Netns, Owner, Vlans};
use crate::types::{Mac, VlanId, Vni};

/// Bytes of a Unix socket's path without the closing zero (`struct sockaddr_un` in `linux/un.h`).
const SOCKET_PATH: usize = 107;
/// Smallest network MTU: what every IPv4 module must pass on unfragmented (RFC 791, 3.2), Neutron's lower bound too.
pub(super) const MTU_MIN: u32 = 68;
/// Largest network MTU: the jumbo frames that NICs and physical switches have in common.
pub(super) const MTU_MAX: u32 = 9216;
/// The most MACs that a limit may allow.
const MACS_MAX: u32 = 1 << 20;
/// One more than the largest CPU number (`CPU_SETSIZE` of glibc's `sched.h`).
const CPUS: u32 = 1024;

/// A file's objects, each right by itself.
pub(super) struct Draft {
    pub(super) switch: Switch,
    pub(super) physical_networks: Vec<DraftPhysical>,
    pub(super) overlay: Result<Option<DraftOverlay>, Reported>,
    pub(super) networks: Vec<DraftNetwork>,
    pub(super) ports: Vec<DraftPort>,
    pub(super) l3: DraftL3,
    pub(super) boot: DraftBoot,
    pub(super) security: DraftSecurity,
}

/// Where an object and its parts stand.
pub(super) struct Place {
    pub(super) path: String,
    /// The object's name, or its header where it has none.
    pub(super) name: Range<usize>,
    /// The device's name, where there is one.
    pub(super) device: Range<usize>,
}

pub(super) struct DraftPhysical {
    pub(super) at: Place,
    pub(super) object: PhysicalNetwork,
    pub(super) ranges: List<(VlanId, VlanId)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum NetworkType {
    Local,
    Flat,
    Vlan,
    Vxlan,
}

impl NetworkType {
    /// As it is written.
    const WORDS: &[(&str, NetworkType)] = &[
        ("local", NetworkType::Local),
        ("flat", NetworkType::Flat),
        ("vlan", NetworkType::Vlan),
        ("vxlan", NetworkType::Vxlan),
    ];
}

pub(super) struct DraftNetwork {
    pub(super) at: Place,
    /// Segment and MTU are placeholders until the whole is known.
    pub(super) object: Network,
    pub(super) network_type: Result<NetworkType, Reported>,
    /// Where the type was said, or the object's header.
    pub(super) type_at: Range<usize>,
    pub(super) physical_network: Field<String>,
    /// Within the bounds of the network's type.
    pub(super) segmentation_id: Field<u32>,
    pub(super) mtu: Field<u16>,
    pub(super) tunnels: DraftTunnels,
    /// None: as `[metadata]` says.
    pub(super) metadata: Field<MetadataMode>,
    /// Where `dynamic_leases = true` stands.
    pub(super) dynamic_at: Result<Option<Range<usize>>, Reported>,
}

/// The references of a port.
pub(super) enum DraftAttachment {
    Access(Spanned<String>),
    Trunk {
        physical_network: Spanned<String>,
        native: Option<Spanned<String>>,
        allowed: Option<BTreeSet<VlanId>>,
    },
}

pub(super) struct DraftPort {
    pub(super) at: Place,
    pub(super) name: String,
    pub(super) attachment: Result<DraftAttachment, Reported>,
    pub(super) interface: Result<Interface, Reported>,
    /// `address = true`: those of a tap are the fixed IPs.
    pub(super) fixed_ips_are_address: bool,
    pub(super) mac_address: Field<Mac>,
    /// None: the next free ones.
    pub(super) fixed_ips: Option<DraftFixedIps>,
    pub(super) static_macs: Vec<Spanned<Mac>>,
    pub(super) mac_limit: u32,
    pub(super) admin_state_up: bool,
    pub(super) extra_dhcp_opts: Vec<ExtraDhcpOpt>,
    pub(super) metadata: GuestMetadata,
    pub(super) security: DraftPortSecurity,
    pub(super) origin: Origin,
}

impl DraftPort {
    /// True when one station is behind the port, so that it has a MAC and fixed IPs though none were given.
    pub(super) fn is_one_station(&self) -> bool {
        matches!(self.interface, Ok(Interface::Tap { .. } | Interface::Guest { .. }))
            || !matches!(self.mac_address, Ok(None))
    }
}

/// Reads a whole document.
pub(super) fn document(mut root: Reader<'_, '_>, report: &Report<'_>) -> Draft {
    let switch = match root.table("switch", "[switch] once, with its keys below") {
        Ok(Some(table)) => switch(table),
        Ok(None) | Err(Reported) => Switch::default(),
    };
    let physical_networks = root.objects("physical_network");
    let overlay = root.table("overlay", "[overlay] once, with its keys below");
    let networks = root.objects("network");
    let ports = root.objects("port");
    let l3 = l3::document(&mut root, report);
    let boot = boot::document(&mut root);
    let security = security::document(&mut root, report);
    let draft = Draft {
        switch,
        physical_networks: physical_networks
            .into_iter()
            .map(|table| physical_network(table, report))
            .collect(),
        overlay: overlay.map(|table| table.map(|table| overlay::overlay(table, report))),
        networks: networks.into_iter().map(|table| network(table, report)).collect(),
        ports: ports.into_iter().map(|table| port(table, report)).collect(),
        l3,
        boot,
        security,
    };
    root.finish(later::ROOT);
    draft
}

fn switch(mut table: Reader<'_, '_>) -> Switch {
    let default = Switch::default();
    let idle = [("adaptive", Idle::Adaptive), ("poll", Idle::Poll), ("sleep", Idle::Sleep)];
    let switch = Switch {
        workers: workers(&mut table),
        idle: given(table.choice("idle", &idle, &[])).unwrap_or(default.idle),
        control: control(&mut table).unwrap_or(default.control),
        control_mode: table.or("control_mode", Mode(default.control_mode)).0,
        control_group: given(word(&mut table, "control_group")),
        // IEEE 802.1Q-2018, table 8-6.
        mac_aging_time: number(&mut table, "mac_aging_time", 10..=1_000_000, " s", default.mac_aging_time),
        buffers: buffers(&mut table).unwrap_or(default.buffers),
        state: given(word(&mut table, "state")).map(PathBuf::from),
        security_log: given(word(&mut table, "security_log")).map(PathBuf::from),
    };
    table.finish(later::SWITCH);
    switch
}

fn workers(table: &mut Reader<'_, '_>) -> Vec<usize> {
    let mut workers = Vec::new();
    for cpu in table.list::<i64>("workers").items {
        let (span, cpu) = (cpu.span(), cpu.into_inner());
        let number =
            u32::try_from(cpu).ok().filter(|cpu| *cpu < CPUS).and_then(|cpu| usize::try_from(cpu).ok());
        match number {
            None => {
                table.wrong(span, "workers", format!("{cpu} is outside of 0 to {}", CPUS - 1), None);
            }
            Some(cpu) if workers.contains(&cpu) => {
                let hint = Some("each CPU carries one worker".to_owned());
                table.wrong(span, "workers", format!("CPU {cpu} is listed twice"), hint);
            }
            Some(cpu) => workers.push(cpu),
        }
    }
    workers
}

fn control(table: &mut Reader<'_, '_>) -> Option<PathBuf> {
    let path = word(table, "control").ok()??;
    if path.get_ref().len() > SOCKET_PATH {
        let message =
            format!("{} bytes are too long for a socket's path: at most {SOCKET_PATH}", path.get_ref().len());
        table.wrong(path.span(), "control", message, None);
        return None;
    }
    Some(path.into_inner().into())
}

fn buffers(table: &mut Reader<'_, '_>) -> Option<u32> {
    let buffers = table.number("buffers", 1024..=1 << 20, "").ok()??;
    let number = *buffers.get_ref();
    if !number.is_power_of_two() {
        let hint = format!("{} or {}", number.next_power_of_two() / 2, number.next_power_of_two());
        table.wrong(buffers.span(), "buffers", format!("{number} is not a power of two"), Some(hint));
        return None;
    }
    Some(number)
}

fn physical_network(mut table: Reader<'_, '_>, report: &Report<'_>) -> DraftPhysical {
    let (name, name_span) = name(&mut table);
    let nic = nic(&mut table);
    let ranges = table.list::<IdRange>("vlan_ranges").map(|range| range.0);
    if matches!(nic.interface, Ok(None)) {
        for key in ["driver", "mode", "shared", "busy_poll"] {
            if let Some(span) = table.given(key) {
                table.wrong(span, key, format!("`{key}` needs `interface`"), None);
            }
        }
    }
    let at = Place { path: table.path().to_owned(), name: name_span, device: nic.at };
    let interface = nic.interface.ok().flatten();
    let origin = origin(&table, report);
    table.finish(later::PHYSICAL_NETWORK);
    DraftPhysical { at, object: PhysicalNetwork { name, interface, vlan_ranges: Vec::new(), origin }, ranges }
}

/// The device of a physical network or of the overlay.
pub(super) struct Nic {
    /// Where its name stands, or the object's header.
    pub(super) at: Range<usize>,
    pub(super) interface: Result<Option<Interface>, Reported>,
}

pub(super) fn nic(table: &mut Reader<'_, '_>) -> Nic {
    let device = device_name(table, "interface");
    let driver = table.choice("driver", &[("xdp", "xdp"), ("packet", "packet")], &[]);
    let mode = xdp_mode(table);
    let shared = given(table.field::<bool>("shared"));
    let busy_poll = table.or("busy_poll", false);

    let driver = driver.map(|driver| driver.map_or("", Spanned::into_inner));
    match driver {
        Ok("packet") => {
            let owners: &[(&str, &[&str])] =
                &[("mode", &["xdp"]), ("busy_poll", &["xdp"]), ("shared", &["xdp"])];
            table.refuse_foreign("driver", "packet", owners);
        }
        Ok("") => table.refuse_foreign("driver", "", &[("mode", &["xdp"]), ("busy_poll", &["xdp"])]),
        _ => {}
    }
    let at = device.as_ref().ok().and_then(|d| d.as_ref()).map_or(table.span(), Spanned::span);
    let interface = device.map(|device| {
        device.map(Spanned::into_inner).map(|name| match driver {
            Ok("xdp") => Interface::Xdp { name, mode, shared, busy_poll },
            Ok("packet") => Interface::Packet { name },
            _ => Interface::Best { name, shared },
        })
    });
    Nic { at, interface }
}

fn network(mut table: Reader<'_, '_>, report: &Report<'_>) -> DraftNetwork {
    let (name, name_span) = name(&mut table);
    let chosen = table.choice("network_type", NetworkType::WORDS, later::NETWORK_TYPES);
    let type_at = chosen.as_ref().ok().and_then(|c| c.as_ref()).map_or(table.span(), Spanned::span);
    let network_type = chosen.map(|chosen| chosen.map_or(NetworkType::Local, Spanned::into_inner));
    let physical_network = table.field::<String>("physical_network");
    let ids = match network_type {
        Ok(NetworkType::Vxlan) | Err(Reported) => 0..=Vni::MAX.get(),
        Ok(NetworkType::Local | NetworkType::Flat | NetworkType::Vlan) => 1..=4094,
    };
    let segmentation_id = table.number("segmentation_id", ids, "");
    let mtu = table.number("mtu", MTU_MIN..=MTU_MAX, " bytes");
    let mtu = mtu
        .map(|mtu| mtu.and_then(|mtu| Some(Spanned::new(mtu.span(), u16::try_from(*mtu.get_ref()).ok()?))));
    let tunnels = overlay::tunnels(&mut table);
    let metadata = boot::metadata_mode(&mut table);
    let dynamic_leases = table.field::<bool>("dynamic_leases");
    let dynamic_at = boot::truth_at(&dynamic_leases);
    let object = Network {
        id: super::id("network", &name),
        name,
        segment: Segment::Local,
        mtu: mtu.as_ref().ok().and_then(|mtu| mtu.as_ref()).map_or(1500, |mtu| *mtu.get_ref()),
        mac_limit: number(&mut table, "mac_limit", 0..=MACS_MAX, "", 8192),
        external: table.or("external", false),
        dns_domain: boot::dns_domain(&mut table),
        dynamic_leases: given(dynamic_leases).unwrap_or(false),
        metadata: MetadataMode::default(),
        port_security_enabled: table.or("port_security_enabled", true),
        origin: origin(&table, report),
    };
    if let Ok(network_type) = network_type {
        let chosen = NetworkType::WORDS.iter().find(|(_, meaning)| *meaning == network_type);
        let chosen = chosen.map_or("", |(word, _)| word);
        table.refuse_foreign("network_type", chosen, NETWORK_KEYS);
        let physical = matches!(network_type, NetworkType::Flat | NetworkType::Vlan);
        if physical && matches!(physical_network, Ok(None)) {
            table.missing("physical_network", Some(format!("a {chosen} network leaves through one")));
        }
    }
    let at = Place { path: table.path().to_owned(), name: name_span, device: table.span() };
    table.finish(later::NETWORK);
    DraftNetwork {
        at,
        object,
        network_type,
        type_at,
        physical_network,
        segmentation_id,
        mtu,
        tunnels,
        metadata,
        dynamic_at,
    }
}

/// The keys of a network that not every type has.
const NETWORK_KEYS: &[(&str, &[&str])] = &[
    ("physical_network", &["flat", "vlan"]),
    ("segmentation_id", &["vlan", "vxlan"]),
    ("peers", &["vxlan"]),
    ("multicast_group", &["vxlan"]),
    ("remote_ports", &["vxlan"]),
    ("l2population", &["vxlan"]),
];

fn port(mut table: Reader<'_, '_>, report: &Report<'_>) -> DraftPort {
    let (name, name_span) = name(&mut table);
    let attachment = attachment(&mut table);
    let mut device = table.span();
    let mut fixed_ips_are_address = false;
    let interface = match table.table("interface", "interface = { kind = \"tap\", name = \"…\" }") {
        Ok(Some(inner)) => interface(inner, &mut device, &mut fixed_ips_are_address),
        Ok(None) => {
            Err(table.missing("interface", Some("interface = { kind = \"tap\", name = \"…\" }".to_owned())))
        }
        Err(Reported) => Err(Reported),
    };
    let mac_address = station(&mut table);
    let mut static_macs = table.list::<Mac>("static_macs").items;
    static_macs.retain(|mac| station_only(&table, "static_macs", mac));
    let port = DraftPort {
        at: Place { path: table.path().to_owned(), name: name_span, device },
        name,
        attachment,
        interface,
        fixed_ips_are_address,
        mac_address,
        fixed_ips: l3::fixed_ips(&mut table, "fixed_ips"),
        static_macs,
        mac_limit: number(&mut table, "mac_limit", 0..=MACS_MAX, "", 1024),
        admin_state_up: table.or("admin_state_up", true),
        extra_dhcp_opts: boot::extra_dhcp_opts(&mut table),
        metadata: boot::guest_metadata(&mut table, report),
        security: security::port(&mut table),
        origin: origin(&table, report),
    };
    table.finish(later::PORT);
    port
}

fn attachment(table: &mut Reader<'_, '_>) -> Result<DraftAttachment, Reported> {
    let network = table.field::<String>("network");
    let trunk = table.table("trunk", "trunk = { physical_network = \"…\" }")?.map(trunk);
    match (network, trunk) {
        (Ok(Some(_)), Some(_)) => {
            let span = table.given("trunk").unwrap_or(table.span());
            let hint = Some("`network` for one network untagged, `trunk` for several with tags".to_owned());
            Err(table.wrong(span, "trunk", "`trunk` and `network` exclude each other", hint))
        }
        (Ok(Some(network)), None) => Ok(DraftAttachment::Access(network)),
        (Ok(None), Some(trunk)) => trunk,
        (Ok(None), None) => Err(table
            .missing("network", Some("give `network`, or `trunk` for several networks with tags".into()))),
        (Err(Reported), _) => Err(Reported),
    }
}

fn trunk(mut table: Reader<'_, '_>) -> Result<DraftAttachment, Reported> {
    let physical_network = table.required::<String>("physical_network");
    let native = table.field::<String>("native");
    let allowed = table.list::<Vlans>("allowed");
    let given = table.given("allowed");
    if let (true, Ok(()), Some(span)) = (allowed.items.is_empty(), allowed.whole, given.clone()) {
        let hint = Some("leave it out to let all networks of the physical network pass".to_owned());
        table.wrong(span, "allowed", "an empty list lets nothing pass", hint);
    }
    table.finish(&[]);
    let vlans = |range: Spanned<Vlans>| {
        let (from, to) = range.into_inner().0;
        (from.get()..=to.get()).filter_map(VlanId::new)
    };
    Ok(DraftAttachment::Trunk {
        physical_network: physical_network?,
        native: native?,
        allowed: allowed
            .whole
            .map(|()| given.map(|_| allowed.items.into_iter().flat_map(vlans).collect()))?,
    })
}

/// The keys of an interface and the kinds that have them.
const INTERFACE_KEYS: &[(&str, &[&str])] = &[
    ("name", &["tap", "guest", "xdp", "packet"]),
    ("netns", &["tap"]),
    ("address", &["tap"]),
    ("owner", &["guest"]),
    ("mode", &["xdp"]),
    ("shared", &["xdp"]),
    ("busy_poll", &["xdp"]),
    ("read", &["pcap"]),
    ("write", &["pcap"]),
];

fn interface(
    mut table: Reader<'_, '_>,
    device: &mut Range<usize>,
    fixed_ips_are_address: &mut bool,
) -> Result<Interface, Reported> {
    *device = table.span();
    let kinds = ["tap", "guest", "xdp", "packet", "pcap"].map(|kind| (kind, kind));
    let kind = table.choice("kind", &kinds, later::KINDS);
    // Every key is read whatever the kind is, so that each is judged.
    let name = device_name(&mut table, "name");
    if let Ok(Some(name)) = &name {
        *device = name.span();
    }
    let netns = table.field::<Netns>("netns");
    let address = match table.truth("address") {
        Some(own) => {
            *fixed_ips_are_address = own.into_inner();
            Vec::new()
        }
        None => addresses(&mut table),
    };
    let owner = given(table.field::<Owner>("owner")).map(|owner| owner.0);
    let mode = xdp_mode(&mut table);
    let shared = given(table.field::<bool>("shared"));
    let busy_poll = table.or("busy_poll", false);
    let read = word(&mut table, "read");
    let write = word(&mut table, "write");

    let kind = match kind {
        Ok(Some(kind)) => Ok(kind.into_inner()),
        Ok(None) => Err(table.missing("kind", Some(format!("one of {}", kinds.map(|(k, _)| k).join(", "))))),
        Err(Reported) => Err(Reported),
    };
    if let Ok(kind) = kind {
        table.refuse_foreign("kind", kind, INTERFACE_KEYS);
        if kind == "pcap" {
            pcap_files(&table, &read, &write);
        }
    }
    let name = match (name, kind) {
        (Ok(None), Ok(kind)) if kind != "pcap" => {
            Err(table.missing("name", Some("the device's name, at most 15 bytes".to_owned())))
        }
        (Ok(name), _) => Ok(name.map(Spanned::into_inner).unwrap_or_default()),
        (Err(Reported), _) => Err(Reported),
    };
    table.finish(later::INTERFACE);
    Ok(match kind? {
        "tap" => Interface::Tap { name: name?, netns: netns?.map(|netns| netns.into_inner().0), address },
        "guest" => Interface::Guest { name: name?, owner },
        "xdp" => Interface::Xdp { name: name?, mode, shared, busy_poll },
        "packet" => Interface::Packet { name: name? },
        _ => Interface::Pcap { read: given(read).map(PathBuf::from), write: given(write).map(PathBuf::from) },
    })
}

fn pcap_files(table: &Reader<'_, '_>, read: &Field<String>, write: &Field<String>) {
    match (read, write) {
        (Ok(None), Ok(None)) => {
            table.missing("read", Some("a pcap port needs `read`, `write` or both".to_owned()));
        }
        (Ok(Some(read)), Ok(Some(write))) if read.get_ref() == write.get_ref() => {
            table.wrong(write.span(), "write", "the file that is read would be overwritten", None);
        }
        _ => {}
    }
}

fn addresses(table: &mut Reader<'_, '_>) -> Vec<(IpAddr, u8)> {
    let mut addresses = Vec::new();
    for address in table.one_or_list::<Cidr>("address").items {
        let (span, Cidr(ip, prefix)) = (address.span(), address.into_inner());
        if addresses.iter().any(|(other, _)| *other == ip) {
            table.wrong(span, "address", format!("{ip} is listed twice"), None);
        }
        addresses.push((ip, prefix));
    }
    addresses
}

/// The value of a field that is there and right.
pub(super) fn given<T>(field: Field<T>) -> Option<T> {
    field.ok().flatten().map(Spanned::into_inner)
}

pub(super) fn number(
    table: &mut Reader<'_, '_>,
    key: &'static str,
    bounds: std::ops::RangeInclusive<u32>,
    unit: &str,
    default: u32,
) -> u32 {
    given(table.number(key, bounds, unit)).unwrap_or(default)
}

pub(super) fn origin(table: &Reader<'_, '_>, report: &Report<'_>) -> Origin {
    Origin { file: report.file().to_owned(), line: report.line(table.span().start) }
}

/// A text that is not empty and holds no control character (no path, user or name does).
pub(super) fn word(table: &mut Reader<'_, '_>, key: &'static str) -> Field<String> {
    let Some(text) = table.field::<String>(key)? else { return Ok(None) };
    if text.get_ref().is_empty() {
        return Err(table.wrong(text.span(), key, "is empty", None));
    }
    if text.get_ref().chars().any(char::is_control) {
        return Err(table.wrong(text.span(), key, "holds a control character", None));
    }
    Ok(Some(text))
}

/// An object's name; empty when it has none or a wrong one.
pub(super) fn name(table: &mut Reader<'_, '_>) -> (String, Range<usize>) {
    match word(table, "name") {
        // 255 as Neutron's names.
        Ok(Some(name)) if name.get_ref().chars().count() > 255 => {
            table.wrong(name.span(), "name", "is longer than 255 characters", None);
            (String::new(), name.span())
        }
        Ok(Some(name)) => (name.get_ref().clone(), name.span()),
        Ok(None) => {
            table.missing("name", Some("objects refer to each other by name".to_owned()));
            (String::new(), table.span())
        }
        Err(Reported) => (String::new(), table.span()),
    }
}

fn xdp_mode(table: &mut Reader<'_, '_>) -> XdpMode {
    let modes = [("native", XdpMode::Native), ("generic", XdpMode::Generic)];
    given(table.choice("mode", &modes, &[])).unwrap_or(XdpMode::Best)
}

/// A name that the kernel takes for a device: `dev_valid_name` in `net/core/dev.c`. `%` is refused too, because
/// the kernel would put a number there.
fn device_name(table: &mut Reader<'_, '_>, key: &'static str) -> Field<String> {
    let Some(name) = table.field::<String>(key)? else { return Ok(None) };
    let text = name.get_ref();
    let bad = |c: &char| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':' | '%');
    let problem = if text.is_empty() {
        "a device needs a name".to_owned()
    } else if text.len() > 15 {
        format!("`{text}` has {} bytes; a device's name has at most 15", text.len())
    } else if let Some(c) = text.chars().find(bad) {
        format!("`{text}` holds {c:?}, which no device's name may")
    } else if text == "." || text == ".." {
        format!("`{text}` is no device's name")
    } else {
        return Ok(Some(name));
    };
    Err(table.wrong(name.span(), key, problem, None))
}

/// `mac_address`: of one station.
pub(super) fn station(table: &mut Reader<'_, '_>) -> Field<Mac> {
    let Some(mac) = table.field::<Mac>("mac_address")? else { return Ok(None) };
    if station_only(table, "mac_address", &mac) { Ok(Some(mac)) } else { Err(Reported) }
}

/// Refuses addresses that no station can have (IEEE 802-2014, 8.2.2).
pub(super) fn station_only(table: &Reader<'_, '_>, key: &str, mac: &Spanned<Mac>) -> bool {
    let (span, mac) = (mac.span(), *mac.get_ref());
    if mac.is_group() {
        let hint = Some("the lowest bit of the first byte must be 0".to_owned());
        table.wrong(span, key, format!("{mac} is a group address, which no station has"), hint);
        return false;
    }
    if mac == Mac::SERVICE {
        table.wrong(span, key, format!("{mac} is the switch's own, on every network"), None);
        return false;
    }
    if mac == Mac::default() {
        table.wrong(span, key, format!("{mac} is no station's address"), None);
        return false;
    }
    true
}
