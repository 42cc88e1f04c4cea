//! Directories on volatile file systems that recorded files and sockets live in.

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::stat::{Mode, SFlag, lstat, mknod};
use nix::unistd::{Gid, Uid, chown, fchownat, linkat, mkdir, mkfifo, symlinkat};
use snap_error::{Error, Result};
use snap_state::{InodeKindV1, InodeV1, RawPath, TreeV1, VolatileNodeKindV1, XattrsV1};
use snap_sys as sys;
use std::os::unix::fs::PermissionsExt;

/// Makes missing directories with their recorded owner and mode; those that exist are left as they are.
///
/// # Errors
/// mkdir(2), chown(2), chmod(2).
pub fn rebuild_volatile_dirs(tree: &TreeV1) -> Result<()> {
    tree.volatile_dirs.iter().try_for_each(|dir| {
        if make_dir(&dir.path, dir.mode, dir.uid, dir.gid)? {
            set_xattrs(&dir.path, &dir.xattrs)?;
        }
        Ok(())
    })
}

/// Makes one directory unless it is there; says whether it did.
///
/// # Errors
/// mkdir(2), chown(2), chmod(2).
pub fn make_dir(path: &RawPath, mode: u32, uid: u32, gid: u32) -> Result<bool> {
    let place = path.as_path();
    match mkdir(place, Mode::S_IRWXU) {
        Ok(()) => {}
        // A read-only parent gives EROFS for a directory that is there.
        Err(Errno::EEXIST) => return Ok(false),
        Err(_) if lstat(place).is_ok() => return Ok(false),
        Err(e) => return Err(Error::kernel("mkdir", path, e)),
    }
    set_attributes(path, mode, uid, gid).map(|()| true)
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

/// Extended attributes as recorded.
///
/// # Errors
/// lsetxattr(2).
pub fn set_xattrs(path: &RawPath, xattrs: &XattrsV1) -> Result<()> {
    for (name, value) in xattrs {
        sys::xattr::set(path.as_path(), name, value)
            .map_err(|e| Error::kernel("setting an extended attribute", path, e))?;
    }
    Ok(())
}

/// Symbolic links, further names and dead sockets, where nothing of that name is there.
///
/// # Errors
/// symlink(2), link(2), mknod(2), chown(2).
pub fn rebuild_volatile_nodes(tree: &TreeV1) -> Result<()> {
    for node in &tree.volatile_nodes {
        let place = node.path.as_path();
        if lstat(place).is_ok() {
            continue;
        }
        let failed = |step| move |e| Error::kernel(step, &node.path, e);
        match &node.kind {
            VolatileNodeKindV1::Symlink { target } => {
                let target = RawPath(target.clone());
                symlinkat(target.as_path(), AT_FDCWD, place).map_err(failed("symlink"))?;
                let owner = (Some(Uid::from_raw(node.uid)), Some(Gid::from_raw(node.gid)));
                fchownat(AT_FDCWD, place, owner.0, owner.1, AtFlags::AT_SYMLINK_NOFOLLOW)
                    .map_err(failed("chown"))?;
            }
            VolatileNodeKindV1::DeadSocket { mode } => {
                mknod(place, SFlag::S_IFSOCK, Mode::S_IRWXU, 0).map_err(failed("mknod"))?;
                set_attributes(&node.path, *mode, node.uid, node.gid)?;
            }
            VolatileNodeKindV1::Link { inode } => {
                let first = tree.inodes.get(inode.0 as usize).map(|inode| &inode.kind);
                let Some(InodeKindV1::Volatile { path } | InodeKindV1::Path { path }) = first else {
                    return Err(Error::Corrupt(format!("{} is a name of nothing", node.path)));
                };
                linkat(AT_FDCWD, path.as_path(), AT_FDCWD, place, AtFlags::empty())
                    .map_err(failed("link"))?;
            }
        }
    }
    Ok(())
}
