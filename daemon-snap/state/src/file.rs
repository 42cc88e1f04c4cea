//! Open file descriptions and the objects behind them.

use super::{
    BusConnectionV1, FileId, InetSocketV1, InhibitorV1, InodeId, LostTcpV1, NetlinkSocketV1, PacketSocketV1,
    Pid, PipeId, RawPath, RingV1, TargetFd, TcpConnectionV1, UnixSocketV1, VsockSocketV1, XattrsV1,
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

/// Owner and permissions of an object without a name (fstat(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeV1 {
    pub uid: u32,
    pub gid: u32,
    /// Permissions with set-ids.
    pub mode: u32,
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
    /// Regular file, directory, device node, named FIFO, O_PATH, memfd, shared memory.
    Inode {
        inode: InodeId,
        pos: u64,
    },
    Pipe {
        pipe: PipeId,
        end: PipeEnd,
    },
    EventFd {
        count: u64,
        semaphore: bool,
    },
    Epoll {
        watches: Vec<EpollWatchV1>,
        busy_poll: Option<BusyPollV1>,
    },
    TimerFd(TimerFdV1),
    /// Bit n-1 is signal n.
    SignalFd {
        mask: u64,
    },
    Inotify {
        watches: Vec<InotifyWatchV1>,
    },
    Unix(UnixSocketV1),
    Inet(InetSocketV1),
    Tcp(TcpConnectionV1),
    LostTcp(LostTcpV1),
    Netlink(NetlinkSocketV1),
    Packet(PacketSocketV1),
    Vsock(VsockSocketV1),
    /// A file in /proc/pressure or of a control group with a trigger (since Linux 5.2).
    PressureTrigger {
        inode: InodeId,
        /// What was written to it.
        text: Vec<u8>,
    },
    /// `/proc/PID/ns/NAME`.
    Namespace {
        name: String,
        of: NamespaceOfV1,
    },
    /// Attached to today's object, not to yesterday's.
    Rebind(RebindV1),
    Bus(BusConnectionV1),
    PidFd(PidFdV1),
    /// An io_uring ring, which is an object because it is mapped too.
    Ring {
        ring: InodeId,
    },
    Inhibitor(InhibitorV1),
    Fanotify(FanotifyV1),
}

impl FileKindV1 {
    /// Of an epoll set; nothing else has any.
    pub fn watches(&self) -> &[EpollWatchV1] {
        match self {
            Self::Epoll { watches, .. } => watches,
            _ => &[],
        }
    }
}

/// Whose namespace a descriptor refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NamespaceOfV1 {
    /// The tree's own.
    Tree,
    /// That of PID 1.
    Init,
}

/// Ends that belong to the new boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RebindV1 {
    /// A stream to journald that systemd made for stdout or stderr: the shim's own descriptor 1 or
    /// 2 takes its place.
    JournalStream { stdio: i32 },
    /// A pidfd of PID 1, which is systemd in every boot.
    Init,
    /// A socket that systemd holds too and passes as `LISTEN_FDS`; matched by address.
    Activation { address: Vec<u8>, socket_type: i32, name: Option<String> },
}

/// `pidfd_open(2)`. PIDFD_NONBLOCK and PIDFD_THREAD are O_NONBLOCK and O_EXCL among the flags of
/// the description.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PidFdV1 {
    /// A process of the tree, living or not yet waited for; a thread with PIDFD_THREAD.
    Task { pid: Pid },
    /// One that has ended and been waited for; `status` as waitpid(2) gave it, where the kernel
    /// still tells it (since Linux 6.15).
    Reaped { status: Option<i32> },
}

/// Which end of a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PipeEnd {
    Read,
    Write,
    /// One description for both directions (O_RDWR through /proc/self/fd).
    Both,
}

/// A pipe, anonymous or behind a named FIFO.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipeV1 {
    /// F_GETPIPE_SZ, bytes.
    pub capacity_bytes: u32,
    /// Unread bytes.
    pub data: Vec<u8>,
    /// Lengths of the packets that `data` consists of (pipe2(2), O_DIRECT); empty for a stream.
    pub packets: Vec<u32>,
    /// The named FIFO that it is opened through.
    pub fifo: Option<InodeId>,
    /// A FIFO whose readers have seen the last writer go.
    pub hung_up: bool,
    pub node: NodeV1,
}

/// How an epoll set polls network devices itself (EPIOCSPARAMS, since Linux 6.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BusyPollV1 {
    pub usecs: u32,
    pub budget: u16,
    pub prefer: bool,
}

/// One entry of an epoll set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpollWatchV1 {
    /// The description that is watched.
    pub file: FileId,
    /// The descriptor number it was registered under.
    pub fd: TargetFd,
    /// EPOLLIN …, EPOLLET, EPOLLONESHOT, EPOLLEXCLUSIVE.
    pub events: u32,
    pub data: u64,
}

impl EpollWatchV1 {
    /// A watch for one event (EPOLLONESHOT) that has had it: nothing is reported until it is armed
    /// again.
    pub fn is_spent(&self) -> bool {
        const HOW: u32 = (libc::EPOLLONESHOT | libc::EPOLLET | libc::EPOLLWAKEUP) as u32;
        self.events & libc::EPOLLONESHOT as u32 != 0 && self.events & !HOW == 0
    }
}

/// `timerfd_create(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimerFdV1 {
    pub clock_id: i32,
    /// TFD_TIMER_ABSTIME 1, TFD_TIMER_CANCEL_ON_SET 2.
    pub settime_flags: i32,
    /// Expirations not yet read.
    pub ticks: u64,
    /// 0 is disarmed.
    pub remaining_ns: u64,
    pub interval_ns: u64,
}

/// `inotify_add_watch(2)`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InotifyWatchV1 {
    pub wd: i32,
    pub path: RawPath,
    pub mask: u32,
}

/// `fanotify_init(2)`, of the class that is only notified (FAN_CLASS_NOTIF).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FanotifyV1 {
    /// FAN_CLOEXEC, FAN_NONBLOCK, FAN_UNLIMITED_*, FAN_REPORT_*.
    pub flags: u32,
    /// O_RDONLY …, of the descriptors that events come with.
    pub event_flags: u32,
    pub marks: Vec<FanotifyMarkV1>,
}

/// `fanotify_mark(2)`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FanotifyMarkV1 {
    /// FAN_MARK_INODE 0, FAN_MARK_MOUNT 0x10, FAN_MARK_FILESYSTEM 0x100.
    pub kind: u32,
    /// The inode, or the root of the mount or of one of the file system.
    pub path: RawPath,
    /// FAN_MARK_IGNORED_SURV_MODIFY 0x40, FAN_MARK_EVICTABLE 0x200, FAN_MARK_IGNORE 0x400.
    pub flags: u32,
    pub mask: u64,
    pub ignored_mask: u64,
}

/// A file system object or memory object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InodeV1 {
    pub id: InodeId,
    pub kind: InodeKindV1,
    /// `st_mode`.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub len_bytes: u64,
    /// For device nodes.
    pub rdev: u64,
    /// Of files whose content travels; nanoseconds since 1970.
    pub mtime_ns: i64,
    /// The same.
    pub atime_ns: i64,
    /// Of files that are made again; access control lists are among them.
    pub xattrs: XattrsV1,
    /// Content that travels in the image; holes are left out. Empty for [`InodeKindV1::Path`].
    pub content: Vec<ContentRunV1>,
}

/// Where an object comes from at the restore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InodeKindV1 {
    /// Opened by path; must be there. Covers files, directories, devices, named FIFOs, sockets
    /// opened with O_PATH.
    Path { path: RawPath },
    /// On a volatile file system: made again with content if it is not there, overwritten if it is.
    Volatile { path: RawPath },
    /// Below the /proc directory of the process that has it open; opened by that process itself.
    OfProcess { path: RawPath },
    /// The name it was opened by is gone, but it has another one.
    Renamed { was: RawPath, path: RawPath },
    /// Unlinked while open or mapped: made again as a nameless file in the directory of `path`, or
    /// as a memfd.
    Deleted { path: RawPath },
    /// `memfd_create(2)`; flags MFD_*, seals F_SEAL_*.
    Memfd { name: Vec<u8>, flags: u32, seals: u32 },
    /// MAP_SHARED | MAP_ANONYMOUS.
    SharedAnon,
    /// System V shared memory; mapped as a whole only.
    Segment(SegmentV1),
    /// `io_uring_setup(2)`.
    Ring(RingV1),
}

/// `shmget(2)`. Its length is that of the inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentV1 {
    pub id: i32,
    /// 0 is IPC_PRIVATE.
    pub key: i32,
    /// Permissions.
    pub mode: u32,
    /// IPC_RMID was called: it ends with the last who has it attached.
    pub removed: bool,
    /// SHM_LOCK was called.
    pub locked: bool,
    pub uid: u32,
    pub gid: u32,
    pub creator_uid: u32,
    pub creator_gid: u32,
}

/// Consecutive pages of a file and where the image holds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentRunV1 {
    /// Multiple of the page size.
    pub file_offset: u64,
    pub pages: u32,
    pub image_offset: u64,
}

/// In place of a type of socket where systemd passes a named FIFO (`ListenFIFO=`).
pub const FIFO: i32 = 0;
