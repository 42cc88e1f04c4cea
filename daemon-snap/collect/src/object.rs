//! What a kind of file system or memory object does when it is collected.
//!
//! A kind is one file of this crate: it recognises what is of its kind, and says with an
//! implementation of [`Object`] what is read of it.

use super::handle::Handle;
use crate::blockers::Found;
use crate::options::CollectOptions;
use crate::spaces::Spaces;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::stat::{FileStat, SFlag, fstatat};
use snap_error::Result;
use snap_state::{InodeKindV1, Pid, RawPath, XattrsV1};
use snap_sys::sysvipc::Objects;
use std::fs::File;
use std::path::Path;

pub(crate) const TMPFS_MAGIC: i64 = 0x0102_1994;
const RAMFS_MAGIC: i64 = 0x8584_58f6;

/// What objects are found in.
#[derive(Debug)]
pub(crate) struct Surroundings<'a> {
    pub spaces: &'a Spaces,
    pub options: &'a CollectOptions,
    /// Devices of `/` and `/dev`: their files are there again at the next boot whatever file system
    /// it is.
    pub steady_devices: Vec<u64>,
    pub ipc_objects: Objects,
}

impl Surroundings<'_> {
    /// Whether a reboot takes it away.
    pub fn is_volatile(&self, fs: i64, stat: &FileStat, path: &Path) -> bool {
        let in_memory =
            matches!(fs, TMPFS_MAGIC | RAMFS_MAGIC) && !self.steady_devices.contains(&stat.st_dev);
        in_memory || self.options.volatile_roots.iter().any(|root| path != root && path.starts_with(root))
    }

    /// Whether a path is a name of this object.
    pub fn leads_to(&self, path: &RawPath, found: &FileStat) -> bool {
        fstatat(AT_FDCWD, &self.spaces.reachable(path), AtFlags::AT_SYMLINK_NOFOLLOW)
            .is_ok_and(|there| (there.st_dev, there.st_ino) == (found.st_dev, found.st_ino))
    }
}

/// An object as those who may know its kind look at it.
#[derive(Clone, Copy)]
pub(crate) struct Seen<'a> {
    pub pid: Pid,
    pub found: &'a FileStat,
    pub file_type: SFlag,
    /// `f_type` of its file system.
    pub fs: i64,
    pub handle: Handle<'a>,
    /// Target of the link, without the mark that it is deleted.
    pub path: &'a [u8],
    pub marked_deleted: bool,
}

impl Seen<'_> {
    /// For obstacles.
    pub fn shown(&self) -> RawPath {
        RawPath(self.handle.link.to_vec())
    }

    /// A name, as far as it is one.
    pub fn path(&self) -> RawPath {
        RawPath(self.path.to_vec())
    }

    /// Memory of the kernel's own instance of tmpfs.
    pub fn is_nameless_memory(&self) -> bool {
        let nameless = self.marked_deleted && self.found.st_nlink == 0;
        nameless && self.fs == TMPFS_MAGIC && self.file_type == SFlag::S_IFREG
    }
}

/// Tells whether an object is of a kind, or why it cannot be carried; `None` leaves it to the next
/// one in the table.
pub(crate) type Recognise = fn(&Seen<'_>, &Surroundings<'_>) -> Option<Found<InodeKindV1>>;

/// A kind of object.
pub(crate) trait Object {
    /// Whether its pages travel, when it is a regular file.
    fn has_pages(&self) -> bool {
        true
    }

    /// Our own description of what has something else than pages.
    fn open(&self, magic: &str) -> Result<Option<File>> {
        let _ = magic;
        Ok(None)
    }

    /// The object with what only a description of it tells.
    fn complete(&self, file: &File, pid: Pid) -> Found<Option<InodeKindV1>> {
        let _ = (file, pid);
        Ok(None)
    }

    /// The object with what lies in it, read when everything stands still; `None` where that is
    /// pages.
    fn collect_own(&self, file: &File) -> Result<Option<InodeKindV1>> {
        let _ = file;
        Ok(None)
    }

    /// How many bytes there are.
    fn len_bytes(&self, seen: &Seen<'_>, around: &Surroundings<'_>) -> Found<u64> {
        let _ = around;
        Ok(if seen.file_type == SFlag::S_IFREG { seen.found.st_size as u64 } else { 0 })
    }

    /// Extended attributes, of what is made again.
    fn xattrs(&self, seen: &Seen<'_>, around: &Surroundings<'_>) -> Found<XattrsV1> {
        let _ = (seen, around);
        Ok(Vec::new())
    }

    /// The name whose directories are made again.
    fn volatile_name(&self) -> Option<&RawPath> {
        None
    }

    /// Only the process that has it can open it.
    fn is_of_process(&self) -> bool {
        false
    }
}
