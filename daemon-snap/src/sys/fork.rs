//! Creating processes with chosen ids (clone3(2), `set_tid` since Linux 5.5, CLONE_INTO_CGROUP since Linux 5.7).

use nix::errno::Errno;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};

#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const _: () = assert!(size_of::<CloneArgs>() == 88);

/// Which side of [`fork`] this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Child,
    Parent { child: i32 },
}

/// Like fork(2), with the child's id, its exit signal (0: none is sent) and its cgroup chosen.
/// Must be called in a process with one thread: the child goes on with a copy of its memory.
///
/// # Errors
/// `EEXIST`: the id is taken. `EPERM`: no CAP_CHECKPOINT_RESTORE where the PID namespace was made.
pub fn fork(pid: Option<i32>, exit_signal: i32, cgroup: Option<BorrowedFd<'_>>) -> Result<Side, Errno> {
    let tid = pid.unwrap_or(0);
    let mut args = CloneArgs { exit_signal: exit_signal as u64, ..CloneArgs::default() };
    if pid.is_some() {
        args.set_tid = &raw const tid as u64;
        args.set_tid_size = 1;
    }
    if let Some(dir) = cgroup {
        args.flags |= 0x2_0000_0000; // CLONE_INTO_CGROUP
        args.cgroup = dir.as_raw_fd() as u64;
    }
    // SAFETY: `args` and `tid` are live for the call; without CLONE_VM the child has a memory of its own, so this is a
    // fork; the caller is single-threaded (documented), so no lock of libc can be held by a thread that is missing there.
    let got = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    match got {
        0 => Ok(Side::Child),
        child if child > 0 => Ok(Side::Parent { child: child as i32 }),
        _ => Err(Errno::last()),
    }
}

/// Ends this process at once, without destructors or exit handlers.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: ends the process; nothing of ours runs afterwards.
    unsafe { libc::_exit(status) }
}
