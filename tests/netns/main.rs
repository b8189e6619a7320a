//! The switch on the real kernel: the built binary as a daemon, TAPs, veths, AF_XDP and AF_PACKET, and real clients (ping,
//! iperf3, tcpdump, a QEMU guest) in namespaces.
//!
//! These tests need root and tools; `tests/run` installs them and sets `NUSWITCH_SYSTEM=1`. Then whatever is missing is a
//! failure. Without it each test says that it skips, and passes. Every test has namespaces of its own and they take turns; no
//! figure of theirs but the idle worker's is a matter of speed, so that a busy machine does not fail them.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

/// The end of a test where the suite was not asked for; where it was, a failure if the machine cannot run it.
macro_rules! needs_system {
    () => {
        let Some(_turn) = crate::lab::turn() else { return };
    };
}

mod bad_guest;
mod between;
mod boot;
mod change;
mod cloud_init;
mod crash;
mod dhcp;
mod dhcp_client;
mod dhcp_v6;
mod guest;
mod guest_see;
#[path = "../../benches/wire/guests.rs"]
mod guests;
mod host;
mod lab;
mod many;
mod mesh;
mod metadata;
mod mistakes;
mod ovs;
mod raw;
mod router;
mod router_clients;
mod router_paths;
mod router_see;
mod security_see;
mod see;
mod tunnel;
mod vlan;
