#![no_main]

#[path = "../targets/fragments.rs"]
mod fragments;
#[path = "../targets/input.rs"]
mod input;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fragments::run(data));
