//! Files that stay where they are, and those that have another name than the one they were opened
//! by.

use super::object::{Object, Seen, Surroundings};
use crate::blockers::{Found, refused};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::stat::{FileStat, SFlag, fstatat};
use snap_error::Error;
use snap_error::obstacle::FileObstacle;
use snap_state::{InodeKindV1, NamedFileV1, RawPath, RenamedFileV1};

/// Whatever has a path that leads to it.
pub(super) fn recognise(seen: &Seen<'_>, _: &Surroundings<'_>) -> Option<Found<InodeKindV1>> {
    Some(Ok(InodeKindV1::Path(NamedFileV1 { path: seen.path() })))
}

/// A regular file that has lost the name it was opened by, but not all names.
pub(super) fn recognise_renamed(seen: &Seen<'_>, around: &Surroundings<'_>) -> Option<Found<InodeKindV1>> {
    let lost = seen.marked_deleted && seen.found.st_nlink > 0 && seen.file_type == SFlag::S_IFREG;
    lost.then(|| find_other_name(seen, around))
}

/// Its path has to lead to the object, seen from outside.
pub(super) fn refuse_unreachable(seen: &Seen<'_>, around: &Surroundings<'_>) -> Option<Found<InodeKindV1>> {
    let path = seen.path();
    let there = fstatat(AT_FDCWD, &around.spaces.reachable(&path), AtFlags::AT_SYMLINK_NOFOLLOW);
    match there {
        Ok(there) if (there.st_dev, there.st_ino) == (seen.found.st_dev, seen.found.st_ino) => None,
        // systemd opens /dev/null outside, and PrivateDevices= makes another node of the same
        // device inside.
        Ok(there) if seen.file_type == SFlag::S_IFCHR && is_same_device(&there, seen.found) => None,
        Ok(_) => Some(refused(FileObstacle::PathLeadsElsewhere { path })),
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES) => {
            Some(refused(FileObstacle::PathUnreachable { path }))
        }
        Err(e) => Some(Err(Error::kernel("stat", path, e).into())),
    }
}

/// The other name is looked for in the same directory.
fn find_other_name(seen: &Seen<'_>, around: &Surroundings<'_>) -> Found<InodeKindV1> {
    let was = seen.path();
    let lost = |path| refused(FileObstacle::OtherNameUnknown { path });
    let Some(directory) = was.as_path().parent() else { return lost(was) };
    if around.is_volatile(seen.fs, seen.found, was.as_path()) {
        return refused(FileObstacle::OtherNameVolatile { path: was });
    }
    let Ok(entries) = std::fs::read_dir(around.spaces.reachable(&RawPath::from_path(directory))) else {
        return lost(was);
    };
    for entry in entries.flatten() {
        let path = RawPath::from_path(&directory.join(entry.file_name()));
        let ino = std::os::unix::fs::DirEntryExt::ino(&entry);
        if ino == seen.found.st_ino && around.leads_to(&path, seen.found) {
            return Ok(InodeKindV1::Renamed(RenamedFileV1 { was, path }));
        }
    }
    lost(was)
}

fn is_same_device(a: &FileStat, b: &FileStat) -> bool {
    let format = |stat: &FileStat| stat.st_mode & SFlag::S_IFMT.bits();
    format(a) == format(b) && a.st_rdev == b.st_rdev
}

impl Object for NamedFileV1 {
    fn has_pages(&self) -> bool {
        false
    }
}

impl Object for RenamedFileV1 {
    fn has_pages(&self) -> bool {
        false
    }
}
