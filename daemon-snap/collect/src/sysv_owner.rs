//! Whose a System V object is, which no process holds.

use crate::blockers::Blockers;
use crate::member::Member;
use crate::spaces::Spaces;
use crate::thread::OutsideThread;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{SysconfVar, sysconf};
use snap_error::obstacle::MemoryObstacle;
use snap_error::{Error, Part, Result};
use snap_state::{IpcIdentityV1, Pid};
use snap_sys::proc::Status;
use std::collections::HashSet;

/// Who may have made objects that name nobody of the tree: made and not used yet, or by a process
/// that has ended since.
#[derive(Debug)]
pub(crate) struct Makers<'a> {
    pub members: &'a [Member],
    /// Effective user ids of the tree.
    uids: HashSet<u32>,
    /// What is older was made before the tree was; seconds since 1970.
    since: i64,
    /// The tree is a unit: what processes have left that are gone may be its own. Of a tree without
    /// a unit they may be anybody's.
    unit: bool,
    /// The IPC namespace is its own.
    alone: bool,
    /// Objects that its threads wait for: the process, the call and the id.
    waits: Vec<(Pid, i64, i32)>,
}

impl<'a> Makers<'a> {
    pub fn new(
        members: &'a [Member],
        threads: &[&[OutsideThread]],
        spaces: &Spaces,
        unit: bool,
    ) -> Result<Self> {
        let uids = members.iter().flat_map(|member| member.threads.iter().map(|(_, status)| status.uids[1]));
        let waits = members.iter().zip(threads).flat_map(|(member, threads)| {
            threads
                .iter()
                .map(|outside| (member.pid, outside.resume.orig_rax as i64, outside.resume.rdi as i32))
        });
        let (uids, waits) = (uids.collect(), waits.collect());
        let alone = spaces.ipc().is_some();
        Ok(Self { members, uids, since: made_since(members)?, unit, alone, waits })
    }

    pub fn member(&self, pid: i32) -> Option<Pid> {
        self.members.iter().map(|member| member.pid).find(|member| *member == Pid(pid))
    }

    /// Whose an object is: of who uses it, waits for it, or of the only one who can have made it.
    /// `users`: who used it last, 0 for nobody yet; `calls`: those that wait for it.
    pub fn owner(&self, identity: &IpcIdentityV1, users: &[i32], calls: &[i64]) -> Option<Owner> {
        let waits = |(_, call, id): &&(Pid, i64, i32)| calls.contains(call) && *id == identity.id;
        let used = users.iter().find_map(|pid| self.member(*pid));
        let used = used.or_else(|| self.waits.iter().find(waits).map(|(pid, ..)| *pid));
        used.map(Owner::certain)
            .or_else(|| self.suspect(users, [identity.uid, identity.creator_uid], identity.changed_s))
    }

    /// Whether somebody who is not of the tree, and lives, has used an object last.
    pub fn has_other_user(&self, users: &[i32]) -> bool {
        users.iter().any(|pid| *pid != 0 && self.member(*pid).is_none() && !is_gone(*pid))
    }

    /// The tree, where a process of its user that has ended may have made the object.
    pub fn suspect(&self, users: &[i32], uids: [u32; 2], changed: i64) -> Option<Owner> {
        let gone = |pid: &i32| self.unit && is_gone(*pid);
        let ours = uids.iter().any(|uid| self.uids.contains(uid)) && changed >= self.since;
        let first =
            self.members.first().filter(|_| ours && users.iter().all(|pid| *pid == 0 || gone(pid)))?;
        Some(Owner { pid: first.pid, is_certain: self.alone || !self.has_others_of(uids) })
    }

    /// Whether a process outside of the tree has one of these users.
    fn has_others_of(&self, uids: [u32; 2]) -> bool {
        let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let mut pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.any(|pid| {
            let is_of = |status: Status| uids.contains(&status.uids[1]);
            self.member(pid).is_none() && Status::of(Pid(pid), Pid(pid)).is_ok_and(is_of)
        })
    }
}

/// Whose an object is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner {
    pub pid: Pid,
    /// Others of its user may have made it too.
    pub is_certain: bool,
}

impl Owner {
    /// It uses the object.
    pub fn certain(pid: Pid) -> Self {
        Self { pid, is_certain: true }
    }

    /// The process, where nobody else may have made the object.
    pub fn judge(self, object: &'static str, id: i32, blockers: &mut Blockers) -> Option<Pid> {
        if !self.is_certain {
            blockers.add(self.pid, Part::Process, MemoryObstacle::MayBeOfOthers { object, id });
        }
        Some(self.pid).filter(|_| self.is_certain)
    }
}

fn is_gone(pid: i32) -> bool {
    !std::fs::exists(format!("/proc/{pid}")).unwrap_or(true)
}

/// The start of the oldest process, and the time that its parents before it may have taken.
fn made_since(members: &[Member]) -> Result<i64> {
    const PARENTS_S: i64 = 10;
    let now = |clock: ClockId| {
        clock_gettime(clock).map(|now| now.tv_sec()).map_err(|e| Error::kernel("clock_gettime", "now", e))
    };
    let booted = now(ClockId::CLOCK_REALTIME)? - now(ClockId::CLOCK_BOOTTIME)?;
    let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    let first = members.iter().map(|member| member.stat.start_ticks).min().unwrap_or_default();
    Ok(booted + first as i64 / ticks - PARENTS_S)
}
