//! Sockets of every family.

use super::{FileId, Pid, RawPath};
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
    /// `sun_path` bytes of the own address: leading NUL for abstract names, no trailing NUL for
    /// paths; empty when unbound.
    pub address: Vec<u8>,
    /// Where an address that is a relative path begins: the working directory in which it was
    /// bound.
    pub directory: Option<RawPath>,
    /// Owner and mode of the path in the file system, when the path still leads to this socket.
    pub node: Option<SocketNodeV1>,
    /// Where that path is today, when it was renamed after bind(2) or given a second name in its
    /// place.
    pub renamed_to: Option<RawPath>,
    pub state: UnixStateV1,
    /// SHUT_RD 1, SHUT_WR 2 bits.
    pub shutdown: u8,
    /// Unread messages in order. Of a stream, neighbours without descriptors and credentials are
    /// one.
    pub queue: Vec<UnixMessageV1>,
    /// What SO_PEERCRED says: who made the other end, or for a listener who made it listen.
    pub peer: Option<PeerV1>,
    pub options: Vec<SocketOptionV1>,
}

/// A message in the queue of a unix socket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnixMessageV1 {
    pub bytes: Vec<u8>,
    /// Descriptors in flight (SCM_RIGHTS).
    pub files: Vec<FileId>,
    /// Process, user and group of the sender (SCM_CREDENTIALS), where the receiver asks for them.
    pub credentials: Option<CredentialsV1>,
    /// Address of the sender of a datagram, as [`UnixSocketV1::address`]; empty when it had none.
    pub sender: Vec<u8>,
}

/// `struct ucred`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialsV1 {
    pub pid: Pid,
    pub uid: u32,
    pub gid: u32,
}

/// SO_PEERCRED and SO_PEERGROUPS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerV1 {
    pub credentials: CredentialsV1,
    pub groups: Vec<u32>,
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
    /// The peer is gone: reads give end of file. The address that it had.
    PeerGone {
        address: Vec<u8>,
    },
    /// Connected to a listener of the tree that has not accepted it yet; nothing has been sent.
    Waiting {
        listener: FileId,
        /// In the order of the listener's queue.
        place: u32,
    },
    /// A datagram socket connected to a bound address outside the tree (/dev/log, journal, notify).
    ConnectedTo {
        address: Vec<u8>,
    },
}

/// AF_INET and AF_INET6: listeners, datagram and raw sockets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InetSocketV1 {
    /// AF_INET 2, AF_INET6 10.
    pub family: i32,
    /// SOCK_STREAM 1, SOCK_DGRAM 2, SOCK_RAW 3.
    pub socket_type: i32,
    pub protocol: i32,
    /// `sockaddr_in` or `sockaddr_in6` bytes; `None` when not bound.
    pub local: Option<Vec<u8>>,
    /// Of a connected datagram or raw socket.
    pub remote: Option<Vec<u8>>,
    /// `listen(2)` backlog.
    pub listen_backlog: Option<u32>,
    /// Applied in order, before bind. A packet filter is among them (SO_ATTACH_FILTER, the value is
    /// its instructions).
    pub options: Vec<SocketOptionV1>,
    pub memberships: Vec<MembershipV1>,
    /// Every interface whose index stands in an address, an option or a membership.
    pub interfaces: Vec<InterfaceV1>,
}

/// A network interface: its index may be another one in the next boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceV1 {
    pub index: u32,
    pub name: Vec<u8>,
}

/// A multicast group that a socket has joined (MCAST_JOIN_GROUP, MCAST_JOIN_SOURCE_GROUP).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembershipV1 {
    /// IPPROTO_IP or IPPROTO_IPV6.
    pub level: i32,
    /// Index of the interface.
    pub interface: u32,
    /// `sockaddr_in` or `sockaddr_in6`.
    pub group: Vec<u8>,
    /// `sources` are those that are not heard (MCAST_EXCLUDE), otherwise the only ones that are.
    pub exclude: bool,
    pub sources: Vec<Vec<u8>>,
}

/// AF_NETLINK.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetlinkSocketV1 {
    /// SOCK_RAW 3, SOCK_DGRAM 2.
    pub socket_type: i32,
    /// NETLINK_ROUTE 0 …
    pub protocol: i32,
    /// 0: not bound.
    pub port: u32,
    /// Numbers of multicast groups, ascending.
    pub groups: Vec<u32>,
    /// `sockaddr_nl` of connect(2), when that is not the kernel.
    pub remote: Option<Vec<u8>>,
    pub options: Vec<SocketOptionV1>,
}

/// AF_PACKET.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketSocketV1 {
    /// SOCK_RAW 3, SOCK_DGRAM 2.
    pub socket_type: i32,
    /// ETH_P_*, host order; 0: it receives nothing.
    pub protocol: u16,
    /// 0: all interfaces.
    pub interface: u32,
    pub memberships: Vec<PacketMembershipV1>,
    /// PACKET_FANOUT.
    pub fanout: Option<u32>,
    pub options: Vec<SocketOptionV1>,
    pub interfaces: Vec<InterfaceV1>,
}

/// PACKET_ADD_MEMBERSHIP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketMembershipV1 {
    pub interface: u32,
    /// PACKET_MR_MULTICAST 0, PACKET_MR_PROMISC 1, PACKET_MR_ALLMULTI 2, PACKET_MR_UNICAST 3.
    pub kind: u16,
    pub address: Vec<u8>,
    /// How often it was added.
    pub count: u32,
}

/// AF_VSOCK: listeners and sockets that are not connected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VsockSocketV1 {
    pub socket_type: i32,
    /// `sockaddr_vm`; `None` when not bound.
    pub local: Option<Vec<u8>>,
    pub listening: bool,
    pub options: Vec<SocketOptionV1>,
}

/// One end of an established TCP connection whose other end is in the tree too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpConnectionV1 {
    /// AF_INET 2, AF_INET6 10.
    pub family: i32,
    /// `sockaddr_in` or `sockaddr_in6`.
    pub local: Vec<u8>,
    pub remote: Vec<u8>,
    pub options: Vec<SocketOptionV1>,
    pub interfaces: Vec<InterfaceV1>,
    /// Largest segment that the other end takes, in bytes.
    pub segment_bytes: u32,
    /// Window scales of both directions (sending, receiving); `None`: not agreed upon.
    pub scales: Option<(u8, u8)>,
    pub selective: bool,
    /// Timestamp of now; `None`: not agreed upon.
    pub timestamp: Option<u32>,
    /// Number of the byte behind the send queue.
    pub send_sequence: u32,
    /// What the other end has not received yet.
    pub send_queue: Vec<u8>,
    /// Number of the byte behind the receive queue.
    pub receive_sequence: u32,
    pub receive_queue: Vec<u8>,
    /// `struct tcp_repair_window`.
    pub window: Vec<u8>,
    /// What this end has closed, SHUT_RD 1, SHUT_WR 2 bits. Sequence numbers are those without the
    /// FIN.
    pub shutdown: u8,
}

/// A TCP connection to outside, whose peer is gone after the restore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostTcpV1 {
    pub family: i32,
    pub options: Vec<SocketOptionV1>,
    /// What the daemon had received and not read.
    pub receive_queue: Vec<u8>,
    pub ending: TcpEndingV1,
}

/// How a connection ends that cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TcpEndingV1 {
    /// By the other end, without warning; not asked for yet.
    Reset,
    /// The other end had closed its direction: end of file, but there is somebody to write to.
    PeerClosed,
    /// Both ends had closed theirs, or the reset is no news any more: end of file and nobody to
    /// write to.
    Over,
}
