//! The table of kinds of file system and memory objects.

use super::object::Object;
use snap_state::{InodeKindV1, InodeV1, SharedAnonV1};

/// The only place of this crate that tells kinds apart: a line for each.
pub fn kind_of(inode: &InodeV1) -> &dyn Object {
    match &inode.kind {
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
