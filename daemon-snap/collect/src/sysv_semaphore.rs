//! System V semaphores, and what processes would undo of them when they end (SEM_UNDO).

use super::injected::Scratch;
use crate::blockers::{Blockers, failed};
use crate::member::Member;
use crate::sysv_owner::Makers;
use nix::errno::Errno;
use snap_error::obstacle::{MemoryObstacle, ProcessObstacle, SharedResource};
use snap_error::{Blocker, Error, Part, Result};
use snap_state::{IpcIdentityV1, Pid, SemaphoreSetV1, SemaphoreV1, UndoV1};
use snap_sys::inject::Injector;
use snap_sys::kcmp::{self, Resource};
use snap_sys::sysv_semaphore::{Operation, find_adjustment, waiting};
use snap_sys::{sysvipc, vmread};
use std::collections::HashSet;
use std::io;
use std::os::fd::BorrowedFd;

/// Those of the tree.
pub(super) fn collect(
    sets: &[sysvipc::SemaphoreSet],
    namespace: Option<BorrowedFd<'_>>,
    makers: &Makers<'_>,
    blockers: &mut Blockers,
) -> Result<Vec<SemaphoreSetV1>> {
    let mut found = Vec::new();
    for set in sets {
        let (identity, semid) = (set.identity, set.identity.id);
        let owner = makers.owner(&identity, &set.users, &[libc::SYS_semop, libc::SYS_semtimedop]);
        let Some(pid) = owner.and_then(|owner| owner.judge("set of semaphores", semid, blockers)) else {
            continue;
        };
        // Threads of the tree do not wait while they are stopped.
        let indexes = 0..set.values.len() as i32;
        let count = || {
            let waiting: std::result::Result<i32, Errno> = indexes.map(|index| waiting(semid, index)).sum();
            Ok(waiting?)
        };
        let others = sysvipc::within(namespace, count);
        let others = others.map_err(|e: io::Error| Error::io("read", format!("semid {semid}"), &e))?;
        if others > 0 || makers.has_other_user(&set.users) {
            blockers.add(pid, Part::Process, MemoryObstacle::SemaphoresOfOthers { semid });
            continue;
        }
        let one = |(value, user): (&u16, &i32)| SemaphoreV1 { value: *value, last_user: Pid(*user) };
        let semaphores = set.values.iter().zip(&set.users).map(one).collect();
        found.push(SemaphoreSetV1 { identity, semaphores });
    }
    found.sort_by_key(|set| set.identity.id);
    Ok(found)
}

/// Finds out what processes would undo.
#[derive(Debug, Default)]
pub(crate) struct UndoSearch {
    /// All sets of the namespace; which of them are the tree's.
    sets: Vec<sysvipc::SemaphoreSet>,
    ours: HashSet<i32>,
    /// Processes that may have something to undo.
    holders: HashSet<Pid>,
    found: Vec<UndoV1>,
}

impl UndoSearch {
    /// Looks who may have something to undo; lists that several processes have in common, or not
    /// all threads of one, are refused.
    pub fn begin(
        members: &[Member],
        sets: &[sysvipc::SemaphoreSet],
        collected: &[SemaphoreSetV1],
        blockers: &mut Blockers,
    ) -> Result<Self> {
        if sets.is_empty() {
            return Ok(Self::default());
        }
        let pids: Vec<Pid> = members.iter().map(|member| member.pid).collect();
        let without = kcmp::without_undo(&pids).map_err(|e| Error::io("kcmp", "semaphores to undo", &e))?;
        let compare = |a: Pid, b: Pid| {
            kcmp::compare(a, b, Resource::SemaphoreUndo).map_err(failed("kcmp", a, "semaphores to undo"))
        };
        let resource = SharedResource::SemaphoreUndo;
        for member in members {
            for (tid, _) in member.threads.iter().skip(1) {
                if compare(member.pid, *tid)?.is_ne() {
                    let obstacle = ProcessObstacle::UnsharedResource { resource };
                    blockers.add(member.pid, Part::Thread(*tid), obstacle);
                }
            }
        }
        let holders: Vec<Pid> = pids.into_iter().filter(|pid| !without.contains(pid)).collect();
        for (at, pid) in holders.iter().enumerate() {
            for other in &holders[..at] {
                if compare(*pid, *other)?.is_eq() {
                    let obstacle = ProcessObstacle::SharedResource { resource, with: *other };
                    blockers.add(*pid, Part::Process, obstacle);
                }
            }
        }
        Ok(Self {
            sets: sets.to_vec(),
            ours: collected.iter().map(|set| set.identity.id).collect(),
            holders: holders.into_iter().collect(),
            found: Vec::new(),
        })
    }

    /// Has a process ask for its adjustments.
    pub fn collect_of_process(&mut self, pid: Pid, injector: &mut Injector, scratch: Scratch) -> Result<()> {
        if !self.holders.contains(&pid) {
            return Ok(());
        }
        for set in &self.sets {
            let IpcIdentityV1 { id: semid, .. } = set.identity;
            for (number, value) in set.values.iter().enumerate() {
                let number = number as u16;
                let ask = |operations: &[Operation]| ask(pid, semid, operations, injector, scratch);
                let adjustment = match find_adjustment(number, *value, ask) {
                    Ok(adjustment) => adjustment,
                    Err(Asked::NotTheirs) => break,
                    Err(Asked::Failed(e)) => return Err(e),
                };
                if adjustment == 0 {
                    continue;
                }
                if !self.ours.contains(&semid) {
                    let obstacle = MemoryObstacle::UndoOfOthers { semid };
                    return Err(Blocker::new(pid, Part::Process, obstacle).into());
                }
                self.found.push(UndoV1 { pid, semid, number, adjustment });
            }
        }
        Ok(())
    }

    pub fn into_found(mut self) -> Vec<UndoV1> {
        self.found.sort_by_key(|undo| (undo.pid, undo.semid, undo.number));
        self.found
    }
}

/// Why a question has no answer.
enum Asked {
    /// It may not change the set, and can have nothing to undo there.
    NotTheirs,
    Failed(Error),
}

fn ask(
    pid: Pid,
    semid: i32,
    operations: &[Operation],
    injector: &mut Injector,
    scratch: Scratch,
) -> std::result::Result<bool, Asked> {
    let bytes: Vec<u8> = operations.iter().flat_map(|operation| operation.bytes()).collect();
    let write = vmread::write(pid, scratch.at, &bytes);
    write.map_err(|e| Asked::Failed(failed("write", pid, scratch.at)(e)))?;
    let args = [semid as u64, scratch.at.0, operations.len() as u64, 0, 0, 0];
    match injector.call(libc::SYS_semop, args) {
        Err(Errno::ERANGE) => Ok(true),
        Err(Errno::EAGAIN) => Ok(false),
        Err(Errno::EACCES | Errno::EINVAL | Errno::EIDRM) => Err(Asked::NotTheirs),
        Err(e) => Err(Asked::Failed(failed("semop", pid, semid)(e))),
        Ok(_) => {
            let message = format!("semid {semid}: a call that cannot succeed has succeeded");
            Err(Asked::Failed(Error::Internal { step: "semop", message }))
        }
    }
}
