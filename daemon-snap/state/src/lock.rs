//! File locks.

use super::check::{Result, check};
use super::{InodeId, Pid, TargetFd};
use serde::{Deserialize, Serialize};

/// A lock as one process holds it, or as it took it for a description that others use too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileLockV1 {
    /// Under which number the process has the description.
    pub fd: TargetFd,
    pub kind: LockKindV1,
    /// A write lock (F_WRLCK, LOCK_EX).
    pub exclusive: bool,
    /// First byte; 0 for flock(2).
    pub start: u64,
    /// Last byte; `None` is the end of the file however long it gets.
    pub last: Option<u64>,
}

/// Whose a lock is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LockKindV1 {
    /// `fcntl(F_SETLK)`: of the process.
    Posix,
    /// `fcntl(F_OFD_SETLK)`: of the open file description (since Linux 3.15).
    Ofd,
    /// `flock(2)`: of the open file description.
    Flock,
}

/// An flock(2) lock of a description that has no descriptor any more: a mapping keeps it (the JVM's
/// hsperfdata file).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MappedLockV1 {
    /// Who took it.
    pub pid: Pid,
    pub inode: InodeId,
    /// LOCK_EX.
    pub exclusive: bool,
}

impl FileLockV1 {
    pub(crate) fn check(&self) -> Result<()> {
        let last = self.last.unwrap_or(i64::MAX as u64);
        check(self.start <= last && last <= i64::MAX as u64, "a lock of no bytes")
    }
}
