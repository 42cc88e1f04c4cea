//! Descriptors of processes (pidfd_open(2)).
//!
//! A descriptor of a process of the tree can only be made when that process exists, and then every
//! process has its table already. So the worker waits until all of them have said that they exist,
//! makes the descriptors, adds them to the epoll sets that watch them, and sends them (SCM_RIGHTS);
//! the tapes take them in, ascending, and move each to its number.

use super::desk::Desk;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::wait::{WaitPidFlag, waitpid};
use snap_error::fault::Ended;
use snap_error::{Error, RestoreFault, Result};
use snap_state::{FileId, FileKindV1, FileV1, PidFdV1, ProcessV1, TreeV1};
use snap_sys as sys;
use snap_sys::fork::Side;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// Whether a description is made when all processes exist.
pub fn is_late(tree: &TreeV1, file: FileId) -> bool {
    let kind = tree.files.get(file.0 as usize).map(|file| &file.kind);
    matches!(kind, Some(FileKindV1::PidFd(PidFdV1::Task { .. })))
}

/// A descriptor of a process that has ended and been waited for. Its number is another one, which
/// nobody can see.
///
/// # Errors
/// clone3(2), pidfd_open(2).
pub fn rebuild_reaped(file: &FileV1, status: Option<i32>) -> Result<OwnedFd> {
    let failed = |step| move |e| Error::kernel(step, file.id, e);
    match sys::fork::fork(None, 0, None).map_err(failed("clone3"))? {
        Side::Child => sys::ending::end_like(status.unwrap_or_default()),
        Side::Parent { child } => {
            let fd = sys::pidfd::open_with(snap_state::Pid(child), file.flags & sys::pidfd::OPEN_FLAGS);
            let ended = sys::ending::await_end(child).map_err(failed("waitid"))?;
            if let Some(wanted) = status.filter(|status| *status != ended) {
                let process = Ended::OfPidfd;
                return Err(RestoreFault::EndedOtherwise { process, status: ended, wanted }.into());
            }
            // Not interpreted: nix does not know real-time signals.
            match waitpid(nix::unistd::Pid::from_raw(child), Some(WaitPidFlag::__WALL)) {
                Ok(_) | Err(Errno::EINVAL) => {}
                Err(e) => return Err(failed("waitpid")(e)),
            }
            fd.map_err(failed("pidfd_open"))
        }
    }
}

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
    pub fn prepare(desk: &Desk, tree: &TreeV1) -> Result<Option<Self>> {
        if !tree.files.iter().any(|file| is_late(tree, file.id)) {
            return Ok(None);
        }
        let pair = |process: &ProcessV1| -> Result<Option<(OwnedFd, OwnedFd)>> {
            if !process.fds.iter().any(|fd| is_late(tree, fd.file)) {
                return Ok(None);
            }
            let numbers = sys::rebuild::socket_pair(libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC)
                .map_err(|e| Error::kernel("socketpair", process.pid, e))?;
            let (theirs, ours) = sys::rebuild::adopt(numbers);
            Ok(Some((desk.raise(theirs)?, desk.raise(ours)?)))
        };
        Ok(Some(Self { ends: tree.processes.iter().map(pair).collect::<Result<_>>()? }))
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

    /// Makes the descriptors, all of whose processes exist, and sends them.
    ///
    /// # Errors
    /// pidfd_open(2), epoll_ctl(2), sendmsg(2); the deadline.
    pub fn deliver(self, desk: &Desk, tree: &TreeV1, deadline: Instant) -> Result<()> {
        for file in &tree.files {
            let FileKindV1::PidFd(PidFdV1::Task { pid }) = file.kind else { continue };
            let fd = sys::pidfd::open_with(pid, file.flags & sys::pidfd::OPEN_FLAGS)
                .map_err(|e| Error::kernel("pidfd_open", pid, e))?;
            desk.put_late_file(file.id, fd)?;
        }
        super::epoll::rebuild_late_watches(desk, tree)?;
        for (process, ends) in tree.processes.iter().zip(self.ends) {
            let Some((theirs, ours)) = ends else { continue };
            drop(theirs);
            // Descriptors of a process are recorded ascending.
            for fd in process.fds.iter().filter(|fd| is_late(tree, fd.file)) {
                send(ours.as_fd(), desk.file(fd.file)?, deadline)
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
