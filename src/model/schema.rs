//! The objects of the configuration as the rest of the switch sees them: defaults filled in, references valid. Plain
//! data; the rules stand in [`super::validate`].

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use ipnet::IpNet;
use serde::Serialize;
use uuid::Uuid;

use super::security::{AddressGroup, PortSecurity, SecurityGroup};
use crate::types::{Mac, VlanId, Vni};

/// Everything that the switch should be.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Model {
    /// `[switch]`.
    pub switch: Switch,
    /// `[[physical_network]]`.
    pub physical_networks: Vec<PhysicalNetwork>,
    /// `[overlay]`.
    pub overlay: Option<Overlay>,
    /// `[[network]]`.
    pub networks: Vec<Network>,
    /// `[[subnet]]`.
    pub subnets: Vec<Subnet>,
    /// `[[port]]`.
    pub ports: Vec<Port>,
    /// `[[router]]`.
    pub routers: Vec<Router>,
    /// `[[floating_ip]]`.
    pub floating_ips: Vec<FloatingIp>,
    /// `[[security_group]]`; the group `default` is among them, whether a file says so or not.
    pub security_groups: Vec<SecurityGroup>,
    /// `[[address_group]]`.
    pub address_groups: Vec<AddressGroup>,
    /// `[conntrack]`.
    pub conntrack: Conntrack,
    /// `[dhcp]`.
    pub dhcp: Dhcp,
    /// `[metadata]`.
    pub metadata: Metadata,
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
    /// The file that keeps what must outlive the process: leases that were given out of a pool. None: nothing does.
    pub state: Option<PathBuf>,
    /// The file that what security groups log is appended to. None: it is told on the control socket alone.
    pub security_log: Option<PathBuf>,
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

/// `[overlay]`: the interface of the switch's own on an IP network, the underlay, that tunnels cross.
#[derive(Clone, Debug, PartialEq)]
pub struct Overlay {
    /// The device: [`Interface::Best`], [`Interface::Xdp`] or [`Interface::Packet`].
    pub interface: Interface,
    /// The local VTEP's address, which must not be the host's. Its family is that of all peers.
    pub local_ip: IpAddr,
    /// Prefix length of the underlay's subnet: what is within it is reached without the gateway.
    pub prefix_len: u8,
    /// The next hop to peers outside of the subnet.
    pub gateway_ip: Option<IpAddr>,
    /// Longest packet of the underlay in bytes; default 1500.
    pub mtu: u16,
    /// UDP port of the local VTEP and of its peers; default 4789 (RFC 7348, section 5).
    pub udp_port: u16,
    /// TTL or hop limit of outer packets; default 64.
    pub ttl: u8,
    /// DSCP of outer packets, 0 to 63; default 0. ECN is the inner packet's (RFC 6040).
    pub dscp: u8,
    /// VNIs that are handed out to networks without a `segmentation_id`.
    pub vni_ranges: Vec<(Vni, Vni)>,
    /// Whether VTEPs that nobody named may become peers, by sending to us; they cease to be when they are silent. Default false.
    pub learn_peers: bool,
    /// Where it was said.
    pub origin: Origin,
}

/// The other ends of a tunnelled network.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Tunnels {
    /// Peers that have the network: the network's own list, or else the overlay's, and those of `remote_ports`. Sorted.
    pub peers: Vec<IpAddr>,
    /// Where frames for all peers go instead of a copy to each: the network's own, or else the overlay's.
    pub multicast_group: Option<IpAddr>,
    /// Ports of the network on other hosts that are known without learning.
    pub remote_ports: Vec<RemotePort>,
    /// True: `remote_ports` are all there are, and nothing is flooded into tunnels; default false.
    pub l2population: bool,
}

/// A port of a network on another host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemotePort {
    /// Its MAC.
    pub mac_address: Mac,
    /// Its addresses: ARP requests and neighbour solicitations for them are answered here.
    pub fixed_ips: Vec<IpAddr>,
    /// The VTEP that it is behind.
    pub vtep: IpAddr,
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
    /// Longest packet in bytes, without Ethernet header and VLAN tag; default 1500, or what tunnels leave of the underlay's.
    pub mtu: u16,
    /// Most learned MACs; default 8192.
    pub mac_limit: u32,
    /// Neutron's `router:external`: routers may have their gateway here, and floating IPs are its addresses.
    pub external: bool,
    /// The domain that guests are told by DHCP and router advertisements, without a dot at its end.
    pub dns_domain: Option<String>,
    /// Whether MACs without a port get addresses of the subnets' pools by DHCP; default false.
    pub dynamic_leases: bool,
    /// Who answers metadata requests: given, or `[metadata]`'s.
    pub metadata: MetadataMode,
    /// Whether `tap` and `guest` ports that do not say it have port security; default true.
    pub port_security_enabled: bool,
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
    /// In tunnels over the underlay.
    Vxlan(Vni, Tunnels),
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
    /// Its addresses: given, or the next free one of each family that its network has subnets of. Empty for a trunk, and
    /// by default where neither kind nor `mac_address` tells that one station is behind the port.
    pub fixed_ips: Vec<FixedIp>,
    /// Further MACs behind the port that are known without learning.
    pub static_macs: Vec<Mac>,
    /// Most learned MACs; default 1024.
    pub mac_limit: u32,
    /// False: the port exists and neither receives nor sends.
    pub admin_state_up: bool,
    /// Options that DHCP gives its guest besides, or instead of what it would give.
    pub extra_dhcp_opts: Vec<ExtraDhcpOpt>,
    /// What its guest is told of itself.
    pub metadata: GuestMetadata,
    /// What its guest is held to; none: it is trusted.
    pub port_security: Option<PortSecurity>,
    /// Where it was said.
    pub origin: Origin,
}

impl Port {
    /// The name that its guest is told: given, else the port's where a host can have it, else one of its address.
    pub fn hostname(&self) -> String {
        if let Some(hostname) = &self.metadata.hostname {
            return hostname.clone();
        }
        if super::is_label(&self.name) {
            return self.name.to_ascii_lowercase();
        }
        let address = self.fixed_ips.first().map_or("none".to_owned(), |fixed| fixed.ip.to_string());
        format!("host-{}", address.replace(['.', ':'], "-"))
    }
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

/// `[[subnet]]`: addresses of a network.
#[derive(Clone, Debug, PartialEq)]
pub struct Subnet {
    /// Stable for the name: UUID version 5.
    pub id: Uuid,
    /// Unique among subnets.
    pub name: String,
    /// The network, by name.
    pub network: String,
    /// Its prefix, host bits zero. Those of one network do not overlap.
    pub cidr: IpNet,
    /// The gateway's address: of a router of ours, or outside; default: the first that a host can have. None where the
    /// configuration says `gateway_ip = false`, and by default where there is one address only (/32, /128).
    pub gateway_ip: Option<IpAddr>,
    /// Ranges that addresses are handed out from, both ends included, sorted; default: all but the gateway's.
    pub allocation_pools: Vec<(IpAddr, IpAddr)>,
    /// Whether DHCP (and router advertisements, as the modes say) tell guests their addresses; default true.
    pub enable_dhcp: bool,
    /// DNS servers that guests are told, in their order.
    pub dns_nameservers: Vec<IpAddr>,
    /// NTP servers that guests are told, in their order.
    pub ntp_servers: Vec<IpAddr>,
    /// Routes that guests are told.
    pub host_routes: Vec<Route>,
    /// What our routers advertise on an IPv6 subnet; none: nothing.
    pub ipv6_ra_mode: Option<Ipv6Mode>,
    /// How guests get their addresses of an IPv6 subnet; none: not from us.
    pub ipv6_address_mode: Option<Ipv6Mode>,
    /// Where it was said.
    pub origin: Origin,
}

/// Neutron's `ipv6_ra_mode` and `ipv6_address_mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ipv6Mode {
    /// Addresses follow from the prefix and the MAC (RFC 4862), all else from router advertisements.
    Slaac,
    /// Addresses come from DHCPv6 (RFC 8415, section 18).
    Dhcpv6Stateful,
    /// Addresses as with `Slaac`, all else by DHCPv6.
    Dhcpv6Stateless,
}

impl Ipv6Mode {
    /// Whether addresses follow from the prefix and the MAC.
    pub fn is_automatic(self) -> bool {
        self != Ipv6Mode::Dhcpv6Stateful
    }
}

/// `[dhcp]`: what is the same for all guests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dhcp {
    /// Seconds that an address is given for; default 86400, Neutron's.
    pub lease_time: u32,
}

impl Default for Dhcp {
    fn default() -> Dhcp {
        Dhcp { lease_time: 86400 }
    }
}

/// One of a port's `extra_dhcp_opts`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ExtraDhcpOpt {
    /// Its name, or its number.
    pub opt_name: String,
    /// Its value, as its kind of option is written.
    pub opt_value: String,
    /// True for DHCPv6.
    pub is_v6: bool,
}

/// Who answers a guest's metadata requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MetadataMode {
    /// The switch itself.
    #[default]
    Builtin,
    /// A Nova, to which they are passed on.
    Proxy,
    /// Nobody.
    Off,
}

/// `[metadata]`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Metadata {
    /// Who answers, where a network does not say otherwise.
    pub mode: MetadataMode,
    /// The Nova that requests are passed on to.
    pub nova: Option<Nova>,
}

/// A Nova's metadata service, as Neutron's agent knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nova {
    /// `nova_metadata_host`: a name or an address.
    pub host: String,
    /// `nova_metadata_port`; default 8775.
    pub port: u16,
    /// `metadata_proxy_shared_secret`: what requests are signed with.
    pub shared_secret: String,
}

/// A port's `metadata`: what its guest is told of itself. What is left out follows from the port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct GuestMetadata {
    /// The instance's name for itself; default: the port's ID.
    pub instance_id: Option<String>,
    /// Its hostname; also DHCP's.
    pub hostname: Option<String>,
    /// SSH keys, each as a line of `authorized_keys`.
    pub public_keys: Vec<String>,
    /// A file that the guest gets as it is.
    pub user_data: Option<PathBuf>,
    /// A file of JSON, or of what cloud-init takes as user data.
    pub vendor_data: Option<PathBuf>,
    /// Neutron's and Nova's project.
    pub project_id: Option<String>,
    /// Default: "nova", as Nova's.
    pub availability_zone: Option<String>,
}

/// An address on a subnet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FixedIp {
    /// The address.
    pub ip: IpAddr,
    /// The subnet, by name.
    pub subnet: String,
    /// Prefix length of the subnet.
    pub prefix_len: u8,
}

/// `[[router]]`: routes between subnets, and to the world.
#[derive(Clone, Debug, PartialEq)]
pub struct Router {
    /// Stable for the name: UUID version 5.
    pub id: Uuid,
    /// Unique among routers.
    pub name: String,
    /// Its way to the world.
    pub external_gateway: Option<ExternalGateway>,
    /// Its other interfaces: one for each IPv4 subnet, and one for all IPv6 subnets of a network. Their subnets and the
    /// gateway's do not overlap.
    pub interfaces: Vec<RouterInterface>,
    /// Extra routes; several of one destination share its flows (ECMP). None is that of a subnet that the router is on.
    pub routes: Vec<Route>,
    /// Who may send to a port of the SNAT address that a guest uses (RFC 4787, section 5); default address and port.
    pub nat_filtering: NatFiltering,
    /// Whether the MSS of passing TCP SYNs is lowered to what the networks carry; default false.
    pub mss_clamping: bool,
    /// False: the router exists and forwards nothing.
    pub admin_state_up: bool,
    /// Where it was said.
    pub origin: Origin,
}

/// `external_gateway = { network = … }`.
#[derive(Clone, Debug, PartialEq)]
pub struct ExternalGateway {
    /// The external network, by name.
    pub network: String,
    /// Whether IPv4 from other interfaces leaves with an address of the gateway's; default true.
    pub enable_snat: bool,
    /// MAC of the gateway's interface: given, or generated.
    pub mac_address: Mac,
    /// Its addresses: given, or the next free one of each subnet's family. Several IPv4 ones share the SNAT sessions.
    pub fixed_ips: Vec<FixedIp>,
    /// Next hops to all that has no other route: the gateways of the subnets of `fixed_ips`, at most one a family; none of
    /// a family where an extra route leads to all of it.
    pub gateway_ips: Vec<IpAddr>,
}

/// One of a router's `interfaces`.
#[derive(Clone, Debug, PartialEq)]
pub struct RouterInterface {
    /// The network, by name.
    pub network: String,
    /// Its MAC: given, or generated. Interfaces of one router on one network have different ones.
    pub mac_address: Mac,
    /// Its addresses: one of an IPv4 subnet, or one of each IPv6 subnet of the network.
    pub fixed_ips: Vec<FixedIp>,
}

/// An extra route.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    /// Where to, host bits zero.
    pub destination: IpNet,
    /// The next hop, on a subnet of the router and not its own address.
    pub nexthop: IpAddr,
}

/// Which packets from outside reach a guest behind a SNAT address (RFC 4787, section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NatFiltering {
    /// From an address and port that it has sent to.
    #[default]
    AddressAndPortDependent,
    /// From an address that it has sent to.
    AddressDependent,
    /// From everywhere, to a port that it uses.
    EndpointIndependent,
}

/// `[[floating_ip]]`: an address of an external network that stands for one of a port, whole or by forwarded ports.
#[derive(Clone, Debug, PartialEq)]
pub struct FloatingIp {
    /// Stable for network and address: UUID version 5.
    pub id: Uuid,
    /// The address; given, or the next free one.
    pub floating_ip_address: Ipv4Addr,
    /// The external network, by name.
    pub floating_network: String,
    /// The router whose gateway is on that network and that reaches all targets, by name; none while it stands for nothing.
    pub router: Option<String>,
    /// What it stands for; none: nothing, or forwarded ports.
    pub target: Option<FloatingTarget>,
    /// Forwarded ports; empty where there is a target. No two have a port in common, outside or inside.
    pub port_forwardings: Vec<PortForwarding>,
    /// Where it was said.
    pub origin: Origin,
}

/// The port and address that a floating IP stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FloatingTarget {
    /// The port, by name.
    pub port: String,
    /// One of its fixed IPs.
    pub fixed_ip_address: Ipv4Addr,
}

/// Ports of a floating IP that lead to ports of a fixed one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortForwarding {
    /// TCP, UDP or DCCP, by its number (IANA).
    pub protocol: u8,
    /// First and last port of the floating IP.
    pub external_ports: (u16, u16),
    /// The port, by name.
    pub internal_port: String,
    /// One of its fixed IPs.
    pub internal_ip_address: Ipv4Addr,
    /// First and last port there: as many.
    pub internal_ports: (u16, u16),
}

/// `[conntrack]`: bounds and timeouts of tracked connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conntrack {
    /// Most connections, of each worker; default 262 144.
    pub max_entries: u32,
    /// Most connections of one guest; default 65 536.
    pub max_entries_per_guest: u32,
    /// Most connections that one guest may begin in a second, and at once, where security groups apply; default 100 000.
    pub max_new_per_guest: u32,
    /// Seconds that a connection lives without a packet.
    pub timeouts: Timeouts,
}

/// Seconds without a packet, by state, 1 to 1 000 000. Less than the RFCs ask for is for labs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP before both sides have agreed; default 240 (RFC 5382, REQ-5 asks for at least 240).
    pub tcp_transitory: u32,
    /// TCP; default 7440 (RFC 5382, REQ-5: at least 7440).
    pub tcp_established: u32,
    /// TCP when both sides have closed, or one has reset; default 240 (RFC 7857, 2.1 and 2.2).
    pub tcp_closing: u32,
    /// UDP; default 300 (RFC 4787, REQ-5: at least 120, 300 recommended).
    pub udp: u32,
    /// ICMP queries; default 60 (RFC 5508, REQ-2).
    pub icmp: u32,
    /// Other protocols; default 300.
    pub other: u32,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            tcp_transitory: 240,
            tcp_established: 7440,
            tcp_closing: 240,
            udp: 300,
            icmp: 60,
            other: 300,
        }
    }
}

impl Default for Conntrack {
    fn default() -> Conntrack {
        Conntrack {
            max_entries: 1 << 18,
            max_entries_per_guest: 1 << 16,
            max_new_per_guest: 100_000,
            timeouts: Timeouts::default(),
        }
    }
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
            state: None,
            security_log: None,
        }
    }
}

impl Interface {
    /// The namespace (none: the host's) and name of the device; none for files.
    pub fn device(&self) -> Option<(Option<&str>, &str)> {
        match self {
            Interface::Tap { name, netns, .. } => Some((netns.as_deref(), name)),
            Interface::Guest { name, .. }
            | Interface::Xdp { name, .. }
            | Interface::Packet { name }
            | Interface::Best { name, .. } => Some((None, name)),
            Interface::Pcap { .. } => None,
        }
    }
}

impl Segment {
    /// The physical network that the segment is on.
    pub fn physical_network(&self) -> Option<&str> {
        match self {
            Segment::Local | Segment::Vxlan(..) => None,
            Segment::Flat(physical) | Segment::Vlan(physical, _) => Some(physical),
        }
    }

    /// True when the network `name` with this segment passes a trunk: as its native network, or tagged and allowed.
    pub(super) fn in_trunk(
        &self,
        name: &str,
        physical: &str,
        native: Option<&str>,
        allowed: Option<&BTreeSet<VlanId>>,
    ) -> bool {
        let tagged = match self {
            Segment::Vlan(_, id) => allowed.is_none_or(|allowed| allowed.contains(id)),
            Segment::Flat(_) | Segment::Local | Segment::Vxlan(..) => false,
        };
        self.physical_network() == Some(physical) && (tagged || native == Some(name))
    }
}
