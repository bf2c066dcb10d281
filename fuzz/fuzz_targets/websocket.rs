#![no_main]
#![allow(dead_code)]

#[path = "../../tests/corpus/properties.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|data: &[u8]| properties::websocket(data));
