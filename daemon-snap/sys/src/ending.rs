//! Ending in a given way, and seeing how a child has ended without taking that away from anybody
//! else.

use nix::errno::Errno;

/// Ends this process so that waitpid(2) will give `status`, without a core dump. All signals are
/// blocked.
pub fn end_like(status: i32) -> ! {
    let signal = status & 0x7f;
    if signal == 0 {
        super::fork::exit_now(status >> 8 & 0xff);
    }
    // Who is not dumpable leaves no core, wherever cores go.
    // SAFETY: plain system call without pointers.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
    // SIGKILL has no handler.
    let _ = super::own::set_signal_action(signal, None);
    super::own::set_signal_mask(!(1 << (signal - 1)));
    // SAFETY: plain system call without pointers; the default of each signal that a process has
    // died of is that it dies.
    unsafe { libc::syscall(libc::SYS_kill, libc::getpid(), signal) };
    super::fork::exit_now(127)
}

/// Waits until a child has ended and gives its wait status; it stays to be waited for.
///
/// # Errors
/// `ECHILD` when there is no such child.
pub fn await_end(child: i32) -> Result<i32, Errno> {
    loop {
        // SAFETY: siginfo_t is plain data; zero is a valid value.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let flags = libc::WEXITED | libc::WNOWAIT | libc::__WALL;
        // SAFETY: info is live and writable.
        match Errno::result(unsafe { libc::waitid(libc::P_PID, child as u32, &raw mut info, flags) }) {
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e),
            Ok(_) => {
                // SAFETY: the kernel has filled the fields of a child's end.
                let status = unsafe { info.si_status() };
                return Ok(match info.si_code {
                    libc::CLD_EXITED => status << 8,
                    libc::CLD_DUMPED => status | 0x80,
                    _ => status,
                });
            }
        }
    }
}

/// Takes away every pending signal of a set; bit n-1 is signal n.
pub fn drop_pending(signals: u64) {
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    loop {
        // SAFETY: set and time are live, the result is not asked for. Raw because libc leaves its
        // own signals out.
        let got = unsafe {
            libc::syscall(libc::SYS_rt_sigtimedwait, &raw const signals, 0usize, &raw const now, 8usize)
        };
        match Errno::result(got) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}

/// The name of this thread (PR_SET_NAME); at most 15 bytes are used.
pub fn set_name(name: &[u8]) {
    let mut bytes = [0u8; 16];
    let len = name.len().min(15);
    bytes[..len].copy_from_slice(&name[..len]);
    // SAFETY: 16 live bytes with a NUL at the end.
    unsafe { libc::prctl(libc::PR_SET_NAME, bytes.as_ptr()) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fork::{Side, fork};

    #[test]
    fn a_child_ends_as_it_is_told_and_can_be_waited_for_again() {
        for status in [0, 77 << 8, libc::SIGKILL, libc::SIGSEGV, 64] {
            match fork(None, libc::SIGCHLD, None).unwrap() {
                Side::Child => end_like(status),
                Side::Parent { child } => {
                    assert_eq!(await_end(child), Ok(status));
                    assert_eq!(await_end(child), Ok(status));
                    let mut got = 0;
                    // SAFETY: got is writable.
                    assert_eq!(unsafe { libc::waitpid(child, &raw mut got, 0) }, child);
                    assert_eq!(got, status);
                }
            }
        }
    }
}
