#![no_main]

#[path = "../targets/groups.rs"]
mod groups;
#[path = "../targets/input.rs"]
mod input;
#[path = "../targets/packets.rs"]
mod packets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| groups::run(data));
