#![no_main]

#[path = "../targets/conntrack.rs"]
mod conntrack;
#[path = "../targets/input.rs"]
mod input;

libfuzzer_sys::fuzz_target!(|data: &[u8]| conntrack::run(data));
