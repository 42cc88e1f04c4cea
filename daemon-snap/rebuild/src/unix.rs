//! Unix sockets: listeners, pairs, datagram sockets.

use super::desk::Desk;
use super::socket_options::set_options;
use super::stand_in::{as_process, as_user};
use super::unix_address::show;
use super::unix_name::{WorkingDirectory, bind, connect, enter};
use image_store::ReasonCode;
use nix::errno::Errno;
use snap_error::{Error, Result};
use snap_state::{
    CredentialsV1, FileId, FileKindV1, FileV1, PeerV1, ProcessV1, SocketOptionV1, TreeV1, UnixSocketV1,
    UnixStateV1,
};
use snap_sys as sys;
use snap_sys::rebuild::unix_address;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Sockets whose queues wait for descriptors that have not been made yet.
#[derive(Debug, Default)]
pub struct Unfinished {
    /// Other ends of sockets whose peer is gone.
    gone: Vec<(FileId, OwnedFd)>,
}

fn sockets(tree: &TreeV1) -> impl Iterator<Item = (&FileV1, &UnixSocketV1)> {
    tree.files.iter().filter_map(|file| match &file.kind {
        FileKindV1::Unix(socket) => Some((file, socket)),
        _ => None,
    })
}

/// Makes all unix sockets: what is bound alone first, then what connects to it, clients that nobody
/// has accepted last.
///
/// # Errors
/// `Stale`: an address is in use or a peer is not there.
pub fn rebuild_unix(desk: &mut Desk, tree: &TreeV1) -> Result<Unfinished> {
    let mut unfinished = Unfinished::default();
    for (file, socket) in sockets(tree) {
        if matches!(
            socket.state,
            UnixStateV1::Listening { .. } | UnixStateV1::Unconnected | UnixStateV1::ConnectedTo { .. }
        ) {
            let fd = alone(desk, file.id, socket)?;
            desk.put_file(file.id, fd)?;
        }
    }
    for (file, socket) in sockets(tree) {
        match &socket.state {
            UnixStateV1::Pair { peer } if !desk.has_file(file.id) => pair(desk, tree, file, socket, *peer)?,
            UnixStateV1::PeerGone { address } => {
                // A name that is not the unit's own belongs to somebody else by now.
                let is_own = listener_at(tree, address).is_some();
                let other = UnixSocketV1 {
                    address: if is_own { address.clone() } else { Vec::new() },
                    directory: None,
                    node: None,
                    renamed_to: None,
                    queue: Vec::new(),
                    options: Vec::new(),
                    ..socket.clone()
                };
                let (mine, theirs) = connected(desk, tree, socket, &other)?;
                set_early_options(file.id, socket, &mine)?;
                desk.put_file(file.id, mine)?;
                unfinished.gone.push((file.id, desk.raise(theirs)?));
            }
            _ => {}
        }
    }
    let mut waiting: Vec<_> = sockets(tree)
        .filter_map(|(file, socket)| match socket.state {
            UnixStateV1::Waiting { listener, place } => Some((listener, place, file, socket)),
            _ => None,
        })
        .collect();
    waiting.sort_by_key(|(listener, place, ..)| (*listener, *place));
    for (listener, _, file, socket) in waiting {
        let fd = alone(desk, file.id, socket)?;
        let address = listen_as(desk.file(listener)?, socket.peer.as_ref(), listener, tree)?;
        let _there = directory_of(tree, listener)?;
        as_process(holder(tree, file.id).as_ref(), "connect", || {
            sys::rebuild::connect(fd.as_fd(), &address).map(|()| [0; 2])
        })?;
        desk.put_file(file.id, fd)?;
    }
    Ok(unfinished)
}

/// Messages, then what would have stopped them. Everything that may be in flight exists by now.
///
/// # Errors
/// `Stale`: nobody listens where a datagram socket was connected to.
pub fn finish_unix(desk: &Desk, tree: &TreeV1, unfinished: Unfinished) -> Result<()> {
    // Messages before anything is shut down: the sender may be shut down itself.
    for (file, socket) in sockets(tree).filter(|(_, socket)| !socket.queue.is_empty()) {
        let gone = unfinished.gone.iter().find(|(id, _)| *id == file.id).map(|(_, other)| other.as_fd());
        super::unix_queue::refill(desk, tree, file.id, socket, gone)?;
    }
    drop(unfinished);
    for (file, socket) in sockets(tree) {
        if let UnixStateV1::ConnectedTo { address } = &socket.state {
            connect(desk, desk.file(file.id)?, address).map_err(|e| match e {
                Errno::ENOENT | Errno::ECONNREFUSED => {
                    Error::stale(ReasonCode::AddressMissing, format!("nobody listens at {}", show(address)))
                }
                e => Error::kernel("connect", show(address), e),
            })?;
        }
        finish(desk, file, socket)?;
    }
    Ok(())
}

/// Listens once more, as who did: clients see the process that called listen(2) last. Called in
/// each process, while it still may become any user.
///
/// # Errors
/// Those of listen(2).
pub fn listen_own(desk: &Desk, tree: &TreeV1, process: &ProcessV1) -> Result<()> {
    for (file, socket) in sockets(tree) {
        let UnixStateV1::Listening { backlog } = socket.state else { continue };
        let Some(PeerV1 { credentials, groups }) = &socket.peer else { continue };
        if credentials.pid == process.pid {
            let fd = desk.file(file.id)?;
            as_user(credentials.uid, credentials.gid, groups, || sys::rebuild::listen(fd, backlog))
                .map_err(|e| Error::kernel("listen", show(&socket.address), e))?;
        }
    }
    Ok(())
}

/// Listens in the name of a process, for a connection that is made next. Gives the address.
fn listen_as(
    listening: BorrowedFd<'_>,
    who: Option<&PeerV1>,
    listener: FileId,
    tree: &TreeV1,
) -> Result<Vec<u8>> {
    let (backlog, renamed_to) = match tree.files.get(listener.0 as usize).map(|file| &file.kind) {
        Some(FileKindV1::Unix(UnixSocketV1 {
            state: UnixStateV1::Listening { backlog },
            renamed_to,
            ..
        })) => (*backlog, renamed_to),
        _ => return Err(Error::Corrupt(format!("open file {listener} does not listen"))),
    };
    as_process(who, "listen", || sys::rebuild::listen(listening, backlog).map(|()| [0; 2]))?;
    // Its old name leads nowhere any more.
    if let Some(renamed_to) = renamed_to {
        return Ok(unix_address(&renamed_to.0));
    }
    sys::rebuild::own_address(listening).map_err(|e| Error::kernel("getsockname", listener, e))
}

/// The first process that has a description, as it connects to others.
fn holder(tree: &TreeV1, id: FileId) -> Option<PeerV1> {
    let process = tree.processes.iter().find(|process| process.fds.iter().any(|fd| fd.file == id))?;
    let creds = &process.threads.first()?.creds;
    let credentials = CredentialsV1 { pid: process.pid, uid: creds.uids[1], gid: creds.gids[1] };
    Some(PeerV1 { credentials, groups: creds.groups.clone() })
}

/// A socket with its options and its own address, not connected.
fn alone(desk: &Desk, id: FileId, socket: &UnixSocketV1) -> Result<OwnedFd> {
    let fd = sys::rebuild::socket(libc::AF_UNIX, socket.socket_type, 0)
        .map_err(|e| Error::kernel("socket", id, e))?;
    set_early_options(id, socket, &fd)?;
    if !socket.address.is_empty() {
        bind(desk, socket, &fd)?;
    }
    if let UnixStateV1::Listening { backlog } = socket.state {
        as_process(socket.peer.as_ref(), "listen", || {
            sys::rebuild::listen(fd.as_fd(), backlog).map(|()| [0; 2])
        })?;
    }
    Ok(fd)
}

fn set_early_options(id: FileId, socket: &UnixSocketV1, fd: &OwnedFd) -> Result<()> {
    set_options(id, fd, socket.options.iter().filter(|option| !is_late(option)))
}

/// What would change messages that are put back into the queue: filter, its lock, place of the next
/// peek.
fn is_late(option: &SocketOptionV1) -> bool {
    const NAMES: [i32; 3] = [libc::SO_ATTACH_FILTER, libc::SO_LOCK_FILTER, libc::SO_PEEK_OFF];
    option.level == libc::SOL_SOCKET && NAMES.contains(&option.name)
}

/// The working directory in which the address of another socket of the tree was bound.
fn directory_of(tree: &TreeV1, id: FileId) -> Result<Option<WorkingDirectory>> {
    match tree.files.get(id.0 as usize).map(|file| &file.kind) {
        Some(FileKindV1::Unix(socket)) => enter(socket.directory.as_ref()),
        _ => Ok(None),
    }
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
        let fd = alone(desk, file.id, socket)?;
        let _there = enter(other.directory.as_ref())?;
        sys::rebuild::connect(fd.as_fd(), &unix_address(&other.address))
            .map_err(|e| Error::kernel("connect", show(&other.address), e))?;
        return desk.put_file(file.id, fd);
    }
    let (mine, theirs) = connected(desk, tree, socket, other)?;
    set_early_options(file.id, socket, &mine)?;
    set_early_options(peer, other, &theirs)?;
    desk.put_file(file.id, mine)?;
    desk.put_file(peer, theirs)
}

fn listener_at<'a>(tree: &'a TreeV1, address: &[u8]) -> Option<(&'a FileV1, &'a UnixSocketV1)> {
    sockets(tree).find(|(_, s)| {
        s.address == address && !address.is_empty() && matches!(s.state, UnixStateV1::Listening { .. })
    })
}

/// Two ends of a connection, made as it was made then: through a listener, or as a pair. Each end
/// knows who made the other.
fn connected(
    desk: &Desk,
    tree: &TreeV1,
    socket: &UnixSocketV1,
    other: &UnixSocketV1,
) -> Result<(OwnedFd, OwnedFd)> {
    if let Some((listener, at)) = listener_at(tree, &socket.address) {
        let _there = enter(at.directory.as_ref())?;
        let address = listen_as(desk.file(listener.id)?, other.peer.as_ref(), listener.id, tree)?;
        let (theirs, mine) = through_listener(
            desk,
            Listening { fd: desk.file(listener.id)?, address: &address },
            other,
            socket,
        )?;
        return Ok((mine, theirs));
    }
    if let Some((listener, at)) = listener_at(tree, &other.address) {
        let _there = enter(at.directory.as_ref())?;
        let address = listen_as(desk.file(listener.id)?, socket.peer.as_ref(), listener.id, tree)?;
        return through_listener(
            desk,
            Listening { fd: desk.file(listener.id)?, address: &address },
            socket,
            other,
        );
    }
    if socket.peer == other.peer {
        let pair =
            as_process(socket.peer.as_ref(), "socketpair", || sys::rebuild::socket_pair(socket.socket_type))?;
        let (mine, theirs) = sys::rebuild::adopt(pair);
        for (fd, end) in [(&mine, socket), (&theirs, other)] {
            if !end.address.is_empty() {
                bind(desk, end, fd)?;
            }
        }
        return Ok((mine, theirs));
    }
    // The listener is gone; the end that it accepted has its address.
    let (accepted, client, swapped) = match socket.address.is_empty() {
        true => (other, socket, true),
        false => (socket, other, false),
    };
    let listening = sys::rebuild::socket(libc::AF_UNIX, socket.socket_type, 0)
        .map_err(|e| Error::kernel("socket", show(&accepted.address), e))?;
    bind(desk, accepted, &listening)?;
    as_process(client.peer.as_ref(), "listen", || {
        sys::rebuild::listen(listening.as_fd(), 1).map(|()| [0; 2])
    })?;
    let _there = enter(accepted.directory.as_ref())?;
    // Its path may lead elsewhere by now; a link to the descriptor does not.
    let address = sys::rebuild::own_address(listening.as_fd())
        .map_err(|e| Error::kernel("getsockname", show(&accepted.address), e))?;
    let (theirs, mine) =
        through_listener(desk, Listening { fd: listening.as_fd(), address: &address }, client, accepted)?;
    Ok(if swapped { (theirs, mine) } else { (mine, theirs) })
}

/// A listener that connections are made through, and its address as the kernel has it.
#[derive(Clone, Copy)]
struct Listening<'a> {
    fd: BorrowedFd<'a>,
    address: &'a [u8],
}

/// The client end and the accepted end.
fn through_listener(
    desk: &Desk,
    listening: Listening<'_>,
    client: &UnixSocketV1,
    accepted: &UnixSocketV1,
) -> Result<(OwnedFd, OwnedFd)> {
    let failed = |step| move |e| Error::kernel(step, show(&client.address), e);
    let fd = sys::rebuild::socket(libc::AF_UNIX, client.socket_type, 0).map_err(failed("socket"))?;
    if !client.address.is_empty() {
        bind(desk, client, &fd)?;
    }
    as_process(accepted.peer.as_ref(), "connect", || {
        sys::rebuild::connect(fd.as_fd(), listening.address).map(|()| [0; 2])
    })?;
    let accepted = sys::rebuild::accept(listening.fd).map_err(failed("accept"))?;
    Ok((fd, accepted))
}

/// Shutdown and flags: last, because each would stop what came before.
fn finish(desk: &Desk, file: &FileV1, socket: &UnixSocketV1) -> Result<()> {
    let fd = desk.file(file.id)?;
    for (bit, how) in [(1, libc::SHUT_RD), (2, libc::SHUT_WR)] {
        if socket.shutdown & bit != 0 && !matches!(socket.state, UnixStateV1::PeerGone { .. }) {
            sys::rebuild::shutdown(fd, how).map_err(|e| Error::kernel("shutdown", file.id, e))?;
        }
    }
    set_options(file.id, &fd, socket.options.iter().filter(|option| is_late(option)))?;
    let flags = file.flags & libc::O_NONBLOCK;
    sys::rebuild::fcntl_number(fd, libc::F_SETFL, flags).map_err(|e| Error::kernel("F_SETFL", file.id, e))?;
    Ok(())
}
