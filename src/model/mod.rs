//! Desired state in Neutron's words, valid as a whole: what a TOML file (and later the API) asks for, with defaults
//! filled in and references checked. Field names and defaults are those of the Neutron v2.0 API; its prefixed ones lose
//! their prefix (`provider:network_type` is `network_type`).
//!
//! The way here: [`load`] parses the text, `read` takes it apart by means of `reader` and judges each value by itself,
//! `validate` (and `tunnels`, `l3` for routing, `security`) check what only the whole can show. Every mistake is collected as a [`Diagnostic`] with its place; one
//! mistake refuses the file. [`diff()`] tells what differs between two models. Nothing here opens a device or reads
//! the system.
//!
//! # The configuration language
//!
//! Objects refer to each other by name; names are unique per kind and at most 255 characters long. A key that is not
//! listed is a mistake, never ignored. `config/reference.toml` is a file with all of them.
//!
//! | `[switch]` | value | default |
//! |---|---|---|
//! | `workers` | list of CPUs (0 to 1023), one worker pinned to each | one worker, not pinned |
//! | `idle` | `"adaptive"`, `"poll"` (never sleeps), `"sleep"` (never spins) | `"adaptive"` |
//! | `control` | path of the control socket, at most 107 bytes | `/run/nuswitch/control.sock` |
//! | `control_mode` | permission bits of the socket, an octal text | `"0600"` |
//! | `control_group` | group of the socket, by name | the process's |
//! | `mac_aging_time` | seconds until a silent MAC is forgotten, 10 to 1 000 000 | 300 |
//! | `buffers` | 2048-byte buffers of each worker, a power of two from 1024 to 1 048 576 | 16384 |
//! | `state` | file that keeps leases out of pools, a SQLite database | none: nothing outlives the process |
//!
//! | `[[physical_network]]` | value | default |
//! |---|---|---|
//! | `name` | | needed |
//! | `interface` | the device | none: lives between trunk ports only |
//! | `driver` | `"xdp"`, `"packet"` | xdp where it works, else packet |
//! | `mode` | with `"xdp"`: `"native"`, `"generic"` | native where the driver has it |
//! | `shared` | with `"xdp"` or no `driver`: the host's own traffic passes to the kernel | when the device has an address |
//! | `busy_poll` | with `"xdp"`: the worker works the device's queues itself | `false` |
//! | `vlan_ranges` | list of `"from:to"`, VLAN IDs for networks without a `segmentation_id` | none |
//!
//! | `[overlay]` | value | default |
//! |---|---|---|
//! | `interface` | the device that tunnels leave through | needed |
//! | `driver`, `mode`, `busy_poll` | as for physical networks | |
//! | `shared` | with `"xdp"` or no `driver`: what is not for the tunnels passes to the kernel | when the device has an address |
//! | `local_ip` | `"address/prefix"` of the local VTEP, not the host's; IPv4 or IPv6 for all peers | needed |
//! | `gateway_ip` | the next hop to peers outside of the subnet | none |
//! | `mtu` | longest packet of the underlay in bytes, 576 (IPv6: 1350) to 9216 | 1500 |
//! | `udp_port` | of this VTEP and of its peers, 1 to 65535 | 4789 |
//! | `ttl` | of outer packets, 1 to 255 | 64 |
//! | `dscp` | of outer packets, 0 to 63 | 0 |
//! | `vni_ranges` | list of `"from:to"`, VNIs for networks without a `segmentation_id` | none |
//! | `peers` | list of VTEPs, for networks without their own | none |
//! | `multicast_group` | where frames for all peers go instead of a copy to each, for networks without their own | none |
//! | `learn_peers` | whether VTEPs that nobody named become peers by sending | `false` |
//!
//! | `[[network]]` | value | default |
//! |---|---|---|
//! | `name` | | needed |
//! | `network_type` | `"local"` (this switch only), `"flat"` (untagged), `"vlan"` (tagged), `"vxlan"` (in tunnels) | `"local"` |
//! | `physical_network` | with `"flat"` and `"vlan"`: where it leaves | needed there |
//! | `segmentation_id` | with `"vlan"`: the VLAN ID, 1 to 4094 | the lowest free one of `vlan_ranges` |
//! | | with `"vxlan"`: the VNI, 0 to 16 777 215 | the lowest free one of `vni_ranges` |
//! | `mtu` | longest packet in bytes, without Ethernet header and tag, 68 to 9216 | 1500 |
//! | | with `"vxlan"`: at most what tunnels leave of the overlay's, less 50 bytes over IPv4 and 70 over IPv6 | all of it |
//! | `peers` | with `"vxlan"`: list of VTEPs that have the network; `[]` for none | the overlay's |
//! | `multicast_group` | with `"vxlan"` and without `l2population`: as for the overlay | the overlay's |
//! | `remote_ports` | with `"vxlan"`: list of `{ mac_address, fixed_ips, vtep }`, known without learning; ARP and ND for `fixed_ips` are answered here | none |
//! | `l2population` | with `"vxlan"`: `remote_ports` are all there are, nothing is flooded into tunnels | `false` |
//! | `mac_limit` | most learned MACs, 0 to 1 048 576 | 8192 |
//! | `external` | whether routers may have their gateway here, and floating IPs are addresses of here | `false` |
//! | `dns_domain` | the domain that guests are told | none |
//! | `dynamic_leases` | whether MACs without a port get addresses of the subnets' pools by DHCP; needs `state` | `false` |
//! | `metadata` | who answers metadata requests: `"builtin"`, `"proxy"`, `"off"` | as `[metadata]` says |
//! | `port_security_enabled` | whether its `tap` and `guest` ports that do not say it have port security | `true` |
//!
//! | `[[subnet]]` | value | default |
//! |---|---|---|
//! | `name` | | needed |
//! | `network` | the network whose addresses these are | needed |
//! | `cidr` | prefix without host bits, IPv4 or IPv6 | needed |
//! | `gateway_ip` | the gateway's address, of a router of ours or outside; `false` for none | the first that a host can have |
//! | `allocation_pools` | list of `"from-to"`, addresses to hand out | all that the gateway leaves |
//! | `enable_dhcp` | whether DHCP tells guests their addresses | `true` |
//! | `dns_nameservers`, `ntp_servers` | lists of addresses that guests are told | none |
//! | `host_routes` | IPv4: list of `{ destination, nexthop }` that guests are told | none |
//! | `ipv6_ra_mode` | what our routers advertise: `"slaac"`, `"dhcpv6-stateful"`, `"dhcpv6-stateless"` | nothing |
//! | `ipv6_address_mode` | how guests get addresses, one of the same; the same as `ipv6_ra_mode` where both are given | by hand |
//!
//! | `[[router]]` | value | default |
//! |---|---|---|
//! | `name` | | needed |
//! | `external_gateway` | `{ network, enable_snat, mac_address, external_fixed_ips }`: the way to the world | none |
//! | `interfaces` | list of subnets, each a name or `{ subnet, ip, mac_address }` | none |
//! | | `ip` | the subnet's `gateway_ip` |
//! | `routes` | list of `{ destination, nexthop }`; those of one destination share its flows | none |
//! | `nat_filtering` | `"address-and-port-dependent"`, `"address-dependent"`, `"endpoint-independent"` (RFC 4787, section 5) | the first |
//! | `mss_clamping` | whether the MSS of TCP SYNs is lowered to what the networks carry | `false` |
//! | `admin_state_up` | `false`: forwards nothing | `true` |
//!
//! | `external_gateway` | value | default |
//! |---|---|---|
//! | `network` | one with `external = true` | needed |
//! | `enable_snat` | whether IPv4 leaves with an address of the gateway's | `true` |
//! | `mac_address` | | generated, stable for the name |
//! | `external_fixed_ips` | as `fixed_ips` of a port, at least one | the next free one of each family |
//!
//! | `[[port]]` | value | default |
//! |---|---|---|
//! | `name` | | needed |
//! | `network` | the network it is in, untagged | this or `trunk` |
//! | `trunk` | `{ physical_network, native, allowed }`: its VLAN networks tagged, `native` untagged, `allowed` as in `["120", "130-139"]` | `allowed`: all |
//! | `interface` | `{ kind, … }`, see below | needed |
//! | `mac_address` | MAC behind the port, known without learning | tap, guest: generated, stable for the name |
//! | `fixed_ips` | list of an address, `{ subnet }` for its next free one, or `{ subnet, ip_address }`; not for a trunk | tap, guest or with `mac_address`: the next free one of each family |
//! | `static_macs` | list of further MACs behind the port | none |
//! | `mac_limit` | most learned MACs, 0 to 1 048 576 | 1024 |
//! | `admin_state_up` | `false`: neither receives nor sends | `true` |
//! | `port_security_enabled` | whether its guest may send from its own MAC and addresses alone, and security groups apply; not for a trunk | tap, guest: the network's; else `false` |
//! | `security_groups` | list of names; `[]` lets nothing pass; on networks with subnets | `["default"]` |
//! | `allowed_address_pairs` | list of `{ ip_address, mac_address }` that it may send from besides; the address may be a prefix | none; `mac_address`: the port's |
//! | `extra_dhcp_opts` | list of `{ opt_name, opt_value, ip_version }`; the name may be a number | none; `ip_version`: 4 |
//! | `metadata` | `{ instance_id, hostname, public_keys, user_data, vendor_data, project_id, availability_zone }`: what the guest is told of itself; the data are files, named from where the configuration is | from the port's ID and name |
//!
//! | `interface.kind` | the device | its keys |
//! |---|---|---|
//! | `"tap"` | a TAP for the host, a namespace or a container | `name`, `netns`, `address` (`"192.0.2.5/24"` or a list; `true`: the port's fixed IPs) |
//! | `"guest"` | a persistent TAP for a hypervisor | `name`, `owner` (user name or number; default: root) |
//! | `"xdp"` | AF_XDP on an existing device | `name`, `mode`, `shared`, `busy_poll` as above |
//! | `"packet"` | AF_PACKET on an existing device | `name` |
//! | `"pcap"` | files | `read`, `write`: at least one |
//!
//! | `[[floating_ip]]` | value | default |
//! |---|---|---|
//! | `floating_network` | one with `external = true` | needed |
//! | `floating_ip_address` | IPv4 | the next free one |
//! | `port` | what the address stands for; this or `port_forwardings` | nothing |
//! | `fixed_ip_address` | which of the port's | its only IPv4 one |
//! | `port_forwardings` | list of `{ protocol, external_port, port, internal_port, internal_ip_address }` | none |
//! | | `protocol`: `"tcp"`, `"udp"`, `"dccp"` | needed |
//! | | `external_port` or `external_port_range` (`"8000-8010"`) | needed |
//! | | `internal_port` or `internal_port_range`, as many | the same as outside |
//!
//! | `[[security_group]]` | value | default |
//! |---|---|---|
//! | `name` | `"default"` is there without being said: all may leave, its own members may enter | needed |
//! | `description` | for people | none |
//! | `stateful` | whether replies pass by themselves; alike for all groups of a port | `true` |
//! | `rules` | list of tables: what may begin; nothing else may | none |
//! | | `direction`: `"ingress"` (enters the guest), `"egress"` (leaves it) | needed |
//! | | `ethertype`: `"IPv4"`, `"IPv6"` | as `remote` or `protocol` say, else one rule of each |
//! | | `protocol`: one of Neutron's names or a number, 0 to 255; `"icmp"` with `"IPv6"` is `"ipv6-icmp"` | `"any"`, which is 0 too |
//! | | `ports` of the destination: a number, or a text like `"80,8000-8010"`; TCP, UDP, UDP-Lite, SCTP, DCCP | all |
//! | | `icmp_type`, `icmp_code`: 0 to 255; ICMP and ICMPv6; no code without type | all |
//! | | `remote` (a prefix or an address), `remote_group` or `remote_address_group`: who is at the other end | anybody |
//! | | `description`: for people | none |
//!
//! Members of a security group are the fixed IPs, address pairs (but `0.0.0.0/0` and `::/0`) and tap addresses of its ports.
//! Rules are about the protocol behind IPv6's extension headers: those for a header such as `"ipv6-frag"` let nothing pass.
//!
//! | `[[address_group]]` | value | default |
//! |---|---|---|
//! | `name` | | needed |
//! | `description` | for people | none |
//! | `addresses` | list of prefixes and addresses of both IP versions | needed |
//!
//! | `[conntrack]` | value | default |
//! |---|---|---|
//! | `max_entries` | most connections of each worker, 1024 to 16 777 216 | 262 144 |
//! | `max_entries_per_guest` | 1 to `max_entries` | 65 536 |
//! | `max_new_per_guest` | connections that a guest with security groups begins in a second, and at once, 1 to 100 000 000 | 100 000 |
//! | `timeouts` | seconds without a packet, 1 to 1 000 000, less than here for labs only: | |
//! | | `tcp_transitory` (RFC 5382, REQ-5) | 240 |
//! | | `tcp_established` (RFC 5382, REQ-5) | 7440 |
//! | | `tcp_closing` (RFC 7857, 2.1 and 2.2) | 240 |
//! | | `udp` (RFC 4787, REQ-5: at least 120) | 300 |
//! | | `icmp` (RFC 5508, REQ-2) | 60 |
//! | | `other` | 300 |
//!
//! | `[dhcp]` | value | default |
//! |---|---|---|
//! | `lease_time` | seconds that an address is given for, at least 60 | 86400 |
//!
//! | `[metadata]` | value | default |
//! |---|---|---|
//! | `mode` | who answers guests: `"builtin"` (the switch), `"proxy"` (a Nova), `"off"` | `"builtin"` |
//! | `nova_metadata_host`, `nova_metadata_port` | the Nova of `"proxy"` | needed there; 8775 |
//! | `metadata_proxy_shared_secret` | what requests to it are signed with | needed there |
//!
//! Addresses that were left out are the lowest free ones of the subnets' `allocation_pools`; gateways of routers get
//! theirs first, then floating IPs, then ports, each in the order of the file. What is given is nobody else's, wherever
//! it stands. On an IPv6 subnet of `ipv6_address_mode` `"slaac"` or `"dhcpv6-stateless"` a port's address follows from its MAC
//! instead, as its guest makes it. A tap's `address` on a subnet must be one of the port's fixed IPs, unless the port says `fixed_ips = []`.
//!
//! A VLAN ID, VNI or MAC that was left out follows from the file alone, so the same file always means the same. IDs are
//! handed out in the order of the file: put new networks last, or give the ID.

mod boot;
mod diagnostic;
mod diff;
mod l3;
mod later;
mod macs;
mod overlay;
mod read;
mod reader;
mod schema;
pub mod security;
#[cfg(test)]
mod tests;
mod text;
mod tunnels;
mod validate;

use std::net::IpAddr;

use toml::de::DeTable;
use uuid::Uuid;

pub use boot::is_label;
pub use diagnostic::Diagnostic;
pub use diff::{Changes, Diff, diff};
pub use schema::*;
pub use security::{
    AddressGroup, AddressPair, DEFAULT_GROUP, Direction, Ethertype, PortSecurity, RuleRemote, SecurityGroup,
    SecurityLog, SecurityRule,
};
pub use validate::OBJECTS_MAX;

use diagnostic::Report;
use reader::Reader;

use crate::types::Mac;

/// The name space of all identifiers that follow from names.
const NAMESPACE: Uuid = Uuid::from_u128(0x6e75_7377_6974_5e68_8c5d_0f1a_7c1e_2b39);

/// The identifier of an object without one of its own: stable for its kind and name.
pub fn id(kind: &str, name: &str) -> Uuid {
    Uuid::new_v5(&NAMESPACE, format!("{kind}/{name}").as_bytes())
}

/// Reads a configuration. `file` is its name in messages.
///
/// # Errors
/// Every mistake of the text, in its order. In a section with a mistake of TOML's syntax, and between objects of a file
/// with one, nothing else is judged: what the parser had to skip would raise false alarms.
pub fn load(text: &str, file: &str) -> Result<Model, Vec<Diagnostic>> {
    let report = Report::new(text, file);
    let (root, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        report.add(error.span().unwrap_or(0..0), "", error.message(), None);
    }
    let draft = read::document(Reader::new(root, String::new(), &report), &report);
    if !errors.is_empty() {
        return Err(only_certain(report.into_sorted(), text));
    }
    let model = validate::validate(draft, &report);
    if report.is_empty() { Ok(model) } else { Err(report.into_sorted()) }
}

/// Drops what was found in a section, from one `[header]` to the next, that has a mistake of syntax too.
fn only_certain(mut found: Vec<Diagnostic>, text: &str) -> Vec<Diagnostic> {
    let headers = text.split('\n').enumerate().filter(|(_, line)| line.trim_start().starts_with('['));
    let headers: Vec<usize> = headers.map(|(index, _)| index + 1).collect();
    let section = |line: usize| headers.partition_point(|header| *header <= line);
    let is_syntax = |diagnostic: &Diagnostic| diagnostic.path.is_empty();
    let broken: Vec<usize> = found.iter().filter(|d| is_syntax(d)).map(|d| section(d.line)).collect();
    found.retain(|d| is_syntax(d) || !broken.contains(&section(d.line)));
    found
}

/// What a port of the tables is for: its place in a [`Model`], stable over reloads.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AttachmentKey {
    /// The device of the physical network of this name.
    Physical(String),
    /// The device of the underlay.
    Overlay,
    /// The device of the port of this name.
    Port(String),
    /// Tunnels to this peer or multicast group; unspecified: VTEPs that are not yet peers. No device of its own.
    Tunnel(IpAddr),
    /// Where tunnel packets wait for their next hop. No device of its own.
    Resolver,
    /// The service that the switch itself is. No device of its own.
    Service,
    /// The interface of the router of this name that has this MAC. No device of its own.
    Interface(String, Mac),
}

impl std::fmt::Display for AttachmentKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            AttachmentKey::Physical(name) => write!(f, "physical network \"{name}\""),
            AttachmentKey::Overlay => f.write_str("overlay"),
            AttachmentKey::Port(name) => write!(f, "port \"{name}\""),
            AttachmentKey::Tunnel(remote) => write!(f, "tunnel to {remote}"),
            AttachmentKey::Resolver => f.write_str("resolver"),
            AttachmentKey::Service => f.write_str("service"),
            AttachmentKey::Interface(router, mac) => write!(f, "router \"{router}\", interface {mac}"),
        }
    }
}

/// A device that the switch needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device<'m> {
    /// Whose it is.
    pub key: AttachmentKey,
    /// What to open.
    pub interface: &'m Interface,
    /// The largest MTU of the networks on it, in bytes; 1500 when there is none; the underlay's own.
    pub mtu: u16,
}

impl Model {
    /// All devices: those of physical networks first, then the underlay's, then those of ports, each in the order of the file.
    pub fn attachments(&self) -> impl Iterator<Item = Device<'_>> {
        let physical = self.physical_networks.iter().filter_map(|physical| {
            Some((AttachmentKey::Physical(physical.name.clone()), physical.interface.as_ref()?))
        });
        let ports = self.ports.iter().map(|port| (AttachmentKey::Port(port.name.clone()), &port.interface));
        let overlay = self.overlay.iter().map(|overlay| (AttachmentKey::Overlay, &overlay.interface));
        physical.chain(overlay).chain(ports).map(|(key, interface)| {
            let mtu = match (&key, &self.overlay) {
                (AttachmentKey::Overlay, Some(overlay)) => overlay.mtu,
                _ => self.networks_of(&key).map(|network| network.mtu).max().unwrap_or(1500),
            };
            Device { key, interface, mtu }
        })
    }

    /// The networks that an attachment carries, in the order of the file; none for an unknown one.
    pub fn networks_of(&self, key: &AttachmentKey) -> impl Iterator<Item = &Network> {
        let port = match key {
            AttachmentKey::Port(name) => self.ports.iter().find(|port| port.name == *name),
            _ => None,
        };
        self.networks.iter().filter(move |network| match (key, port.map(|port| &port.attachment)) {
            (AttachmentKey::Physical(name), _) => network.segment.physical_network() == Some(name),
            (AttachmentKey::Overlay, _) => matches!(network.segment, Segment::Vxlan(..)),
            (AttachmentKey::Port(_), Some(Attachment::Access(name))) => network.name == *name,
            (AttachmentKey::Port(_), Some(Attachment::Trunk { physical_network, native, allowed })) => {
                network.segment.in_trunk(&network.name, physical_network, native.as_deref(), allowed.as_ref())
            }
            _ => false,
        })
    }
}
