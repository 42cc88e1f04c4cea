//! What this kernel and this environment let us do, found out by doing it on ourselves or on a
//! child made for it.
//!
//! Nothing here changes anything that outlives the call. Children do nothing but system calls: the
//! caller may have threads.

use super::child::Child;
use super::ptrace::{self, Wait};
use super::{fork, kcmp, pidfd};
use nix::errno::Errno;
use nix::sys::wait::{WaitStatus, waitpid};
use snap_state::{Pid, TargetFd};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const CLONE_NEWTIME: i32 = 0x80;
const PR_SET_MM_MAP_SIZE: libc::c_int = 15;
/// Candidates that are tried when numbers are taken.
const ATTEMPTS: i32 = 16;

/// A child with a number of our choice, as every restored process has; `highest` is the first that
/// is tried.
///
/// # Errors
/// `EPERM`: neither CAP_CHECKPOINT_RESTORE nor CAP_SYS_ADMIN, or a seccomp filter.
pub fn chosen_pid(highest: i32) -> Result<(), Errno> {
    let mut result = Err(Errno::EEXIST);
    for pid in (highest - ATTEMPTS..=highest).rev() {
        result = end_at_once(Some(pid), None);
        if result != Err(Errno::EEXIST) {
            break;
        }
    }
    result
}

/// A child that is born in this cgroup.
///
/// # Errors
/// `EINVAL` before Linux 5.7, `EACCES` without permission for the group.
pub fn born_in_cgroup(dir: BorrowedFd<'_>) -> Result<(), Errno> {
    end_at_once(None, Some(dir))
}

fn end_at_once(pid: Option<i32>, cgroup: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
    match fork::fork(pid, libc::SIGCHLD, cgroup)? {
        fork::Side::Child => fork::exit_now(0),
        fork::Side::Parent { child } => {
            if pid.is_some_and(|pid| pid != child) {
                return Err(Errno::EINVAL);
            }
            match waitpid(nix::unistd::Pid::from_raw(child), None)? {
                WaitStatus::Exited(_, 0) => Ok(()),
                _ => Err(Errno::ECHILD),
            }
        }
    }
}

/// A time namespace whose monotonic clock is another one.
///
/// # Errors
/// `EINVAL` where the kernel has none, `EPERM` without CAP_SYS_ADMIN or CAP_SYS_TIME.
pub fn time_namespace() -> Result<(), Errno> {
    Child::make(|| {
        // SAFETY: plain system calls in a child of our own; the path and the text are constants.
        unsafe {
            Errno::result(libc::unshare(CLONE_NEWTIME))?;
            let fd = Errno::result(libc::open(c"/proc/self/timens_offsets".as_ptr(), libc::O_WRONLY))?;
            let offset = b"monotonic 1000 0\n";
            Errno::result(libc::write(fd, offset.as_ptr().cast(), offset.len())).map(drop)
        }
    })
    .map(drop)
}

/// Stopping a process without a signal, as a snapshot does with every thread.
///
/// # Errors
/// `EPERM` without ptrace access (Yama's `ptrace_scope`, CAP_SYS_PTRACE).
pub fn seize() -> Result<(), Errno> {
    stop(&Child::make(|| Ok(()))?)
}

/// Reading a seccomp filter out of another process.
///
/// # Errors
/// `EACCES` without CAP_SYS_ADMIN or under a filter of our own, `EINVAL` where the kernel lacks it.
pub fn seccomp_dump() -> Result<(), Errno> {
    let child = Child::make(|| {
        let allow = libc::sock_filter { code: 6, jt: 0, jf: 0, k: 0x7fff_0000 }; // return SECCOMP_RET_ALLOW
        let program = libc::sock_fprog { len: 1, filter: (&raw const allow).cast_mut() };
        // SAFETY: the program and its one instruction live through the call, which does not write
        // to them.
        unsafe {
            Errno::result(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
            Errno::result(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program))
                .map(drop)
        }
    })?;
    stop(&child)?;
    match ptrace::seccomp_filter(child.pid(), 0)?.is_empty() {
        true => Err(Errno::ENODATA),
        false => Ok(()),
    }
}

fn stop(child: &Child) -> Result<(), Errno> {
    ptrace::seize(child.pid(), 0)?;
    ptrace::interrupt(child.pid())?;
    match ptrace::wait(child.pid(), true)? {
        Wait::Interrupted => Ok(()),
        _ => Err(Errno::ECHILD),
    }
}

/// Taking a descriptor out of another process (pidfd_getfd(2), since Linux 5.6).
///
/// # Errors
/// `ENOSYS`, or `EPERM` under a container's filter or without ptrace access.
pub fn foreign_descriptor() -> Result<(), Errno> {
    let (ours, _other) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let child = Child::make(|| Ok(()))?;
    let process = pidfd::open(child.pid())?;
    pidfd::get_fd(process.as_fd(), TargetFd(ours.as_raw_fd())).map(drop)
}

/// Finding out whether two processes share a descriptor (kcmp(2)).
///
/// # Errors
/// `ENOSYS` where the kernel lacks it, `EPERM` without ptrace access.
pub fn shared_descriptor() -> Result<(), Errno> {
    let (ours, _other) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let child = Child::make(|| Ok(()))?;
    let (fd, own) = (TargetFd(ours.as_raw_fd()), Pid(std::process::id() as i32));
    match kcmp::compare_files((own, fd), (child.pid(), fd))?.is_eq() {
        true => Ok(()),
        false => Err(Errno::EINVAL),
    }
}

/// Setting where an address space has its heap, stack and arguments (PR_SET_MM_MAP, since Linux
/// 3.18); only asks whether the kernel knows it.
///
/// # Errors
/// `EINVAL` without CONFIG_CHECKPOINT_RESTORE.
pub fn memory_layout() -> Result<(), Errno> {
    let mut len_bytes: libc::c_uint = 0;
    // SAFETY: the kernel writes one unsigned int to the address, which is ours.
    let asked = unsafe { libc::prctl(libc::PR_SET_MM, PR_SET_MM_MAP_SIZE, &raw mut len_bytes, 0, 0) };
    Errno::result(asked).map(drop)
}

/// A ring of io_uring.
///
/// # Errors
/// `EPERM` where `kernel.io_uring_disabled` or a filter forbids it, `ENOSYS`.
pub fn io_uring() -> Result<(), Errno> {
    let made = io_uring::IoUring::new(2);
    made.map(drop).map_err(|e| e.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
}

/// A userfaultfd that also sees faults inside of system calls.
///
/// # Errors
/// `ENOSYS`, `EPERM`.
pub fn userfaultfd() -> Result<(), Errno> {
    // SAFETY: plain system call without pointers.
    descriptor(unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) })
}

/// A fanotify group that reports opened files.
///
/// # Errors
/// `ENOSYS`, or `EPERM` without CAP_SYS_ADMIN.
pub fn fanotify() -> Result<(), Errno> {
    let flags = libc::FAN_CLASS_NOTIF | libc::FAN_CLOEXEC;
    // SAFETY: plain system call without pointers.
    descriptor(unsafe { libc::syscall(libc::SYS_fanotify_init, flags, libc::O_RDONLY) })
}

fn descriptor(got: i64) -> Result<(), Errno> {
    let fd = Errno::result(got)?;
    // SAFETY: the kernel just made this descriptor for us; it is closed here.
    drop(unsafe { OwnedFd::from_raw_fd(fd as i32) });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_fails_hands_its_error_over() {
        assert_eq!(Child::make(|| Err(Errno::EXDEV)).err(), Some(Errno::EXDEV));
    }

    #[test]
    fn a_number_that_is_taken_is_no_answer() {
        // Our own number and the ones below it: at least ours is taken, and a free one has to be
        // found below.
        let own = std::process::id() as i32;
        if !nix::unistd::geteuid().is_root() {
            // Who may not choose a number is told that, and not that it is taken.
            assert_eq!(end_at_once(Some(own), None), Err(Errno::EPERM));
            assert_eq!(chosen_pid(own), Err(Errno::EPERM));
            return;
        }
        assert_eq!(end_at_once(Some(own), None), Err(Errno::EEXIST));
        assert_eq!(chosen_pid(own), Ok(()));
    }
}
