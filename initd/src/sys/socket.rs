//! Packets with descriptors attached, `unix(7)`.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

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

/// Receive one packet of at most `max_len` bytes, and its descriptors, close-on-exec. An empty packet is the end.
///
/// # Errors
/// From `recvmsg(2)`; `InvalidData` for a packet or a set of descriptors that was cut.
pub fn receive(socket: impl AsFd, max_len: usize) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut packet = vec![0; max_len];
    // Room for the header of the control message and its alignment on top of the descriptors.
    let mut control = vec![0; 64 + MAX_FDS * size_of::<RawFd>()];
    let mut fds = Vec::new();
    let (len, is_cut) = {
        let mut buffer = [IoSliceMut::new(&mut packet)];
        let socket = socket.as_fd().as_raw_fd();
        let message = recvmsg::<()>(socket, &mut buffer, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)?;
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(raw) = control {
                // SAFETY: the kernel has just installed these descriptors for us; nobody else knows their numbers, and
                // each is wrapped once.
                fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        (message.bytes, message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC))
    };
    if is_cut {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a packet was cut"));
    }
    packet.truncate(len);
    Ok((packet, fds))
}

/// The listening socket that systemd passed, `sd_listen_fds(3)`. Taken once, while the process has one thread.
pub fn take_activation_socket() -> Option<OwnedFd> {
    const FIRST: RawFd = 3;
    let value = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
    if value("LISTEN_PID") != Some(std::process::id()) || value("LISTEN_FDS") != Some(1) {
        return None;
    }
    // SAFETY: systemd has passed descriptor 3 to this process and nothing of ours uses it; wrapped once, as the
    // function is called once. `F_GETFD` only asks whether it is open.
    unsafe { (libc::fcntl(FIRST, libc::F_GETFD) >= 0).then(|| OwnedFd::from_raw_fd(FIRST)) }
}

/// Own a descriptor that `accept4(2)` has just returned.
pub fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the caller passes what the kernel has just made and uses the number for nothing else.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
