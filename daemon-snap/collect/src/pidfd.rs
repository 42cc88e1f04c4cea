//! Descriptors of processes (pidfd_open(2)).

use crate::blockers::{Found, refused};
use crate::member::Member;
use snap_error::Obstacle;
use snap_error::obstacle::DescriptorObstacle;
use snap_state::{FileKindV1, Pid, PidFdV1, RebindV1, ZombieV1, can_end_so};
use snap_sys::pidfd;
use snap_sys::proc::FdInfo;
use std::collections::HashSet;
use std::os::fd::BorrowedFd;

/// Whom a pidfd of the tree may mean.
#[derive(Debug)]
pub(super) struct Tasks {
    /// In a unit PID 1 is systemd, then as now.
    unit: bool,
    processes: HashSet<Pid>,
    threads: HashSet<Pid>,
}

impl Tasks {
    /// Those of the tree.
    pub fn new(members: &[Member], zombies: &[ZombieV1], unit: bool) -> Self {
        let zombies = zombies.iter().map(|zombie| zombie.pid);
        let processes = members.iter().map(|member| member.pid).chain(zombies).collect::<HashSet<_>>();
        let threads = members.iter().flat_map(|member| &member.threads).map(|(tid, _)| *tid);
        Self { unit, threads: threads.chain(processes.iter().copied()).collect(), processes }
    }

    /// What a pidfd means.
    pub fn collect(&self, info: &FdInfo, fd: BorrowedFd<'_>) -> Found<FileKindV1> {
        let of_thread = info.flags & libc::O_EXCL != 0;
        let Some(target) = info.pidfd_target() else {
            return refused(DescriptorObstacle::PidfdUntold);
        };
        match Pid(target) {
            Pid(1) if self.unit => Ok(FileKindV1::Rebind(RebindV1::Init)),
            pid if of_thread && self.threads.contains(&pid) => Ok(FileKindV1::PidFd(PidFdV1::Task { pid })),
            pid if self.processes.contains(&pid) => Ok(FileKindV1::PidFd(PidFdV1::Task { pid })),
            Pid(-1) => match pidfd::exit_status(fd) {
                Some(status) if !can_end_so(status) => refused(DescriptorObstacle::PidfdCoreDump),
                status => Ok(FileKindV1::PidFd(PidFdV1::Reaped { status })),
            },
            Pid(0) => refused(DescriptorObstacle::PidfdOtherNamespace),
            process => refused(DescriptorObstacle::PidfdOutside { process }),
        }
    }
}

/// One of a process can be opened only when that process is there.
pub(super) fn in_flight(kind: &FileKindV1) -> Option<Obstacle> {
    let of_task = matches!(kind, FileKindV1::PidFd(PidFdV1::Task { .. }));
    of_task.then(|| DescriptorObstacle::PidfdInFlight.into())
}
