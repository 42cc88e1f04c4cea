//! NETLINK_SOCK_DIAG for unix sockets (sock_diag(7)).

use nix::errno::Errno;
use std::collections::HashMap;
use std::os::fd::{AsRawFd, BorrowedFd};

/// TCP_ESTABLISHED.
pub const STATE_CONNECTED: u8 = 1;
/// TCP_LISTEN.
pub const STATE_LISTENING: u8 = 10;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
const UDIAG_SHOW_VFS: u32 = 2;
const UDIAG_SHOW_PEER: u32 = 4;
const UDIAG_SHOW_RQLEN: u32 = 16;
const ATTR_VFS: u16 = 1;
const ATTR_PEER: u16 = 2;
const ATTR_RQLEN: u16 = 4;
const ATTR_SHUTDOWN: u16 = 6;
const HEADER_BYTES: usize = 16;
/// `struct unix_diag_msg`: family, type, state, pad, inode, cookie.
const MESSAGE_BYTES: usize = 16;

/// What the kernel tells about a unix socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnixDiag {
    pub state: u8,
    /// Inode of the peer; `Some(0)` when the peer has been closed.
    pub peer: Option<u32>,
    /// Inode number of the path that it is bound to.
    pub path_ino: Option<u32>,
    /// Waiting connections of a listener, unread bytes otherwise.
    pub receive_queue: u32,
    /// Backlog of a listener, bytes in flight otherwise.
    pub send_queue: u32,
    /// RCV_SHUTDOWN 1, SEND_SHUTDOWN 2.
    pub shutdown: u8,
}

/// All unix sockets of the network namespace that `netlink` (NETLINK_SOCK_DIAG) belongs to, by inode number.
///
/// # Errors
/// Those of the netlink socket.
pub fn unix_sockets(netlink: BorrowedFd<'_>) -> Result<HashMap<u32, UnixDiag>, Errno> {
    send(netlink, &request())?;
    let mut sockets = HashMap::new();
    let mut buffer = vec![0u8; 64 << 10];
    loop {
        // SAFETY: buffer is writable for its length.
        let got = unsafe { libc::recv(netlink.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        let got = Errno::result(got)? as usize;
        if parse(&buffer[..got], &mut sockets)? {
            return Ok(sockets);
        }
    }
}

fn request() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(40);
    // struct nlmsghdr
    bytes.extend_from_slice(&40u32.to_ne_bytes());
    bytes.extend_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend_from_slice(&NLM_F_REQUEST_DUMP.to_ne_bytes());
    bytes.extend_from_slice(&[0; 8]);
    // struct unix_diag_req: family, protocol, pad, states, inode, what to show, cookie
    bytes.extend_from_slice(&[libc::AF_UNIX as u8, 0, 0, 0]);
    bytes.extend_from_slice(&u32::MAX.to_ne_bytes());
    bytes.extend_from_slice(&0u32.to_ne_bytes());
    bytes.extend_from_slice(&(UDIAG_SHOW_VFS | UDIAG_SHOW_PEER | UDIAG_SHOW_RQLEN).to_ne_bytes());
    bytes.extend_from_slice(&[0xff; 8]);
    bytes
}

fn send(netlink: BorrowedFd<'_>, bytes: &[u8]) -> Result<(), Errno> {
    // SAFETY: bytes is readable for its length.
    Errno::result(unsafe { libc::send(netlink.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) }).map(drop)
}

/// Takes one datagram apart; true at the end of the dump.
fn parse(mut bytes: &[u8], sockets: &mut HashMap<u32, UnixDiag>) -> Result<bool, Errno> {
    while bytes.len() >= HEADER_BYTES {
        let len = u32_at(bytes, 0) as usize;
        if len < HEADER_BYTES || len > bytes.len() {
            return Err(Errno::EBADMSG);
        }
        let (message, kind) = (&bytes[HEADER_BYTES..len], u16_at(bytes, 4));
        match kind {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR if message.len() >= 4 => {
                return Err(Errno::from_raw(-(u32_at(message, 0) as i32)));
            }
            SOCK_DIAG_BY_FAMILY if message.len() >= MESSAGE_BYTES => {
                sockets.insert(u32_at(message, 4), socket(message));
            }
            _ => {}
        }
        bytes = &bytes[len.next_multiple_of(4).min(bytes.len())..];
    }
    Ok(false)
}

fn socket(message: &[u8]) -> UnixDiag {
    let mut socket = UnixDiag { state: message[2], ..UnixDiag::default() };
    let mut attributes = &message[MESSAGE_BYTES..];
    while attributes.len() >= 4 {
        let len = usize::from(u16_at(attributes, 0));
        if len < 4 || len > attributes.len() {
            break;
        }
        let value = &attributes[4..len];
        match u16_at(attributes, 2) {
            ATTR_VFS if value.len() >= 8 => socket.path_ino = Some(u32_at(value, 0)),
            ATTR_PEER if value.len() >= 4 => socket.peer = Some(u32_at(value, 0)),
            ATTR_RQLEN if value.len() >= 8 => {
                (socket.receive_queue, socket.send_queue) = (u32_at(value, 0), u32_at(value, 4));
            }
            ATTR_SHUTDOWN if !value.is_empty() => socket.shutdown = value[0],
            _ => {}
        }
        attributes = &attributes[len.next_multiple_of(4).min(attributes.len())..];
    }
    socket
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|word| word.try_into().ok()).map_or(0, u16::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn unix_sockets_know_their_peers() {
        let inode = |socket: &UnixStream| nix::sys::stat::fstat(socket).unwrap().st_ino as u32;
        let (a, b) = UnixStream::pair().unwrap();
        let netlink =
            crate::sys::netns::socket(None, libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_SOCK_DIAG)
                .unwrap();
        let sockets = unix_sockets(netlink.as_fd()).unwrap();
        assert_eq!(sockets[&inode(&a)].peer, Some(inode(&b)));
        assert_eq!(sockets[&inode(&a)].state, STATE_CONNECTED);
    }
}
