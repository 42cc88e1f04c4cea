//! System V shared memory; queues and semaphores that the tree uses are refused.

use crate::blockers::{Blockers, Found, refused};
use crate::inode::Inodes;
use crate::member::Member;
use crate::memory::AddressSpace;
use crate::spaces::Spaces;
use snap_error::obstacle::MemoryObstacle;
use snap_error::{Error, Part, Result};
use snap_state::{BackingV1, InodeKindV1, Pid, SegmentV1};
use snap_sys::sysvipc::{self, Objects, SHM_DEST, SHM_LOCKED};
use std::collections::HashMap;

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

/// What the tree uses and the image cannot hold: parts of segments, segments that others have too, objects that only an id leads to.
pub(crate) fn inspect_objects(
    objects: &Objects,
    members: &[Member],
    spaces: &[&AddressSpace],
    inodes: &Inodes<'_>,
    blockers: &mut Blockers,
) {
    let mut attached: HashMap<i32, u64> = HashMap::new();
    for (member, space) in members.iter().zip(spaces) {
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
    let member = |pid: i32| members.iter().map(|member| member.pid).find(|member| *member == Pid(pid));
    for segment in &objects.segments {
        let (shmid, ours) = (segment.id, attached.get(&segment.id).copied().unwrap_or_default());
        let user = members.first().map(|member| member.pid).filter(|_| ours > 0 && segment.attached > ours);
        if let Some(pid) = user {
            blockers.add(pid, Part::Process, MemoryObstacle::SegmentOfOthers { shmid });
        }
        if let Some(pid) = member(segment.creator).filter(|_| ours == 0) {
            blockers.add(pid, Part::Process, MemoryObstacle::UnattachedSegment { shmid });
        }
    }
    for (msqid, pids) in &objects.queues {
        if let Some(pid) = pids.iter().find_map(|pid| member(*pid)) {
            blockers.add(pid, Part::Process, MemoryObstacle::MessageQueue { msqid: *msqid });
        }
    }
    for (semid, pids) in &objects.semaphores {
        if let Some(pid) = pids.iter().find_map(|pid| member(*pid)) {
            blockers.add(pid, Part::Process, MemoryObstacle::Semaphores { semid: *semid });
        }
    }
}
