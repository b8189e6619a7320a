//! Routers, as the control API tells of them: Neutron's objects with what the switch knows besides, and the switch's own
//! routes, neighbours, connections and bindings.

use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::State;
use crate::stats::PortSnapshot;
use crate::types::Mac;

/// A router: `GET /v2.0/routers`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Router {
    /// Stable for the name.
    pub id: Uuid,
    /// Unique among routers.
    pub name: String,
    /// Active when it forwards.
    pub status: State,
    /// False: switched off by the configuration.
    pub admin_state_up: bool,
    /// Its way to the world.
    pub external_gateway_info: Option<GatewayInfo>,
    /// Extra routes.
    pub routes: Vec<ExtraRoute>,
    /// Its interfaces, the gateway's among them.
    pub interfaces: Vec<RouterInterface>,
    /// Index of the worker that translates for it and resolves its neighbours.
    pub worker: Option<usize>,
    /// Connections that are tracked for it.
    pub connections: u64,
    /// Ports and identifiers of its SNAT addresses in use.
    pub bindings: u64,
    /// How often there was none.
    pub exhausted: u64,
}

/// Neutron's `external_gateway_info`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayInfo {
    /// The external network.
    pub network_id: Uuid,
    /// Its name.
    pub network: String,
    /// Whether IPv4 leaves with an address of the gateway's.
    pub enable_snat: bool,
    /// The gateway's addresses.
    pub external_fixed_ips: Vec<FixedIp>,
}

/// An address on a subnet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FixedIp {
    /// The subnet.
    pub subnet_id: Uuid,
    /// Its name.
    pub subnet: String,
    /// The address.
    pub ip_address: IpAddr,
}

/// An extra route of a router, or a route that guests are told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtraRoute {
    /// Where to.
    pub destination: String,
    /// By whom.
    pub nexthop: IpAddr,
}

/// An interface of a router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouterInterface {
    /// What routes, neighbours, drops and traces call it: the router and the first of its subnets.
    pub name: String,
    /// Its network, by name.
    pub network: String,
    /// Its address on the link.
    pub mac_address: Mac,
    /// Its addresses.
    pub fixed_ips: Vec<FixedIp>,
    /// Whether it is the one to the world.
    pub is_gateway: bool,
    /// Longest packet in bytes.
    pub mtu: u16,
    /// Frames that it sends into its network are `rx`, those that it takes from there `tx`: as of any port of the network.
    pub counters: PortSnapshot,
}

/// A subnet: `GET /v2.0/subnets`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// Stable for the name.
    pub id: Uuid,
    /// Unique among subnets.
    pub name: String,
    /// Its network.
    pub network_id: Uuid,
    /// The network's name.
    pub network: String,
    /// 4 or 6.
    pub ip_version: u8,
    /// Its prefix.
    pub cidr: String,
    /// The gateway's address.
    pub gateway_ip: Option<IpAddr>,
    /// Ranges that addresses are handed out from.
    pub allocation_pools: Vec<AllocationPool>,
    /// Whether guests are told their addresses.
    pub enable_dhcp: bool,
    /// DNS servers that guests are told.
    pub dns_nameservers: Vec<IpAddr>,
    /// NTP servers that guests are told.
    pub ntp_servers: Vec<IpAddr>,
    /// Routes that guests are told.
    pub host_routes: Vec<ExtraRoute>,
    /// What our routers advertise: `slaac`, `dhcpv6-stateful` or `dhcpv6-stateless`.
    pub ipv6_ra_mode: Option<String>,
    /// How guests get their addresses, one of the same.
    pub ipv6_address_mode: Option<String>,
}

/// A range of addresses, both ends included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllocationPool {
    /// The first.
    pub start: IpAddr,
    /// The last.
    pub end: IpAddr,
}

/// A floating IP: `GET /v2.0/floatingips`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FloatingIp {
    /// Stable for network and address.
    pub id: Uuid,
    /// The address.
    pub floating_ip_address: Ipv4Addr,
    /// The external network.
    pub floating_network_id: Uuid,
    /// Its name.
    pub floating_network: String,
    /// The router that has it.
    pub router_id: Option<Uuid>,
    /// The router's name.
    pub router: Option<String>,
    /// The port that it stands for.
    pub port_id: Option<Uuid>,
    /// The port's name.
    pub port: Option<String>,
    /// The port's address that it stands for.
    pub fixed_ip_address: Option<Ipv4Addr>,
    /// Active while it stands for something at a router that forwards.
    pub status: State,
    /// Forwarded ports.
    pub port_forwardings: Vec<PortForwarding>,
}

/// Forwarded ports of a floating IP: `GET /v2.0/floatingips/{id}/port_forwardings`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortForwarding {
    /// Stable for floating IP, protocol and port.
    pub id: Uuid,
    /// `tcp`, `udp` or `dccp`.
    pub protocol: String,
    /// The port outside; none for a range.
    pub external_port: Option<u16>,
    /// The ports outside, as `6000:6009`.
    pub external_port_range: String,
    /// The port that it leads to.
    pub internal_port_id: Uuid,
    /// The address there.
    pub internal_ip_address: Ipv4Addr,
    /// The port inside; none for a range.
    pub internal_port: Option<u16>,
    /// The ports inside.
    pub internal_port_range: String,
}

/// What becomes of packets on a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RouteKind {
    /// They are for the router itself.
    Local,
    /// NAT decides.
    Translated,
    /// They are for all hosts of a subnet, and dropped.
    Broadcast,
    /// They go to the destination itself.
    Connected,
    /// They go to a next hop.
    Via,
}

/// A line of a router's FIB: `GET /v1/routes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Name of the router.
    pub router: String,
    /// Where to.
    pub destination: String,
    /// How.
    pub kind: RouteKind,
    /// The interface, where there is one and no other.
    pub interface: Option<String>,
    /// Next hops; several share the flows.
    pub nexthops: Vec<NextHop>,
    /// What it comes from: `subnet`, `gateway`, `extra` or `floating_ip`.
    pub origin: String,
    /// The subnet, where it comes from one.
    pub subnet: Option<String>,
}

/// A next hop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextHop {
    /// Its address.
    pub address: IpAddr,
    /// The interface that it is on.
    pub interface: String,
}

/// A neighbour of a router's interface: `GET /v1/neighbours`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbour {
    /// Name of the router.
    pub router: String,
    /// The network that both are on.
    pub network: String,
    /// The interface.
    pub interface: String,
    /// The neighbour's address.
    pub address: IpAddr,
    /// Its MAC, if it is known.
    pub mac: Option<Mac>,
    /// `known` from the configuration, or `incomplete`, `reachable`, `stale`, `probe`, `failed` (RFC 4861, 7.3.2).
    pub state: String,
}

/// The ends of packets that go one way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ends {
    /// Where they come from.
    pub source: IpAddr,
    /// Where they go.
    pub destination: IpAddr,
    /// The source's port, where the protocol has ports.
    pub source_port: Option<u16>,
    /// The destination's.
    pub destination_port: Option<u16>,
    /// The identifier of an ICMP query.
    pub icmp_id: Option<u16>,
}

/// A tracked connection: `GET /v1/conntrack`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// Name of the router; none for one that a guest has in its network.
    pub router: Option<String>,
    /// Name of the network, for one that is tracked for a guest's security groups. One that leaves its network by a router that
    /// tracks it is told twice: as the guest's, and as the router's.
    pub network: Option<String>,
    /// Index of the worker that tracks it.
    pub worker: usize,
    /// Name or number of the IP protocol.
    pub protocol: String,
    /// `unreplied`, `replied`; TCP: `syn-sent`, `syn-received`, `picked-up`, `established`, `half-closed`, `closing`,
    /// `time-wait`, `reset`.
    pub state: String,
    /// Whether the first packet came from outside; of a guest's: whether it came from elsewhere to the guest.
    pub inbound: bool,
    /// The ends of the first packet as it came.
    pub original: Ends,
    /// The ends of the first packet as it went on.
    pub translated: Ends,
    /// The ends of an answer as it comes.
    pub reply: Ends,
    /// Seconds until it ends if no packet comes.
    pub expires_in: u32,
    /// Name of the port of its inside end, if that is one of ours; of a guest's: of who sent its first packet, or, where that is no
    /// guest of this worker, of who got it.
    pub guest: Option<String>,
    /// The rule that let its first packet leave its sender, a guest of this worker; none where that has no say. Both rules are
    /// none from a change of groups or members on until the next packet, by which they are asked again.
    pub egress_rule: Option<AdmittedBy>,
    /// The rule that let it enter its receiver.
    pub ingress_rule: Option<AdmittedBy>,
    /// Packets as the first one, and answers.
    pub packets: [u64; 2],
    /// Their bytes, from the IP header on.
    pub bytes: [u64; 2],
}

/// A rule that let a connection begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdmittedBy {
    /// Name of its group.
    pub security_group: String,
    /// The rule, as people read it.
    pub rule: String,
}

/// A line of `GET /v1/conntrack/events`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum ConnectionEvent {
    /// From here on all is told.
    Following,
    /// A connection began.
    New {
        /// As it is.
        connection: Connection,
    },
    /// It has another state.
    Changed {
        /// As it is now.
        connection: Connection,
    },
    /// It is gone.
    Ended {
        /// As it was.
        connection: Connection,
        /// `expired`, `removed`, or that it went for another: `guest_limit`, `full`.
        why: String,
    },
    /// So many events before the next one are not told, as too much happened at once. They are counted before filters.
    Lost {
        /// How many.
        count: u64,
    },
}

/// What `DELETE /v1/conntrack` did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flushed {
    /// Connections removed.
    pub removed: u64,
}

/// A binding, or endpoint-independent mapping: `GET /v1/bindings`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// Name of the router.
    pub router: String,
    /// Name or number of the IP protocol.
    pub protocol: String,
    /// The inside address.
    pub inside_address: IpAddr,
    /// The inside port, or an ICMP query's identifier.
    pub inside_port: Option<u16>,
    /// The outside address.
    pub outside_address: IpAddr,
    /// The outside port or identifier.
    pub outside_port: Option<u16>,
    /// Connections that use it.
    pub connections: u32,
    /// False: the router has the address no more.
    pub current: bool,
}

/// What routers translate: `GET /v1/nat`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nat {
    /// SNAT addresses, a line for each protocol.
    pub pools: Vec<Pool>,
    /// Floating IPs and forwarded ports.
    pub mappings: Vec<Mapping>,
    /// A line for each worker that translates.
    pub trackers: Vec<TrackerStats>,
}

/// What of a SNAT address is in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Name of the router.
    pub router: String,
    /// The address.
    pub address: IpAddr,
    /// `tcp`, `udp` or `icmp`.
    pub protocol: String,
    /// Ports or identifiers in use.
    pub used: u32,
    /// All.
    pub total: u32,
    /// How often the router had none, in all protocols and at all its addresses.
    pub exhausted: u64,
}

/// What a floating IP, or ports of it, stand for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapping {
    /// Name of the router.
    pub router: String,
    /// The floating IP.
    pub floating_ip_address: Ipv4Addr,
    /// The protocol of forwarded ports; none: all of the address.
    pub protocol: Option<String>,
    /// Forwarded ports, as `8080` or `6000:6009`.
    pub external_ports: Option<String>,
    /// Name of the port.
    pub port: String,
    /// Its address.
    pub fixed_ip_address: Ipv4Addr,
    /// Ports there.
    pub internal_ports: Option<String>,
}

/// A worker's connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackerStats {
    /// Index of the worker.
    pub worker: usize,
    /// Now, with those that ended of late and are not cleared away yet.
    pub connections: u32,
    /// As many as there may be.
    pub max_connections: u32,
    /// Bindings now.
    pub bindings: u32,
    /// Connections since the start.
    pub created: u64,
    /// Ended as nothing came.
    pub expired: u64,
    /// Went as their guest had too many.
    pub guest_limit: u64,
    /// Went as there were too many.
    pub full: u64,
    /// Removed, by flushing or as what they stood on is gone.
    pub removed: u64,
    /// Not tracked.
    pub refused: u64,
    /// Packets that could not be of their connection.
    pub invalid: u64,
}
