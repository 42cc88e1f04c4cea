//! Descriptors of processes (pidfd_open(2)).
//!
//! A descriptor of a process of the tree can only be made when that process exists, and then every
//! process has its table already: it comes late (`late.rs`).

use super::kind::{Birth, Context, Kind};
use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, waitpid};
use snap_error::fault::Ended;
use snap_error::{Error, RestoreFault, Result};
use snap_state::{FileV1, Inodes, PidFdV1};
use snap_sys as sys;
use snap_sys::fork::Side;
use std::os::fd::OwnedFd;

impl Kind for PidFdV1 {
    fn birth(&self, _: Inodes<'_>) -> Birth {
        match self {
            Self::Task { .. } => Birth::Late,
            Self::Reaped { .. } => Birth::Worker,
        }
    }

    fn sets_flags(&self) -> bool {
        true
    }

    fn make(&self, file: &FileV1, _: &Context<'_>) -> Result<Option<OwnedFd>> {
        match self {
            Self::Task { pid } => sys::pidfd::open_with(*pid, file.flags & sys::pidfd::OPEN_FLAGS)
                .map_err(|e| Error::kernel("pidfd_open", pid, e)),
            Self::Reaped { status } => rebuild_reaped(file, *status),
        }
        .map(Some)
    }
}

/// A descriptor of a process that has ended and been waited for. Its number is another one, which
/// nobody can see.
fn rebuild_reaped(file: &FileV1, status: Option<i32>) -> Result<OwnedFd> {
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
