//! The language's words that this version has not built. Using one is a mistake that says what to do instead; none is
//! accepted and ignored. A word leaves these lists when it is built.

use super::reader::Later;

const ONE_PROCESS: &str = "leave it out: routers are part of this process";
const OTHER_TUNNEL: &str = "use \"vxlan\" for a network in tunnels";
const NO_NAMES: &str = "leave it out: the switch answers no DNS";
const NO_QOS: &str = "leave it out: nothing limits rates";
const ALWAYS_UP: &str = "leave it out: only ports have an `admin_state_up`";

pub(super) const ROOT: &Later = &[("qos_policy", NO_QOS)];

pub(super) const SWITCH: &Later = &[];

pub(super) const PHYSICAL_NETWORK: &Later =
    &[("mtu", "leave it out: `mtu` belongs to the networks, the device keeps its own")];

pub(super) const NETWORK: &Later = &[
    ("qos_policy", NO_QOS),
    ("admin_state_up", ALWAYS_UP),
    ("vlan_transparent", "leave it out: it cannot be chosen"),
];

pub(super) const NETWORK_TYPES: &Later = &[("geneve", OTHER_TUNNEL), ("gre", OTHER_TUNNEL)];

pub(super) const PORT: &Later = &[
    ("dns_name", NO_NAMES),
    ("dns_domain", NO_NAMES),
    ("qos_policy", NO_QOS),
    ("link", "put both ports on a \"local\" network of their own; LACP, STP and LLDP do not pass there"),
    ("impairment", "leave it out: nothing delays or loses frames on purpose"),
];

pub(super) const SUBNET: &Later = &[
    ("ip_version", "leave it out: `cidr` shows it"),
    ("subnetpool", "leave it out: give the `cidr`"),
    ("segment", "leave it out: a network has one segment"),
    ("service_types", "leave it out: every port may have addresses of every subnet"),
    ("dns_publish_fixed_ip", NO_NAMES),
];

pub(super) const ROUTER: &Later = &[
    ("distributed", ONE_PROCESS),
    ("ha", ONE_PROCESS),
    ("external_gateways", "use `external_gateway` and `routes`: a router has one way to the world"),
    ("enable_ndp_proxy", "leave it out: route the prefix to the router's address on the external network"),
    ("qos_policy", NO_QOS),
];

pub(super) const EXTERNAL_GATEWAY: &Later = &[("qos_policy", NO_QOS)];

pub(super) const FLOATING_IP: &Later =
    &[("dns_name", NO_NAMES), ("dns_domain", NO_NAMES), ("qos_policy", NO_QOS)];

pub(super) const INTERFACE: &Later = &[("queues", "leave it out: the switch takes what the device has")];

pub(super) const KINDS: &Later = &[("vhost_user", "use \"guest\"")];
