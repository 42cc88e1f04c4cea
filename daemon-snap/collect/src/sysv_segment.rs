//! System V shared memory segments, as the kernel lists them.

use crate::blockers::{Found, refused};
use snap_error::obstacle::MemoryObstacle;
use snap_state::SegmentV1;
use snap_sys::sysvipc::{Objects, SHM_DEST, SHM_LOCKED, Segment};

/// A segment by its id, which is the inode number of its mappings.
pub(crate) fn find(objects: &Objects, id: u64, name: &[u8]) -> Found<(SegmentV1, u64)> {
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
