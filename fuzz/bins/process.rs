#![no_main]

#[path = "../targets/input.rs"]
mod input;
#[path = "../targets/process.rs"]
mod process;

libfuzzer_sys::fuzz_target!(|data: &[u8]| process::run(data));
