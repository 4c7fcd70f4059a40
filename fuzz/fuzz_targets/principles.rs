#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| salmon_fuzz::principles(bytes));
