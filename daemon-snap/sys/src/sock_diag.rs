//! NETLINK_SOCK_DIAG for unix, packet and TCP sockets (sock_diag(7)).

use crate::netlink::{self, BUFFER_BYTES, Message, NLMSG_DONE, NLMSG_ERROR, messages, u16_at, u32_at};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};
use snap_state::PacketMembershipV1;
use std::collections::HashMap;
use std::os::fd::{AsRawFd, BorrowedFd};

/// TCP_ESTABLISHED.
pub const STATE_CONNECTED: u8 = 1;
/// TCP_LISTEN.
pub const STATE_LISTENING: u8 = 10;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const UDIAG_SHOW_NAME: u32 = 1;
const UDIAG_SHOW_VFS: u32 = 2;
const UDIAG_SHOW_PEER: u32 = 4;
const UDIAG_SHOW_WAITING: u32 = 8;
const UDIAG_SHOW_RQLEN: u32 = 16;
const ATTR_NAME: u16 = 0;
const ATTR_VFS: u16 = 1;
const ATTR_PEER: u16 = 2;
const ATTR_WAITING: u16 = 3;
const ATTR_RQLEN: u16 = 4;
const ATTR_SHUTDOWN: u16 = 6;
/// `struct unix_diag_msg`: family, type, state, pad, inode, cookie.
const MESSAGE_BYTES: usize = 16;

/// What the kernel tells about a unix socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnixDiag {
    /// SOCK_STREAM 1, SOCK_DGRAM 2, SOCK_SEQPACKET 5.
    pub socket_type: u8,
    pub state: u8,
    /// `sun_path`, without a NUL at the end of a path.
    pub name: Vec<u8>,
    /// Inode of the peer; `Some(0)` when the peer has been closed.
    pub peer: Option<u32>,
    /// The path that it is bound to.
    pub bound: Option<BoundTo>,
    /// Waiting connections of a listener, unread bytes otherwise.
    pub receive_queue: u32,
    /// Backlog of a listener, bytes in flight otherwise.
    pub send_queue: u32,
    /// RCV_SHUTDOWN 1, SEND_SHUTDOWN 2.
    pub shutdown: u8,
    /// Of a listener: inodes of the clients that wait for accept(2), in order; 0 for one that has
    /// gone.
    pub waiting: Vec<u32>,
}

/// What is at a path, as the kernel counts it: stat(2) may say other numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoundTo {
    pub ino: u32,
    pub dev: u32,
}

/// What the kernel tells about a packet socket that no option of it does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PacketDiag {
    /// It has a ring (PACKET_RX_RING, PACKET_TX_RING).
    pub ring: bool,
    pub memberships: Vec<PacketMembershipV1>,
}

/// All unix sockets of the network namespace that `netlink` (NETLINK_SOCK_DIAG) belongs to, by
/// inode number.
///
/// # Errors
/// Those of the netlink socket.
pub fn unix_sockets(netlink: BorrowedFd<'_>) -> Result<HashMap<u32, UnixDiag>, Errno> {
    const SHOW: u32 =
        UDIAG_SHOW_NAME | UDIAG_SHOW_VFS | UDIAG_SHOW_PEER | UDIAG_SHOW_WAITING | UDIAG_SHOW_RQLEN;
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

/// A key that segments of a TCP socket are signed with (TCP_MD5SIG): whose, and which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningKey {
    /// AF_INET or AF_INET6.
    pub family: u8,
    pub prefix_len: u8,
    /// Four or sixteen bytes of it count.
    pub address: [u8; 16],
    pub key: Vec<u8>,
}

impl SigningKey {
    /// `struct tcp_md5sig`, the value of TCP_MD5SIG_EXT, for a socket of that family.
    pub fn option(&self, family: i32) -> Vec<u8> {
        const ADDRESS_BYTES: usize = 128;
        const KEY_BYTES: usize = 80;
        const FLAG_PREFIX: u8 = 1;
        let mut value = (family as u16).to_ne_bytes().to_vec();
        let v4 = i32::from(self.family) == libc::AF_INET;
        match (family, v4) {
            (libc::AF_INET, _) => value.extend_from_slice(&[&[0, 0], &self.address[..4]].concat()),
            // Of a socket of both: ::ffff:a.b.c.d
            (_, true) => {
                value.extend_from_slice(&[0; 16]);
                value.extend_from_slice(&[0xff, 0xff]);
                value.extend_from_slice(&self.address[..4]);
            }
            _ => value.extend_from_slice(&[&[0; 6], &self.address[..]].concat()),
        }
        value.resize(ADDRESS_BYTES, 0);
        value.extend_from_slice(&[FLAG_PREFIX, self.prefix_len]);
        value.extend_from_slice(&(self.key.len() as u16).to_ne_bytes());
        value.extend_from_slice(&[0; 4]);
        value.extend_from_slice(&self.key);
        value.resize(ADDRESS_BYTES + 8 + KEY_BYTES, 0);
        value
    }
}

/// Which sockets [`signing_keys`] looks at; a list of all connections may be long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpSockets {
    /// Listeners. Of sockets that neither listen nor are connected nobody tells keys.
    Listening,
    Connected,
}

/// Keys of TCP sockets of a family, by inode number, as [`unix_sockets`]. Needs CAP_NET_ADMIN over
/// the namespace.
///
/// # Errors
/// Those of the netlink socket; `ENOENT` when the kernel lacks CONFIG_INET_DIAG.
pub fn signing_keys(
    netlink: BorrowedFd<'_>,
    family: i32,
    which: TcpSockets,
) -> Result<HashMap<u32, Vec<SigningKey>>, Errno> {
    let listening = 1 << u32::from(STATE_LISTENING);
    let states: u32 = if which == TcpSockets::Listening { listening } else { !listening };
    // Keys are told to who asks for INET_DIAG_INFO.
    const INFO: u8 = 1 << 1;
    // struct inet_diag_req_v2: family, protocol, extensions, pad, states, and which socket (any).
    let mut body = vec![family as u8, libc::IPPROTO_TCP as u8, INFO, 0];
    body.extend_from_slice(&states.to_ne_bytes());
    body.extend_from_slice(&[0; 48]);
    let mut sockets = HashMap::new();
    dump(netlink, &request(&body), |message| {
        let keys = signing_keys_of(message);
        if !keys.is_empty() {
            sockets.insert(u32_at(message, INET_INODE), keys);
        }
    })?;
    Ok(sockets)
}

/// `idiag_inode`, the last field of `struct inet_diag_msg`.
const INET_INODE: usize = 68;
const INET_MESSAGE_BYTES: usize = 72;

fn signing_keys_of(message: &[u8]) -> Vec<SigningKey> {
    const MD5SIG: u16 = 18;
    /// `struct tcp_diag_md5sig`: family, prefix, length, address, key.
    const ENTRY_BYTES: usize = 100;
    const KEY: usize = 20;
    let mut keys = Vec::new();
    attributes_behind(message, INET_MESSAGE_BYTES, |kind, value| {
        let entries = value.chunks_exact(ENTRY_BYTES).filter(|_| kind == MD5SIG);
        keys.extend(entries.map(|entry| {
            let mut address = [0; 16];
            address.copy_from_slice(&entry[4..KEY]);
            let len = usize::from(u16_at(entry, 2)).min(ENTRY_BYTES - KEY);
            let key = entry[KEY..KEY + len].to_vec();
            SigningKey { family: entry[0], prefix_len: entry[1], address, key }
        }));
    });
    keys
}

/// Sends a request and hands over each answer that is long enough, without its header.
fn dump(netlink: BorrowedFd<'_>, request: &[u8], mut each: impl FnMut(&[u8])) -> Result<(), Errno> {
    send(netlink.as_raw_fd(), request, MsgFlags::empty())?;
    let mut buffer = vec![0u8; BUFFER_BYTES];
    loop {
        let got = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        for message in messages(&buffer[..got]) {
            let Message { kind, body, .. } = message?;
            match kind {
                NLMSG_DONE => return Ok(()),
                NLMSG_ERROR if body.len() >= 4 => return Err(Errno::from_raw(-(u32_at(body, 0) as i32))),
                SOCK_DIAG_BY_FAMILY if body.len() >= MESSAGE_BYTES => each(body),
                _ => {}
            }
        }
    }
}

fn request(body: &[u8]) -> Vec<u8> {
    netlink::request(SOCK_DIAG_BY_FAMILY, body)
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

/// Calls `each` with kind and value of every attribute behind the fixed part.
fn attributes(message: &[u8], each: impl FnMut(u16, &[u8])) {
    attributes_behind(message, MESSAGE_BYTES, each);
}

fn attributes_behind(message: &[u8], fixed_bytes: usize, mut each: impl FnMut(u16, &[u8])) {
    for (kind, value) in netlink::attributes(message.get(fixed_bytes..).unwrap_or_default()) {
        each(kind, value);
    }
}

fn unix_socket(message: &[u8]) -> UnixDiag {
    let mut socket = UnixDiag { socket_type: message[1], state: message[2], ..UnixDiag::default() };
    attributes(message, |kind, value| match kind {
        ATTR_VFS if value.len() >= 8 => {
            socket.bound = Some(BoundTo { ino: u32_at(value, 0), dev: u32_at(value, 4) });
        }
        ATTR_NAME if value.first() == Some(&0) => socket.name = value.to_vec(),
        ATTR_NAME => socket.name = value.split(|byte| *byte == 0).next().unwrap_or_default().to_vec(),
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
