//! For container tests of the boot side: a process that only sleeps, in place of a restored tree.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};

use snap_rebuild::restore::UnitContext;
use snap_sys::fork::{Side, fork};

use crate::worker::Order;

/// Environment variable of initd that switches it on: the unit's recorded main PID is made, asleep,
/// with the shim's standard descriptors.
pub const ENV: &str = "FASTBOOT_TEST_RESTORE";

/// `None` unless switched on.
pub fn instead_of_restore(order: &Order, unit: &UnitContext) -> Option<io::Result<Vec<i32>>> {
    let mode = std::env::var(ENV).ok()?;
    Some(spawn(order.main_pid, unit, &mode).map(|pid| vec![pid]))
}

fn spawn(pid: i32, unit: &UnitContext, mode: &str) -> io::Result<i32> {
    // The worker has one thread.
    if let Side::Parent { child } = fork(Some(pid), libc::SIGCHLD, Some(unit.cgroup.as_fd()))? {
        return Ok(child);
    }
    // SAFETY: the child only makes system calls, on descriptors that live in `unit`, and never
    // returns.
    unsafe {
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
