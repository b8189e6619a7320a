#![no_main]

#[path = "../targets/input.rs"]
mod input;
#[path = "../targets/packets.rs"]
mod packets;
#[path = "../targets/router.rs"]
mod router;

libfuzzer_sys::fuzz_target!(|data: &[u8]| router::run(data));
