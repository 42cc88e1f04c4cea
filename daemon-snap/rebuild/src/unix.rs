//! Unix sockets: listeners, pairs, datagram sockets.

use super::desk::Desk;
use super::kind::{Context, Kind};
use super::socket_options::set_options;
use super::stand_in::{as_process, as_user};
use super::unix_address::show;
use super::unix_name::{WayTo, bind, connect, way_to};
use image_store::ReasonCode;
use nix::errno::Errno;
use snap_error::{Error, Result};
use snap_state::{
    CredentialsV1, FileId, FileKindV1, FileV1, Files, PeerV1, ProcessV1, SocketOptionV1, UnixSocketV1,
    UnixStateV1,
};
use snap_sys as sys;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

impl Kind for UnixSocketV1 {
    /// A path is bound with the rights of the processes, and root's own where they do not do.
    fn is_made_by_owner(&self) -> bool {
        false
    }

    /// Last of all, when nothing has to be sent or connected any more.
    fn sets_flags(&self) -> bool {
        true
    }

    /// What is bound alone. Others are connected to it.
    fn make(&self, file: &FileV1, cx: &Context<'_>) -> Result<Option<OwnedFd>> {
        match self.state {
            UnixStateV1::Listening { .. } | UnixStateV1::Unconnected | UnixStateV1::ConnectedTo { .. } => {
                alone(cx.desk, file.id, self).map(Some)
            }
            UnixStateV1::Pair { .. } | UnixStateV1::PeerGone { .. } | UnixStateV1::Waiting { .. } => Ok(None),
        }
    }

    fn connect(&self, cx: &Context<'_>) -> Result<()> {
        connect_pairs(cx)?;
        connect_waiting(cx)
    }

    fn fill(&self, cx: &Context<'_>) -> Result<()> {
        fill_queues(cx)?;
        finish_all(cx)
    }

    fn act(&self, process: &ProcessV1, cx: &Context<'_>) -> Result<()> {
        listen_own(cx.desk, cx.files, process)
    }
}

fn sockets(files: Files<'_>) -> impl Iterator<Item = (&FileV1, &UnixSocketV1)> {
    files.iter().filter_map(|file| Some((file, unix_socket(file)?)))
}

fn unix_socket(file: &FileV1) -> Option<&UnixSocketV1> {
    match &file.kind {
        FileKindV1::Unix(socket) => Some(socket),
        _ => None,
    }
}

/// Pairs, and sockets whose peer is gone.
fn connect_pairs(cx: &Context<'_>) -> Result<()> {
    for (file, socket) in sockets(cx.files) {
        match &socket.state {
            UnixStateV1::Pair { peer } if !cx.desk.has_file(file.id) => pair(cx, file, socket, *peer)?,
            UnixStateV1::PeerGone { address } => {
                // A name that is not the unit's own belongs to somebody else by now.
                let is_own = listener_at(cx.files, socket.socket_type, address).is_some();
                let other = UnixSocketV1 {
                    address: if is_own { address.clone() } else { Vec::new() },
                    directory: None,
                    node: None,
                    renamed_to: None,
                    queue: Vec::new(),
                    options: Vec::new(),
                    ..socket.clone()
                };
                let (mine, theirs) = connected(cx.desk, cx.files, socket, &other)?;
                set_early_options(file.id, socket, &mine)?;
                cx.desk.put_file(file.id, mine)?;
                cx.desk.put_far_end(file.id, theirs)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Clients that nobody has accepted, in the order of their listeners' queues.
fn connect_waiting(cx: &Context<'_>) -> Result<()> {
    let mut waiting: Vec<_> = sockets(cx.files)
        .filter_map(|(file, socket)| match socket.state {
            UnixStateV1::Waiting { listener, place } => Some((listener, place, file, socket)),
            _ => None,
        })
        .collect();
    waiting.sort_by_key(|(listener, place, ..)| (*listener, *place));
    for (id, _, file, socket) in waiting {
        let fd = alone(cx.desk, file.id, socket)?;
        let Some(listener) = unix_socket(cx.files.get(id)) else { continue };
        let way = listen_as(cx.desk, socket.peer.as_ref(), id, listener)?;
        as_process(holder(cx.processes, file.id).as_ref(), "connect", || {
            sys::rebuild::connect(fd.as_fd(), &way.address).map(|()| [0; 2])
        })?;
        drop(way);
        cx.desk.put_file(file.id, fd)?;
    }
    Ok(())
}

/// Messages. Everything that may be in flight exists by now.
fn fill_queues(cx: &Context<'_>) -> Result<()> {
    for (file, socket) in sockets(cx.files).filter(|(_, socket)| !socket.queue.is_empty()) {
        super::unix_queue::refill(cx.desk, cx.files, file.id, socket)?;
    }
    // Now their peers are gone.
    cx.desk.close_far_ends();
    Ok(())
}

/// What would have stopped messages: the sender may be shut down itself.
fn finish_all(cx: &Context<'_>) -> Result<()> {
    for id in one_way(cx.files) {
        let Some((file, UnixStateV1::ConnectedTo { address })) =
            unix_socket(cx.files.get(id)).map(|socket| (cx.files.get(id), &socket.state))
        else {
            continue;
        };
        connect_to(cx, cx.desk.file(file.id)?, address)?.map_err(|e| match e {
            Errno::ENOENT | Errno::ECONNREFUSED => {
                Error::stale(ReasonCode::AddressMissing, format!("nobody listens at {}", show(address)))
            }
            e => Error::kernel("connect", show(address), e),
        })?;
    }
    sockets(cx.files).try_for_each(|(file, socket)| finish(cx.desk, file, socket))?;
    cx.desk.nameless_sockets.forget()
}

/// To the socket of the tree that has this address, which may have another name today or none, else
/// to what has the name.
fn connect_to(cx: &Context<'_>, fd: BorrowedFd<'_>, address: &[u8]) -> Result<nix::Result<()>> {
    let is_it = |socket: &UnixSocketV1| socket.socket_type == libc::SOCK_DGRAM && socket.address == address;
    let elsewhere = |socket: &UnixSocketV1| {
        socket.node.is_none() || socket.renamed_to.is_some() || socket.directory.is_some()
    };
    match sockets(cx.files).find(|(_, socket)| is_it(socket) && address[0] != 0 && elsewhere(socket)) {
        Some((target, socket)) => {
            let way = way_to(cx.desk, cx.desk.file(target.id)?, socket)?;
            Ok(sys::rebuild::connect(fd, &way.address))
        }
        None => Ok(connect(cx.desk, fd, address)),
    }
}

/// Datagram sockets that are connected to a name, each before the one that has this name: once that
/// is connected elsewhere the kernel lets nobody connect to it. Circles cannot have been made.
fn one_way(files: Files<'_>) -> Vec<FileId> {
    let mut waiting: Vec<(FileId, &[u8], &[u8])> = sockets(files)
        .filter_map(|(file, socket)| match &socket.state {
            UnixStateV1::ConnectedTo { address } => {
                Some((file.id, socket.address.as_slice(), address.as_slice()))
            }
            _ => None,
        })
        .collect();
    let mut ordered = Vec::with_capacity(waiting.len());
    while !waiting.is_empty() {
        let is_target = |own: &[u8]| !own.is_empty() && waiting.iter().any(|(.., target)| *target == own);
        let next = waiting.iter().position(|(_, own, _)| !is_target(own)).unwrap_or_default();
        ordered.push(waiting.remove(next).0);
    }
    ordered
}

/// Listens once more, as who did: clients see the process that called listen(2) last. Called in
/// each process, while it still may become any user.
fn listen_own(desk: &Desk, files: Files<'_>, process: &ProcessV1) -> Result<()> {
    for (file, socket) in sockets(files) {
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

/// Listens in the name of a process, for a connection that is made next. Gives the way to it.
fn listen_as(desk: &Desk, who: Option<&PeerV1>, id: FileId, listener: &UnixSocketV1) -> Result<WayTo> {
    let UnixStateV1::Listening { backlog } = listener.state else {
        return Err(Error::Internal { step: "listen", message: format!("open file {id} does not listen") });
    };
    let listening = desk.file(id)?;
    as_process(who, "listen", || sys::rebuild::listen(listening, backlog).map(|()| [0; 2]))?;
    way_to(desk, listening, listener)
}

/// The first process that has a description, as it connects to others.
fn holder(processes: &[ProcessV1], id: FileId) -> Option<PeerV1> {
    let process = processes.iter().find(|process| process.fds.iter().any(|fd| fd.file == id))?;
    let creds = &process.leader().creds;
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

fn pair(cx: &Context<'_>, file: &FileV1, socket: &UnixSocketV1, peer: FileId) -> Result<()> {
    let desk = cx.desk;
    let Some(other) = unix_socket(cx.files.get(peer)) else { return Ok(()) };
    if desk.has_file(peer) {
        // A datagram socket connected to one that is connected elsewhere or not at all.
        let fd = alone(desk, file.id, socket)?;
        let way = way_to(desk, desk.file(peer)?, other)?;
        sys::rebuild::connect(fd.as_fd(), &way.address)
            .map_err(|e| Error::kernel("connect", show(&other.address), e))?;
        drop(way);
        return desk.put_file(file.id, fd);
    }
    let (mine, theirs) = connected(desk, cx.files, socket, other)?;
    set_early_options(file.id, socket, &mine)?;
    set_early_options(peer, other, &theirs)?;
    desk.put_file(file.id, mine)?;
    desk.put_file(peer, theirs)
}

fn listener_at<'a>(
    files: Files<'a>,
    socket_type: i32,
    address: &[u8],
) -> Option<(&'a FileV1, &'a UnixSocketV1)> {
    sockets(files).find(|(_, s)| {
        (s.socket_type, s.address.as_slice()) == (socket_type, address)
            && !address.is_empty()
            && matches!(s.state, UnixStateV1::Listening { .. })
    })
}

/// Two ends of a connection, made as it was made then: through a listener, or as a pair. Each end
/// knows who made the other.
fn connected(
    desk: &Desk,
    files: Files<'_>,
    socket: &UnixSocketV1,
    other: &UnixSocketV1,
) -> Result<(OwnedFd, OwnedFd)> {
    if let Some((listener, at)) = listener_at(files, socket.socket_type, &socket.address) {
        let way = listen_as(desk, other.peer.as_ref(), listener.id, at)?;
        let (theirs, mine) = through_listener(desk, (desk.file(listener.id)?, way), other, socket)?;
        return Ok((mine, theirs));
    }
    if let Some((listener, at)) = listener_at(files, other.socket_type, &other.address) {
        let way = listen_as(desk, socket.peer.as_ref(), listener.id, at)?;
        return through_listener(desk, (desk.file(listener.id)?, way), socket, other);
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
    let way = way_to(desk, listening.as_fd(), accepted)?;
    let (theirs, mine) = through_listener(desk, (listening.as_fd(), way), client, accepted)?;
    Ok(if swapped { (theirs, mine) } else { (mine, theirs) })
}

/// The client end and the accepted end.
fn through_listener(
    desk: &Desk,
    (listening, way): (BorrowedFd<'_>, WayTo),
    client: &UnixSocketV1,
    accepted: &UnixSocketV1,
) -> Result<(OwnedFd, OwnedFd)> {
    let failed = |step| move |e| Error::kernel(step, show(&client.address), e);
    let fd = sys::rebuild::socket(libc::AF_UNIX, client.socket_type, 0).map_err(failed("socket"))?;
    if !client.address.is_empty() {
        bind(desk, client, &fd)?;
    }
    as_process(accepted.peer.as_ref(), "connect", || {
        sys::rebuild::connect(fd.as_fd(), &way.address).map(|()| [0; 2])
    })?;
    drop(way);
    let accepted = sys::rebuild::accept(listening).map_err(failed("accept"))?;
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
