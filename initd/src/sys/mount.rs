//! A proc instance of our own: in containers the one at /proc has parts that are read-only.

use std::ffi::c_char;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

const FSCONFIG_CMD_CREATE: u32 = 6;
const FSOPEN_CLOEXEC: u32 = 1;
const FSMOUNT_CLOEXEC: u32 = 1;

/// `fsopen`, `fsconfig`, `fsmount` (since Linux 5.2): a mount that is attached nowhere and goes
/// with its descriptor.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN, or where the container has hidden parts of /proc.
pub fn detached_proc() -> io::Result<OwnedFd> {
    let filesystem = descriptor(|| {
        // SAFETY: the name is a terminated string that outlives the call.
        unsafe { libc::syscall(libc::SYS_fsopen, c"proc".as_ptr(), FSOPEN_CLOEXEC) }
    })?;
    let null = std::ptr::null::<c_char>();
    // SAFETY: FSCONFIG_CMD_CREATE takes no key and no value.
    let created = unsafe {
        libc::syscall(libc::SYS_fsconfig, filesystem.as_raw_fd(), FSCONFIG_CMD_CREATE, null, null, 0)
    };
    if created < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: takes a descriptor, which is open, and two integers.
    descriptor(|| unsafe { libc::syscall(libc::SYS_fsmount, filesystem.as_raw_fd(), FSMOUNT_CLOEXEC, 0) })
}

fn descriptor(call: impl FnOnce() -> libc::c_long) -> io::Result<OwnedFd> {
    match call() {
        fd if fd < 0 => Err(io::Error::last_os_error()),
        // SAFETY: a non-negative result of these calls is a new descriptor that nobody else owns.
        fd => Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) }),
    }
}
