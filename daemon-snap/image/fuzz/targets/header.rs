//! An image file: header, table, sections.
#![no_main]

#[path = "../../../../image-store/tests/exercise/mod.rs"]
#[allow(dead_code)]
mod exercise;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    exercise::image(bytes);
});
