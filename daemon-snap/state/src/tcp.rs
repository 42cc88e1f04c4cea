//! TCP connections inside the tree, and what is left of those to others.

use super::kind::FileState;
use super::{InterfaceV1, SocketOptionV1};
use serde::{Deserialize, Serialize};

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

impl FileState for TcpConnectionV1 {
    fn name(&self) -> &'static str {
        "TCP connection"
    }
}

impl FileState for LostTcpV1 {
    fn name(&self) -> &'static str {
        "TCP connection"
    }
}
