//! For container tests of the boot side: a process that only sleeps, in place of a restored tree.

use std::io;
use std::mem::size_of;
use std::os::fd::AsRawFd as _;

use daemon_snap::restore::UnitContext;

use crate::worker::Order;

/// Environment variable of initd that switches it on: the unit's recorded main PID is made, asleep, with the shim's
/// standard descriptors.
pub const ENV: &str = "FASTBOOT_TEST_RESTORE";

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `struct clone_args`, version 2 (since Linux 5.7).
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

/// `None` unless switched on.
pub fn instead_of_restore(order: &Order, unit: &UnitContext) -> Option<io::Result<Vec<i32>>> {
    let mode = std::env::var(ENV).ok()?;
    Some(spawn(order.main_pid, unit, &mode).map(|pid| vec![pid]))
}

fn spawn(pid: i32, unit: &UnitContext, mode: &str) -> io::Result<i32> {
    let set_tid = [pid];
    let arguments = CloneArgs {
        flags: CLONE_INTO_CGROUP,
        exit_signal: libc::SIGCHLD as u64,
        set_tid: set_tid.as_ptr() as u64,
        set_tid_size: 1,
        cgroup: unit.cgroup.as_raw_fd() as u64,
        ..CloneArgs::default()
    };
    // SAFETY: without CLONE_VM the child has a copy of everything, and the worker has one thread, so that no lock is
    // held by anybody else. The child only makes system calls and never returns. `arguments` and `set_tid` outlive
    // the call.
    unsafe {
        let result = libc::syscall(libc::SYS_clone3, &arguments, size_of::<CloneArgs>());
        if result != 0 {
            return if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) };
        }
        libc::prctl(libc::PR_SET_PDEATHSIG, 0);
        libc::setsid();
        for (number, fd) in unit.stdio.iter().enumerate() {
            libc::dup2(fd.as_raw_fd(), number as i32);
        }
        libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0);
        libc::prctl(libc::PR_SET_NAME, c"plain-child".as_ptr());
        if mode == "crash" {
            libc::sleep(2);
            libc::signal(libc::SIGSEGV, libc::SIG_DFL);
            libc::raise(libc::SIGSEGV);
        }
        loop {
            libc::pause();
        }
    }
}
