//! System V shared memory segments, as the kernel lists them.

use super::object::{Object, Seen, Surroundings};
use crate::blockers::{Found, refused};
use snap_error::obstacle::MemoryObstacle;
use snap_state::{InodeKindV1, SegmentV1};
use snap_sys::sysvipc::{Objects, SHM_DEST, SHM_LOCKED, Segment};

/// A segment that somebody has attached.
pub(super) fn recognise(seen: &Seen<'_>, around: &Surroundings<'_>) -> Option<Found<InodeKindV1>> {
    let one = seen.is_nameless_memory() && seen.path.starts_with(b"/SYSV");
    let found = || find(&around.ipc_objects, seen.found.st_ino, seen.handle.link);
    one.then(|| found().map(|(segment, _)| InodeKindV1::Segment(segment)))
}

impl Object for SegmentV1 {
    fn len_bytes(&self, _: &Seen<'_>, around: &Surroundings<'_>) -> Found<u64> {
        find(&around.ipc_objects, self.id as u64, b"").map(|(_, len_bytes)| len_bytes)
    }
}

/// A segment by its id, which is the inode number of its mappings.
fn find(objects: &Objects, id: u64, name: &[u8]) -> Found<(SegmentV1, u64)> {
    let Some(found) = objects.segments.iter().find(|segment| segment.id as u64 == id) else {
        let name = String::from_utf8_lossy(name).into_owned();
        return refused(MemoryObstacle::ForeignSegment { name });
    };
    Ok((recorded(found), found.len_bytes))
}

pub(crate) fn recorded(found: &Segment) -> SegmentV1 {
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
