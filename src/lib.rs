//! nuswitch: a userspace virtual switch. What a newcomer reads first.
//!
//! # The packet's path
//!
//! ```text
//! ports/*  ──rx burst──▶ dataplane::process ──▶ Out ──tx──▶ ports/*       (same worker)
//!                          │ ingress: header, VLAN or tunnel, network
//!                          │                                  └──▶ worker::mesh ──▶ another worker's Out
//!                          │ bridge:  learn, look up, flood ◀──┐
//!                          │ router:  route, NAT, neighbour ───┘
//!                          │ egress:  MTU, tag or tunnel, offload
//!                          ▼
//!                        dropped, with a stats::DropReason
//! ```
//!
//! # The modules, from the top down
//!
//! | module | what it is |
//! |---|---|
//! | [`cli`] | the command line, one file a subcommand |
//! | [`daemon`] | wires it all: devices, changes, the control thread |
//! | [`control`] | the API on the Unix socket, both sides of it |
//! | [`worker`] | the loop: rx burst, process, tx burst; hand-off, idling, captures |
//! | [`slowpath`] | what waits or keeps state for a client: metadata, leases out of pools |
//! | [`dataplane`] | THE PATH, pure: what becomes of a frame |
//! | [`ports`] | the devices: TAP, guest, AF_XDP, AF_PACKET, pcap, memory |
//! | [`tables`] | a model compiled for look-up: immutable, one epoch each |
//! | [`services`] | answers, sans-IO: ARP, ND, ICMP, router advertisements, DHCP, group membership, an IP host |
//! | [`model`] | desired state in Neutron's words: TOML, validation, differences |
//! | [`pcapng`] | capture files |
//! | [`wire`] | checked views of headers, checksums |
//! | [`frame`] | frames, bursts, offload notes |
//! | [`stats`] | counters and drop reasons |
//! | [`types`] | MACs, VLAN IDs, indices, time |
//! | [`sys`] | the only unsafe code: memory, rings, `ioctl`, `bpf(2)` |
//!
//! Imports point down this list; a test holds them to it.
#![deny(unsafe_code)]

pub mod cli;
pub mod control;
pub mod daemon;
pub mod dataplane;
pub mod frame;
pub mod model;
pub mod pcapng;
pub mod ports;
pub mod services;
pub mod slowpath;
pub mod stats;
#[allow(unsafe_code)]
pub mod sys;
pub mod tables;
pub mod types;
pub mod wire;
pub mod worker;
