//! fanotify(7).

use super::RawPath;
use super::check::{Around, Result, check, is_path};
use super::kind::FileState;
use serde::{Deserialize, Serialize};

/// `fanotify_init(2)`, of the class that is only notified (FAN_CLASS_NOTIF).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FanotifyV1 {
    /// FAN_CLOEXEC, FAN_NONBLOCK, FAN_UNLIMITED_*, FAN_REPORT_*.
    pub flags: u32,
    /// O_RDONLY …, of the descriptors that events come with.
    pub event_flags: u32,
    pub marks: Vec<FanotifyMarkV1>,
}

/// `fanotify_mark(2)`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FanotifyMarkV1 {
    /// FAN_MARK_INODE 0, FAN_MARK_MOUNT 0x10, FAN_MARK_FILESYSTEM 0x100.
    pub kind: u32,
    /// The inode, or the root of the mount or of one of the file system.
    pub path: RawPath,
    /// FAN_MARK_IGNORED_SURV_MODIFY 0x40, FAN_MARK_EVICTABLE 0x200, FAN_MARK_IGNORE 0x400.
    pub flags: u32,
    pub mask: u64,
    pub ignored_mask: u64,
}

impl FileState for FanotifyV1 {
    fn name(&self) -> &'static str {
        "fanotify"
    }

    fn check(&self, _: i32, _: &Around<'_>) -> Result<()> {
        check(self.marks.iter().all(|mark| is_path(&mark.path.0)), "a mark on what is not a path")
    }
}
