//! Descriptors that are no files: event sources, pidfds, pipes, what logind and systemd hold.

use snap_state::{Pid, RawPath, TargetFd};
use std::fmt;

coded! {
    /// A descriptor that cannot be made again as it is.
    DescriptorObstacle {
        "epoll-untold" stays EpollUntold: "an epoll set of which this kernel does not tell enough";
        "epoll-closed-watch" stays EpollClosedWatch { fd: TargetFd }:
            "an epoll set with a watch on a closed descriptor ({fd})";
        "epoll-foreign-watch" stays EpollForeignWatch { target: RawPath }:
            "an epoll set with a watch on {target} that no process has beside the set";
        "epoll-spent-watch" stays EpollSpentWatch:
            "an epoll set with a watch for one event that has seen the end of a process not yet waited for";
        "eventfd-untold" stays EventfdUntold: "an eventfd of which this kernel does not tell the counter";
        "signalfd-untold" stays SignalfdUntold: "a signalfd of which this kernel does not tell enough";
        "timerfd-untold" stays TimerfdUntold: "a timerfd of which this kernel does not tell enough";
        "inotify-untold" stays InotifyUntold: "an inotify descriptor of which this kernel does not tell enough";
        "inotify-unread" passes InotifyUnread: "an inotify descriptor with unread events";
        "inotify-path-unknown" stays InotifyPathUnknown { inode: u64 }:
            "an inotify watch on a file whose path is not known (inode {inode})";
        "fanotify-mark-unknown" stays FanotifyMarkUnknown:
            "a fanotify group with marks of a kind that is not known";
        "fanotify-permission" stays FanotifyPermission: "a fanotify group that is asked for permission";
        "fanotify-unprivileged" stays FanotifyUnprivileged:
            "a fanotify group of a process without CAP_SYS_ADMIN";
        "fanotify-unread" passes FanotifyUnread: "a fanotify group with unread events";
        "fanotify-path-unknown" stays FanotifyPathUnknown { object: MarkedObject }:
            "a fanotify mark on something whose path is not known ({object})";
        "fanotify-mark-kind" stays FanotifyMarkKind { path: RawPath }:
            "a fanotify mark of a kind that is not known, on {path}";
        "pidfd-untold" stays PidfdUntold: "a pidfd that the kernel does not show";
        "pidfd-core-dump" stays PidfdCoreDump: "a pidfd of a process that has ended with a core dump";
        "pidfd-other-namespace" stays PidfdOtherNamespace: "a pidfd of a process in another PID namespace";
        "pidfd-outside" stays PidfdOutside { process: Pid }:
            "a pidfd of process {process}, which is not of the tree";
        "namespace-descriptor" stays ForeignNamespace { name: RawPath }:
            "a namespace descriptor of a namespace that it is not in ({name})";
        "pipe-held-outside" stays PipeHeldOutside: "a pipe whose other end is held outside the tree";
        "logind-object" stays OfLogind { object: LogindObject, path: RawPath }:
            "{object} of logind ({path}), which ends with the boot";
        "inhibitor-shared" stays InhibitorShared { path: RawPath }:
            "an inhibitor of logind ({path}) that several processes share";
        "inhibitor-unknown" stays InhibitorUnknown { path: RawPath, flaw: InhibitorFlaw }:
            "an inhibitor of logind ({path}) that {flaw}";
        "store-too-large" stays StoreTooLarge { count: usize }:
            "{count} descriptors of the unit in its store, which are too many";
        "store-odd-name" stays StoreOddName { names: String, path: RawPath, odd: String }:
            "a descriptor of the unit in its store (FDNAME={names}, {path}) with an odd name ({odd:?})";
        "store-names-ambiguous" stays StoreNamesAmbiguous { names: String, path: RawPath }:
            "a descriptor of the unit in its store (FDNAME={names}, {path}), and systemd does not tell which has which name";
        "store-ambiguous" stays StoreAmbiguous { names: String, path: RawPath }:
            "a descriptor of the unit in its store (FDNAME={names}, {path}) that cannot be told from others that systemd has open";
        "userfaultfd" stays Userfaultfd: "a userfaultfd";
        "perf-event" stays PerfEvent: "a perf event";
        "ebpf-object" stays Ebpf: "an eBPF object";
        "seccomp-listener" stays SeccompListener: "a seccomp listener";
        "landlock-ruleset" stays LandlockRuleset: "a landlock ruleset";
        "kvm-object" stays Kvm: "a KVM object";
        "dma-buffer" stays DmaBuffer: "a DMA buffer";
        "file-system-context" stays FileSystemContext: "a file system context";
        "descriptor-unknown" stays Unknown { name: RawPath }:
            "a descriptor of a kind that is not known ({name})";
        "epoll-in-flight" stays EpollInFlight: "an epoll set";
        "bus-in-flight" stays BusInFlight: "a D-Bus connection";
        "ring-in-flight" stays RingInFlight: "an io_uring ring";
        "pidfd-in-flight" stays PidfdInFlight: "a pidfd";
        "proc-in-flight" stays ProcInFlight: "a /proc file";
        "locked-in-flight" stays LockedInFlight: "a file with a lock";
    }
}

/// What a mark of a fanotify group is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkedObject {
    Inode(u64),
    Mount(u32),
    FileSystem { device: u32 },
}

impl fmt::Display for MarkedObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inode(inode) => write!(f, "inode {inode}"),
            Self::Mount(id) => write!(f, "mount {id}"),
            Self::FileSystem { device } => write!(f, "file system {}:{}", device >> 20, device & 0xf_ffff),
        }
    }
}

/// What logind takes to be held as long as a FIFO of its own is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogindObject {
    Inhibitor,
    Session,
}

impl fmt::Display for LogindObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inhibitor => "an inhibitor",
            Self::Session => "a session",
        })
    }
}

/// Why an inhibitor cannot be asked for again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InhibitorFlaw {
    Gone,
    AskedForBy(Pid),
    NoteNotUnderstood,
}

impl fmt::Display for InhibitorFlaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("logind knows no more"),
            Self::AskedForBy(pid) => write!(f, "process {pid} asked for"),
            Self::NoteNotUnderstood => f.write_str("is noted in a way that is not known"),
        }
    }
}
