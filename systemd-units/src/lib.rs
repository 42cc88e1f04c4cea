//! What happens before systemd starts anything: which units get the shim in front of their command.
//!
//! [`decide`] is the core: catalogue, unit texts, machine and kernel command line in, one decision per unit out. The
//! binary `fastboot-generator` reads and writes files around it. No bus, no daemon, nothing that can wait.

pub mod cmdline;
pub mod decide;
pub mod drop_in;
pub mod exec_line;
pub mod record;
pub mod sandbox;
pub mod search;
pub mod service;
pub mod soft_reboot;
pub mod start_pre;

/// The shim, as it stands in drop-ins.
pub const SHIM: &str = "/usr/lib/fastboot/fastboot-exec";
/// The restore daemon.
pub const INITD: &str = "/usr/lib/fastboot/fastboot-initd";
