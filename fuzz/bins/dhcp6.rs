#![no_main]

#[path = "../targets/dhcp6.rs"]
mod dhcp6;
#[path = "../targets/input.rs"]
mod input;

libfuzzer_sys::fuzz_target!(|data: &[u8]| dhcp6::run(data));
