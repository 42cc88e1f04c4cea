//! Directories on volatile file systems that recorded files and sockets live in.

use crate::error::{Error, Result};
use crate::state::{InodeV1, RawPath, TreeV1};
use nix::errno::Errno;
use nix::sys::stat::{Mode, lstat};
use nix::unistd::{Gid, Uid, chown, mkdir, mkfifo};
use std::os::unix::fs::PermissionsExt;

/// Makes missing directories with their recorded owner and mode; those that exist are left as they are.
///
/// # Errors
/// mkdir(2), chown(2), chmod(2).
pub fn rebuild_volatile_dirs(tree: &TreeV1) -> Result<()> {
    tree.volatile_dirs.iter().try_for_each(|dir| make_dir(&dir.path, dir.mode, dir.uid, dir.gid))
}

/// Makes one directory unless it is there.
///
/// # Errors
/// mkdir(2), chown(2), chmod(2).
pub fn make_dir(path: &RawPath, mode: u32, uid: u32, gid: u32) -> Result<()> {
    let place = path.as_path();
    match mkdir(place, Mode::S_IRWXU) {
        Ok(()) => {}
        // A read-only parent gives EROFS for a directory that is there.
        Err(Errno::EEXIST) => return Ok(()),
        Err(_) if lstat(place).is_ok() => return Ok(()),
        Err(e) => return Err(Error::kernel("mkdir", path, e)),
    }
    set_attributes(path, mode, uid, gid)
}

/// Makes a named FIFO unless it is there.
///
/// # Errors
/// mkfifo(3), chown(2), chmod(2).
pub fn make_fifo(path: &RawPath, inode: &InodeV1) -> Result<()> {
    match mkfifo(path.as_path(), Mode::S_IRWXU) {
        Ok(()) => set_attributes(path, inode.mode, inode.uid, inode.gid),
        Err(Errno::EEXIST) => Ok(()),
        Err(e) => Err(Error::kernel("mkfifo", path, e)),
    }
}

fn set_attributes(path: &RawPath, mode: u32, uid: u32, gid: u32) -> Result<()> {
    let place = path.as_path();
    chown(place, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
        .map_err(|e| Error::kernel("chown", path, e))?;
    std::fs::set_permissions(place, std::fs::Permissions::from_mode(mode & 0o7777))
        .map_err(|e| Error::io("chmod", path, &e))
}
