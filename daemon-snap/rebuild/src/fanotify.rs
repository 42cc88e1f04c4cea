//! fanotify(7): groups and their marks.

use super::kind::{Context, Kind};
use image_store::ReasonCode;
use nix::errno::Errno;
use snap_error::{Error, Result};
use snap_state::{FanotifyMarkV1, FanotifyV1, FileV1, RawPath};
use snap_sys as sys;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

impl Kind for FanotifyV1 {
    /// fanotify_init(2) and its marks. What the restore itself does with marked files is told like
    /// anything else that happens to them.
    fn make(&self, file: &FileV1, _: &Context<'_>) -> Result<Option<OwnedFd>> {
        let fd = sys::fanotify::init(self.flags, self.event_flags)
            .map_err(|e| Error::kernel("fanotify_init", file.id, e))?;
        for mark in &self.marks {
            add(fd.as_fd(), mark).map_err(|e| failed(&mark.path, e))?;
        }
        Ok(Some(fd))
    }
}

/// What is reported and what is left out are two calls.
fn add(fd: BorrowedFd<'_>, mark: &FanotifyMarkV1) -> std::result::Result<(), Errno> {
    use sys::fanotify::{MARK_EVICTABLE, MARK_IGNORE, MARK_IGNORED_MASK, MARK_IGNORED_SURV_MODIFY};
    let kind = mark.kind | mark.flags & MARK_EVICTABLE;
    if mark.mask != 0 {
        sys::fanotify::add_mark(fd, kind, mark.mask, &mark.path.0)?;
    }
    if mark.ignored_mask != 0 {
        let ignoring = if mark.flags & MARK_IGNORE != 0 { MARK_IGNORE } else { MARK_IGNORED_MASK };
        let kind = kind | ignoring | mark.flags & MARK_IGNORED_SURV_MODIFY;
        sys::fanotify::add_mark(fd, kind, mark.ignored_mask, &mark.path.0)?;
    }
    Ok(())
}

fn failed(path: &RawPath, errno: Errno) -> Error {
    match errno {
        Errno::ENOENT | Errno::ENOTDIR => {
            Error::stale(ReasonCode::FileMissing, format!("marked path {path} is missing"))
        }
        errno => Error::kernel("fanotify_mark", path, errno),
    }
}
