//! An open file description as every kind of file looks at it.

use snap_error::Part;
use snap_state::{FileId, Pid, TargetFd};
use snap_sys::proc::FdInfo;
use std::os::fd::{AsRawFd, OwnedFd};

/// An open file description under one of the numbers it has.
#[derive(Clone, Debug)]
pub(super) struct Description {
    pub id: FileId,
    pub pid: Pid,
    pub fd: TargetFd,
    pub dev: u64,
    pub ino: u64,
    pub link: Vec<u8>,
}

impl Description {
    /// For blockers.
    pub fn part(&self) -> Part {
        Part::Fd(self.fd)
    }
}

/// One entry of one table.
pub(super) struct Slot {
    /// Index of the member.
    pub owner: usize,
    pub description: Description,
    pub info: FdInfo,
}

/// A descriptor of ours, as those of the tree are named.
pub(super) fn own_number(fd: &OwnedFd) -> (Pid, TargetFd) {
    (own_pid(), TargetFd(fd.as_raw_fd()))
}

pub(super) fn own_pid() -> Pid {
    Pid(std::process::id() as i32)
}
