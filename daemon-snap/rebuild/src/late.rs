//! Descriptors that can be made only when all processes exist.
//!
//! Every process has its table already by then. So the worker waits until all of them have said
//! that they exist, has the descriptors made, adds them to the epoll sets that watch them, and
//! sends them (SCM_RIGHTS); the tapes take them in, ascending, and move each to its number.

use super::desk::Desk;
use super::kind::{Birth, Context, Natures};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use snap_error::{Error, Result};
use snap_state::ProcessV1;
use snap_sys as sys;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// The way of late descriptors into their processes.
#[derive(Debug)]
pub struct Late {
    /// By index of the process: its end and ours.
    ends: Vec<Option<(OwnedFd, OwnedFd)>>,
}

impl Late {
    /// Socket pairs for those who wait for something; `None` when the tree has no late descriptors.
    ///
    /// # Errors
    /// socketpair(2).
    pub fn prepare(desk: &Desk, processes: &[ProcessV1], natures: &Natures) -> Result<Option<Self>> {
        if !natures.has_late() {
            return Ok(None);
        }
        let pair = |process: &ProcessV1| -> Result<Option<(OwnedFd, OwnedFd)>> {
            if !process.fds.iter().any(|fd| natures.birth(fd.file) == Birth::Late) {
                return Ok(None);
            }
            let numbers = sys::rebuild::socket_pair(libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC)
                .map_err(|e| Error::kernel("socketpair", process.pid, e))?;
            let (theirs, ours) = sys::rebuild::adopt(numbers);
            Ok(Some((desk.raise(theirs)?, desk.raise(ours)?)))
        };
        Ok(Some(Self { ends: processes.iter().map(pair).collect::<Result<_>>()? }))
    }

    /// Number of the end that a process receives from.
    pub fn receiver(&self, index: usize) -> Option<i32> {
        self.ends.get(index)?.as_ref().map(|(theirs, _)| theirs.as_raw_fd())
    }

    /// Numbers of the ends that only the worker may hold: their closing tells everybody that it is
    /// gone.
    pub fn senders(&self) -> impl Iterator<Item = i32> {
        self.ends.iter().flatten().map(|(_, ours)| ours.as_raw_fd())
    }

    /// Sends the descriptors, which have been made by now.
    ///
    /// # Errors
    /// sendmsg(2); the deadline.
    pub fn deliver(self, cx: &Context<'_>) -> Result<()> {
        for (process, ends) in cx.processes.iter().zip(self.ends) {
            let Some((theirs, ours)) = ends else { continue };
            drop(theirs);
            // Descriptors of a process are recorded ascending.
            for fd in process.fds.iter().filter(|fd| cx.natures.birth(fd.file) == Birth::Late) {
                send(ours.as_fd(), cx.desk.file(fd.file)?, cx.today.deadline)
                    .map_err(|e| Error::kernel("sending a pidfd to", process.pid, e))?;
            }
        }
        Ok(())
    }
}

fn send(to: BorrowedFd<'_>, fd: BorrowedFd<'_>, deadline: Instant) -> std::result::Result<(), Errno> {
    loop {
        match sys::rebuild::send_message(to, &[], &[1], &[fd], None) {
            Ok(_) => return Ok(()),
            // It takes them as fast as it can.
            Err(Errno::EAGAIN) if Instant::now() < deadline => {
                const STEP: Duration = Duration::from_millis(10);
                poll(&mut [PollFd::new(to, PollFlags::POLLOUT)], STEP.as_millis() as u8)?;
            }
            Err(e) => return Err(e),
        }
    }
}
