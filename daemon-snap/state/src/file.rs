//! Open file descriptions. What each kind of them refers to is in the file of that kind.

use super::check::{Around, Result};
use super::kind::FileState;
use super::{
    BusConnectionV1, EpollV1, EpollWatchV1, EventFdV1, FanotifyV1, FileId, InetSocketV1, InhibitorV1,
    InodeId, InotifyV1, LostTcpV1, NamespaceV1, NetlinkSocketV1, NodeV1, OpenInodeV1, OpenPipeV1, OpenRingV1,
    PacketSocketV1, Pid, PidFdV1, PressureTriggerV1, RebindV1, SignalFdV1, TcpConnectionV1, TimerFdV1,
    UnixSocketV1, VsockSocketV1,
};
use serde::{Deserialize, Serialize};

/// An open file description; several descriptors of several processes may refer to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileV1 {
    pub id: FileId,
    /// Access mode and status flags (`F_GETFL`), O_CLOEXEC never included.
    pub flags: i32,
    /// `F_SETOWN_EX` and `F_SETSIG`.
    pub owner: Option<FileOwnerV1>,
    /// Of a socket, whose node nothing else holds.
    pub node: Option<NodeV1>,
    pub kind: FileKindV1,
}

/// Receiver of SIGIO.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileOwnerV1 {
    /// F_OWNER_TID 0, F_OWNER_PID 1, F_OWNER_PGRP 2.
    pub kind: i32,
    pub pid: Pid,
    /// 0 is SIGIO.
    pub signal: i32,
}

/// What an open file description refers to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileKindV1 {
    Inode(OpenInodeV1),
    Pipe(OpenPipeV1),
    EventFd(EventFdV1),
    Epoll(EpollV1),
    TimerFd(TimerFdV1),
    SignalFd(SignalFdV1),
    Inotify(InotifyV1),
    Unix(UnixSocketV1),
    Inet(InetSocketV1),
    Tcp(TcpConnectionV1),
    LostTcp(LostTcpV1),
    Netlink(NetlinkSocketV1),
    Packet(PacketSocketV1),
    Vsock(VsockSocketV1),
    PressureTrigger(PressureTriggerV1),
    Namespace(NamespaceV1),
    /// Attached to today's object, not to yesterday's.
    Rebind(RebindV1),
    /// Has a section of its own.
    Bus(#[serde(with = "crate::sections::apart")] BusConnectionV1),
    PidFd(PidFdV1),
    /// An io_uring ring, which is an object because it is mapped too.
    Ring(OpenRingV1),
    Inhibitor(InhibitorV1),
    Fanotify(FanotifyV1),
}

impl FileKindV1 {
    /// The only place of this crate that tells kinds apart: a line for each.
    fn state(&self) -> &dyn FileState {
        match self {
            Self::Inode(open) => open,
            Self::Pipe(open) => open,
            Self::EventFd(counter) => counter,
            Self::Epoll(set) => set,
            Self::TimerFd(timer) => timer,
            Self::SignalFd(signals) => signals,
            Self::Inotify(instance) => instance,
            Self::Unix(socket) => socket,
            Self::Inet(socket) => socket,
            Self::Tcp(connection) => connection,
            Self::LostTcp(connection) => connection,
            Self::Netlink(socket) => socket,
            Self::Packet(socket) => socket,
            Self::Vsock(socket) => socket,
            Self::PressureTrigger(trigger) => trigger,
            Self::Namespace(namespace) => namespace,
            Self::Rebind(object) => object,
            Self::Bus(connection) => connection,
            Self::PidFd(process) => process,
            Self::Ring(open) => open,
            Self::Inhibitor(inhibitor) => inhibitor,
            Self::Fanotify(group) => group,
        }
    }

    /// What people call the kind.
    pub fn name(&self) -> &'static str {
        self.state().name()
    }

    /// The object behind the description, where that has an entry of its own.
    pub fn inode(&self) -> Option<InodeId> {
        self.state().inode()
    }

    /// Of an epoll set; nothing else has any.
    pub fn watches(&self) -> &[EpollWatchV1] {
        match self {
            Self::Epoll(set) => &set.watches,
            _ => &[],
        }
    }
}

impl FileV1 {
    pub(crate) fn check(&self, around: &Around<'_>) -> Result<()> {
        self.kind.state().check(self.flags, around)
    }
}
