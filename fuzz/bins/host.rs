#![no_main]

#[path = "../targets/host.rs"]
mod host;
#[path = "../targets/input.rs"]
mod input;

libfuzzer_sys::fuzz_target!(|data: &[u8]| host::run(data));
