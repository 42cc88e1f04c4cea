//! System V IPC: which objects are the tree's, and its shared memory.

use crate::blockers::{Blockers, Found, refused};
use crate::inode::Inodes;
use crate::member::Member;
use crate::memory::AddressSpace;
use crate::spaces::Spaces;
use crate::thread::OutsideThread;
use crate::{sysv_queue, sysv_semaphore};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{SysconfVar, sysconf};
use snap_error::obstacle::MemoryObstacle;
use snap_error::{Error, Part, Result};
use snap_state::{
    BackingV1, InodeKindV1, IpcIdentityV1, LooseSegmentV1, Pid, SegmentV1, SemaphoreSetV1, SysvV1,
};
use snap_sys::proc::Status;
use snap_sys::sysvipc::{self, Objects, SHM_DEST, SHM_LOCKED, Segment};
use std::collections::{HashMap, HashSet};

/// The objects of the tree's IPC namespace.
pub(crate) fn list_objects(spaces: &Spaces) -> Result<Objects> {
    sysvipc::list(spaces.ipc()).map_err(|e| Error::io("list", "System V IPC objects", &e))
}

/// A segment by its id, which is the inode number of its mappings.
pub(super) fn segment(objects: &Objects, id: u64, name: &[u8]) -> Found<(SegmentV1, u64)> {
    let Some(found) = objects.segments.iter().find(|segment| segment.id as u64 == id) else {
        let name = String::from_utf8_lossy(name).into_owned();
        return refused(MemoryObstacle::ForeignSegment { name });
    };
    Ok((recorded(found), found.len_bytes))
}

fn recorded(found: &Segment) -> SegmentV1 {
    SegmentV1 {
        id: found.id,
        key: found.key,
        mode: found.mode & 0o777,
        removed: found.mode & SHM_DEST != 0,
        locked: found.mode & SHM_LOCKED != 0,
        uid: found.uid,
        gid: found.gid,
        creator_uid: found.creator_uid,
        creator_gid: found.creator_gid,
    }
}

/// Who may have made objects that name nobody of the tree: made and not used yet, or by a process
/// that has ended since.
#[derive(Debug)]
pub(crate) struct Makers<'a> {
    members: &'a [Member],
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

    fn member(&self, pid: i32) -> Option<Pid> {
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

    fn suspect(&self, users: &[i32], uids: [u32; 2], changed: i64) -> Option<Owner> {
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
    fn certain(pid: Pid) -> Self {
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

/// What the tree has of System V IPC, without what its processes would undo; what an image cannot
/// hold is refused: parts of objects, and those that others have too.
pub(crate) fn collect_objects(
    makers: &Makers<'_>,
    spaces: &[&AddressSpace],
    inodes: &mut Inodes<'_>,
    blockers: &mut Blockers,
) -> Result<SysvV1> {
    let attached = inspect_attached(makers, spaces, inodes, blockers);
    let loose_segments = collect_loose(makers, &attached, inodes, blockers)?;
    let (objects, namespace) = (inodes.ipc_objects(), inodes.spaces().ipc());
    let queues = sysv_queue::collect(&objects.queues, namespace, makers, blockers)?;
    let semaphore_sets: Vec<SemaphoreSetV1> =
        sysv_semaphore::collect(&objects.semaphore_sets, namespace, makers, blockers)?;
    Ok(SysvV1 { queues, semaphore_sets, undo: Vec::new(), loose_segments })
}

/// How often the tree has each segment attached.
fn inspect_attached(
    makers: &Makers<'_>,
    spaces: &[&AddressSpace],
    inodes: &Inodes<'_>,
    blockers: &mut Blockers,
) -> HashMap<i32, u64> {
    let mut attached: HashMap<i32, u64> = HashMap::new();
    for (member, space) in makers.members.iter().zip(spaces) {
        for vma in space.areas.iter().map(|area| &area.vma) {
            let BackingV1::Inode { inode, offset, .. } = vma.backing else { continue };
            let Some(entry) = inodes.get(inode) else { continue };
            let InodeKindV1::Segment(segment) = &entry.kind else { continue };
            *attached.entry(segment.id).or_default() += 1;
            let whole = entry.len_bytes.next_multiple_of(snap_state::PAGE_BYTES);
            if offset != 0 || vma.len_bytes() != whole {
                let obstacle = MemoryObstacle::PartOfSegment { shmid: segment.id };
                blockers.add(member.pid, Part::Mapping(vma.start), obstacle);
            }
        }
    }
    let user = makers.members.first().map(|member| member.pid);
    for segment in &inodes.ipc_objects().segments {
        let ours = attached.get(&segment.id).copied().unwrap_or_default();
        if let Some(pid) = user.filter(|_| ours > 0 && segment.attached > ours) {
            let obstacle = MemoryObstacle::SegmentOfOthers { shmid: segment.id };
            blockers.add(pid, Part::Process, obstacle);
        }
    }
    attached
}

/// Segments that are the tree's although none of its processes has them attached.
fn collect_loose(
    makers: &Makers<'_>,
    attached: &HashMap<i32, u64>,
    inodes: &mut Inodes<'_>,
    blockers: &mut Blockers,
) -> Result<Vec<LooseSegmentV1>> {
    let is_loose = |segment: &&Segment| !attached.contains_key(&segment.id);
    let candidates: Vec<Segment> = inodes.ipc_objects().segments.iter().filter(is_loose).copied().collect();
    let mut loose = Vec::new();
    for segment in candidates {
        let (shmid, uids) = (segment.id, [segment.uid, segment.creator_uid]);
        let made = makers.member(segment.creator);
        if segment.attached > 0 {
            if let Some(pid) = made {
                blockers.add(pid, Part::Process, MemoryObstacle::UnattachedSegment { shmid });
            }
            continue;
        }
        let owner = made.map(Owner::certain);
        let owner = owner.or_else(|| makers.suspect(&[segment.creator], uids, segment.changed));
        let Some(pid) = owner.and_then(|owner| owner.judge("shared memory segment", shmid, blockers)) else {
            continue;
        };
        let found = inodes.add_loose_segment(recorded(&segment), segment.len_bytes);
        if let Some(inode) = blockers.note(pid, Part::Process, found)? {
            loose.push(LooseSegmentV1 { inode, creator: Pid(segment.creator) });
        }
    }
    Ok(loose)
}
