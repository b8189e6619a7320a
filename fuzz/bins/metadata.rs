#![no_main]

#[path = "../targets/input.rs"]
mod input;
#[path = "../targets/metadata.rs"]
mod metadata;

libfuzzer_sys::fuzz_target!(|data: &[u8]| metadata::run(data));
