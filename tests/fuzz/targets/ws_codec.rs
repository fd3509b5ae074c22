#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::ws_codec::check(bytes));
