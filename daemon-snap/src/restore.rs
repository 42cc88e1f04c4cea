//! The restore path: locate → validate → load → rebuild → hand over.
//!
//! [`restore`] must be called in a process with one thread: it forks the recorded tree from itself.

use crate::error::Result;
use crate::state::{Pid, TreeV1};
use image_store::Image;
use std::os::fd::OwnedFd;
use std::time::Instant;

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
    /// Directory of the unit's cgroup, opened.
    pub cgroup: OwnedFd,
}

/// Everything that one restore needs.
#[derive(Debug)]
pub struct Request<'a> {
    pub image: &'a Image,
    pub tree: TreeV1,
    /// `None`: restore where we are (plumbing command).
    pub unit: Option<UnitContext>,
    /// Verify the page checksums while the pages are loaded (not needed when somebody did before).
    pub verify_pages: bool,
    pub deadline: Instant,
}

/// A tree that runs again.
#[derive(Debug)]
pub struct Restored {
    /// Roots of the tree, children of the caller until it exits.
    pub roots: Vec<Pid>,
}

/// Restores a tree. When this returns `Ok`, all processes run; when it returns an error, none of them exists any more.
///
/// # Errors
/// Any; the tree is gone then.
pub fn restore(request: Request<'_>) -> Result<Restored> {
    let _ = request;
    Err(crate::Error::Internal { step: "restore", message: "not built yet".into() })
}
