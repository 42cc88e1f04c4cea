//! Packets with descriptors attached, `unix(7)`.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg, setsockopt, sockopt,
};

/// Most descriptors in one message, `SCM_MAX_FD`.
const MAX_FDS: usize = 253;

/// Send one packet. Never raises SIGPIPE.
///
/// # Errors
/// From `sendmsg(2)`; a packet is sent whole or not at all.
pub fn send(socket: impl AsFd, packet: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let fds: Vec<RawFd> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let control = if fds.is_empty() { &rights[..0] } else { &rights[..] };
    let socket = socket.as_fd().as_raw_fd();
    sendmsg::<()>(socket, &[IoSlice::new(packet)], control, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// A packet and what came with it.
#[derive(Debug)]
pub struct Received {
    /// Empty: the end.
    pub packet: Vec<u8>,
    /// Close-on-exec.
    pub fds: Vec<OwnedFd>,
    /// Who has sent it, in our PID namespace, by the kernel's word; only where the socket asks for
    /// that ([`know_senders`]).
    pub sender: Option<i32>,
}

/// From now on each packet comes with its sender (`SO_PASSCRED`): a connection may pass to another
/// process.
///
/// # Errors
/// From `setsockopt(2)`.
pub fn know_senders(socket: impl AsFd) -> io::Result<()> {
    Ok(setsockopt(&socket, sockopt::PassCred, &true)?)
}

/// Receive one packet of at most `max_len` bytes, and its descriptors, close-on-exec. An empty
/// packet is the end.
///
/// # Errors
/// From `recvmsg(2)`; `InvalidData` for a packet or a set of descriptors that was cut.
pub fn receive(socket: impl AsFd, max_len: usize) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    receive_from(socket, max_len).map(|Received { packet, fds, .. }| (packet, fds))
}

/// The same with its sender.
///
/// # Errors
/// As [`receive`].
pub fn receive_from(socket: impl AsFd, max_len: usize) -> io::Result<Received> {
    let mut packet = vec![0; max_len];
    // Room for the headers of the control messages and their alignment on top of what they hold.
    let mut control = vec![0; 128 + MAX_FDS * size_of::<RawFd>()];
    let (mut fds, mut sender) = (Vec::new(), None);
    let (len, is_cut) = {
        let mut buffer = [IoSliceMut::new(&mut packet)];
        let socket = socket.as_fd().as_raw_fd();
        let message = recvmsg::<()>(socket, &mut buffer, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)?;
        for control in message.cmsgs()? {
            match control {
                ControlMessageOwned::ScmRights(raw) => {
                    // SAFETY: the kernel has just installed these descriptors for us; nobody else
                    // knows their numbers, and each is wrapped once.
                    fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
                }
                ControlMessageOwned::ScmCredentials(credentials) => sender = Some(credentials.pid()),
                _ => {}
            }
        }
        (message.bytes, message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC))
    };
    if is_cut {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a packet was cut"));
    }
    packet.truncate(len);
    Ok(Received { packet, fds, sender })
}

/// The one listening socket that systemd passed, `sd_listen_fds(3)`, close-on-exec from now on.
/// Taken once, while the process has one thread.
pub fn take_activation_socket() -> Option<OwnedFd> {
    let mut passed = sd_notify::listen_fds().ok()?;
    let fd = passed.next().filter(|_| passed.len() == 0)?;
    // SAFETY: systemd has passed this descriptor, which was found open, and nothing of ours uses
    // it; wrapped once, as the function is called once.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Calls on this socket, and on all descriptors of the same, wait no more.
///
/// # Errors
/// From `fcntl(2)`.
pub fn set_nonblocking(socket: impl AsFd) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(&socket, FcntlArg::F_GETFL)?);
    fcntl(&socket, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Own a descriptor that `accept4(2)` has just returned.
pub fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the caller passes what the kernel has just made and uses the number for nothing else.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
