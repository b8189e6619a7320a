//! What differs between two models, as plain data, in the words of what has to be done.
//!
//! An attachment is *reopened* when its device has to be another one or configured anew, and *changed* when only tables
//! differ: a changed one keeps its device and loses no frame. Where an object stands in its file is no difference.
//! Devices of removed and reopened attachments must be closed before any is opened: one may take over another's.

use std::collections::HashMap;
use std::fmt;

use super::{AttachmentKey, Device, Interface, Model, Network, Origin, PhysicalNetwork, Port, Switch};

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
    /// Settings of `[switch]` that can be applied while running, in words.
    pub settings: Vec<String>,
    /// Settings of `[switch]` that stay as they are until a restart, in words.
    pub restart: Vec<String>,
}

/// What it takes to get from `old` to `new`.
pub fn diff(old: &Model, new: &Model) -> Diff {
    let mut diff = Diff::default();
    attachments(old, new, &mut diff);
    networks(old, new, &mut diff);
    settings(&old.switch, &new.switch, &mut diff);
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
}

/// An attachment as far as it decides about tables.
#[derive(PartialEq)]
struct TablePart {
    port: Option<Port>,
    physical: Option<PhysicalNetwork>,
    networks: Vec<Network>,
}

fn parts<'m>(model: &'m Model, device: &Device<'m>) -> (DevicePart<'m>, TablePart) {
    let (port, physical) = match &device.key {
        AttachmentKey::Port(name) => (model.ports.iter().find(|port| port.name == *name), None),
        AttachmentKey::Physical(name) => (None, model.physical_networks.iter().find(|p| p.name == *name)),
    };
    let interface = device.interface;
    let is_tap = matches!(interface, Interface::Tap { .. });
    let is_ours = is_tap || matches!(interface, Interface::Guest { .. });
    let device_part = DevicePart {
        interface,
        mac: port.and_then(|port| port.mac_address).filter(|_| is_tap),
        mtu: is_ours.then_some(device.mtu),
    };
    let nowhere = Origin::default;
    let table_part = TablePart {
        port: port.map(|port| Port { origin: nowhere(), ..port.clone() }),
        // The ranges have done their work: IDs stand in the networks.
        physical: physical.map(|p| PhysicalNetwork { origin: nowhere(), vlan_ranges: Vec::new(), ..p.clone() }),
        networks: model.networks_of(&device.key).map(placeless).collect(),
    };
    (device_part, table_part)
}

fn placeless(network: &Network) -> Network {
    Network { origin: Origin::default(), ..network.clone() }
}

fn attachments(old: &Model, new: &Model, diff: &mut Diff) {
    let mut before: HashMap<AttachmentKey, Device<'_>> = old.attachments().map(|d| (d.key.clone(), d)).collect();
    for device in new.attachments() {
        let list = match before.remove(&device.key) {
            None => &mut diff.added,
            Some(was) => {
                let ((old_device, old_table), (new_device, new_table)) = (parts(old, &was), parts(new, &device));
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
    diff.removed = old.attachments().map(|device| device.key).filter(|key| before.contains_key(key)).collect();
}

fn networks(old: &Model, new: &Model, diff: &mut Diff) {
    let mut before: HashMap<&str, &Network> = old.networks.iter().map(|n| (n.name.as_str(), n)).collect();
    for network in &new.networks {
        match before.remove(network.name.as_str()) {
            None => diff.networks_added.push(network.name.clone()),
            Some(was) if placeless(was) != placeless(network) => diff.networks_changed.push(network.name.clone()),
            Some(_) => {}
        }
    }
    let gone = old.networks.iter().filter(|network| before.contains_key(network.name.as_str()));
    diff.networks_removed = gone.map(|network| network.name.clone()).collect();
}

fn settings(old: &Switch, new: &Switch, diff: &mut Diff) {
    // Taken apart, so that a new setting cannot be forgotten here.
    let Switch { workers, idle, control, control_mode, control_group, mac_aging_time, buffers } = new;
    let mut live = |name: &str, differs: bool, from: String, to: String| {
        if differs {
            diff.settings.push(format!("{name}: {from} becomes {to}"));
        }
    };
    live("idle", old.idle != *idle, format!("{:?}", old.idle), format!("{idle:?}"));
    let (from, to) = (old.mac_aging_time.to_string(), mac_aging_time.to_string());
    live("mac_aging_time", old.mac_aging_time != *mac_aging_time, from, to);

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
    restart("control_group", old.control_group != *control_group, group(&old.control_group), group(control_group));
    restart("buffers", old.buffers != *buffers, old.buffers.to_string(), buffers.to_string());
}

/// One line for each difference, `+`, `-`, `~` or `!` in front; nothing for no difference.
impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = Vec::new();
        let mut networks = |sign: char, names: &[String], what: &str| {
            lines.extend(names.iter().map(|name| format!("{sign} network \"{name}\"{what}")));
        };
        networks('-', &self.networks_removed, "");
        networks('+', &self.networks_added, "");
        networks('~', &self.networks_changed, "");
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
