//! What the control API says, as data: resources in the names of the Neutron v2.0 API, and the switch's own status,
//! FDB, drops, traces and errors. Both sides of the socket use these structs, so they cannot drift apart.
//!
//! A field that does not apply is `null`, never left out: clients can rely on every key.

mod guest;
mod router;
mod security;

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::model;
use crate::ports::Details;
use crate::stats::PortSnapshot;
use crate::types::Mac;
pub use guest::*;
pub use router::*;
pub use security::*;

/// The process: `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the program.
    pub version: String,
    /// Process ID.
    pub pid: u32,
    /// Seconds since the start.
    pub uptime_seconds: u64,
    /// The configuration file as it was named.
    pub config: String,
    /// Number of the published tables: 1 at the start, one more with each change.
    pub epoch: u64,
    /// The workers in the order of `switch.workers`.
    pub workers: Vec<Worker>,
    /// What the metadata service has counted since the start, by names that stay; what is zero is left out.
    pub metadata: BTreeMap<String, u64>,
    /// Guests' connections, which security groups go by: a line for each worker that tracks some.
    pub security: Vec<TrackerStats>,
}

/// What a worker is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkerState {
    /// It asks its devices in turn.
    Polling,
    /// It waits for a device to wake it.
    Sleeping,
}

/// One poll-mode thread.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    /// From 0.
    pub index: usize,
    /// The CPU that it is pinned to.
    pub cpu: Option<usize>,
    /// Now.
    pub state: WorkerState,
    /// Turns of its loop since the start.
    pub turns: u64,
    /// Share of its recent turns that found frames, 0 to 1; none where it is not measured.
    pub busy_fraction: Option<f64>,
    /// Cycles of the time stamp counter that each frame took of late, all included: receiving, deciding, sending; none
    /// where there was no frame.
    pub cycles_per_frame: Option<f64>,
    /// Names of the ports that it owns.
    pub ports: Vec<String>,
    /// Frames received on them since the start.
    pub rx_frames: u64,
    /// Frames for other workers that found their ring full.
    pub handoff_drops: u64,
    /// Buffers that hold no frame.
    pub free_buffers: u64,
    /// All buffers.
    pub total_buffers: u64,
}

/// Whether a resource works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum State {
    /// It works.
    Active,
    /// It does not; `status_reason` of a port says why.
    Down,
}

/// An L2 domain: `GET /v2.0/networks`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// Stable for the name.
    pub id: Uuid,
    /// Unique among networks.
    pub name: String,
    /// `local`, `flat`, `vlan` or `vxlan`.
    pub network_type: String,
    /// Where it leaves the host.
    pub physical_network: Option<String>,
    /// Its VLAN ID there, or its VNI in tunnels.
    pub segmentation_id: Option<u32>,
    /// Longest packet in bytes.
    pub mtu: u16,
    /// Most learned MACs.
    pub mac_limit: u32,
    /// The domain that guests are told, without a dot at its end.
    pub dns_domain: Option<String>,
    /// Whether its `tap` and `guest` ports that do not say it have port security.
    pub port_security_enabled: bool,
    /// Learned MACs now.
    pub macs: u32,
    /// Always active: a network has no device of its own that could fail.
    pub status: State,
}

impl Network {
    /// A network of the model, with the number of its learned MACs.
    pub fn of(network: &model::Network, macs: u32) -> Network {
        let (network_type, physical_network, segmentation_id) = match &network.segment {
            model::Segment::Local => ("local", None, None),
            model::Segment::Flat(physical) => ("flat", Some(physical.clone()), None),
            model::Segment::Vlan(physical, vlan) => {
                ("vlan", Some(physical.clone()), Some(u32::from(vlan.get())))
            }
            model::Segment::Vxlan(vni, _) => ("vxlan", None, Some(vni.get())),
        };
        Network {
            id: network.id,
            name: network.name.clone(),
            network_type: network_type.to_owned(),
            physical_network,
            segmentation_id,
            mtu: network.mtu,
            mac_limit: network.mac_limit,
            dns_domain: network.dns_domain.clone(),
            port_security_enabled: network.port_security_enabled,
            macs,
            status: State::Active,
        }
    }
}

/// What a port is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A `[[port]]` of the configuration.
    Port,
    /// The device of a `[[physical_network]]`.
    PhysicalNetwork,
    /// The device of the `[overlay]`, which tunnels leave through.
    Overlay,
}

/// Several VLAN networks on one port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trunk {
    /// Whose networks pass.
    pub physical_network: String,
    /// The network that is untagged here.
    pub native: Option<String>,
    /// The VLAN IDs that pass tagged; none: all of the physical network.
    pub allowed: Option<Vec<u16>>,
}

/// The device behind a port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// As configured: `tap`, `guest`, `xdp`, `packet`, `pcap`, `best`.
    pub kind: String,
    /// Its name, with its namespace where it has one: `eth0@lab`.
    pub device: String,
    /// What drives it now; none while the port is down.
    pub driver: Option<String>,
    /// What is worth knowing: native or generic, zero-copy, queues, and why not the best.
    pub notes: Vec<String>,
}

impl Interface {
    /// An open device.
    pub fn of(kind: &str, details: &Details) -> Interface {
        Interface {
            kind: kind.to_owned(),
            device: details.device.clone(),
            driver: Some(details.driver.to_owned()),
            notes: details.notes.clone(),
        }
    }
}

/// An attachment to one network or to several: `GET /v2.0/ports`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Port {
    /// Stable for the name.
    pub id: Uuid,
    /// Unique among ports; for the device of a physical network, the physical network's name; `overlay` for that of the
    /// overlay.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Name of its network, for an access port.
    pub network: Option<String>,
    /// What passes, for a trunk port.
    pub trunk: Option<Trunk>,
    /// Its device.
    pub interface: Interface,
    /// The MAC of what is behind it, where that is known.
    pub mac_address: Option<Mac>,
    /// Longest packet in bytes.
    pub mtu: u16,
    /// Index of the worker that owns it; none while it is down.
    pub worker: Option<usize>,
    /// Whether it works.
    pub status: State,
    /// Why it does not.
    pub status_reason: Option<String>,
    /// False: switched off by the configuration.
    pub admin_state_up: bool,
    /// Options that DHCP gives its guest besides, or instead of what it would give.
    pub extra_dhcp_opts: Vec<ExtraDhcpOpt>,
    /// Whether its guest is held to its own addresses; else it is trusted.
    pub port_security_enabled: bool,
    /// IDs of its security groups.
    pub security_groups: Vec<Uuid>,
    /// What its guest may send from besides its own.
    pub allowed_address_pairs: Vec<AddressPair>,
    /// Since the port was made.
    pub counters: PortSnapshot,
}

/// How an FDB entry came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FdbKind {
    /// From the source address of a frame.
    Learned,
    /// From the configuration.
    Static,
}

/// A line of the MAC table: `GET /v1/fdb`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdbEntry {
    /// Name of the network.
    pub network: String,
    /// Its VLAN ID on the wire.
    pub vlan: Option<u16>,
    /// The address.
    pub mac: Mac,
    /// Name of the port that it is behind; for one on another host, the address of its VTEP.
    pub port: String,
    /// Learned or static.
    pub kind: FdbKind,
    /// Seconds since it was last seen; none for a static one.
    pub age_seconds: Option<u64>,
}

/// The tunnels: `GET /v1/tunnels`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tunnels {
    /// This end; none without an `[overlay]`.
    pub vtep: Option<Vtep>,
    /// The other ends, in the order of their addresses.
    pub peers: Vec<Peer>,
    /// The networks that are in tunnels, in the order of the configuration.
    pub networks: Vec<TunnelledNetwork>,
}

/// The local VTEP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Vtep {
    /// Its address.
    pub address: IpAddr,
    /// Prefix length of its subnet.
    pub prefix_len: u8,
    /// The next hop to peers outside of the subnet.
    pub gateway_ip: Option<IpAddr>,
    /// The device's address; none while it is not open.
    pub mac_address: Option<Mac>,
    /// The device.
    pub interface: Interface,
    /// Longest outer packet in bytes.
    pub mtu: u16,
    /// UDP port of this VTEP and of its peers.
    pub udp_port: u16,
    /// Whether VTEPs that nobody named become peers by sending.
    pub learn_peers: bool,
    /// Whether it works.
    pub status: State,
    /// Why it does not.
    pub status_reason: Option<String>,
    /// Of the device: outer packets.
    pub counters: PortSnapshot,
}

/// How a peer came to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerKind {
    /// The configuration names it.
    Configured,
    /// It has sent to us.
    Learned,
    /// A multicast group that stands for all peers.
    Group,
    /// All VTEPs that are not peers yet, until they are learned.
    Unknown,
}

/// Another end of tunnels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// What the FDB and drops call it: its address, or `unknown peers`.
    pub name: String,
    /// Its VTEP's address, or the group's; none for unknown peers.
    pub address: Option<IpAddr>,
    /// How it came to be known.
    pub kind: PeerKind,
    /// MAC of the next hop to it; none while that is not resolved.
    pub next_hop: Option<Mac>,
    /// Longest outer packet in bytes that gets there, as far as is known; none for unknown peers.
    pub path_mtu: Option<u16>,
    /// Names of the networks that it has.
    pub networks: Vec<String>,
    /// Inner frames.
    pub counters: PortSnapshot,
}

/// Where frames for many go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flooding {
    /// A copy to each peer.
    Peers,
    /// One to the multicast group.
    Group,
    /// Into no tunnel: all that is elsewhere is known, or there is nobody.
    None,
}

/// A network in tunnels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TunnelledNetwork {
    /// Its name.
    pub name: String,
    /// Its VNI.
    pub segmentation_id: u32,
    /// Longest inner packet in bytes.
    pub mtu: u16,
    /// How many peers have it.
    pub peers: u32,
    /// Where its floods go.
    pub flooding: Flooding,
    /// Frames out of tunnels.
    pub rx_frames: u64,
    /// Their bytes, of the inner frames.
    pub rx_bytes: u64,
    /// Frames into tunnels, each copy by itself.
    pub tx_frames: u64,
    /// Their bytes, of the inner frames.
    pub tx_bytes: u64,
}

/// Frames that a port dropped for one reason: `GET /v1/drops`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drop {
    /// Name of the port, of the peer whose tunnel they came from or should have gone into, or of a router's interface.
    pub port: String,
    /// Stable name of the reason.
    pub reason: String,
    /// The reason as a sentence.
    pub meaning: String,
    /// Frames.
    pub count: u64,
}

/// What a reload did: the answer of `POST /v1/reload`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadReport {
    /// One line for each change, in the configuration's words; empty when the file says what runs already.
    pub changes: Vec<String>,
    /// The epoch that is in force now.
    pub epoch: u64,
}

/// The body of `POST /v1/trace`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceRequest {
    /// Name or ID of the port that the frame is received on.
    pub port: String,
    /// The frame from destination address to payload, without FCS, in hexadecimal.
    pub frame: String,
}

/// One decision about a traced frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceStep {
    /// Where on the path: `ingress`, `bridge`, `egress`.
    pub stage: String,
    /// What was decided and why, in the configuration's words.
    pub text: String,
}

/// A frame that would have been sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceOutput {
    /// Name of the port.
    pub port: String,
    /// The frame as it would leave, in hexadecimal.
    pub frame: String,
}

/// What would become of a frame: the answer of `POST /v1/trace`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// Name of the port that it was received on.
    pub port: String,
    /// The end: `forwarded`, `flooded`, `answered`, `consumed` or `dropped: <reason>`.
    pub verdict: String,
    /// Decisions in order.
    pub steps: Vec<TraceStep>,
    /// What would have been sent.
    pub outputs: Vec<TraceOutput>,
}

/// One mistake in a configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// The file as it was named.
    pub file: String,
    /// From 1; none where the mistake has no place.
    pub line: Option<usize>,
    /// From 1, in characters.
    pub column: Option<usize>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// All of that with the line of the file, for a terminal.
    pub rendered: String,
}

/// Why a request failed, in the form of Neutron's errors:
/// `{"NeutronError": {"type": …, "message": …, "detail": …}, "diagnostics": […]}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{}", body.message)]
pub struct Problem {
    /// The HTTP status; stands in the status line, not in the body.
    #[serde(skip)]
    pub status: u16,
    /// The error.
    #[serde(rename = "NeutronError")]
    pub body: ProblemBody,
    /// Every mistake, where a configuration was refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diagnostics: Vec<Diagnostic>,
}

/// The inner part of a [`Problem`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProblemBody {
    /// A stable name, as `PortNotFound`.
    #[serde(rename = "type")]
    pub kind: String,
    /// A sentence for people.
    pub message: String,
    /// More, or empty.
    pub detail: String,
}

impl Problem {
    /// `type` of a refused configuration.
    pub const INVALID_CONFIGURATION: &str = "InvalidConfiguration";

    /// A problem with this HTTP status, stable name and sentence.
    pub fn new(status: u16, kind: &str, message: impl Into<String>) -> Problem {
        let body = ProblemBody { kind: kind.to_owned(), message: message.into(), detail: String::new() };
        Problem { status, body, diagnostics: Vec::new() }
    }

    /// The same, with more to say.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Problem {
        self.body.detail = detail.into();
        self
    }

    /// 404: there is no such network or port.
    pub fn not_found(kind: &str, name: &str) -> Problem {
        Problem::new(404, &format!("{kind}NotFound"), format!("{kind} {name} could not be found."))
    }

    /// 400: the request itself is wrong.
    pub fn invalid(message: impl Into<String>) -> Problem {
        Problem::new(400, "InvalidInput", message)
    }

    /// 500: the switch could not do it.
    pub fn internal(message: impl Into<String>) -> Problem {
        Problem::new(500, "InternalServerError", message)
    }

    /// 400: the configuration file has mistakes, and what ran before goes on.
    pub fn configuration(diagnostics: Vec<Diagnostic>) -> Problem {
        let count = diagnostics.len();
        let message = format!("the configuration has {count} mistake{}", if count == 1 { "" } else { "s" });
        Problem { diagnostics, ..Problem::new(400, Problem::INVALID_CONFIGURATION, message) }
    }

    /// Whether a configuration was refused.
    pub fn is_configuration(&self) -> bool {
        self.body.kind == Problem::INVALID_CONFIGURATION
    }
}
