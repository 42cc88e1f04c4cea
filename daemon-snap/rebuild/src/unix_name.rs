//! Names of unix sockets in the file system: made, taken away and connected to with the rights of
//! the processes of the tree.

use super::desk::Desk;
use super::rights;
use super::trail::{self, Last, Place, kind_of};
use super::unix_address::{path_of, show};
use super::volatile::{Owner, set_owner};
use super::working_directory::WorkingDirectory;
use image_store::ReasonCode;
use nix::errno::Errno;
use nix::fcntl::renameat;
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use snap_error::{Error, Result};
use snap_state::check::Corrupt;
use snap_state::{RawPath, SocketNodeV1, UnixSocketV1};
use snap_sys as sys;
use snap_sys::rebuild::unix_address;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The working directory in which a relative address is bound and connected to, until this is
/// dropped.
pub fn enter(directory: Option<&RawPath>) -> Result<Option<WorkingDirectory>> {
    let Some(path) = directory else { return Ok(None) };
    let there = trail::resolve(path.as_path(), Last::Directory).map_err(|e| rights::failed(path, e))?;
    WorkingDirectory::enter(there.as_fd()).map(Some)
}

/// A way to a socket of ours, from any thread of control that has our working directory.
pub struct WayTo {
    pub address: Vec<u8>,
    /// Where the address begins.
    _there: Option<WorkingDirectory>,
}

/// How a socket of the tree is connected to: by the name that it has today.
///
/// # Errors
/// Its directory cannot be entered.
pub fn way_to(desk: &Desk, fd: BorrowedFd<'_>, socket: &UnixSocketV1) -> Result<WayTo> {
    if let Some((there, address)) = desk.nameless_sockets.way_to(fd)? {
        return Ok(WayTo { address, _there: Some(there) });
    }
    if let Some(renamed_to) = &socket.renamed_to {
        // The whole may be longer than an address.
        let place = Place::of(renamed_to.as_path()).map_err(|e| rights::failed(renamed_to, e))?;
        let there = WorkingDirectory::enter(place.directory.as_fd())?;
        return Ok(WayTo { address: unix_address(place.name.as_bytes()), _there: Some(there) });
    }
    let there = enter(socket.directory.as_ref())?;
    let address =
        sys::rebuild::own_address(fd).map_err(|e| Error::kernel("getsockname", show(&socket.address), e))?;
    Ok(WayTo { address, _there: there })
}

/// Binds a socket to its recorded address, and gives its node the recorded owner and permissions.
///
/// # Errors
/// `Stale`: the address is in use, or no process of the tree may have made it.
pub fn bind(desk: &Desk, socket: &UnixSocketV1, fd: &OwnedFd) -> Result<()> {
    let address = unix_address(&socket.address);
    let failed = |e| bind_failed(&socket.address, e);
    let Some(path) = path_of(&socket.address) else {
        return sys::rebuild::bind(fd.as_fd(), &address).map_err(failed);
    };
    let Some(node) = socket.node else {
        return desk.nameless_sockets.bind(fd.as_fd(), &socket.address, desk.first_own_fd);
    };
    // Everything but bind(2) itself is done by the whole path.
    let path = match &socket.directory {
        Some(directory) => directory.as_path().join(path),
        None => path.to_owned(),
    };
    if !path.is_absolute() {
        return Err(Corrupt::SocketPath(RawPath::from_path(&path)).into());
    }
    remove_leftover(desk, &path, socket)?;
    if let Some(renamed_to) = &socket.renamed_to {
        remove_leftover(desk, renamed_to.as_path(), socket)?;
    }
    let there = enter(socket.directory.as_ref())?;
    desk.rights.act(&path, || sys::rebuild::bind(fd.as_fd(), &address)).map_err(failed)?;
    drop(there);
    finish_node(desk, socket, node, &path, fd)
}

/// The node that bind(2) has just made: owner and permissions, perhaps another name.
fn finish_node(
    desk: &Desk,
    socket: &UnixSocketV1,
    node: SocketNodeV1,
    path: &Path,
    fd: &OwnedFd,
) -> Result<()> {
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

/// Binds a socket to the address of a sender who is gone. Of a path nothing is seen: what has that
/// name today is somebody else's.
///
/// # Errors
/// `Stale`: the address is taken. That of bind(2).
pub fn bind_as_stranger(desk: &Desk, fd: BorrowedFd<'_>, address: &[u8]) -> Result<()> {
    if path_of(address).is_some() {
        return desk.nameless_sockets.bind(fd, address, desk.first_own_fd);
    }
    sys::rebuild::bind(fd, &unix_address(address)).map_err(|e| bind_failed(address, e))
}

fn bind_failed(address: &[u8], errno: Errno) -> Error {
    match errno {
        Errno::EADDRINUSE => {
            Error::stale(ReasonCode::AddressTaken, format!("address {} is in use", show(address)))
        }
        e => Error::kernel("bind", show(address), e),
    }
}
