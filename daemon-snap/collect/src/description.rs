//! An open file description as every kind of file looks at it.

use nix::sys::stat::fstat;
use snap_error::Part;
use snap_state::{FileId, NodeV1, Pid, TargetFd};
use snap_sys::proc::FdInfo;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

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

/// A description as those who collect it look at it.
#[derive(Clone, Copy)]
pub(super) struct Open<'a> {
    pub file: &'a Description,
    /// Our duplicate.
    pub fd: BorrowedFd<'a>,
    pub info: &'a FdInfo,
}

/// One entry of one table.
pub(super) struct Slot {
    /// Index of the member.
    pub owner: usize,
    pub description: Description,
    pub info: FdInfo,
}

/// Owner and permissions of what has no name.
pub(super) fn node_of(fd: impl AsFd) -> nix::Result<NodeV1> {
    let found = fstat(fd)?;
    Ok(NodeV1 { uid: found.st_uid, gid: found.st_gid, mode: found.st_mode & 0o7777 })
}

/// A descriptor of ours, as those of the tree are named.
pub(super) fn own_number(fd: &OwnedFd) -> (Pid, TargetFd) {
    (own_pid(), TargetFd(fd.as_raw_fd()))
}

pub(super) fn own_pid() -> Pid {
    Pid(std::process::id() as i32)
}
