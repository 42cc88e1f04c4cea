//! Process descriptors (pidfd_open(2), since Linux 5.3; pidfd_getfd(2), since Linux 5.6).

use nix::errno::Errno;
use snap_state::{Pid, TargetFd};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// What pidfd_open(2) takes: PIDFD_NONBLOCK (since Linux 5.10) and PIDFD_THREAD (since Linux 6.9).
pub const OPEN_FLAGS: i32 = libc::O_NONBLOCK | libc::O_EXCL;

/// A descriptor for a process.
///
/// # Errors
/// `ESRCH` when there is none.
pub fn open(pid: Pid) -> Result<OwnedFd, Errno> {
    open_with(pid, 0)
}

/// The same with flags.
///
/// # Errors
/// `ESRCH` when there is none; `EINVAL` for flags that the kernel does not know.
pub fn open_with(pid: Pid, flags: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: plain system call without pointers.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.0, flags) })?;
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

/// `struct pidfd_info` (first published size).
#[repr(C)]
#[derive(Default)]
struct Info {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: i32,
}
const _: () = assert!(size_of::<Info>() == 64);

/// How the process of a pidfd ended, as waitpid(2) gave it (PIDFD_GET_INFO, since Linux 6.13; after
/// the process has been waited for since Linux 6.15). `None` where the kernel does not tell.
pub fn exit_status(pidfd: BorrowedFd<'_>) -> Option<i32> {
    const PIDFD_GET_INFO: libc::c_ulong = 0xc040_ff0b;
    const PIDFD_INFO_EXIT: u64 = 1 << 3;
    let mut info = Info { mask: PIDFD_INFO_EXIT, ..Info::default() };
    // SAFETY: info is live and has the size that is part of the request's number.
    let done = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO, &raw mut info) };
    (done == 0 && info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code)
}
