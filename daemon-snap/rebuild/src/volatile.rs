//! What lies on volatile file systems beside files: directories, FIFOs, links, dead sockets. All of
//! it is made in a directory that is held open, and gets its owner and permissions through a
//! descriptor.

use super::desk::Desk;
use super::trail::{self, Last, Place, kind_of};
use image_store::ReasonCode;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, fchmod, fchmodat, fstat, fstatat, mkdirat, mknodat,
};
use nix::unistd::{
    Gid, Uid, UnlinkatFlags, fchown, fchownat, geteuid, linkat, mkfifoat, symlinkat, unlinkat,
};
use snap_error::{Error, Result};
use snap_state::{InodeV1, Inodes, RawPath, VolatileDirV1, VolatileNodeKindV1, VolatileNodeV1, XattrsV1};
use snap_sys as sys;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// Owner, permissions and extended attributes of a directory.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub xattrs: &'a XattrsV1,
}

impl<'a> Attributes<'a> {
    /// Those of a recorded object.
    pub fn of(inode: &'a InodeV1) -> Self {
        Self { mode: inode.mode, uid: inode.uid, gid: inode.gid, xattrs: &inode.xattrs }
    }
}

/// Makes missing directories with their recorded owner and mode; those that exist are left as they
/// are.
///
/// # Errors
/// As [`make_dir`].
pub fn rebuild_volatile_dirs(dirs: &[VolatileDirV1]) -> Result<()> {
    dirs.iter().try_for_each(|dir| {
        let attributes = Attributes { mode: dir.mode, uid: dir.uid, gid: dir.gid, xattrs: &dir.xattrs };
        make_dir(&dir.path, &attributes)
    })
}

fn place_of(path: &RawPath) -> Result<Place<'_>> {
    Place::of(path.as_path()).map_err(|e| super::rights::failed(path, e))
}

/// Makes one directory unless it is there.
///
/// # Errors
/// `Stale`: a directory above it is missing, or somebody has put something else in its place.
/// mkdir(2), fchown(2), fchmod(2).
pub fn make_dir(path: &RawPath, attributes: &Attributes<'_>) -> Result<()> {
    let failed = |step| move |e| Error::kernel(step, path, e);
    if path.as_path().file_name().is_none() {
        // A way up again (`a/..`), which a socket's words may have in them, is there when the way
        // down is.
        let there = trail::resolve(path.as_path(), Last::Directory);
        return there.map(drop).map_err(|e| super::rights::failed(path, e));
    }
    let place = place_of(path)?;
    match mkdirat(&place.directory, place.name, Mode::S_IRWXU) {
        Ok(()) => {}
        // A read-only parent gives EROFS for a directory that is there.
        Err(Errno::EEXIST) => return Ok(()),
        Err(_) if place.look().is_ok() => return Ok(()),
        Err(e) => return Err(failed("mkdir")(e)),
    }
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let made = openat(&place.directory, place.name, flags, Mode::empty()).map_err(failed("opening"))?;
    // Somebody who may write to the directory above may have put another one there. A directory of
    // root's is not theirs to move.
    let found = fstat(&made).map_err(failed("stat"))?;
    if found.st_uid != geteuid().as_raw() || found.st_mode & 0o777 != 0o700 {
        return Err(replaced(path));
    }
    fchown(&made, Some(Uid::from_raw(attributes.uid)), Some(Gid::from_raw(attributes.gid)))
        .map_err(failed("chown"))?;
    fchmod(&made, Mode::from_bits_truncate(attributes.mode & 0o7777)).map_err(failed("chmod"))?;
    set_xattrs(made.as_fd(), path, attributes.xattrs)
}

fn replaced(path: &RawPath) -> Error {
    Error::stale(ReasonCode::FileChanged, format!("{path} was replaced while it was made"))
}

/// Makes a named FIFO unless something of that name is there.
///
/// # Errors
/// As [`make_dir`], and mkfifo(3).
pub fn make_fifo(desk: &Desk, path: &RawPath, inode: &InodeV1) -> Result<()> {
    let place = place_of(path)?;
    match mkfifoat(&place.directory, place.name, Mode::S_IRWXU) {
        Ok(()) => {
            let made = find_made(&place, path, SFlag::S_IFIFO)?;
            let owner = Owner { uid: inode.uid, gid: inode.gid, mode: Some(inode.mode) };
            set_owner(desk, made.as_fd(), path, owner)
        }
        Err(Errno::EEXIST) => Ok(()),
        Err(e) => Err(Error::kernel("mkfifo", path, e)),
    }
}

/// What we have just made under a name (O_PATH): of that kind, ours, and under no other name.
fn find_made(place: &Place<'_>, path: &RawPath, kind: SFlag) -> Result<OwnedFd> {
    let made = place.look().map_err(|e| Error::kernel("opening", path, e))?;
    let found = fstat(&made).map_err(|e| Error::kernel("stat", path, e))?;
    let is_ours = found.st_uid == geteuid().as_raw() && found.st_nlink == 1;
    if is_ours && kind_of(found.st_mode) == kind { Ok(made) } else { Err(replaced(path)) }
}

/// Who shall own an object, and its permissions where it has any.
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
    pub mode: Option<u32>,
}

/// Owner and permissions of what a descriptor (O_PATH) is open on.
///
/// # Errors
/// chown(2), chmod(2).
pub fn set_owner(desk: &Desk, fd: BorrowedFd<'_>, path: &RawPath, owner: Owner) -> Result<()> {
    let (uid, gid) = (Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)));
    fchownat(fd, "", uid, gid, AtFlags::AT_EMPTY_PATH).map_err(|e| Error::kernel("chown", path, e))?;
    let Some(mode) = owner.mode else { return Ok(()) };
    // fchmod(2) takes no O_PATH descriptor, and the call that does is younger than Linux 6.1.
    let mode = Mode::from_bits_truncate(mode & 0o7777);
    fchmodat(&desk.proc, Desk::name_of(fd).as_str(), mode, FchmodatFlags::FollowSymlink)
        .map_err(|e| Error::kernel("chmod", path, e))
}

/// Extended attributes as recorded. `path`: for messages.
///
/// # Errors
/// fsetxattr(2).
pub fn set_xattrs(fd: BorrowedFd<'_>, path: &RawPath, xattrs: &XattrsV1) -> Result<()> {
    xattrs.iter().try_for_each(|(name, value)| {
        sys::xattr::set_of(fd, name, value)
            .map_err(|e| Error::kernel("setting an extended attribute", path, e))
    })
}

/// Symbolic links, further names and dead sockets, where nothing of that name is there.
///
/// # Errors
/// symlink(2), link(2), mknod(2), chown(2).
pub fn rebuild_volatile_nodes(desk: &Desk, nodes: &[VolatileNodeV1], inodes: Inodes<'_>) -> Result<()> {
    nodes.iter().try_for_each(|node| match node.kind {
        VolatileNodeKindV1::Link { inode } => add_name(desk, &node.path, inodes.get(inode)),
        _ => rebuild_node(desk, node),
    })
}

fn rebuild_node(desk: &Desk, node: &VolatileNodeV1) -> Result<()> {
    let failed = |step| move |e| Error::kernel(step, &node.path, e);
    let place = place_of(&node.path)?;
    if place.look().is_ok() {
        return Ok(());
    }
    let (kind, mode) = match &node.kind {
        VolatileNodeKindV1::Symlink { target } => {
            let target = RawPath(target.clone());
            symlinkat(target.as_path(), &place.directory, place.name).map_err(failed("symlink"))?;
            (SFlag::S_IFLNK, None)
        }
        VolatileNodeKindV1::DeadSocket { mode } => {
            mknodat(&place.directory, place.name, SFlag::S_IFSOCK, Mode::S_IRWXU, 0)
                .map_err(failed("mknod"))?;
            (SFlag::S_IFSOCK, Some(*mode))
        }
        VolatileNodeKindV1::Link { .. } => return Ok(()),
    };
    let made = find_made(&place, &node.path, kind)?;
    set_owner(desk, made.as_fd(), &node.path, Owner { uid: node.uid, gid: node.gid, mode })
}

/// One more name of a file. One that leads to an earlier life of the file is replaced.
fn add_name(desk: &Desk, path: &RawPath, inode: &InodeV1) -> Result<()> {
    let failed = |step| move |e| Error::kernel(step, path, e);
    let Some(first) = inode.kind.first_name() else {
        let message = format!("{path} is a further name of what has no path");
        return Err(Error::Internal { step: "rebuild", message });
    };
    let found = trail::resolve(first.as_path(), Last::Itself).map_err(|e| super::rights::failed(first, e))?;
    let stat = fstat(&found).map_err(failed("stat"))?;
    let place = place_of(path)?;
    if let Ok(there) = fstatat(&place.directory, place.name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        let id = |stat: &FileStat| (stat.st_dev, stat.st_ino);
        let is_earlier = kind_of(there.st_mode) == SFlag::S_IFREG && there.st_uid == inode.uid;
        if id(&there) == id(&stat) || !is_earlier || inode.kind.found_at().is_some() {
            return Ok(());
        }
        unlinkat(&place.directory, place.name, UnlinkatFlags::NoRemoveDir).map_err(failed("unlink"))?;
    }
    // A second name of a file that is not the recorded one would be a gift of it.
    if (stat.st_uid, stat.st_gid, stat.st_mode) != (inode.uid, inode.gid, inode.mode) {
        return Err(replaced(first));
    }
    let name = Desk::name_of(found.as_fd());
    linkat(&desk.proc, name.as_str(), &place.directory, place.name, AtFlags::AT_SYMLINK_FOLLOW)
        .map_err(failed("link"))
}
