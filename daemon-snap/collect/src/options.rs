//! What the collector has to be told about a tree: what a unit is, and what systemd holds for it.

use snap_bus::BusAccess;
use std::path::PathBuf;

/// What is special about the tree that is dumped.
#[derive(Clone, Debug, Default)]
pub struct CollectOptions {
    /// A systemd service: it may have mount, network, IPC, UTS, user and cgroup namespaces of its
    /// own, and its journal streams are attached to today's journal.
    pub unit: bool,
    /// Directory of the unit's control group; groups below it are recorded. `None`: all processes
    /// have to be in one group.
    pub cgroup: Option<PathBuf>,
    /// Directories whose content does not outlive a reboot although their file system might
    /// (RuntimeDirectory=, PrivateTmp=), as the unit sees them. Files below travel in the image.
    pub volatile_roots: Vec<PathBuf>,
    /// Sockets that systemd holds too.
    pub activation: Vec<ActivationSocket>,
    /// What systemd keeps for the unit (`FDSTORE=1`), in its order.
    pub stored: Vec<StoredDescriptor>,
    /// Connections to the system bus.
    pub bus: BusAccess,
    pub lost_peer: LostPeer,
}

/// What becomes of connections to somebody outside the tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LostPeer {
    #[default]
    Refuse,
    /// After the restore the peer is gone: end of file, or reset.
    Close,
}

/// A socket, or a FIFO, that systemd passes as `LISTEN_FDS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActivationSocket {
    /// As in [`snap_state::UnixSocketV1::address`], or `sockaddr_in`/`sockaddr_in6` bytes as
    /// getsockname(2) gives them. Of a FIFO its path.
    pub address: Vec<u8>,
    /// SOCK_STREAM …, or [`snap_state::FIFO`].
    pub socket_type: i32,
    /// From `LISTEN_FDNAMES`.
    pub name: Option<String>,
}

/// A descriptor in systemd's store, as systemd describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct StoredDescriptor {
    /// `FDNAME=`.
    pub name: String,
    /// `st_mode`, `st_dev`, `st_ino` and `st_rdev` of stat(2).
    pub mode: u32,
    pub device: u64,
    pub inode: u64,
    pub special_device: u64,
    /// Where its link in /proc/1/fd leads.
    pub path: Vec<u8>,
    /// Access mode and status flags.
    pub flags: i32,
}

impl StoredDescriptor {
    /// Nothing but the name may tell one from the other.
    pub fn is_alike(&self, other: &Self) -> bool {
        let object = |one: &Self| (one.mode, one.device, one.inode, one.special_device, one.flags);
        object(self) == object(other) && self.path == other.path
    }
}
