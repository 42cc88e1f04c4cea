//! The table of kinds of file system and memory objects.

use super::object::{Object, Recognise, Seen, Surroundings};
use super::{deleted_file, kernel_file, memfd, named_file, posix_queue, sysv_segment, volatile_file};
use crate::blockers::{Found, refused};
use snap_error::obstacle::{FileObstacle, MemoryObstacle};
use snap_state::{InodeKindV1, SharedAnonV1};

pub(super) const HUGETLBFS_MAGIC: i64 = 0x9584_58f6;

/// Who knows what an object is. The first that does counts. Rings are not here: they are found
/// through their descriptors.
static TABLE: &[Recognise] = &[
    refuse_hugetlb,
    kernel_file::recognise,
    posix_queue::recognise,
    kernel_file::refuse,
    memfd::recognise,
    memfd::recognise_shared,
    sysv_segment::recognise,
    refuse_memory,
    named_file::recognise_renamed,
    deleted_file::recognise,
    named_file::refuse_unreachable,
    volatile_file::recognise,
    named_file::recognise,
];

/// What an object is.
pub(crate) fn classify(seen: &Seen<'_>, around: &Surroundings<'_>) -> Found<InodeKindV1> {
    let known = TABLE.iter().find_map(|recognise| recognise(seen, around));
    known.unwrap_or_else(|| refused(FileObstacle::NoPath { name: seen.shown() }))
}

/// The only place of this crate that tells kinds apart: a line for each.
pub(crate) fn kind_of(kind: &InodeKindV1) -> &dyn Object {
    match kind {
        InodeKindV1::Path(file) => file,
        InodeKindV1::Volatile(file) => file,
        InodeKindV1::OfProcess(file) => file,
        InodeKindV1::Renamed(file) => file,
        InodeKindV1::Deleted(file) => file,
        InodeKindV1::Memfd(memfd) => memfd,
        InodeKindV1::SharedAnon => &SharedAnonV1,
        InodeKindV1::Segment(segment) => segment,
        InodeKindV1::Ring(ring) => ring,
        InodeKindV1::MessageQueue(queue) => queue,
    }
}

fn refuse_hugetlb(seen: &Seen<'_>, _: &Surroundings<'_>) -> Option<Found<InodeKindV1>> {
    (seen.fs == HUGETLBFS_MAGIC).then(|| refused(FileObstacle::Hugetlb { path: seen.shown() }))
}

fn refuse_memory(seen: &Seen<'_>, _: &Surroundings<'_>) -> Option<Found<InodeKindV1>> {
    match seen.path {
        b"/[aio]" => Some(refused(MemoryObstacle::AioRing)),
        b"/secretmem" if seen.marked_deleted => Some(refused(MemoryObstacle::Secret)),
        path if !path.starts_with(b"/") => Some(refused(FileObstacle::NoPath { name: seen.shown() })),
        _ => None,
    }
}
