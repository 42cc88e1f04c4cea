//! Files that somebody has although they have no name any more.

use super::content::finish;
use super::desk::Desk;
use super::object::{Object, Source};
use super::trail::{self, Last};
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use snap_error::{Error, Result};
use snap_state::{DeletedFileV1, FileKindV1, FileV1, InodeId, InodeV1, OpenInodeV1, RawPath};
use snap_sys as sys;
use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};

impl Object for DeletedFileV1 {
    fn make(&self, inode: &InodeV1, desk: &mut Desk, from: &Source<'_>) -> Result<()> {
        let nameless = from.files.iter().find(|file| is_made_nameless(file, inode.id));
        let (file, first) = create_deleted(desk, inode, &self.path, nameless)?;
        finish(&file, inode, &self.path.to_string(), from.image)?;
        desk.put_object(inode.id, file.into())?;
        if let (Some(first), Some(nameless)) = (first, nameless) {
            desk.put_file(nameless.id, first)?;
        }
        Ok(())
    }

    fn is_on_disk(&self) -> bool {
        true
    }
}

/// The description that made the file (O_TMPFILE): the only one with that flag.
fn is_made_nameless(file: &FileV1, id: InodeId) -> bool {
    let made = file.flags & libc::O_TMPFILE == libc::O_TMPFILE;
    made && matches!(file.kind, FileKindV1::Inode(OpenInodeV1 { inode, .. }) if inode == id)
}

/// The file opened for reading and writing, and the description that made it where that was
/// recorded.
fn create_deleted(
    desk: &Desk,
    inode: &InodeV1,
    path: &RawPath,
    nameless: Option<&FileV1>,
) -> Result<(File, Option<OwnedFd>)> {
    const LATER: i32 = libc::O_APPEND | libc::O_NONBLOCK | libc::O_DIRECT | libc::O_ASYNC;
    let failed = |e| Error::kernel("making a deleted file again", path, e);
    let directory = path.as_path().parent().unwrap_or(std::path::Path::new("/"));
    let directory = trail::resolve(directory, Last::Directory);
    let mode = Mode::from_bits_truncate(inode.mode & 0o7777);
    if let Some(nameless) = nameless {
        let flags = OFlag::from_bits_retain(nameless.flags & !LATER) | OFlag::O_CLOEXEC;
        let first = directory.and_then(|directory| openat(directory, ".", flags, mode)).map_err(failed)?;
        let file = desk.reopen(first.as_fd(), OFlag::O_RDWR).map_err(failed)?;
        return Ok((File::from(file), Some(first)));
    }
    // A name that is gone cannot come back: O_EXCL forbids linkat(2).
    let flags = OFlag::O_RDWR | OFlag::O_TMPFILE | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let file = match directory.and_then(|directory| openat(directory, ".", flags, mode)) {
        Ok(fd) => File::from(fd),
        // The directory is gone or its file system has no nameless files: memory will do, nobody
        // can see the difference.
        Err(_) => File::from(sys::rebuild::memfd(b"deleted", 0).map_err(failed)?),
    };
    Ok((file, None))
}
