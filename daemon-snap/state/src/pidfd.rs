//! Descriptors of processes (pidfd_open(2)).

use super::check::{Around, Result, check};
use super::kind::FileState;
use super::{Pid, can_end_so};
use serde::{Deserialize, Serialize};

/// `pidfd_open(2)`. PIDFD_NONBLOCK and PIDFD_THREAD are O_NONBLOCK and O_EXCL among the flags of
/// the description.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PidFdV1 {
    /// A process of the tree, living or not yet waited for; a thread with PIDFD_THREAD.
    Task { pid: Pid },
    /// One that has ended and been waited for; `status` as waitpid(2) gave it, where the kernel
    /// still tells it (since Linux 6.15).
    Reaped { status: Option<i32> },
}

impl FileState for PidFdV1 {
    fn name(&self) -> &'static str {
        "pidfd"
    }

    fn check(&self, flags: i32, around: &Around<'_>) -> Result<()> {
        match self {
            Self::Task { pid } => {
                let of_thread = flags & libc::O_EXCL != 0;
                check(around.has_task(*pid, of_thread), "a pidfd of nobody")
            }
            Self::Reaped { status } => {
                check(status.is_none_or(can_end_so), "a process that cannot have ended so")
            }
        }
    }
}
