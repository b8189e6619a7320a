//! nuswitch: a userspace virtual switch.
#![deny(unsafe_code)]

pub mod cli;
pub mod control;
pub mod daemon;
pub mod dataplane;
pub mod frame;
pub mod model;
pub mod pcapng;
pub mod ports;
pub mod stats;
#[allow(unsafe_code)]
pub mod sys;
pub mod tables;
pub mod types;
pub mod wire;
pub mod worker;
