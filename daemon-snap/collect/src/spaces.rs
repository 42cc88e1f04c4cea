//! The namespaces that the tree lives in, as far as its objects are looked at through them.

use snap_state::{Pid, RawPath};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Namespaces that the tree lives in.
#[derive(Debug)]
pub(crate) struct Spaces {
    /// Root directory of its mount namespace.
    pub root: OwnedFd,
    /// Its network namespace when that is not ours.
    pub net: Option<File>,
    /// Its IPC namespace when that is not ours.
    pub ipc: Option<File>,
    /// Whose mounts are looked at.
    pub main: Pid,
}

impl Spaces {
    /// A path of the tree as one that we can open.
    pub fn reachable(&self, path: &RawPath) -> std::path::PathBuf {
        let mut reachable = format!("/proc/self/fd/{}", self.root.as_raw_fd()).into_bytes();
        if !path.0.starts_with(b"/") {
            reachable.push(b'/');
        }
        reachable.extend_from_slice(&path.0);
        RawPath(reachable).as_path().to_owned()
    }

    /// The IPC namespace; ours when `None`.
    pub fn ipc(&self) -> Option<BorrowedFd<'_>> {
        self.ipc.as_ref().map(AsFd::as_fd)
    }

    /// The network namespace to make sockets in; ours when `None`.
    pub fn net(&self) -> Option<BorrowedFd<'_>> {
        self.net.as_ref().map(AsFd::as_fd)
    }
}
