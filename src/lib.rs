//! nuswitch: a userspace virtual switch.
#![deny(unsafe_code)]

pub mod dataplane;
pub mod frame;
pub mod model;
pub mod ports;
pub mod stats;
#[allow(unsafe_code)]
pub mod sys;
pub mod types;
pub mod wire;
