//! Process descriptors (pidfd_open(2), since Linux 5.3; pidfd_getfd(2), since Linux 5.6).

use crate::state::{Pid, TargetFd};
use nix::errno::Errno;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A descriptor for a process.
///
/// # Errors
/// `ESRCH` when there is none.
pub fn open(pid: Pid) -> Result<OwnedFd, Errno> {
    // SAFETY: plain system call without pointers.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.0, 0) })?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Our own duplicate of another process's descriptor; shares the open file description.
///
/// # Errors
/// `EBADF` when it is not open there, `EPERM` without ptrace access.
pub fn get_fd(pidfd: BorrowedFd<'_>, fd: TargetFd) -> Result<OwnedFd, Errno> {
    // SAFETY: plain system call without pointers.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), fd.0, 0) })?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Sends a signal to the process, never to a later one with its number.
///
/// # Errors
/// `ESRCH` when it has ended.
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<(), Errno> {
    // SAFETY: the siginfo pointer is null, which the call allows.
    let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, 0usize, 0) };
    Errno::result(sent).map(drop)
}
