//! System V shared memory; queues and semaphores that the tree uses are refused.

use crate::blockers::{Blockers, Found, refused};
use crate::inode::Inodes;
use crate::member::Member;
use crate::memory::AddressSpace;
use crate::spaces::Spaces;
use crate::thread::OutsideThread;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{SysconfVar, sysconf};
use snap_error::obstacle::MemoryObstacle;
use snap_error::{Error, Part, Result};
use snap_state::{BackingV1, InodeKindV1, Pid, SegmentV1};
use snap_sys::sysvipc::{self, Object, Objects, SHM_DEST, SHM_LOCKED};
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
    let segment = SegmentV1 {
        id: found.id,
        key: found.key,
        mode: found.mode & 0o777,
        removed: found.mode & SHM_DEST != 0,
        locked: found.mode & SHM_LOCKED != 0,
        uid: found.uid,
        gid: found.gid,
        creator_uid: found.creator_uid,
        creator_gid: found.creator_gid,
    };
    Ok((segment, found.len_bytes))
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
    /// Objects that its threads wait for: the process, the call and the id.
    waits: Vec<(Pid, i64, i32)>,
}

impl<'a> Makers<'a> {
    pub fn new(members: &'a [Member], threads: &[&[OutsideThread]], unit: bool) -> Result<Self> {
        let uids = members.iter().flat_map(|member| member.threads.iter().map(|(_, status)| status.uids[1]));
        let waits = members.iter().zip(threads).flat_map(|(member, threads)| {
            threads
                .iter()
                .map(|outside| (member.pid, outside.resume.orig_rax as i64, outside.resume.rdi as i32))
        });
        let (uids, waits) = (uids.collect(), waits.collect());
        Ok(Self { members, uids, since: made_since(members)?, unit, waits })
    }

    fn member(&self, pid: i32) -> Option<Pid> {
        self.members.iter().map(|member| member.pid).find(|member| *member == Pid(pid))
    }

    /// The process that an object belongs to: it uses it, waits for it, or nobody else can have
    /// made it.
    fn owner(&self, object: &Object, calls: &[i64]) -> Option<Pid> {
        let waits = |(_, call, id): &&(Pid, i64, i32)| calls.contains(call) && *id == object.id;
        let used = object.users.iter().find_map(|pid| self.member(*pid));
        used.or_else(|| self.waits.iter().find(waits).map(|(pid, ..)| *pid))
            .or_else(|| self.suspect(&object.users, [object.uid, object.creator_uid], object.changed))
    }

    fn suspect(&self, users: &[i32], uids: [u32; 2], changed: i64) -> Option<Pid> {
        let gone = |pid: &i32| self.unit && !std::fs::exists(format!("/proc/{pid}")).unwrap_or(true);
        let ours = uids.iter().any(|uid| self.uids.contains(uid)) && changed >= self.since;
        let first = self.members.first().map(|member| member.pid);
        first.filter(|_| ours && users.iter().all(|pid| *pid == 0 || gone(pid)))
    }
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

/// What the tree uses and the image cannot hold: parts of segments, segments that others have too,
/// objects that only an id leads to.
pub(crate) fn inspect_objects(
    objects: &Objects,
    makers: &Makers<'_>,
    spaces: &[&AddressSpace],
    inodes: &Inodes<'_>,
    blockers: &mut Blockers,
) {
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
    for segment in &objects.segments {
        let (shmid, ours) = (segment.id, attached.get(&segment.id).copied().unwrap_or_default());
        let user = makers.members.first().map(|member| member.pid);
        if let Some(pid) = user.filter(|_| ours > 0 && segment.attached > ours) {
            blockers.add(pid, Part::Process, MemoryObstacle::SegmentOfOthers { shmid });
        }
        if ours > 0 {
            continue;
        }
        let uids = [segment.uid, segment.creator_uid];
        let suspect = || makers.suspect(&[segment.creator], uids, segment.changed);
        if let Some(pid) = makers.member(segment.creator) {
            blockers.add(pid, Part::Process, MemoryObstacle::UnattachedSegment { shmid });
        } else if let Some(pid) = suspect().filter(|_| segment.attached == 0) {
            blockers.add(pid, Part::Process, MemoryObstacle::AbandonedSegment { shmid });
        }
    }
    for queue in &objects.queues {
        if let Some(pid) = makers.owner(queue, &[libc::SYS_msgrcv, libc::SYS_msgsnd]) {
            blockers.add(pid, Part::Process, MemoryObstacle::MessageQueue { msqid: queue.id });
        }
    }
    for set in &objects.semaphores {
        if let Some(pid) = makers.owner(set, &[libc::SYS_semop, libc::SYS_semtimedop]) {
            blockers.add(pid, Part::Process, MemoryObstacle::Semaphores { semid: set.id });
        }
    }
}
