//! The section of the family Objects, of today's layout.
#![no_main]

#[path = "../state.rs"]
mod state;

use snap_state::sections::Family;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| state::exercise("3", Family::Objects, bytes));
