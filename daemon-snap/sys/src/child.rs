//! A process of our own that is only looked at.

use super::fork;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use snap_state::Pid;

/// A child that waits to be killed, and is when dropped.
#[derive(Debug)]
pub struct Child(Pid);

impl Child {
    /// Makes one that first does `work`, nothing but system calls (we may have threads, whose locks
    /// it would wait for), and waits until that is done.
    ///
    /// # Errors
    /// Those of `work` and of clone3(2); `ECHILD` when it ended otherwise.
    pub fn make(work: impl FnOnce() -> Result<(), Errno>) -> Result<Self, Errno> {
        let (done, told) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        match fork::fork(None, libc::SIGCHLD, None)? {
            fork::Side::Child => {
                let bound = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
                let errno = bound.and_then(|()| work()).err().map_or(0, |e| e as i32);
                if nix::unistd::write(&told, &errno.to_ne_bytes()).is_err() || errno != 0 {
                    fork::exit_now(1);
                }
                loop {
                    nix::unistd::pause();
                }
            }
            fork::Side::Parent { child } => {
                drop(told);
                let child = Self(Pid(child));
                let mut errno = [0; 4];
                match nix::unistd::read(&done, &mut errno)? {
                    4 if i32::from_ne_bytes(errno) == 0 => Ok(child),
                    4 => Err(Errno::from_raw(i32::from_ne_bytes(errno))),
                    _ => Err(Errno::ECHILD),
                }
            }
        }
    }

    pub fn pid(&self) -> Pid {
        self.0
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.0.0);
        // It may have ended by itself; then there is only its status to take.
        let _ = kill(pid, Signal::SIGKILL);
        let _ = waitpid(pid, None);
    }
}
