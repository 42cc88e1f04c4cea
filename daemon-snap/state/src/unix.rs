//! Unix sockets: listeners, pairs, datagram sockets.

use super::check::{Around, Result, check, is_path};
use super::kind::FileState;
use super::{FileId, Pid, RawPath, SocketOptionV1};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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

impl FileState for UnixSocketV1 {
    fn name(&self) -> &'static str {
        "unix socket"
    }

    fn check(&self, _: i32, around: &Around<'_>) -> Result<()> {
        let begins = self.directory.iter().all(|directory| is_path(&directory.0));
        check(begins, "a socket whose path begins nowhere")?;
        let mut files = self.queue.iter().flat_map(|message| &message.files);
        check(files.all(|id| around.has_file(*id)), "a message with what is not there")
    }
}

/// Whether all unix sockets of a tree go together.
pub(crate) fn check_sockets(sockets: &BTreeMap<FileId, &UnixSocketV1>) -> Result<()> {
    for (id, socket) in sockets {
        match socket.state {
            UnixStateV1::Pair { peer } => {
                let mutual = |other: &&UnixSocketV1| other.state == UnixStateV1::Pair { peer: *id };
                check(sockets.get(&peer).is_some_and(mutual), "a socket pair of one")?;
            }
            UnixStateV1::Waiting { listener, .. } => {
                let listens = |other: &&UnixSocketV1| matches!(other.state, UnixStateV1::Listening { .. });
                check(sockets.get(&listener).is_some_and(listens), "a connection to what does not listen")?;
            }
            _ => {}
        }
        // Without an address only the other end can have sent it.
        let can_arrive = |message: &UnixMessageV1| match socket.state {
            _ if !socket.address.is_empty() => true,
            UnixStateV1::PeerGone { .. } => true,
            UnixStateV1::Pair { peer } => {
                message.sender.is_empty()
                    || sockets.get(&peer).is_some_and(|other| other.address == message.sender)
            }
            _ => false,
        };
        check(socket.queue.iter().all(can_arrive), "a message that nobody can have sent")?;
    }
    Ok(())
}
