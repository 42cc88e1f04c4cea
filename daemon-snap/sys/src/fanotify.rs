//! fanotify(7): making a group and marking.

use nix::errno::Errno;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// FAN_CLASS_CONTENT and FAN_CLASS_PRE_CONTENT
pub const CLASS_BITS: u32 = 0x4 | 0x8;
/// FAN_MARK_INODE
pub const MARK_INODE: u32 = 0;
/// FAN_MARK_MOUNT
pub const MARK_MOUNT: u32 = 0x10;
/// FAN_MARK_IGNORED_MASK
pub const MARK_IGNORED_MASK: u32 = 0x20;
/// FAN_MARK_IGNORED_SURV_MODIFY
pub const MARK_IGNORED_SURV_MODIFY: u32 = 0x40;
/// FAN_MARK_FILESYSTEM, since Linux 4.20.
pub const MARK_FILESYSTEM: u32 = 0x100;
/// FAN_MARK_EVICTABLE, since Linux 5.19.
pub const MARK_EVICTABLE: u32 = 0x200;
/// FAN_MARK_IGNORE, since Linux 6.0.
pub const MARK_IGNORE: u32 = 0x400;
/// What the kernel tells of how a mark was made.
pub const MARK_FLAGS: u32 = MARK_IGNORED_SURV_MODIFY | MARK_EVICTABLE | MARK_IGNORE;

/// `fanotify_init(2)`.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN, `EINVAL` for flags that this kernel does not have.
pub fn init(flags: u32, event_flags: u32) -> Result<OwnedFd, Errno> {
    // SAFETY: no pointers.
    let fd = Errno::result(unsafe { libc::fanotify_init(flags, event_flags) })?;
    // SAFETY: a fresh descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `fanotify_mark(2)` with FAN_MARK_ADD, for the path itself even if it is a symbolic link.
///
/// # Errors
/// As fanotify_mark(2).
pub fn add_mark(group: BorrowedFd<'_>, flags: u32, mask: u64, path: &[u8]) -> Result<(), Errno> {
    const MARK_ADD: u32 = 1;
    const MARK_DONT_FOLLOW: u32 = 4;
    let mut path = path.to_vec();
    path.push(0);
    let flags = flags | MARK_ADD | MARK_DONT_FOLLOW;
    // SAFETY: the path is live and NUL-terminated.
    let done =
        unsafe { libc::fanotify_mark(group.as_raw_fd(), flags, mask, libc::AT_FDCWD, path.as_ptr().cast()) };
    Errno::result(done).map(drop)
}
