//! NETLINK_SOCK_DIAG for unix and packet sockets (sock_diag(7)).

use nix::errno::Errno;
use snap_state::PacketMembershipV1;
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
const UDIAG_SHOW_WAITING: u32 = 8;
const UDIAG_SHOW_RQLEN: u32 = 16;
const ATTR_VFS: u16 = 1;
const ATTR_PEER: u16 = 2;
const ATTR_WAITING: u16 = 3;
const ATTR_RQLEN: u16 = 4;
const ATTR_SHUTDOWN: u16 = 6;
const HEADER_BYTES: usize = 16;
/// `struct unix_diag_msg`: family, type, state, pad, inode, cookie.
const MESSAGE_BYTES: usize = 16;

/// What the kernel tells about a unix socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    /// Of a listener: inodes of the clients that wait for accept(2), in order; 0 for one that has gone.
    pub waiting: Vec<u32>,
}

/// What the kernel tells about a packet socket that no option of it does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PacketDiag {
    /// It has a ring (PACKET_RX_RING, PACKET_TX_RING).
    pub ring: bool,
    pub memberships: Vec<PacketMembershipV1>,
}

/// All unix sockets of the network namespace that `netlink` (NETLINK_SOCK_DIAG) belongs to, by inode number.
///
/// # Errors
/// Those of the netlink socket.
pub fn unix_sockets(netlink: BorrowedFd<'_>) -> Result<HashMap<u32, UnixDiag>, Errno> {
    const SHOW: u32 = UDIAG_SHOW_VFS | UDIAG_SHOW_PEER | UDIAG_SHOW_WAITING | UDIAG_SHOW_RQLEN;
    let mut sockets = HashMap::new();
    dump(netlink, &unix_request(SHOW), |message| {
        sockets.insert(u32_at(message, 4), unix_socket(message));
    })?;
    Ok(sockets)
}

/// All packet sockets, as [`unix_sockets`].
///
/// # Errors
/// Those of the netlink socket; `ENOENT` when the kernel lacks CONFIG_PACKET_DIAG.
pub fn packet_sockets(netlink: BorrowedFd<'_>) -> Result<HashMap<u32, PacketDiag>, Errno> {
    const SHOW_MEMBERSHIPS_AND_RINGS: u32 = 2 | 4;
    // struct packet_diag_req: family, protocol, pad, inode, what to show, cookie
    let mut body = vec![libc::AF_PACKET as u8, 0, 0, 0];
    body.extend_from_slice(&0u32.to_ne_bytes());
    body.extend_from_slice(&SHOW_MEMBERSHIPS_AND_RINGS.to_ne_bytes());
    body.extend_from_slice(&[0xff; 8]);
    let mut sockets = HashMap::new();
    dump(netlink, &request(&body), |message| {
        sockets.insert(u32_at(message, 4), packet_socket(message));
    })?;
    Ok(sockets)
}

/// Sends a request and hands over each answer that is long enough, without its header.
fn dump(netlink: BorrowedFd<'_>, request: &[u8], mut each: impl FnMut(&[u8])) -> Result<(), Errno> {
    send(netlink, request)?;
    let mut buffer = vec![0u8; 64 << 10];
    loop {
        // SAFETY: buffer is writable for its length.
        let got = unsafe { libc::recv(netlink.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        let got = Errno::result(got)? as usize;
        if parse(&buffer[..got], &mut each)? {
            return Ok(());
        }
    }
}

fn request(body: &[u8]) -> Vec<u8> {
    // struct nlmsghdr
    let mut bytes = ((HEADER_BYTES + body.len()) as u32).to_ne_bytes().to_vec();
    bytes.extend_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend_from_slice(&NLM_F_REQUEST_DUMP.to_ne_bytes());
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(body);
    bytes
}

fn unix_request(show: u32) -> Vec<u8> {
    // struct unix_diag_req: family, protocol, pad, states, inode, what to show, cookie
    let mut body = vec![libc::AF_UNIX as u8, 0, 0, 0];
    body.extend_from_slice(&u32::MAX.to_ne_bytes());
    body.extend_from_slice(&0u32.to_ne_bytes());
    body.extend_from_slice(&show.to_ne_bytes());
    body.extend_from_slice(&[0xff; 8]);
    request(&body)
}

fn send(netlink: BorrowedFd<'_>, bytes: &[u8]) -> Result<(), Errno> {
    // SAFETY: bytes is readable for its length.
    Errno::result(unsafe { libc::send(netlink.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) }).map(drop)
}

/// Takes one datagram apart; true at the end of the dump.
fn parse(mut bytes: &[u8], each: &mut impl FnMut(&[u8])) -> Result<bool, Errno> {
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
            SOCK_DIAG_BY_FAMILY if message.len() >= MESSAGE_BYTES => each(message),
            _ => {}
        }
        bytes = &bytes[len.next_multiple_of(4).min(bytes.len())..];
    }
    Ok(false)
}

/// Calls `each` with kind and value of every attribute behind the fixed part.
fn attributes(message: &[u8], mut each: impl FnMut(u16, &[u8])) {
    let mut attributes = &message[MESSAGE_BYTES..];
    while attributes.len() >= 4 {
        let len = usize::from(u16_at(attributes, 0));
        if len < 4 || len > attributes.len() {
            break;
        }
        each(u16_at(attributes, 2), &attributes[4..len]);
        attributes = &attributes[len.next_multiple_of(4).min(attributes.len())..];
    }
}

fn unix_socket(message: &[u8]) -> UnixDiag {
    let mut socket = UnixDiag { state: message[2], ..UnixDiag::default() };
    attributes(message, |kind, value| match kind {
        ATTR_VFS if value.len() >= 8 => socket.path_ino = Some(u32_at(value, 0)),
        ATTR_PEER if value.len() >= 4 => socket.peer = Some(u32_at(value, 0)),
        ATTR_WAITING => socket.waiting = value.chunks_exact(4).map(|inode| u32_at(inode, 0)).collect(),
        ATTR_RQLEN if value.len() >= 8 => {
            (socket.receive_queue, socket.send_queue) = (u32_at(value, 0), u32_at(value, 4));
        }
        ATTR_SHUTDOWN if !value.is_empty() => socket.shutdown = value[0],
        _ => {}
    });
    socket
}

fn packet_socket(message: &[u8]) -> PacketDiag {
    const MEMBERSHIPS: u16 = 1;
    const RX_RING: u16 = 2;
    const TX_RING: u16 = 3;
    /// `struct packet_diag_mclist`: index, count, type, length of the address, address.
    const ENTRY_BYTES: usize = 44;
    let mut socket = PacketDiag::default();
    attributes(message, |kind, value| match kind {
        MEMBERSHIPS => {
            socket.memberships = value
                .chunks_exact(ENTRY_BYTES)
                .map(|entry| PacketMembershipV1 {
                    interface: u32_at(entry, 0),
                    count: u32_at(entry, 4),
                    kind: u16_at(entry, 8),
                    address: entry[12..].iter().copied().take(usize::from(u16_at(entry, 10))).collect(),
                })
                .collect();
        }
        RX_RING | TX_RING => socket.ring = true,
        _ => {}
    });
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
            crate::netns::socket(None, libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_SOCK_DIAG).unwrap();
        let sockets = unix_sockets(netlink.as_fd()).unwrap();
        assert_eq!(sockets[&inode(&a)].peer, Some(inode(&b)));
        assert_eq!(sockets[&inode(&a)].state, STATE_CONNECTED);
    }
}
