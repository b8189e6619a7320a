#![no_main]

#[path = "../targets/guard.rs"]
mod guard;
#[path = "../targets/input.rs"]
mod input;

libfuzzer_sys::fuzz_target!(|data: &[u8]| guard::run(data));
