//! What differs between two models, as plain data, in the words of what has to be done.
//!
//! An attachment is *reopened* when its device has to be another one or configured anew, and *changed* when only tables
//! differ: a changed one keeps its device and loses no frame. Where an object stands in its file is no difference.
//! Devices of removed and reopened attachments must be closed before any is opened: one may take over another's.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;

use super::{
    AddressGroup, AttachmentKey, Conntrack, Device, FloatingIp, Interface, Model, Network, Origin, Overlay,
    PhysicalNetwork, Port, Router, SecurityGroup, Subnet, Switch, Timeouts,
};

/// The difference between two models. Lists are in the order of the new model, of the old one for what is removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// Devices to open.
    pub added: Vec<AttachmentKey>,
    /// Devices to close.
    pub removed: Vec<AttachmentKey>,
    /// Devices to close and open anew.
    pub reopened: Vec<AttachmentKey>,
    /// Devices that stay, with other networks, MACs, limits or state.
    pub changed: Vec<AttachmentKey>,
    /// Devices for which nothing changes.
    pub unchanged: Vec<AttachmentKey>,
    /// Names of new networks.
    pub networks_added: Vec<String>,
    /// Names of networks that are gone.
    pub networks_removed: Vec<String>,
    /// Names of networks with another segment, MTU or limit.
    pub networks_changed: Vec<String>,
    /// Subnets, by name, with another prefix, network or gateway. Their pools have done their work: addresses stand in
    /// the objects that have them.
    pub subnets: Changes,
    /// Routers, by name.
    pub routers: Changes,
    /// Floating IPs, by address.
    pub floating_ips: Changes,
    /// Security groups, by name.
    pub security_groups: Changes,
    /// Address groups, by name.
    pub address_groups: Changes,
    /// Settings of `[switch]` and `[conntrack]` that can be applied while running, in words.
    pub settings: Vec<String>,
    /// Settings of `[switch]` and `[conntrack]` that stay as they are until a restart, in words.
    pub restart: Vec<String>,
}

/// What differs among objects of a kind without a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// New ones.
    pub added: Vec<String>,
    /// Those that are gone.
    pub removed: Vec<String>,
    /// Those that stay, but not as they were.
    pub changed: Vec<String>,
}

/// What it takes to get from `old` to `new`.
pub fn diff(old: &Model, new: &Model) -> Diff {
    let mut diff = Diff::default();
    attachments(old, new, &mut diff);
    let networks = changes(&old.networks, &new.networks, placeless, |n| n.name.clone());
    diff.networks_added = networks.added;
    diff.networks_removed = networks.removed;
    diff.networks_changed = networks.changed;
    diff.subnets = changes(&old.subnets, &new.subnets, bare_subnet, |s| s.name.clone());
    let placeless_router = |router: &Router| Router { origin: Origin::default(), ..router.clone() };
    diff.routers = changes(&old.routers, &new.routers, placeless_router, |r| r.name.clone());
    let placeless_floating =
        |floating: &FloatingIp| FloatingIp { origin: Origin::default(), ..floating.clone() };
    let address = |floating: &FloatingIp| floating.floating_ip_address.to_string();
    diff.floating_ips = changes(&old.floating_ips, &new.floating_ips, placeless_floating, address);
    groups(old, new, &mut diff);
    settings(&old.switch, &new.switch, &mut diff);
    conntrack(&old.conntrack, &new.conntrack, &mut diff);
    if old.dhcp != new.dhcp {
        let (from, to) = (old.dhcp.lease_time, new.dhcp.lease_time);
        diff.settings.push(format!("dhcp.lease_time: {from} becomes {to}"));
    }
    if old.metadata != new.metadata {
        // What differs may be a secret.
        diff.settings.push("[metadata] differs".to_owned());
    }
    diff
}

impl Diff {
    /// True when the two models ask for the same.
    pub fn is_empty(&self) -> bool {
        *self == Diff { unchanged: self.unchanged.clone(), ..Diff::default() }
    }
}

/// An attachment as far as it decides about its device.
#[derive(PartialEq)]
struct DevicePart<'m> {
    interface: &'m Interface,
    /// The device's own MAC and MTU, where they are for the switch to set.
    mac: Option<crate::types::Mac>,
    mtu: Option<u16>,
    /// What a device of the underlay that the host may use too is split by: address and UDP port of the tunnels.
    shared_by: Option<(IpAddr, u16)>,
}

/// An attachment as far as it decides about tables.
#[derive(PartialEq)]
struct TablePart {
    port: Option<Port>,
    physical: Option<PhysicalNetwork>,
    overlay: Option<Overlay>,
    networks: Vec<Network>,
}

fn parts<'m>(model: &'m Model, device: &Device<'m>) -> (DevicePart<'m>, TablePart) {
    let (port, physical) = match &device.key {
        AttachmentKey::Port(name) => (model.ports.iter().find(|port| port.name == *name), None),
        AttachmentKey::Physical(name) => (None, model.physical_networks.iter().find(|p| p.name == *name)),
        _ => (None, None),
    };
    let interface = device.interface;
    let is_tap = matches!(interface, Interface::Tap { .. });
    let is_ours = is_tap || matches!(interface, Interface::Guest { .. });
    let device_part = DevicePart {
        interface,
        mac: port.and_then(|port| port.mac_address).filter(|_| is_tap),
        mtu: is_ours.then_some(device.mtu),
        shared_by: model
            .overlay
            .as_ref()
            .filter(|_| device.key == AttachmentKey::Overlay && may_be_shared(interface))
            .map(|overlay| (overlay.local_ip, overlay.udp_port)),
    };
    let nowhere = Origin::default;
    let table_part = TablePart {
        port: port.map(|port| Port { origin: nowhere(), ..port.clone() }),
        // The ranges have done their work: IDs stand in the networks.
        physical: physical.map(|p| PhysicalNetwork {
            origin: nowhere(),
            vlan_ranges: Vec::new(),
            ..p.clone()
        }),
        overlay: model
            .overlay
            .as_ref()
            .filter(|_| device.key == AttachmentKey::Overlay)
            .map(|overlay| Overlay { origin: nowhere(), vni_ranges: Vec::new(), ..overlay.clone() }),
        networks: model.networks_of(&device.key).map(placeless).collect(),
    };
    (device_part, table_part)
}

/// Whether the kernel splits the device's frames between the switch and the host. Where nothing is said, that depends on what
/// is found at the device.
fn may_be_shared(interface: &Interface) -> bool {
    match interface {
        Interface::Xdp { shared, .. } | Interface::Best { shared, .. } => *shared != Some(false),
        Interface::Packet { .. }
        | Interface::Tap { .. }
        | Interface::Guest { .. }
        | Interface::Pcap { .. } => false,
    }
}

fn placeless(network: &Network) -> Network {
    Network { origin: Origin::default(), ..network.clone() }
}

fn attachments(old: &Model, new: &Model, diff: &mut Diff) {
    let mut before: HashMap<AttachmentKey, Device<'_>> =
        old.attachments().map(|d| (d.key.clone(), d)).collect();
    for device in new.attachments() {
        let list = match before.remove(&device.key) {
            None => &mut diff.added,
            Some(was) => {
                let ((old_device, old_table), (new_device, new_table)) =
                    (parts(old, &was), parts(new, &device));
                if old_device != new_device {
                    &mut diff.reopened
                } else if old_table != new_table {
                    &mut diff.changed
                } else {
                    &mut diff.unchanged
                }
            }
        };
        list.push(device.key);
    }
    diff.removed =
        old.attachments().map(|device| device.key).filter(|key| before.contains_key(key)).collect();
}

/// A subnet as far as it decides about anything.
fn bare_subnet(subnet: &Subnet) -> Subnet {
    Subnet { origin: Origin::default(), allocation_pools: Vec::new(), ..subnet.clone() }
}

/// What differs between two lists of objects, of which `bare` leaves what counts. Two networks may have floating IPs of
/// one address, so several objects may share a name.
fn changes<T: PartialEq>(
    old: &[T],
    new: &[T],
    bare: impl Fn(&T) -> T,
    name: impl Fn(&T) -> String,
) -> Changes {
    let mut before: HashMap<String, Vec<&T>> = HashMap::new();
    for object in old.iter().rev() {
        before.entry(name(object)).or_default().push(object);
    }
    let mut changes = Changes::default();
    for object in new {
        match before.get_mut(&name(object)).and_then(Vec::pop) {
            None => changes.added.push(name(object)),
            Some(was) if bare(was) != bare(object) => changes.changed.push(name(object)),
            Some(_) => {}
        }
    }
    for object in old {
        if before.get_mut(&name(object)).and_then(Vec::pop).is_some() {
            changes.removed.push(name(object));
        }
    }
    changes
}

/// Only tables differ with groups: no port is another one. The group that is there where no file says so is told of only when
/// one says so.
fn groups(old: &Model, new: &Model, diff: &mut Diff) {
    let said = |model: &Model| -> Vec<SecurityGroup> {
        model.security_groups.iter().filter(|group| !group.is_built_in()).cloned().collect()
    };
    let bare = |group: &SecurityGroup| SecurityGroup { origin: Origin::default(), ..group.clone() };
    diff.security_groups = changes(&said(old), &said(new), bare, |group| group.name.clone());
    let bare = |group: &AddressGroup| AddressGroup { origin: Origin::default(), ..group.clone() };
    diff.address_groups = changes(&old.address_groups, &new.address_groups, bare, |group| group.name.clone());
}

fn settings(old: &Switch, new: &Switch, diff: &mut Diff) {
    // Taken apart, so that a new setting cannot be forgotten here.
    let Switch {
        workers,
        idle,
        control,
        control_mode,
        control_group,
        mac_aging_time,
        buffers,
        state,
        security_log,
    } = new;
    let path = |path: &Option<std::path::PathBuf>| {
        path.as_ref().map_or("none".to_owned(), |p| p.display().to_string())
    };
    let mut live = |name: &str, differs: bool, from: String, to: String| {
        if differs {
            diff.settings.push(format!("{name}: {from} becomes {to}"));
        }
    };
    live("idle", old.idle != *idle, format!("{:?}", old.idle), format!("{idle:?}"));
    let (from, to) = (old.mac_aging_time.to_string(), mac_aging_time.to_string());
    live("mac_aging_time", old.mac_aging_time != *mac_aging_time, from, to);
    live("security_log", old.security_log != *security_log, path(&old.security_log), path(security_log));

    let mut restart = |name: &str, differs: bool, from: String, to: String| {
        if differs {
            diff.restart.push(format!("{name}: {from} stays until a restart, which makes it {to}"));
        }
    };
    restart("workers", old.workers != *workers, format!("{:?}", old.workers), format!("{workers:?}"));
    let (from, to) = (old.control.display().to_string(), control.display().to_string());
    restart("control", old.control != *control, from, to);
    let (from, to) = (format!("{:04o}", old.control_mode), format!("{control_mode:04o}"));
    restart("control_mode", old.control_mode != *control_mode, from, to);
    let group = |group: &Option<String>| group.clone().unwrap_or_else(|| "none".to_owned());
    restart(
        "control_group",
        old.control_group != *control_group,
        group(&old.control_group),
        group(control_group),
    );
    restart("state", old.state != *state, path(&old.state), path(state));
    restart("buffers", old.buffers != *buffers, old.buffers.to_string(), buffers.to_string());
}

fn conntrack(old: &Conntrack, new: &Conntrack, diff: &mut Diff) {
    // Taken apart, so that a new setting cannot be forgotten here.
    let Conntrack { max_entries, max_entries_per_guest, max_new_per_guest, timeouts } = new;
    let Timeouts { tcp_transitory, tcp_established, tcp_closing, udp, icmp, other } = timeouts;
    let was = &old.timeouts;
    let live = [
        ("max_entries_per_guest", old.max_entries_per_guest, max_entries_per_guest),
        ("max_new_per_guest", old.max_new_per_guest, max_new_per_guest),
        ("timeouts.tcp_transitory", was.tcp_transitory, tcp_transitory),
        ("timeouts.tcp_established", was.tcp_established, tcp_established),
        ("timeouts.tcp_closing", was.tcp_closing, tcp_closing),
        ("timeouts.udp", was.udp, udp),
        ("timeouts.icmp", was.icmp, icmp),
        ("timeouts.other", was.other, other),
    ];
    for (name, from, to) in live.into_iter().filter(|(_, from, to)| from != *to) {
        diff.settings.push(format!("conntrack.{name}: {from} becomes {to}"));
    }
    // The table is made when a worker starts.
    if old.max_entries != *max_entries {
        let (name, from) = ("conntrack.max_entries", old.max_entries);
        diff.restart.push(format!("{name}: {from} stays until a restart, which makes it {max_entries}"));
    }
}

/// One line for each difference, `+`, `-`, `~` or `!` in front; nothing for no difference.
impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = Vec::new();
        let mut objects = |kind: &str, removed: &[String], added: &[String], changed: &[String]| {
            for (sign, names) in [('-', removed), ('+', added), ('~', changed)] {
                lines.extend(names.iter().map(|name| format!("{sign} {kind} \"{name}\"")));
            }
        };
        objects("network", &self.networks_removed, &self.networks_added, &self.networks_changed);
        let kinds = [
            ("subnet", &self.subnets),
            ("router", &self.routers),
            ("floating IP", &self.floating_ips),
            ("security group", &self.security_groups),
            ("address group", &self.address_groups),
        ];
        for (kind, Changes { added, removed, changed }) in kinds {
            objects(kind, removed, added, changed);
        }
        let mut devices = |sign: char, keys: &[AttachmentKey], what: &str| {
            lines.extend(keys.iter().map(|key| format!("{sign} {key}{what}")));
        };
        devices('-', &self.removed, "");
        devices('+', &self.added, "");
        devices('~', &self.reopened, ", its device is opened anew");
        devices('~', &self.changed, "");
        lines.extend(self.settings.iter().map(|setting| format!("~ {setting}")));
        lines.extend(self.restart.iter().map(|setting| format!("! {setting}")));
        f.write_str(&lines.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::model::load;

    const BASE: &str = r#"
[switch]
workers = [0]
[[physical_network]]
name = "p"
interface = "eth1"
[[network]]
name = "a"
network_type = "vlan"
physical_network = "p"
segmentation_id = 10
[[network]]
name = "b"
[[port]]
name = "t"
network = "a"
interface = { kind = "tap", name = "t" }
[[port]]
name = "g"
network = "b"
interface = { kind = "guest", name = "g" }
"#;

    /// The differences from [`BASE`] to itself with `from` replaced by `to`.
    fn lines(from: &str, to: &str) -> String {
        assert!(BASE.contains(from), "{from}");
        let model = |text: &str| load(text, "f.toml").unwrap();
        diff(&model(BASE), &model(&BASE.replacen(from, to, 1))).to_string()
    }

    #[test]
    fn each_difference_has_its_line() {
        let t = "~ port \"t\"";
        let p = "~ physical network \"p\"";
        let anew = ", its device is opened anew";
        // A new line moves all objects of the file, which is no difference.
        assert_eq!(lines("[switch]", "# moved\n\n[switch]"), "");
        assert_eq!(lines("workers = [0]", ""), "! workers: [0] stays until a restart, which makes it []");
        assert_eq!(
            lines(
                "[switch]",
                "[switch]\ncontrol_mode = \"0660\"\nmac_aging_time = 60\nbuffers = 1024\nidle = \"poll\""
            ),
            "~ idle: Adaptive becomes Poll\n~ mac_aging_time: 300 becomes 60\n\
             ! control_mode: 0600 stays until a restart, which makes it 0660\n\
             ! buffers: 16384 stays until a restart, which makes it 1024"
        );
        assert_eq!(
            lines("[switch]", "[switch]\ncontrol = \"/x\"\ncontrol_group = \"adm\""),
            "! control: /run/nuswitch/control.sock stays until a restart, which makes it /x\n\
             ! control_group: none stays until a restart, which makes it adm"
        );
        assert_eq!(
            lines("[switch]", "[switch]\nsecurity_log = \"/x\""),
            "~ security_log: none becomes /x",
            "no restart"
        );
        assert_eq!(lines("interface = \"eth1\"", "interface = \"eth2\""), format!("{p}{anew}"));
        assert_eq!(lines("interface = \"eth1\"", ""), "- physical network \"p\"");
        assert_eq!(
            lines("segmentation_id = 10", "segmentation_id = 11"),
            format!("~ network \"a\"\n{p}\n{t}")
        );
        assert_eq!(
            lines("segmentation_id = 10", "segmentation_id = 10\nmtu = 9000"),
            format!("~ network \"a\"\n{t}{anew}\n{p}")
        );
        assert_eq!(
            lines("name = \"b\"", "name = \"b\"\nmtu = 9000"),
            format!("~ network \"b\"\n~ port \"g\"{anew}")
        );
        assert_eq!(lines("name = \"t\"\nnetwork = \"a\"", "name = \"t\"\nnetwork = \"b\""), t);
        assert_eq!(
            lines("network = \"a\"", "network = \"a\"\nmac_address = \"02:00:00:00:00:01\""),
            format!("{t}{anew}")
        );
        // A guest's MAC is its hypervisor's to set: only tables know it.
        assert_eq!(
            lines("network = \"b\"", "network = \"b\"\nmac_address = \"02:00:00:00:00:01\""),
            "~ port \"g\""
        );
        assert_eq!(lines("network = \"b\"", "network = \"b\"\nadmin_state_up = false"), "~ port \"g\"");
        assert_eq!(lines("[[port]]\nname = \"t\"", "[[port]]\nname = \"u\""), "- port \"t\"\n+ port \"u\"");
        assert_eq!(
            lines("[[network]]\nname = \"b\"", "[[network]]\nname = \"c\"\n[[network]]\nname = \"b\""),
            "+ network \"c\""
        );
    }

    #[test]
    fn groups_change_and_no_device_does() {
        const GROUPS: &str = r#"
security_group = [{ name = "web", rules = [{ direction = "ingress", protocol = "tcp", ports = 80 }] }]
address_group = [{ name = "office", addresses = ["192.0.2.0/24"] }]
network = [{ name = "n" }]
subnet = [{ name = "s", network = "n", cidr = "10.0.0.0/24" }]
port = [{ name = "p", network = "n", interface = { kind = "tap", name = "p" }, security_groups = ["web"] }]
"#;
        let lines = |from: &str, to: &str| {
            assert!(GROUPS.contains(from), "{from}");
            let model = |text: &str| load(text, "f.toml").unwrap();
            diff(&model(GROUPS), &model(&GROUPS.replacen(from, to, 1))).to_string()
        };
        assert_eq!(lines("security", "\n# moved\nsecurity"), "");
        assert_eq!(lines("ports = 80", "ports = 81"), "~ security group \"web\"");
        assert_eq!(lines("name = \"web\",", "name = \"web\", stateful = false,"), "~ security group \"web\"");
        assert_eq!(lines("name = \"web\",", "name = \"web\", log = \"all\","), "~ security group \"web\"");
        assert_eq!(
            lines("[{ name = \"web\"", "[{ name = \"default\" }, { name = \"web\""),
            "+ security group \"default\""
        );
        assert_eq!(lines("192.0.2.0/24", "192.0.2.0/25"), "~ address group \"office\"");
        assert_eq!(lines("\"office\"", "\"home\""), "- address group \"office\"\n+ address group \"home\"");
        let port = "~ port \"p\"";
        assert_eq!(lines("security_groups = [\"web\"]", "security_groups = [\"web\", \"default\"]"), port);
        assert_eq!(lines("security_groups = [\"web\"]", "port_security_enabled = false"), port);
        let pair = "allowed_address_pairs = [{ ip_address = \"10.0.0.9\" }], security_groups = [\"web\"]";
        assert_eq!(lines("security_groups = [\"web\"]", pair), port);
        let network = "[{ name = \"n\", mac_limit = 1, port_security_enabled = true }]";
        assert_eq!(lines("[{ name = \"n\" }]", network), "~ network \"n\"\n~ port \"p\"");
    }

    #[test]
    fn an_overlay_keeps_its_device_while_its_interface_stays() {
        const TUNNELS: &str = r#"
[overlay]
interface = "eth2"
local_ip = "192.0.2.10/24"
peers = ["192.0.2.11"]
[[network]]
name = "v"
network_type = "vxlan"
segmentation_id = 7
[[port]]
name = "g"
network = "v"
interface = { kind = "guest", name = "g" }
"#;
        let model =
            |text: &str| load(text, "f.toml").unwrap_or_else(|found| panic!("{} in {text}", found[0]));
        let lines = |from: &str, to: &str| {
            assert!(TUNNELS.contains(from), "{from}");
            diff(&model(TUNNELS), &model(&TUNNELS.replacen(from, to, 1))).to_string()
        };
        let gone = diff(&model(TUNNELS), &model(BASE)).to_string();
        assert!(gone.contains("\n- overlay\n"), "{gone}");
        let back = diff(&model(BASE), &model(TUNNELS)).to_string();
        assert!(back.contains("\n+ overlay\n"), "{back}");
        assert_eq!(lines("[overlay]", "# moved\n[overlay]\nvni_ranges = ['1:9']"), "");

        let interface = "interface = \"eth2\"";
        let anew = "~ overlay, its device is opened anew";
        assert_eq!(lines(interface, "interface = \"eth3\""), anew);
        assert_eq!(lines(interface, &format!("{interface}\ndriver = \"packet\"")), anew);
        let own = ["gateway_ip = '192.0.2.1'", "ttl = 9", "dscp = 46", "learn_peers = true"];
        for setting in own {
            assert_eq!(lines(interface, &format!("{interface}\n{setting}")), "~ overlay", "{setting}");
        }
        assert_eq!(lines("192.0.2.10/24", "192.0.2.10/25"), "~ overlay");
        // A device that may be the host's too is split by address and port.
        assert_eq!(lines("192.0.2.10/24", "192.0.2.12/24"), anew);
        assert_eq!(lines(interface, &format!("{interface}\nudp_port = 8472")), anew);
        for alone in ["driver = \"packet\"", "driver = \"xdp\"\nshared = false"] {
            let of_driver = |port: u16| {
                TUNNELS.replacen(interface, &format!("{interface}\n{alone}\nudp_port = {port}"), 1)
            };
            let lines = diff(&model(&of_driver(4789)), &model(&of_driver(8472))).to_string();
            assert_eq!(lines, "~ overlay", "{alone}");
        }
        // What networks have of the overlay changes them, and the ports on them.
        let tables = "~ network \"v\"\n~ overlay\n~ port \"g\"";
        assert_eq!(lines("192.0.2.11", "192.0.2.12"), tables);
        assert_eq!(lines(interface, &format!("{interface}\nmulticast_group = '239.1.1.1'")), tables);
        assert_eq!(lines("segmentation_id = 7", "segmentation_id = 8"), tables);
        // A guest's device has the network's MTU, and is ours to open anew.
        assert_eq!(
            lines(interface, &format!("{interface}\nmtu = 9000")),
            "~ network \"v\"\n~ port \"g\", its device is opened anew\n~ overlay"
        );
    }

    /// Files of the same few names, so that two of them share objects.
    fn model() -> impl Strategy<Value = Model> {
        let network = (0..3_u32, 0..3_usize);
        let port = (0..4_usize, 0..4_usize, 0..2_usize, any::<bool>());
        let networks = prop::collection::btree_map(0..4_usize, network, 1..4);
        let ports = prop::collection::btree_map(0..5_usize, port, 0..5);
        (networks, ports, any::<bool>(), 0..3_u32).prop_map(|(networks, ports, device, aging)| {
            let mut text =
                format!("switch.mac_aging_time = {}\n[[physical_network]]\nname = 'p'\n", 60 + aging);
            text += if device { "interface = 'eth1'\n" } else { "" };
            text += "vlan_ranges = ['10:20']\n";
            let overlay = networks.values().any(|(_, kind)| *kind == 2).then_some(aging + 1);
            if let Some(host) = overlay {
                text += &format!("[overlay]\ninterface = 'eth2'\nlocal_ip = '192.0.2.{host}/24'\n");
                text += "mtu = 9000\nvni_ranges = ['1:9']\n";
            }
            for (name, (mtu, kind)) in &networks {
                text += &format!("[[network]]\nname = 'n{name}'\nmtu = {}\n", 1500 + mtu);
                text += [
                    "",
                    "network_type = 'vlan'\nphysical_network = 'p'\n",
                    "network_type = 'vxlan'\nmulticast_group = '239.1.1.1'\n",
                ][*kind];
            }
            for (name, (network, device, kind, up)) in &ports {
                let network = networks.keys().nth(network % networks.len()).unwrap();
                let kind = ["tap", "guest"][*kind];
                text += &format!("[[port]]\nname = 'q{name}'\nadmin_state_up = {up}\n");
                text += &format!("interface = {{ kind = '{kind}', name = 'd{name}{device}' }}\n");
                text += &[format!("network = 'n{network}'\n"), "trunk.physical_network = 'p'\n".into()]
                    [*device % 2];
            }
            load(&text, "f.toml").unwrap_or_else(|found| panic!("{} in\n{text}", found[0]))
        })
    }

    /// What runs after a model was applied.
    fn running(model: &Model) -> BTreeMap<AttachmentKey, String> {
        let describe = |device: Device<'_>| {
            let (part, table) = parts(model, &device);
            let text = format!("{:?} {:?} {:?} {:?}", part.interface, part.mac, part.mtu, table.port);
            (device.key, format!("{text} {:?} {:?} {:?}", table.physical, table.overlay, table.networks))
        };
        model.attachments().map(describe).collect()
    }

    proptest! {
        #[test]
        fn applied_to_the_old_it_gives_the_new(old in model(), new in model()) {
            let diff = diff(&old, &new);
            let (mut state, wanted) = (running(&old), running(&new));
            for key in &diff.removed {
                prop_assert!(state.remove(key).is_some());
            }
            for key in &diff.added {
                prop_assert!(state.insert(key.clone(), wanted[key].clone()).is_none());
            }
            for key in diff.reopened.iter().chain(&diff.changed) {
                let was = state.insert(key.clone(), wanted[key].clone());
                prop_assert!(was.is_some_and(|was| was != wanted[key]), "{key} has not changed");
            }
            prop_assert_eq!(&state, &wanted);
            prop_assert!(diff.unchanged.iter().all(|key| state.contains_key(key)));

            let back = super::diff(&new, &old);
            prop_assert_eq!(back.added.len(), diff.removed.len());
            prop_assert_eq!(&back.networks_added, &diff.networks_removed);
            prop_assert_eq!(back.reopened.len(), diff.reopened.len());
            prop_assert_eq!(diff.to_string().is_empty(), diff.is_empty());
        }

        #[test]
        fn a_model_does_not_differ_from_itself(model in model()) {
            let diff = diff(&model, &model);
            prop_assert!(diff.is_empty());
            prop_assert_eq!(diff.unchanged.len(), model.attachments().count());
        }
    }
}
