//! TCP connections inside the tree, and what is left of those to others.

use super::desk::Desk;
use super::inet::{show, with_scope};
use super::interface::Indices;
use super::kind::{Context, Kind};
use super::socket_options::set_options;
use image_store::ReasonCode;
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{MsgFlags, send};
use snap_error::{Error, Result};
use snap_state::{
    FileId, FileKindV1, FileV1, Files, LostTcpV1, SocketOptionV1, TcpConnectionV1, TcpEndingV1,
};
use snap_sys as sys;
use snap_sys::tcp_repair::{Queue, Repair};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// Room for every queue while it is filled; the recorded sizes come afterwards.
const BUFFER_BYTES: i32 = 64 << 20;
/// Longest that loopback may take to deliver.
const PATIENCE: Duration = Duration::from_secs(1);

fn connections(files: Files<'_>) -> impl Iterator<Item = (&FileV1, &TcpConnectionV1)> {
    files.iter().filter_map(|file| match &file.kind {
        FileKindV1::Tcp(connection) => Some((file, connection)),
        _ => None,
    })
}

impl Kind for TcpConnectionV1 {
    /// The recorded flags come when everything has been sent.
    fn sets_flags(&self) -> bool {
        true
    }

    fn make(&self, file: &FileV1, _: &Context<'_>) -> Result<Option<OwnedFd>> {
        sys::rebuild::socket(self.family, libc::SOCK_STREAM, libc::IPPROTO_TCP)
            .map(Some)
            .map_err(|e| Error::kernel("socket", file.id, e))
    }

    fn connect(&self, cx: &Context<'_>) -> Result<()> {
        connect_all(cx.desk, cx.files)
    }
}

impl Kind for LostTcpV1 {
    fn make(&self, file: &FileV1, _: &Context<'_>) -> Result<Option<OwnedFd>> {
        rebuild_lost(file.id, self).map(Some)
    }
}

/// All of them, when every listener has its port:
///
/// 1. Each end by itself, with its sequence numbers, without a word to the other.
/// 2. When both exist, they become ordinary: from here on a segment finds its receiver.
/// 3. What had not arrived is sent, then buffers get their recorded sizes.
/// 4. Directions that were closed are closed again, which the other end hears.
fn connect_all(desk: &Desk, files: Files<'_>) -> Result<()> {
    let (mut repairs, mut sizes) = (Vec::new(), Vec::new());
    for (file, connection) in connections(files) {
        let (repair, own) = begin(file.id, connection, desk.file(file.id)?)?;
        repairs.push(repair);
        sizes.push(own);
    }
    let failed = |e| Error::kernel("TCP_REPAIR", "off", e);
    repairs.into_iter().try_for_each(Repair::finish).map_err(failed)?;
    for ((file, connection), sizes) in connections(files).zip(&sizes) {
        let fd = desk.file(file.id)?;
        say(file.id, fd, &connection.send_queue)?;
        set_options(file.id, &fd, sizes)?;
        super::status_flags::set_status_flags(&fd, file)?;
    }
    for (file, connection) in connections(files) {
        for how in
            [libc::SHUT_RD, libc::SHUT_WR].into_iter().filter(|how| connection.shutdown & 1 << how != 0)
        {
            sys::rebuild::shutdown(desk.file(file.id)?, how)
                .map_err(|e| Error::kernel("shutdown", file.id, e))?;
        }
    }
    Ok(())
}

/// Also gives the sizes of its buffers, recorded or those of a new socket, which come back when
/// there need not be more room any more.
fn begin<'a>(
    id: FileId,
    connection: &TcpConnectionV1,
    fd: BorrowedFd<'a>,
) -> Result<(Repair<'a>, Vec<SocketOptionV1>)> {
    let failed = |step| move |e| Error::kernel(step, format!("open file {id} (TCP)"), e);
    let indices = Indices::of(fd, &connection.interfaces)?;
    set_options(id, &fd, &connection.options)?;
    let sizes = sizes_of(fd).map_err(failed("getsockopt"))?;
    make_room(id, fd)?;
    let repair = Repair::begin(fd).map_err(failed("TCP_REPAIR"))?;
    sys::rebuild::bind(fd, &with_scope(&connection.local, &indices)?).map_err(|e| match e {
        Errno::EADDRNOTAVAIL => Error::stale(
            ReasonCode::AddressMissing,
            format!("address {} does not exist yet", show(&connection.local)),
        ),
        e => failed("bind")(e),
    })?;
    let queues = [
        (Queue::Send, connection.send_sequence, connection.send_queue.len()),
        (Queue::Receive, connection.receive_sequence, connection.receive_queue.len()),
    ];
    for (queue, sequence, len) in queues {
        repair.select(queue).map_err(failed("TCP_REPAIR_QUEUE"))?;
        repair.set_sequence(sequence.wrapping_sub(len as u32)).map_err(failed("TCP_QUEUE_SEQ"))?;
    }
    sys::rebuild::connect(fd, &with_scope(&connection.remote, &indices)?).map_err(|e| match e {
        Errno::EADDRNOTAVAIL | Errno::EADDRINUSE => Error::stale(
            ReasonCode::AddressTaken,
            format!("there is a connection from {} already", show(&connection.local)),
        ),
        e => failed("connect")(e),
    })?;
    let TcpConnectionV1 { segment_bytes, scales, selective, timestamp, .. } = connection;
    repair
        .set_agreement(*segment_bytes, *scales, *selective, timestamp.is_some())
        .map_err(failed("TCP_REPAIR_OPTIONS"))?;
    if let Some(now) = timestamp {
        repair.set_timestamp(*now).map_err(failed("TCP_TIMESTAMP"))?;
    }
    repair.select(Queue::Receive).map_err(failed("TCP_REPAIR_QUEUE"))?;
    say(id, fd, &connection.receive_queue)?;
    repair.set_window(&connection.window).map_err(failed("TCP_REPAIR_WINDOW"))?;
    Ok((repair, sizes))
}

/// What [`make_room`] changes.
fn sizes_of(fd: BorrowedFd<'_>) -> std::result::Result<Vec<SocketOptionV1>, Errno> {
    const SO_BUF_LOCK: i32 = 72;
    let level = libc::SOL_SOCKET;
    let size = |name| {
        sys::fdquery::socket_option(fd, level, name).map(|value| SocketOptionV1 { level, name, value })
    };
    // Before Linux 5.14 a size that was set stays marked as such.
    let lock = match size(SO_BUF_LOCK) {
        Err(Errno::ENOPROTOOPT) => None,
        lock => Some(lock?),
    };
    Ok([size(libc::SO_SNDBUF)?, size(libc::SO_RCVBUF)?].into_iter().chain(lock).collect())
}

fn make_room(id: FileId, fd: BorrowedFd<'_>) -> Result<()> {
    for name in [libc::SO_SNDBUFFORCE, libc::SO_RCVBUFFORCE] {
        sys::rebuild::set_socket_option(fd, libc::SOL_SOCKET, name, &BUFFER_BYTES.to_ne_bytes())
            .map_err(|e| Error::kernel("making room in a socket", id, e))?;
    }
    Ok(())
}

fn say(id: FileId, fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<()> {
    // The kernel takes no more at once into a queue under repair.
    const PIECE_BYTES: usize = 32 << 10;
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    let mut rest = bytes;
    while !rest.is_empty() {
        let piece = &rest[..rest.len().min(PIECE_BYTES)];
        let sent = send(fd.as_raw_fd(), piece, flags)
            .map_err(|e| Error::kernel("refilling a socket", format!("open file {id} (TCP)"), e))?;
        rest = &rest[sent..];
    }
    Ok(())
}

/// A socket whose peer has gone: made with one of ours on loopback, which goes as that went.
fn rebuild_lost(id: FileId, lost: &LostTcpV1) -> Result<OwnedFd> {
    let failed = |step| move |e| Error::kernel(step, format!("open file {id} (TCP)"), e);
    let tcp = || sys::rebuild::socket(lost.family, libc::SOCK_STREAM, libc::IPPROTO_TCP);
    let (listener, fd) = (tcp().map_err(failed("socket"))?, tcp().map_err(failed("socket"))?);
    sys::rebuild::bind(listener.as_fd(), &loopback(lost.family)).map_err(failed("bind"))?;
    sys::rebuild::listen(listener.as_fd(), 1).map_err(failed("listen"))?;
    let address = sys::rebuild::own_address(listener.as_fd()).map_err(failed("getsockname"))?;
    let sizes = sizes_of(fd.as_fd()).map_err(failed("getsockopt"))?;
    make_room(id, fd.as_fd())?;
    connect_soon(fd.as_fd(), &address).map_err(|e| match e {
        Errno::EINPROGRESS => Error::stale(
            ReasonCode::HostUnsupported,
            "the unit's control group has no way to 127.0.0.1 or ::1 (IPAddressDeny=)",
        ),
        e => failed("connect")(e),
    })?;
    let peer = sys::rebuild::accept(listener.as_fd()).map_err(failed("accept"))?;
    make_room(id, peer.as_fd())?;
    say(id, peer.as_fd(), &lost.receive_queue)?;
    let deadline = Instant::now() + PATIENCE;
    let unread = || sys::fdquery::unread_bytes(fd.as_fd()).map_err(failed("FIONREAD"));
    while unread()? < lost.receive_queue.len() {
        if Instant::now() > deadline {
            return Err(failed("refilling a socket")(Errno::ETIMEDOUT));
        }
        std::thread::sleep(Duration::from_micros(50));
    }
    if lost.ending == TcpEndingV1::Reset {
        let at_once = [1i32.to_ne_bytes(), 0i32.to_ne_bytes()].concat();
        sys::rebuild::set_socket_option(peer.as_fd(), libc::SOL_SOCKET, libc::SO_LINGER, &at_once)
            .map_err(failed("SO_LINGER"))?;
    }
    drop(peer);
    if lost.ending == TcpEndingV1::Over {
        await_end(fd.as_fd(), libc::POLLRDHUP).map_err(failed("closing"))?;
        sys::rebuild::shutdown(fd.as_fd(), libc::SHUT_WR).map_err(failed("shutdown"))?;
        await_end(fd.as_fd(), libc::POLLHUP).map_err(failed("closing"))?;
    }
    set_options(id, &fd, &sizes)?;
    // Those of the socket layer have a meaning still; the connection that the others are about is
    // none any more.
    set_options(id, &fd, lost.options.iter().filter(|option| option.level == libc::SOL_SOCKET))?;
    Ok(fd)
}

/// The other end's FIN, or its answer to ours.
fn await_end(fd: BorrowedFd<'_>, event: i16) -> std::result::Result<(), Errno> {
    let flags = PollFlags::from_bits_retain(event);
    match sys::fdquery::poll_until(fd, flags, Instant::now() + PATIENCE)? {
        true => Ok(()),
        false => Err(Errno::ETIMEDOUT),
    }
}

/// Does not wait for longer than loopback takes: what a control group may not send or receive is
/// dropped without a word.
fn connect_soon(fd: BorrowedFd<'_>, address: &[u8]) -> std::result::Result<(), Errno> {
    let limit = |seconds: u64| {
        let timeval = [seconds.to_ne_bytes(), 0u64.to_ne_bytes()].concat();
        sys::rebuild::set_socket_option(fd, libc::SOL_SOCKET, libc::SO_SNDTIMEO, &timeval)
    };
    limit(PATIENCE.as_secs())?;
    sys::rebuild::connect(fd, address)?;
    limit(0)
}

/// Any port of loopback.
fn loopback(family: i32) -> Vec<u8> {
    let mut address = (family as u16).to_ne_bytes().to_vec();
    address.extend_from_slice(&[0; 2]);
    if family == libc::AF_INET {
        address.extend_from_slice(&[127, 0, 0, 1]);
        address.extend_from_slice(&[0; 8]);
    } else {
        address.extend_from_slice(&[0; 4]);
        address.extend_from_slice(&std::net::Ipv6Addr::LOCALHOST.octets());
        address.extend_from_slice(&[0; 4]);
    }
    address
}
