//! Which boot this is.

use crate::{RunDir, soft_reboot};

/// Id of this boot; empty when it cannot be read.
pub fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().replace('-', "")
}

/// The boot, and which of its userspaces (`systemctl soft-reboot`).
pub fn userspace_id(boot_id: &str, soft_reboots: u64) -> String {
    match soft_reboots {
        0 => boot_id.to_owned(),
        count => format!("{boot_id}+{count}"),
    }
}

/// The one that is going on.
pub fn current_userspace() -> String {
    userspace_id(&boot_id(), soft_reboot::count(&RunDir::default()))
}
