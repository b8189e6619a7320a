#![no_main]

#[path = "../targets/api.rs"]
mod api;

libfuzzer_sys::fuzz_target!(|data: &[u8]| api::run(data));
