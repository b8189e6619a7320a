#![no_main]

#[path = "../targets/decap.rs"]
mod decap;
#[path = "../targets/input.rs"]
mod input;

libfuzzer_sys::fuzz_target!(|data: &[u8]| decap::run(data));
