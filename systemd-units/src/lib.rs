//! What happens before systemd starts anything: which units get the shim in front of their command.
//!
//! [`decide`] is the core: catalogue, unit texts and machine in, one decision per unit out. The binary `fastboot-generator` reads and writes files around it. No bus, no
//! daemon, nothing that can wait.

pub mod decide;
pub mod drop_in;
pub mod soft_reboot;
pub mod start_pre;
#[cfg(test)]
mod testing;

pub use snap_policy::SHIM;
pub use unit_search as search;

/// The restore daemon.
pub const INITD: &str = "/usr/lib/fastboot/fastboot-initd";
