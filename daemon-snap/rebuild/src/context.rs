//! What a unit brings to its restore.

use snap_state::Pid;
use std::os::fd::OwnedFd;

/// What systemd gave to the process that stands in for the daemon (the shim).
#[derive(Debug)]
pub struct UnitContext {
    /// The shim; its namespaces are entered.
    pub shim: OwnedFd,
    /// PID of the shim in our PID namespace.
    pub shim_pid: Pid,
    /// Descriptors 0, 1 and 2 of the shim.
    pub stdio: [OwnedFd; 3],
    /// Socket activation: name from `LISTEN_FDNAMES` and descriptor.
    pub listen_fds: Vec<(String, OwnedFd)>,
    /// Directory of the unit's cgroup, opened. The caller is in it: what a restore makes belongs to
    /// its maker's group for good (sockets) or is charged to it (memory).
    pub cgroup: OwnedFd,
    /// `BusName=` of a unit with `Type=dbus`: systemd takes the unit for started when somebody has
    /// this name, and for ended when nobody has it any more.
    pub bus_name: Option<String>,
}
