//! System V shared memory.

use super::check::{Result, check};
use serde::{Deserialize, Serialize};

/// `shmget(2)`. Its length is that of the inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentV1 {
    pub id: i32,
    /// 0 is IPC_PRIVATE.
    pub key: i32,
    /// Permissions.
    pub mode: u32,
    /// IPC_RMID was called: it ends with the last who has it attached.
    pub removed: bool,
    /// SHM_LOCK was called.
    pub locked: bool,
    pub uid: u32,
    pub gid: u32,
    pub creator_uid: u32,
    pub creator_gid: u32,
}

impl SegmentV1 {
    pub(crate) fn check(&self, len_bytes: u64) -> Result<()> {
        check(self.id >= 0 && len_bytes > 0, "an empty segment")
    }
}
