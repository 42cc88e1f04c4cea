//! What a tree has of System V IPC beside attached segments, as a whole.

use crate::blockers::Blockers;
use crate::inode::Inodes;
use crate::memory::AddressSpace;
use crate::spaces::Spaces;
use crate::sysv_owner::{Makers, Owner};
use crate::{sysv_queue, sysv_segment, sysv_semaphore};
use snap_error::obstacle::MemoryObstacle;
use snap_error::{Error, Part, Result};
use snap_state::{BackingV1, InodeKindV1, LooseSegmentV1, Pid, SysvV1};
use snap_sys::sysvipc::{self, Objects, Segment};
use std::collections::HashMap;

/// The objects of the tree's IPC namespace.
pub(crate) fn list_objects(spaces: &Spaces) -> Result<Objects> {
    sysvipc::list(spaces.ipc()).map_err(|e| Error::io("list", "System V IPC objects", &e))
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
    let semaphore_sets = sysv_semaphore::collect(&objects.semaphore_sets, namespace, makers, blockers)?;
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
        let found = inodes.add_loose_segment(sysv_segment::recorded(&segment), segment.len_bytes);
        if let Some(inode) = blockers.note(pid, Part::Process, found)? {
            loose.push(LooseSegmentV1 { inode, creator: Pid(segment.creator) });
        }
    }
    Ok(loose)
}
