//! Descriptors that were inherited and have no owner in this program.

use std::os::fd::{BorrowedFd, RawFd};

/// The first `count` descriptors. One that is closed makes the call that uses it fail with EBADF.
pub fn inherited(count: usize) -> impl Iterator<Item = BorrowedFd<'static>> {
    // SAFETY: the shim closes none of the descriptors that systemd gave it, so they outlive
    // everything here. One that was never open is only a number that the kernel refuses.
    (0..count as RawFd).map(|fd| unsafe { BorrowedFd::borrow_raw(fd) })
}
