//! File systems that are mounted nowhere: only a descriptor leads to them (fsopen(2), fsmount(2),
//! since Linux 5.2).

use nix::errno::Errno;
use std::ffi::CStr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const FSOPEN_CLOEXEC: u32 = 1;
const FSCONFIG_CMD_CREATE: u32 = 6;
const FSMOUNT_CLOEXEC: u32 = 1;

/// The root of a new instance of that type, without options.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN.
pub fn mount(kind: &CStr) -> Result<OwnedFd, Errno> {
    // SAFETY: plain system calls on a live string and on descriptors that they return.
    unsafe {
        let context = checked(libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC))?;
        Errno::result(libc::syscall(
            libc::SYS_fsconfig,
            context.as_raw_fd(),
            FSCONFIG_CMD_CREATE,
            std::ptr::null::<u8>(),
            std::ptr::null::<u8>(),
            0,
        ))?;
        checked(libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, 0))
    }
}

fn checked(result: libc::c_long) -> Result<OwnedFd, Errno> {
    let fd = Errno::result(result)? as i32;
    // SAFETY: the system call just returned this new descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
