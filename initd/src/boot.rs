//! Facts about this boot.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Id of this boot; empty when it cannot be read.
pub fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().replace('-', "")
}

/// What failures are counted by: the boot, and which of its userspaces (`systemctl soft-reboot`).
pub fn userspace_id(boot_id: &str, soft_reboots: u64) -> String {
    match soft_reboots {
        0 => boot_id.to_owned(),
        count => format!("{boot_id}+{count}"),
    }
}

/// `CLOCK_MONOTONIC` in microseconds.
pub fn monotonic_us() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| Duration::from(now).as_micros() as u64)
}
