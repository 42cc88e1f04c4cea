//! Sockets: unix and internet.

use super::{FileId, RawPath};
use serde::{Deserialize, Serialize};

/// A socket option as getsockopt(2) gives it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketOptionV1 {
    pub level: i32,
    pub name: i32,
    pub value: Vec<u8>,
}

/// AF_UNIX.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnixSocketV1 {
    /// SOCK_STREAM 1, SOCK_DGRAM 2, SOCK_SEQPACKET 5.
    pub socket_type: i32,
    /// `sun_path` bytes of the own address: leading NUL for abstract names, no trailing NUL for paths; empty when unbound.
    pub address: Vec<u8>,
    /// Owner and mode of the path in the file system, when the path still leads to this socket.
    pub node: Option<SocketNodeV1>,
    /// Where that path is today, when it was renamed after bind(2) or given a second name in its place.
    pub renamed_to: Option<RawPath>,
    pub state: UnixStateV1,
    /// SHUT_RD 1, SHUT_WR 2 bits.
    pub shutdown: u8,
    /// Unread messages (one entry per message; a stream is one entry or none).
    pub queue: Vec<Vec<u8>>,
    pub options: Vec<SocketOptionV1>,
}

/// The file system node of a bound unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketNodeV1 {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// Connection state of a unix socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UnixStateV1 {
    Unconnected,
    Listening {
        backlog: u32,
    },
    /// The peer is a description of the tree.
    Pair {
        peer: FileId,
    },
    /// The peer is gone: reads give end of file.
    PeerGone,
    /// A datagram socket connected to a bound address outside the tree (/dev/log, journal, notify).
    ConnectedTo {
        address: Vec<u8>,
    },
}

/// AF_INET and AF_INET6: listeners and unconnected sockets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InetSocketV1 {
    /// AF_INET 2, AF_INET6 10.
    pub family: i32,
    /// SOCK_STREAM 1, SOCK_DGRAM 2.
    pub socket_type: i32,
    pub protocol: i32,
    /// `sockaddr_in` or `sockaddr_in6` bytes; `None` when not bound.
    pub local: Option<Vec<u8>>,
    /// Connected UDP.
    pub remote: Option<Vec<u8>>,
    /// `listen(2)` backlog.
    pub listen_backlog: Option<u32>,
    /// Applied in order, before bind.
    pub options: Vec<SocketOptionV1>,
}
