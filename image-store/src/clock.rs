//! The time of day, as it is written into files.

use std::time::{SystemTime, UNIX_EPOCH};

/// By the clock of now, seconds since 1970; 0 before that.
pub fn now_unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
