//! Files that somebody has although they have no name any more.

use super::object::{Object, Seen, Surroundings};
use crate::blockers::{Found, refused};
use nix::sys::stat::SFlag;
use snap_error::Error;
use snap_error::obstacle::FileObstacle;
use snap_state::{DeletedFileV1, InodeKindV1, XattrsV1};
use snap_sys::xattr;
use std::path::Path;

/// A regular file without a name; nothing else comes back without one.
pub(super) fn recognise(seen: &Seen<'_>, _: &Surroundings<'_>) -> Option<Found<InodeKindV1>> {
    if !seen.marked_deleted && seen.found.st_nlink > 0 {
        return None;
    }
    let path = seen.path();
    Some(match seen.file_type {
        SFlag::S_IFREG => Ok(InodeKindV1::Deleted(DeletedFileV1 { path })),
        SFlag::S_IFDIR => refused(FileObstacle::DeletedDirectory { path }),
        SFlag::S_IFIFO => refused(FileObstacle::DeletedFifo { path }),
        _ => refused(FileObstacle::DeletedSpecialFile { path }),
    })
}

impl Object for DeletedFileV1 {
    fn xattrs(&self, seen: &Seen<'_>, _: &Surroundings<'_>) -> Found<XattrsV1> {
        let magic = seen.handle.magic;
        let read = xattr::all_behind(Path::new(magic));
        Ok(read.map_err(|e| Error::kernel("read extended attributes", magic, e))?)
    }
}
