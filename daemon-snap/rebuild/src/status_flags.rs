//! Status flags of open file descriptions.

use snap_error::{Error, Result};
use snap_state::FileV1;
use std::os::fd::AsFd;

/// What fcntl(F_SETFL) can change, O_ASYNC aside: that comes with the owner.
pub const STATUS_FLAGS: i32 = libc::O_APPEND | libc::O_NONBLOCK | libc::O_DIRECT | libc::O_NOATIME;

/// O_NONBLOCK, O_APPEND, O_DIRECT, O_NOATIME as recorded.
///
/// # Errors
/// fcntl(2).
pub fn set_status_flags(fd: &impl AsFd, file: &FileV1) -> Result<()> {
    snap_sys::rebuild::fcntl_number(fd.as_fd(), libc::F_SETFL, file.flags & STATUS_FLAGS)
        .map(drop)
        .map_err(|e| Error::kernel("F_SETFL", file.id, e))
}
