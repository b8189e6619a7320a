//! The language's words that this version has not built. Using one is a mistake that says what to do instead; none is
//! accepted and ignored. A word leaves these lists when it is built.

use super::reader::Later;

const NO_SUBNET: &str = "leave it out: give addresses to guests by hand and to a tap with `address`";
const NO_FILTER: &str = "leave it out: networks keep guests apart, nothing filters within a network";
const NO_ROUTER: &str = "leave it out: route outside of the switch";
const OTHER_TUNNEL: &str = "use \"vxlan\" for a network in tunnels";
const NO_API: &str = "leave it out: the switch is this file alone";
const NO_NAMES: &str = "leave it out: the switch answers no DNS";
const NO_QOS: &str = "leave it out: nothing limits rates";
const ALWAYS_UP: &str = "leave it out: only ports have an `admin_state_up`";

pub(super) const ROOT: &Later = &[
    ("subnet", NO_SUBNET),
    ("router", NO_ROUTER),
    ("floating_ip", NO_ROUTER),
    ("security_group", NO_FILTER),
    ("address_group", NO_FILTER),
    ("qos_policy", NO_QOS),
];

pub(super) const SWITCH: &Later = &[("state", NO_API)];

pub(super) const PHYSICAL_NETWORK: &Later =
    &[("mtu", "leave it out: `mtu` belongs to the networks, the device keeps its own")];

pub(super) const NETWORK: &Later = &[
    ("external", NO_ROUTER),
    ("router:external", NO_ROUTER),
    ("dns_domain", NO_NAMES),
    ("port_security_enabled", NO_FILTER),
    ("qos_policy", NO_QOS),
    ("admin_state_up", ALWAYS_UP),
    ("vlan_transparent", "leave it out: it cannot be chosen"),
];

pub(super) const NETWORK_TYPES: &Later = &[("geneve", OTHER_TUNNEL), ("gre", OTHER_TUNNEL)];

pub(super) const PORT: &Later = &[
    ("fixed_ips", NO_SUBNET),
    ("security_groups", NO_FILTER),
    ("allowed_address_pairs", NO_FILTER),
    ("metadata", "leave it out: the switch answers no metadata requests"),
    ("extra_dhcp_opts", "leave it out: the switch answers no DHCP"),
    ("dns_name", NO_NAMES),
    ("dns_domain", NO_NAMES),
    ("qos_policy", NO_QOS),
    ("link", "put both ports on a \"local\" network of their own; LACP, STP and LLDP do not pass there"),
    ("impairment", "leave it out: nothing delays or loses frames on purpose"),
];

pub(super) const INTERFACE: &Later = &[("queues", "leave it out: the switch takes what the device has")];

pub(super) const KINDS: &Later = &[("vhost_user", "use \"guest\"")];
