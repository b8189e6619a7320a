#![no_main]

#[path = "../targets/icmp_error.rs"]
mod icmp_error;
#[path = "../targets/input.rs"]
mod input;
#[path = "../targets/packets.rs"]
mod packets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| icmp_error::run(data));
