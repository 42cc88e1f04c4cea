//! Processes: pidfds and forking.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigHandler, Signal};

/// What [`fork`] returns to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forked {
    /// In the child.
    Child,
    /// In the parent, with the child's PID.
    Parent(i32),
}

/// `pidfd_open(2)`, since Linux 5.3.
///
/// # Errors
/// ESRCH when there is no such process.
pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes two integers; a non-negative result is a new descriptor that nobody else owns.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd as i32)) }
    }
}

/// SIGKILL through a pidfd: never hits another process.
///
/// # Errors
/// ESRCH when it is gone.
pub fn pidfd_kill(pidfd: impl AsFd) -> io::Result<()> {
    let fd = pidfd.as_fd().as_raw_fd();
    let null = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the descriptor is borrowed for the call; a null siginfo is allowed.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, libc::SIGKILL, null, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether the process of a pidfd has ended, waiting for at most `timeout`.
pub fn wait_ended(pidfd: impl AsFd, timeout: Duration) -> bool {
    let ended = wait_readable([pidfd.as_fd()], timeout);
    ended.is_ok_and(|[ended]| ended)
}

/// Wait until one of the descriptors is readable or closed by its other side.
///
/// # Errors
/// From `poll(2)`; an interrupted wait counts as one in which nothing happened.
pub fn wait_readable<const N: usize>(fds: [BorrowedFd<'_>; N], timeout: Duration) -> io::Result<[bool; N]> {
    let mut polled = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
    match poll(&mut polled, timeout) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    Ok(polled.map(|fd| fd.any().unwrap_or(false)))
}

/// `fork(2)` for a process that has one thread.
///
/// # Errors
/// From `fork(2)`; `Unsupported` when there is a second thread, whose locks the child would inherit
/// as they are.
pub fn fork() -> io::Result<Forked> {
    check_single_thread()?;
    // SAFETY: there is one thread, ours, so the child sees all memory and locks in a consistent
    // state.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Child => Ok(Forked::Child),
        nix::unistd::ForkResult::Parent { child } => Ok(Forked::Parent(child.as_raw())),
    }
}

/// The same into another control group, with SIGCHLD at its end (CLONE_INTO_CGROUP, since Linux
/// 5.7).
///
/// # Errors
/// As [`fork`], and those of clone3(2): `EAGAIN` when the group has as many processes as it may.
pub fn fork_into(cgroup: BorrowedFd<'_>) -> io::Result<Forked> {
    check_single_thread()?;
    Ok(match snap_sys::fork::fork(None, libc::SIGCHLD, Some(cgroup))? {
        snap_sys::fork::Side::Child => Forked::Child,
        snap_sys::fork::Side::Parent { child } => Forked::Parent(child),
    })
}

fn check_single_thread() -> io::Result<()> {
    match std::fs::read_dir("/proc/self/task")?.count() {
        1 => Ok(()),
        threads => Err(io::Error::new(io::ErrorKind::Unsupported, format!("{threads} threads, cannot fork"))),
    }
}

/// How a zygote treats the end of its children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChildEnd {
    /// The kernel reaps them at once; their pidfds still tell.
    Reaped,
    /// They wait to be reaped, as usual.
    Waited,
}

/// Set the disposition of SIGCHLD.
///
/// # Errors
/// From `sigaction(2)`.
pub fn set_child_end(end: ChildEnd) -> io::Result<()> {
    let handler = match end {
        ChildEnd::Reaped => SigHandler::SigIgn,
        ChildEnd::Waited => SigHandler::SigDfl,
    };
    // SAFETY: no handler of ours is installed, only "ignore" or "default".
    unsafe { nix::sys::signal::signal(Signal::SIGCHLD, handler) }?;
    Ok(())
}
