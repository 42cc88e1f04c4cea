//! A process of the tree as everybody who looks at it needs it.

use crate::freeze::Stopped;
use snap_error::{Error, Result};
use snap_state::Pid;
use snap_sys::pidfd;
use snap_sys::proc::{Stat, Status};
use std::os::fd::OwnedFd;

/// A process of the tree, looked at from outside.
#[derive(Debug)]
pub(crate) struct Member {
    pub pid: Pid,
    pub stat: Stat,
    pub pidfd: OwnedFd,
    /// The leader first.
    pub threads: Vec<(Pid, Status)>,
}

/// Looks at every process; parents stand before their children.
pub(crate) fn inspect_members(stopped: &Stopped) -> Result<Vec<Member>> {
    let member = |(pid, stat)| {
        let threads = stopped.threads(pid).into_iter();
        Ok(Member {
            pid,
            stat,
            pidfd: pidfd::open(pid).map_err(|e| Error::kernel("pidfd_open", format!("pid {pid}"), e))?,
            threads: threads.map(|tid| Ok((tid, Status::of(pid, tid)?))).collect::<Result<_>>()?,
        })
    };
    stopped.processes().into_iter().map(member).collect()
}
