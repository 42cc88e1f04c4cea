//! Unread messages of unix sockets, sent once more.

use super::desk::Desk;
use super::stand_in::as_sender;
use super::unix_address::show;
use super::unix_name::{bind_as_stranger, way_to};
use snap_error::{Error, Result};
use snap_state::{FileId, FileKindV1, Files, UnixMessageV1, UnixSocketV1, UnixStateV1};
use snap_sys as sys;
use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Room for everything that a stranger sends.
const STRANGER_BUFFER_BYTES: i32 = 16 << 20;

/// Puts the messages of a socket back into its queue.
///
/// # Errors
/// `Stale`: the address or the number of a sender is taken.
pub fn refill(desk: &Desk, files: Files<'_>, id: FileId, socket: &UnixSocketV1) -> Result<()> {
    let receiver = desk.file(id)?;
    let mut strangers: HashMap<&[u8], OwnedFd> = HashMap::new();
    let far_end = desk.far_end(id);
    let peer = match socket.state {
        UnixStateV1::Pair { peer } => Some(desk.file(peer)?),
        _ => far_end.as_ref().map(|end| end.as_fd()),
    };
    let own_way;
    let address = if socket.address.is_empty() {
        &[][..]
    } else {
        own_way = way_to(desk, receiver, socket)?;
        &own_way.address
    };
    for message in &socket.queue {
        if let Some(peer) = peer.filter(|_| message.sender.is_empty() || is_of_peer(files, socket, message)) {
            send(desk, id, peer, &[], message)?;
            continue;
        }
        let of_tree = files.iter().find(|file| {
            matches!(&file.kind, FileKindV1::Unix(s) if s.address == message.sender && !s.address.is_empty()
                && s.socket_type == socket.socket_type)
        });
        match of_tree {
            Some(sender) => send(desk, id, desk.file(sender.id)?, address, message)?,
            None => {
                if !strangers.contains_key(message.sender.as_slice()) {
                    strangers.insert(&message.sender, stranger(desk, socket.socket_type, &message.sender)?);
                }
                let stranger = &strangers[message.sender.as_slice()];
                send(desk, id, stranger.as_fd(), address, message)?;
            }
        }
    }
    Ok(())
}

fn is_of_peer(files: Files<'_>, socket: &UnixSocketV1, message: &UnixMessageV1) -> bool {
    let UnixStateV1::Pair { peer } = socket.state else { return true };
    matches!(&files.get(peer).kind, FileKindV1::Unix(peer) if peer.address == message.sender)
}

/// A sender that is gone: a socket with its address, for as long as it takes.
fn stranger(desk: &Desk, socket_type: i32, address: &[u8]) -> Result<OwnedFd> {
    let failed = |step| move |e| Error::kernel(step, show(address), e);
    let fd = sys::rebuild::socket(libc::AF_UNIX, socket_type, 0).map_err(failed("socket"))?;
    let bytes = STRANGER_BUFFER_BYTES.to_ne_bytes();
    sys::rebuild::set_socket_option(fd.as_fd(), libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &bytes)
        .map_err(failed("SO_SNDBUFFORCE"))?;
    if !address.is_empty() {
        bind_as_stranger(desk, fd.as_fd(), address)?;
    }
    Ok(fd)
}

/// A stream takes as much as fits at a time; descriptors go with the first byte.
fn send(desk: &Desk, id: FileId, from: BorrowedFd<'_>, to: &[u8], message: &UnixMessageV1) -> Result<()> {
    let failed = |e| Error::kernel("refilling a socket", id, e);
    let files: Vec<_> = message.files.iter().map(|file| desk.file(*file)).collect::<Result<_>>()?;
    let whole = || {
        let mut sent = 0;
        loop {
            let files = if sent == 0 { files.as_slice() } else { &[] };
            sent += sys::rebuild::send_message(from, to, &message.bytes[sent..], files, message.credentials)?;
            if sent >= message.bytes.len() {
                return Ok([0; 2]);
            }
        }
    };
    match message.credentials {
        Some(credentials) => as_sender(credentials.pid, whole).map(drop),
        None => whole().map(drop).map_err(failed),
    }
}
