//! Names of unix sockets in the file system: made, taken away and connected to with the rights of
//! the processes of the tree.

use super::desk::Desk;
use super::rights;
use super::trail::{self, Last, Place, kind_of};
use super::unix_address::{path_of, show};
use super::volatile::{Owner, set_owner};
use image_store::ReasonCode;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, renameat};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::{UnlinkatFlags, fchdir, unlinkat};
use snap_error::{Error, Result};
use snap_state::{RawPath, UnixSocketV1};
use snap_sys as sys;
use snap_sys::fs_identity::FsIdentity;
use snap_sys::rebuild::unix_address;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The user who owns nothing.
const NOBODY: u32 = 65_534;

/// The working directory in which a relative address is bound and connected to, until this is
/// dropped.
pub fn enter(directory: Option<&RawPath>) -> Result<Option<WorkingDirectory>> {
    let Some(path) = directory else { return Ok(None) };
    let there = trail::resolve(path.as_path(), Last::Directory).map_err(|e| rights::failed(path, e))?;
    WorkingDirectory::enter(there.as_fd()).map(Some)
}

/// Ours of before comes back when this is dropped.
pub struct WorkingDirectory {
    before: OwnedFd,
}

impl WorkingDirectory {
    /// # Errors
    /// fchdir(2).
    pub fn enter(directory: BorrowedFd<'_>) -> Result<Self> {
        let before = open(".", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|e| Error::kernel("opening", "our working directory", e))?;
        fchdir(directory).map_err(|e| Error::kernel("fchdir", "a directory of sockets", e))?;
        Ok(Self { before })
    }
}

impl Drop for WorkingDirectory {
    fn drop(&mut self) {
        // Every process goes to its own directory later; a wrong one of ours could only make a
        // relative address fail.
        let _ = fchdir(&self.before);
    }
}

/// Binds a socket to its recorded address, and gives its node the recorded owner and permissions.
///
/// # Errors
/// `Stale`: the address is in use, or no process of the tree may have made it.
pub fn bind(desk: &Desk, socket: &UnixSocketV1, fd: &OwnedFd) -> Result<()> {
    let address = unix_address(&socket.address);
    let failed = |e| match e {
        Errno::EADDRINUSE => {
            Error::stale(ReasonCode::AddressTaken, format!("address {} is in use", show(&socket.address)))
        }
        e => Error::kernel("bind", show(&socket.address), e),
    };
    let Some(path) = path_of(&socket.address) else {
        return sys::rebuild::bind(fd.as_fd(), &address).map_err(failed);
    };
    // Everything but bind(2) itself is done by the whole path.
    let path = match &socket.directory {
        Some(directory) => directory.as_path().join(path),
        None => path.to_owned(),
    };
    if !path.is_absolute() {
        return Err(Error::Corrupt(format!("socket path {} begins nowhere", path.display())));
    }
    if socket.node.is_some() {
        remove_leftover(desk, &path, socket)?;
    }
    if let Some(renamed_to) = &socket.renamed_to {
        remove_leftover(desk, renamed_to.as_path(), socket)?;
    }
    let there = enter(socket.directory.as_ref())?;
    desk.rights.act(&path, || sys::rebuild::bind(fd.as_fd(), &address)).map_err(failed)?;
    drop(there);
    finish_node(desk, socket, &path, fd)
}

/// The node that bind(2) has just made: owner and permissions, another name, or none.
fn finish_node(desk: &Desk, socket: &UnixSocketV1, path: &Path, fd: &OwnedFd) -> Result<()> {
    let failed = |step| move |e| Error::kernel(step, path.display(), e);
    let raw = RawPath::from_path(path);
    let place = Place::of(path).map_err(|e| rights::failed(&raw, e))?;
    let named = place.look().map_err(failed("opening"))?;
    // Asking for the node needs a privilege over the network that a container may not have.
    let made = sys::rebuild::unix_node(fd.as_fd()).or_else(|_| named.try_clone().map_err(|_| Errno::EMFILE));
    let made = made.map_err(failed("SIOCUNIXFILE"))?;
    let (there, ours) = (fstat(&named).map_err(failed("stat"))?, fstat(&made).map_err(failed("stat"))?);
    if (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino) || kind_of(ours.st_mode) != SFlag::S_IFSOCK
    {
        let sentence = format!("{} was replaced while it was made", path.display());
        return Err(Error::stale(ReasonCode::FileChanged, sentence));
    }
    let Some(node) = socket.node else {
        // Bound to a path that no longer led to it: the node was removed by the daemon.
        let unlink = || unlinkat(&place.directory, place.name, UnlinkatFlags::NoRemoveDir);
        return desk.rights.act(path, unlink).map_err(failed("unlink"));
    };
    set_owner(desk, made.as_fd(), &raw, Owner { uid: node.uid, gid: node.gid, mode: Some(node.mode) })?;
    let Some(renamed_to) = &socket.renamed_to else { return Ok(()) };
    let to = Place::of(renamed_to.as_path()).map_err(|e| rights::failed(renamed_to, e))?;
    let rename = || renameat(&place.directory, place.name, &to.directory, to.name);
    desk.rights.act(renamed_to.as_path(), rename).map_err(failed("rename"))
}

/// Removes the node that the earlier life left behind; never one that somebody answers on.
fn remove_leftover(desk: &Desk, path: &Path, socket: &UnixSocketV1) -> Result<()> {
    let failed = |step| move |e| Error::kernel(step, path.display(), e);
    let place = Place::of(path).map_err(|e| rights::failed(&RawPath::from_path(path), e))?;
    let Ok(found) = place.look() else { return Ok(()) };
    if kind_of(fstat(&found).map_err(failed("stat"))?.st_mode) != SFlag::S_IFSOCK {
        return Err(Error::stale(ReasonCode::FileChanged, format!("{} is no socket", path.display())));
    }
    let probe = sys::rebuild::socket(libc::AF_UNIX, socket.socket_type | libc::SOCK_NONBLOCK, 0)
        .map_err(failed("socket"))?;
    let there = WorkingDirectory::enter(place.directory.as_fd())?;
    let answer = sys::rebuild::connect(probe.as_fd(), &unix_address(place.name.as_bytes()));
    drop(there);
    match answer {
        Err(Errno::ECONNREFUSED | Errno::ENOENT) => {
            let unlink = || unlinkat(&place.directory, place.name, UnlinkatFlags::NoRemoveDir);
            desk.rights.act(path, unlink).map_err(failed("unlink"))
        }
        _ => Err(Error::stale(ReasonCode::AddressTaken, format!("address {} is in use", path.display()))),
    }
}

/// Connects to an address of somebody else, as a process of the tree may.
///
/// # Errors
/// Those of connect(2).
pub fn connect(desk: &Desk, fd: BorrowedFd<'_>, address: &[u8]) -> nix::Result<()> {
    let connect = || sys::rebuild::connect(fd, &unix_address(address));
    match path_of(address).filter(|path| path.is_absolute()) {
        Some(path) => desk.rights.act(path, connect),
        None => connect(),
    }
}

/// Binds a socket to the address of a sender who is gone, as somebody who may do so: the owner of
/// the directory, or anybody where that is root and others can put another directory in its place.
/// The name is taken away again. What a stranger has called itself is the stranger's to choose.
///
/// # Errors
/// `Stale`: the address is taken. That of bind(2).
pub fn bind_as_stranger(fd: BorrowedFd<'_>, address: &[u8]) -> Result<()> {
    let failed = |e| match e {
        Errno::EADDRINUSE => {
            Error::stale(ReasonCode::AddressTaken, format!("address {} is in use", show(address)))
        }
        e => Error::kernel("bind", show(address), e),
    };
    let Some(path) = path_of(address) else {
        return sys::rebuild::bind(fd, &unix_address(address)).map_err(failed);
    };
    // Nobody knows where a relative one began.
    let root = trail::resolve(Path::new("/"), Last::Directory).map_err(failed)?;
    let whole = Path::new("/").join(path);
    let place = Place::of(&whole).map_err(failed)?;
    let owner = fstat(&place.directory).map_err(failed)?;
    let way = trail::walk(whole.parent().unwrap_or(Path::new("/")), Last::Directory).map_err(failed)?;
    let (uid, gid) = match way.replaceable_in {
        Some(_) if owner.st_uid == 0 => (NOBODY, NOBODY),
        _ => (owner.st_uid, owner.st_gid),
    };
    let there = WorkingDirectory::enter(root.as_fd())?;
    let identity = FsIdentity { uid, gid, groups: Vec::new(), caps: 0 };
    let done = identity.act(|| {
        sys::rebuild::bind(fd, &unix_address(address))?;
        unlinkat(&place.directory, place.name, UnlinkatFlags::NoRemoveDir)
    });
    drop(there);
    done.and_then(|done| done).map_err(failed)
}
