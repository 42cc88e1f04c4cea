//! Status flags of what systemd gave us: a restore that has begun gives them those of the daemon,
//! and a cold start has to find them as they were.

use std::os::fd::BorrowedFd;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// Flags as `F_GETFL` told them.
#[derive(Debug)]
pub struct InheritedFlags(Vec<(BorrowedFd<'static>, OFlag)>);

impl InheritedFlags {
    /// Of these descriptors; those that are closed are left out.
    pub fn of(descriptors: impl Iterator<Item = BorrowedFd<'static>>) -> InheritedFlags {
        let flags = |fd| Some((fd, get(fd)?));
        InheritedFlags(descriptors.filter_map(flags).collect())
    }

    /// Set what has changed again. What cannot be set again stays as it is: the start is more
    /// important.
    pub fn put_back(&self) {
        for &(fd, flags) in &self.0 {
            if get(fd) != Some(flags) {
                let _ = fcntl(fd, FcntlArg::F_SETFL(flags));
            }
        }
    }
}

fn get(fd: BorrowedFd<'_>) -> Option<OFlag> {
    fcntl(fd, FcntlArg::F_GETFL).ok().map(OFlag::from_bits_retain)
}
