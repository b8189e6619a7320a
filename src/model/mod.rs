//! Desired state in Neutron's words, valid as a whole: what a TOML file (and later the API) asks for, with defaults
//! filled in and references checked. Field names and defaults are those of the Neutron v2.0 API.
//!
//! The way here: `read` turns text into objects and collects every mistake with its place, `validate` checks what only
//! the whole can show. Nothing here opens a device or reads the system.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::Serialize;
use uuid::Uuid;

use crate::types::{Mac, VlanId};

/// Everything that the switch should be.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Model {
    /// `[switch]`.
    pub switch: Switch,
    /// `[[physical_network]]`.
    pub physical_networks: Vec<PhysicalNetwork>,
    /// `[[network]]`.
    pub networks: Vec<Network>,
    /// `[[port]]`.
    pub ports: Vec<Port>,
}

/// Where an object stands in its file, for messages.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize)]
pub struct Origin {
    /// The file as it was named.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
}

/// `[switch]`: the process itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Switch {
    /// CPUs, one worker pinned to each. Empty: one worker, not pinned.
    pub workers: Vec<usize>,
    /// What a worker does without traffic.
    pub idle: Idle,
    /// Path of the control socket.
    pub control: PathBuf,
    /// Permission bits of the control socket; default 0o600.
    pub control_mode: u32,
    /// Group that owns the control socket, by name.
    pub control_group: Option<String>,
    /// Seconds after which a learned MAC that was not seen is forgotten; default 300 (IEEE 802.1Q-2018, 8.8.3).
    pub mac_aging_time: u32,
    /// 2048-byte buffers for each worker, a power of two; default 16384.
    pub buffers: u32,
}

/// What a worker does when there is nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Idle {
    /// Spin while there is traffic and shortly after it, then sleep.
    #[default]
    Adaptive,
    /// Never sleep.
    Poll,
    /// Never spin.
    Sleep,
}

/// `[[physical_network]]`: a named way out of the host, for flat and VLAN networks.
#[derive(Clone, Debug, PartialEq)]
pub struct PhysicalNetwork {
    /// Unique among physical networks.
    pub name: String,
    /// The device; none for a physical network that lives between trunk ports of this switch only.
    pub interface: Option<Interface>,
    /// VLAN IDs that are handed out to networks without a `segmentation_id`.
    pub vlan_ranges: Vec<(VlanId, VlanId)>,
    /// Where it was said.
    pub origin: Origin,
}

/// `[[network]]`: an L2 domain.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// Stable for the name: UUID version 5.
    pub id: Uuid,
    /// Unique among networks.
    pub name: String,
    /// How it looks on the wire, and where.
    pub segment: Segment,
    /// Longest packet in bytes, without Ethernet header and VLAN tag; default 1500.
    pub mtu: u16,
    /// Most learned MACs; default 8192.
    pub mac_limit: u32,
    /// Where it was said.
    pub origin: Origin,
}

/// Neutron's `network_type`, `physical_network` and `segmentation_id` in one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Within this switch only.
    Local,
    /// Untagged on the physical network of this name.
    Flat(String),
    /// Tagged on the physical network of this name.
    Vlan(String, VlanId),
}

/// `[[port]]`: an attachment to a network, or to several as a trunk.
#[derive(Clone, Debug, PartialEq)]
pub struct Port {
    /// Stable for the name: UUID version 5.
    pub id: Uuid,
    /// Unique among ports.
    pub name: String,
    /// What it attaches to.
    pub attachment: Attachment,
    /// Its device.
    pub interface: Interface,
    /// The MAC of what is behind the port, known without learning: given, or generated for `tap` and `guest`.
    pub mac_address: Option<Mac>,
    /// Further MACs behind the port that are known without learning.
    pub static_macs: Vec<Mac>,
    /// Most learned MACs; default 1024.
    pub mac_limit: u32,
    /// False: the port exists and neither receives nor sends.
    pub admin_state_up: bool,
    /// Where it was said.
    pub origin: Origin,
}

/// What a port attaches to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// One network, untagged, by name.
    Access(String),
    /// Several VLAN networks of a physical network, tagged.
    Trunk {
        /// Name of the physical network.
        physical_network: String,
        /// The network that is untagged here, by name.
        native: Option<String>,
        /// The VLANs that pass, tagged; none: all networks of the physical network.
        allowed: Option<BTreeSet<VlanId>>,
    },
}

/// `interface = { kind = …, name = … }`: the device behind a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Interface {
    /// A TAP that the switch holds; the kernel's side is the end point.
    Tap {
        /// Device name, at most 15 bytes.
        name: String,
        /// Namespace of the device: a name under /run/netns, or an absolute path.
        netns: Option<String>,
        /// Address and prefix length to give the device.
        address: Vec<(IpAddr, u8)>,
    },
    /// A persistent TAP that a hypervisor opens; the switch stands on the netdev side.
    Guest {
        /// Device name, at most 15 bytes.
        name: String,
        /// User that may open it, by name or number; default: root alone.
        owner: Option<String>,
    },
    /// AF_XDP on an existing device.
    Xdp {
        /// Device name.
        name: String,
        /// What to do about the driver's support.
        mode: XdpMode,
        /// Whether the host's own traffic passes to the kernel; none: when the device has an address.
        shared: Option<bool>,
        /// Spend the worker's time on the device's queues instead of interrupts (`SO_PREFER_BUSY_POLL`).
        busy_poll: bool,
    },
    /// AF_PACKET on an existing device.
    Packet {
        /// Device name.
        name: String,
    },
    /// A file to play and a file to write.
    Pcap {
        /// Frames to receive, once, as fast as they are taken; pcap or pcapng.
        read: Option<PathBuf>,
        /// Where sent frames go; pcapng.
        write: Option<PathBuf>,
    },
    /// AF_XDP where it works, AF_PACKET where not: the default of a physical network.
    Best {
        /// Device name.
        name: String,
        /// As in `Xdp`.
        shared: Option<bool>,
    },
}

/// Where the XDP program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// Native where the driver has it, generic where not.
    #[default]
    Best,
    /// In the driver, or not at all.
    Native,
    /// In the kernel's generic path.
    Generic,
}

impl Default for Switch {
    fn default() -> Switch {
        Switch {
            workers: Vec::new(),
            idle: Idle::default(),
            control: PathBuf::from("/run/nuswitch/control.sock"),
            control_mode: 0o600,
            control_group: None,
            mac_aging_time: 300,
            buffers: 16384,
        }
    }
}

// SHIM: stands in until reading a configuration is merged; drop it then.
#[allow(missing_docs)]
#[derive(Debug, thiserror::Error)]
#[error("this version cannot read configurations yet")]
pub struct Diagnostic;

#[allow(missing_docs)]
impl Diagnostic {
    pub fn render(&self, _source: &str) -> String {
        self.to_string()
    }
}

#[allow(missing_docs)]
pub fn load(_text: &str, _file: &str) -> Result<Model, Vec<Diagnostic>> {
    Err(vec![Diagnostic])
}
