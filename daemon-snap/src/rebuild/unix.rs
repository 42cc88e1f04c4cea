//! Unix sockets: listeners, pairs, datagram sockets, with their unread messages.

use super::desk::Desk;
use crate::error::{Error, Result};
use crate::state::{FileId, FileKindV1, FileV1, TreeV1, UnixSocketV1, UnixStateV1};
use crate::sys::{self, rebuild::unix_address};
use image_store::ReasonCode;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, send, socketpair};
use nix::unistd::{Gid, Uid, chown, unlink};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

/// Makes all unix sockets: what is bound alone first, then what connects to it.
///
/// # Errors
/// `Stale`: an address is in use or a peer is not there.
pub fn rebuild_unix(desk: &mut Desk, tree: &TreeV1) -> Result<()> {
    let sockets = || {
        tree.files.iter().filter_map(|file| match &file.kind {
            FileKindV1::Unix(socket) => Some((file, socket)),
            _ => None,
        })
    };
    for (file, socket) in sockets() {
        if matches!(socket.state, UnixStateV1::Listening { .. } | UnixStateV1::Unconnected) {
            let fd = alone(file.id, socket)?;
            desk.put_file(file.id, fd)?;
        }
    }
    for (file, socket) in sockets() {
        match &socket.state {
            UnixStateV1::Pair { peer } if !desk.has_file(file.id) => pair(desk, tree, file, socket, *peer)?,
            UnixStateV1::PeerGone => {
                let (mine, theirs) = unconnected_pair(socket)?;
                refill(file.id, socket, &theirs)?;
                desk.put_file(file.id, mine)?;
            }
            UnixStateV1::ConnectedTo { address } => {
                let fd = alone(file.id, socket)?;
                sys::rebuild::connect(fd.as_fd(), &unix_address(address)).map_err(|e| match e {
                    Errno::ENOENT | Errno::ECONNREFUSED => Error::stale(
                        ReasonCode::AddressMissing,
                        format!("nobody listens at {}", show(address)),
                    ),
                    e => Error::kernel("connect", show(address), e),
                })?;
                desk.put_file(file.id, fd)?;
            }
            _ => {}
        }
    }
    // Messages before anything is shut down: the sender may be shut down itself.
    for (file, socket) in sockets() {
        refill_queue(desk, file, socket)?;
    }
    for (file, socket) in sockets() {
        finish(desk, file, socket)?;
    }
    Ok(())
}

/// A socket with its options and its own address, not connected.
fn alone(id: FileId, socket: &UnixSocketV1) -> Result<OwnedFd> {
    let fd = sys::rebuild::socket(libc::AF_UNIX, socket.socket_type, 0)
        .map_err(|e| Error::kernel("socket", id, e))?;
    set_options(id, socket, &fd)?;
    if !socket.address.is_empty() {
        bind(socket, &fd)?;
    }
    if let UnixStateV1::Listening { backlog } = socket.state {
        sys::rebuild::listen(fd.as_fd(), backlog)
            .map_err(|e| Error::kernel("listen", show(&socket.address), e))?;
    }
    Ok(fd)
}

fn set_options(id: FileId, socket: &UnixSocketV1, fd: &OwnedFd) -> Result<()> {
    for option in &socket.options {
        sys::rebuild::restore_option(fd.as_fd(), option.level, option.name, &option.value)
            .map_err(|e| Error::kernel("setsockopt", format!("open file {id} name {}", option.name), e))?;
    }
    Ok(())
}

fn bind(socket: &UnixSocketV1, fd: &OwnedFd) -> Result<()> {
    let path = path_of(&socket.address);
    if let Some(path) = path {
        if !path.is_absolute() {
            return Err(Error::stale(
                ReasonCode::HostUnsupported,
                format!("socket path {} is relative", path.display()),
            ));
        }
        if socket.node.is_some() {
            remove_leftover(path, socket)?;
        }
        if let Some(renamed_to) = &socket.renamed_to {
            remove_leftover(renamed_to.as_path(), socket)?;
        }
    }
    let failed = |step| move |e| Error::kernel(step, show(&socket.address), e);
    sys::rebuild::bind(fd.as_fd(), &unix_address(&socket.address)).map_err(|e| match e {
        Errno::EADDRINUSE => {
            Error::stale(ReasonCode::AddressTaken, format!("address {} is in use", show(&socket.address)))
        }
        e => Error::kernel("bind", show(&socket.address), e),
    })?;
    match (path, socket.node) {
        (Some(path), Some(node)) => {
            chown(path, Some(Uid::from_raw(node.uid)), Some(Gid::from_raw(node.gid)))
                .map_err(failed("chown"))?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(node.mode & 0o7777))
                .map_err(|e| Error::io("chmod", path.display(), &e))?;
            match &socket.renamed_to {
                Some(to) => {
                    std::fs::rename(path, to.as_path()).map_err(|e| Error::io("rename", path.display(), &e))
                }
                None => Ok(()),
            }
        }
        // Bound to a path that no longer led to it: the node was removed by the daemon.
        (Some(path), None) => unlink(path).map_err(failed("unlink")),
        (None, _) => Ok(()),
    }
}

/// Removes the node that the earlier life left behind; never one that somebody answers on.
fn remove_leftover(path: &Path, socket: &UnixSocketV1) -> Result<()> {
    let Ok(meta) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !meta.file_type().is_socket() {
        return Err(Error::stale(ReasonCode::FileChanged, format!("{} is no socket", path.display())));
    }
    let probe = sys::rebuild::socket(libc::AF_UNIX, socket.socket_type | libc::SOCK_NONBLOCK, 0)
        .map_err(|e| Error::kernel("socket", path.display(), e))?;
    match sys::rebuild::connect(probe.as_fd(), &unix_address(path.as_os_str().as_bytes())) {
        Err(Errno::ECONNREFUSED | Errno::ENOENT) => {
            unlink(path).map_err(|e| Error::kernel("unlink", path.display(), e))
        }
        _ => Err(Error::stale(ReasonCode::AddressTaken, format!("address {} is in use", path.display()))),
    }
}

fn kind(socket: &UnixSocketV1) -> Result<SockType> {
    SockType::try_from(socket.socket_type)
        .map_err(|_| Error::Corrupt(format!("socket type {}", socket.socket_type)))
}

fn unconnected_pair(socket: &UnixSocketV1) -> Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::Unix, kind(socket)?, None, SockFlag::SOCK_CLOEXEC)
        .map_err(|e| Error::kernel("socketpair", show(&socket.address), e))
}

fn pair(desk: &mut Desk, tree: &TreeV1, file: &FileV1, socket: &UnixSocketV1, peer: FileId) -> Result<()> {
    let other = match tree.files.get(peer.0 as usize).map(|f| &f.kind) {
        Some(FileKindV1::Unix(other)) => other,
        _ => {
            return Err(Error::Corrupt(format!(
                "open file {} has peer {peer}, which is no unix socket",
                file.id
            )));
        }
    };
    if desk.has_file(peer) {
        // A datagram socket connected to one that is connected elsewhere or not at all.
        let fd = alone(file.id, socket)?;
        sys::rebuild::connect(fd.as_fd(), &unix_address(&other.address))
            .map_err(|e| Error::kernel("connect", show(&other.address), e))?;
        return desk.put_file(file.id, fd);
    }
    let listener = |address: &[u8]| {
        tree.files.iter().find(|f| {
            matches!(&f.kind, FileKindV1::Unix(s)
                if s.address == address && !address.is_empty() && matches!(s.state, UnixStateV1::Listening { .. }))
        })
    };
    let (mine, theirs) = if let Some(listener) = listener(&socket.address) {
        let (theirs, mine) = through_listener(desk, listener.id, other)?;
        (mine, theirs)
    } else if let Some(listener) = listener(&other.address) {
        through_listener(desk, listener.id, socket)?
    } else {
        let (mine, theirs) = unconnected_pair(socket)?;
        for (fd, end) in [(&mine, socket), (&theirs, other)] {
            if !end.address.is_empty() {
                bind(end, fd)?;
            }
        }
        (mine, theirs)
    };
    set_options(file.id, socket, &mine)?;
    set_options(peer, other, &theirs)?;
    desk.put_file(file.id, mine)?;
    desk.put_file(peer, theirs)
}

/// A connection as it was made: the client end and the accepted end.
fn through_listener(desk: &Desk, listener: FileId, client: &UnixSocketV1) -> Result<(OwnedFd, OwnedFd)> {
    let listening = desk.file(listener)?;
    let failed = |step| move |e| Error::kernel(step, show(&client.address), e);
    let address = sys::rebuild::own_address(listening).map_err(failed("getsockname"))?;
    let fd = sys::rebuild::socket(libc::AF_UNIX, client.socket_type, 0).map_err(failed("socket"))?;
    if !client.address.is_empty() {
        bind(client, &fd)?;
    }
    sys::rebuild::connect(fd.as_fd(), &address).map_err(failed("connect"))?;
    let accepted = sys::rebuild::accept(listening).map_err(failed("accept"))?;
    Ok((fd, accepted))
}

fn refill_queue(desk: &Desk, file: &FileV1, socket: &UnixSocketV1) -> Result<()> {
    let fd = desk.file(file.id)?;
    match socket.state {
        _ if socket.queue.is_empty() => Ok(()),
        UnixStateV1::Pair { peer } => refill(file.id, socket, &desk.file(peer)?),
        UnixStateV1::PeerGone => Ok(()),
        _ if !socket.address.is_empty() => {
            let sender = sys::rebuild::socket(libc::AF_UNIX, socket.socket_type, 0)
                .map_err(|e| Error::kernel("socket", file.id, e))?;
            let address =
                sys::rebuild::own_address(fd).map_err(|e| Error::kernel("getsockname", file.id, e))?;
            sys::rebuild::connect(sender.as_fd(), &address)
                .map_err(|e| Error::kernel("connect", file.id, e))?;
            refill(file.id, socket, &sender)
        }
        _ => Err(Error::Corrupt(format!("open file {} has messages but no sender", file.id))),
    }
}

/// Shutdown and flags: last, because each would stop what came before.
fn finish(desk: &Desk, file: &FileV1, socket: &UnixSocketV1) -> Result<()> {
    let fd = desk.file(file.id)?;
    for (bit, how) in [(1, libc::SHUT_RD), (2, libc::SHUT_WR)] {
        if socket.shutdown & bit != 0 && !matches!(socket.state, UnixStateV1::PeerGone) {
            sys::rebuild::shutdown(fd, how).map_err(|e| Error::kernel("shutdown", file.id, e))?;
        }
    }
    let flags = file.flags & libc::O_NONBLOCK;
    sys::rebuild::fcntl_number(fd, libc::F_SETFL, flags).map_err(|e| Error::kernel("F_SETFL", file.id, e))?;
    Ok(())
}

fn refill(id: FileId, socket: &UnixSocketV1, sender: &impl AsFd) -> Result<()> {
    let failed = |e| Error::kernel("refilling a socket", id, e);
    for message in &socket.queue {
        let mut sent = 0;
        loop {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            sent += send(sender.as_fd().as_raw_fd(), &message[sent..], flags).map_err(failed)?;
            if sent >= message.len() {
                break;
            }
        }
    }
    Ok(())
}

fn path_of(address: &[u8]) -> Option<&Path> {
    (address.first().is_some_and(|b| *b != 0)).then(|| Path::new(std::ffi::OsStr::from_bytes(address)))
}

fn show(address: &[u8]) -> String {
    match address.split_first() {
        None => "unnamed socket".into(),
        Some((0, name)) => format!("@{}", String::from_utf8_lossy(name)),
        Some(_) => String::from_utf8_lossy(address).into_owned(),
    }
}
