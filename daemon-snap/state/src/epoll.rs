//! epoll(7).

use super::check::{Around, Result, check, is_number};
use super::kind::FileState;
use super::{FileId, TargetFd};
use serde::{Deserialize, Serialize};

/// `epoll_create(2)`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpollV1 {
    pub watches: Vec<EpollWatchV1>,
    pub busy_poll: Option<BusyPollV1>,
}

/// How an epoll set polls network devices itself (EPIOCSPARAMS, since Linux 6.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BusyPollV1 {
    pub usecs: u32,
    pub budget: u16,
    pub prefer: bool,
}

/// One entry of an epoll set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpollWatchV1 {
    /// The description that is watched.
    pub file: FileId,
    /// The descriptor number it was registered under.
    pub fd: TargetFd,
    /// EPOLLIN …, EPOLLET, EPOLLONESHOT, EPOLLEXCLUSIVE.
    pub events: u32,
    pub data: u64,
}

impl EpollWatchV1 {
    /// A watch for one event (EPOLLONESHOT) that has had it: nothing is reported until it is armed
    /// again.
    pub fn is_spent(&self) -> bool {
        const HOW: u32 = (libc::EPOLLONESHOT | libc::EPOLLET | libc::EPOLLWAKEUP) as u32;
        self.events & libc::EPOLLONESHOT as u32 != 0 && self.events & !HOW == 0
    }
}

impl FileState for EpollV1 {
    fn name(&self) -> &'static str {
        "epoll"
    }

    fn check(&self, _: i32, around: &Around<'_>) -> Result<()> {
        let whole = |watch: &EpollWatchV1| around.has_file(watch.file) && is_number(watch.fd);
        check(self.watches.iter().all(whole), "an epoll watch out of range")
    }
}
