//! A family of a committed image, with other bytes in its place.

#[path = "../tests/exercise/mod.rs"]
#[allow(dead_code)]
mod exercise;

use exercise::State;
use snap_state::sections::Family;
use std::sync::OnceLock;

pub fn exercise(layout: &str, family: Family, bytes: &[u8]) {
    static WHOLE: OnceLock<State> = OnceLock::new();
    let whole = WHOLE.get_or_init(|| State::of(&exercise::open(&exercise::committed(layout)[0])));
    whole.exercise(family, bytes);
}
