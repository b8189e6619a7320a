#![no_main]

#[path = "../targets/dhcp4.rs"]
mod dhcp4;
#[path = "../targets/input.rs"]
mod input;

libfuzzer_sys::fuzz_target!(|data: &[u8]| dhcp4::run(data));
