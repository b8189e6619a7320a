//! Every rule of the switch as a scenario: a configuration, frames in, frames out, and exactly the counters that move.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::cast_possible_truncation)]

mod frames;
mod hostile;
mod ipv4;
mod learning;
mod nat;
mod offload;
mod port_security;
mod reload;
mod router_see;
mod routing;
mod security;
mod security_see;
mod see;
mod service;
mod switch;
mod trace;
mod tunnel;
mod vlan;
mod ways;
mod workers;

// Hostile packets of all kinds, for a router that has everything.
#[allow(dead_code)]
#[path = "../../fuzz/targets/input.rs"]
mod input;
#[path = "../../fuzz/targets/packets.rs"]
mod packets;
#[allow(dead_code)]
#[path = "../../fuzz/targets/router.rs"]
mod router;

/// Three ports in one local network.
pub const LAN: &str = r#"
[[network]]
name = "lan"

[[port]]
name = "a"
network = "lan"
interface = { kind = "packet", name = "eth-a" }

[[port]]
name = "b"
network = "lan"
interface = { kind = "packet", name = "eth-b" }

[[port]]
name = "c"
network = "lan"
interface = { kind = "packet", name = "eth-c" }
"#;

/// A physical network with an uplink, a flat network and three VLANs; an access port in each of `flat` (f), `red` (r) and
/// `blue` (b); a trunk with all (all) and one with `red` native and only VLANs 10 and 20 allowed (some).
pub const CAMPUS: &str = r#"
[[physical_network]]
name = "up"
interface = "eth-up"
driver = "packet"

[[network]]
name = "flat"
network_type = "flat"
physical_network = "up"

[[network]]
name = "red"
network_type = "vlan"
physical_network = "up"
segmentation_id = 10

[[network]]
name = "blue"
network_type = "vlan"
physical_network = "up"
segmentation_id = 20

[[network]]
name = "green"
network_type = "vlan"
physical_network = "up"
segmentation_id = 30

[[port]]
name = "f"
network = "flat"
interface = { kind = "packet", name = "eth-f" }

[[port]]
name = "r"
network = "red"
interface = { kind = "packet", name = "eth-r" }

[[port]]
name = "b"
network = "blue"
interface = { kind = "packet", name = "eth-b" }

[[port]]
name = "all"
trunk = { physical_network = "up" }
interface = { kind = "packet", name = "eth-all" }

[[port]]
name = "some"
trunk = { physical_network = "up", native = "red", allowed = ["10", "20"] }
interface = { kind = "packet", name = "eth-some" }
"#;
