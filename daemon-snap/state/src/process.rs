//! A process: what its threads share.

use super::check::{Around, Result, check, is_number};
use super::label::is_profile;
use super::{Addr, FileId, FileLockV1, InodeId, MmV1, Pid, SigInfoV1, TargetFd, ThreadV1};
use serde::{Deserialize, Serialize};

/// Number of resource limits on x86-64.
const RLIMITS: usize = 16;
const SIGNALS: usize = 64;

/// One thread group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcessV1 {
    pub pid: Pid,
    /// `None` when the parent is outside the tree.
    pub parent: Option<Pid>,
    pub pgid: Pid,
    /// Session id; the leader may be dead or outside.
    pub sid: Pid,
    /// Signal sent to the parent at exit (SIGCHLD for all that fork(2) made).
    pub exit_signal: i32,
    pub exe: InodeId,
    pub cwd: FileId,
    /// `None` when the root is that of the mount namespace.
    pub root: Option<FileId>,
    pub umask: u32,
    /// `personality(2)` bits.
    pub personality: u32,
    /// `PR_GET_DUMPABLE`: 0, 1 or 2.
    pub dumpable: i32,
    pub child_subreaper: bool,
    /// `PR_GET_THP_DISABLE`.
    pub thp_disable: bool,
    /// `PR_GET_MDWE` bits (Linux 6.3).
    pub mdwe: u32,
    pub oom_score_adj: i32,
    /// `/proc/PID/coredump_filter` (core(5)).
    pub coredump_filter: u32,
    /// `MEMBARRIER_CMD_REGISTER_*` commands in force (membarrier(2), readable since Linux 6.3).
    pub membarrier: u32,
    /// May use AMX tiles (ARCH_REQ_XCOMP_PERM, since Linux 5.16).
    pub tiles: bool,
    /// Soft and hard limit for resources 0..16 in the order of `getrlimit(2)`; `u64::MAX` is
    /// infinity.
    pub rlimits: Vec<(u64, u64)>,
    /// Has a section of its own.
    #[serde(with = "crate::sections::apart")]
    pub mm: MmV1,
    /// Handlers for signals 1..=64; `None` is SIG_DFL with no flags.
    pub sigactions: Vec<Option<SigActionV1>>,
    /// Queued for the whole process.
    pub pending: Vec<SigInfoV1>,
    /// ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF.
    pub itimers: [IntervalTimerV1; 3],
    pub posix_timers: Vec<PosixTimerV1>,
    pub fds: Vec<FdV1>,
    /// Taken by this process, in any order.
    pub locks: Vec<FileLockV1>,
    /// The leader (tid == pid) first.
    pub threads: Vec<ThreadV1>,
    /// Stopped by SIGSTOP and the like; SIGCONT lets it go on.
    pub stopped: bool,
    /// Stopped children of which this process has been told already (waitid(2), WSTOPPED).
    pub told_stops: Vec<Pid>,
    /// Name of the AppArmor profile that all threads are in; `None`: the label of who restores.
    pub profile: Option<String>,
}

/// `struct kernel_sigaction` of x86-64 (rt_sigaction(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigActionV1 {
    pub handler: Addr,
    pub flags: u64,
    pub restorer: Addr,
    pub mask: u64,
}

/// `setitimer(2)`; remaining and interval in microseconds, remaining 0 is disarmed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntervalTimerV1 {
    pub remaining_us: u64,
    pub interval_us: u64,
}

/// `timer_create(2)`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PosixTimerV1 {
    pub id: i32,
    /// As in /proc/PID/timers; negative values are CPU clocks of a process or thread.
    pub clock_id: i32,
    /// SIGEV_SIGNAL 0, SIGEV_NONE 1, SIGEV_THREAD_ID 4.
    pub notify: i32,
    pub signal: i32,
    pub sigval: u64,
    /// For SIGEV_THREAD_ID.
    pub target: Option<Pid>,
    pub remaining_ns: u64,
    pub interval_ns: u64,
    pub overrun: i32,
}

/// An entry of the descriptor table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdV1 {
    pub fd: TargetFd,
    pub file: FileId,
    pub cloexec: bool,
}

impl ProcessV1 {
    /// The thread with the number of the process. Every process of a checked tree has one.
    pub fn leader(&self) -> &ThreadV1 {
        &self.threads[0]
    }

    /// Whether the process has a descriptor of this number.
    fn has_fd(&self, fd: TargetFd) -> bool {
        self.fds.binary_search_by_key(&fd, |entry| entry.fd).is_ok()
    }

    pub(crate) fn check(&self, around: &Around<'_>) -> Result<()> {
        check(self.pgid.0 >= 0 && self.sid.0 >= 0, "a group or session out of range")?;
        check(around.has_inode(self.exe), "an executable out of range")?;
        check(self.rlimits.len() == RLIMITS, "a wrong number of limits")?;
        check(self.sigactions.len() == SIGNALS, "a wrong number of signal handlers")?;
        check(self.profile.as_deref().is_none_or(is_profile), "an odd name of an AppArmor profile")?;
        let mut last = -1;
        for entry in &self.fds {
            check(around.has_file(entry.file), "a descriptor out of range")?;
            let in_order = entry.fd.0 > last && is_number(entry.fd);
            check(in_order, "descriptors out of order or out of range")?;
            last = entry.fd.0;
        }
        for lock in &self.locks {
            check(self.has_fd(lock.fd), "a lock on a descriptor that is not there")?;
            lock.check()?;
        }
        let leads = self.threads.first().is_some_and(|leader| leader.tid == self.pid);
        check(leads, "a process without leader")?;
        let mut numbered = self.threads.iter().flat_map(|thread| &thread.ring_numbers);
        check(numbered.all(|(_, fd)| self.has_fd(*fd)), "a number of a ring that is not there")?;
        check(self.pending.iter().all(SigInfoV1::is_whole), "a signal of wrong length")?;
        self.threads.iter().try_for_each(|thread| thread.check(around))
    }
}
