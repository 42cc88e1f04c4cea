//! Facts about this boot.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

pub use fastboot_runtime::boot::{boot_id, userspace_id};

/// `CLOCK_MONOTONIC` in microseconds.
pub fn monotonic_us() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| Duration::from(now).as_micros() as u64)
}
