//! Status flags of open file descriptions, and who is told of them by SIGIO.

use super::desk::Desk;
use snap_error::{Error, Result};
use snap_state::{FileV1, Files};
use snap_sys as sys;
use std::os::fd::{AsFd, BorrowedFd};

const F_SETSIG: i32 = 10;

/// What fcntl(F_SETFL) can change, O_ASYNC aside: that comes with the owner.
const STATUS_FLAGS: i32 = libc::O_APPEND | libc::O_NONBLOCK | libc::O_DIRECT | libc::O_NOATIME;

/// O_NONBLOCK, O_APPEND, O_DIRECT, O_NOATIME as recorded.
///
/// # Errors
/// fcntl(2).
pub fn set_status_flags(fd: &impl AsFd, file: &FileV1) -> Result<()> {
    sys::rebuild::fcntl_number(fd.as_fd(), libc::F_SETFL, file.flags & STATUS_FLAGS)
        .map(drop)
        .map_err(|e| Error::kernel("F_SETFL", file.id, e))
}

/// Receivers of SIGIO; the processes must exist.
///
/// # Errors
/// fcntl(2).
pub fn rebuild_owners(desk: &Desk, files: Files<'_>) -> Result<()> {
    for file in files {
        let Some(owner) = file.owner else { continue };
        let fd = desk.file(file.id)?;
        let failed = |e| Error::kernel("F_SETOWN_EX", file.id, e);
        sys::rebuild::set_owner(fd, owner.kind, owner.pid.0).map_err(failed)?;
        sys::rebuild::fcntl_number(fd, F_SETSIG, owner.signal).map_err(failed)?;
    }
    Ok(())
}

/// O_ASYNC under the daemon's own number, which the signal will name (`si_fd`). The receiver comes
/// later, so nothing is sent.
///
/// # Errors
/// fcntl(2).
pub fn set_async(fd: BorrowedFd<'_>, file: &FileV1) -> Result<()> {
    if file.flags & libc::O_ASYNC == 0 {
        return Ok(());
    }
    sys::rebuild::fcntl_number(fd, libc::F_SETFL, file.flags & (STATUS_FLAGS | libc::O_ASYNC))
        .map(drop)
        .map_err(|e| Error::kernel("O_ASYNC", file.id, e))
}
