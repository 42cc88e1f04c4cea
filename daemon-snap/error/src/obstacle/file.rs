//! Files: what they are, and whether their path leads to them.

use snap_state::{Pid, RawPath};

coded! {
    /// A file that cannot be opened again as it is.
    FileObstacle {
        "executable-deleted" stays ExecutableDeleted: "an executable that has been deleted";
        "hugetlb-file" stays Hugetlb { path: RawPath }: "hugetlb memory ({path})";
        "kernel-file" stays KernelFile { file_system: &'static str, path: RawPath }:
            "a {file_system} file ({path})";
        "queue-notifies" stays QueueNotifies { path: RawPath }:
            "a POSIX message queue that notifies a process (mq_notify) of what the kernel does not tell ({path})";
        "queue-of-others" stays QueueOfOthers { path: RawPath, by: Pid }:
            "a POSIX message queue that process {by} outside the tree has open too ({path})";
        "no-path" stays NoPath { name: RawPath }: "an object without a path ({name})";
        "other-name-unknown" stays OtherNameUnknown { path: RawPath }:
            "a deleted file that has another name, which is not known ({path})";
        "other-name-volatile" stays OtherNameVolatile { path: RawPath }:
            "a deleted file that has another name on a volatile file system ({path})";
        "file-attribute" stays Attribute { attribute: &'static str, path: RawPath }:
            "a file that would have to be made again and is {attribute} ({path})";
        "deleted-directory" stays DeletedDirectory { path: RawPath }: "a deleted directory ({path})";
        "deleted-fifo" stays DeletedFifo { path: RawPath }: "a deleted FIFO ({path})";
        "deleted-special-file" stays DeletedSpecialFile { path: RawPath }: "a deleted special file ({path})";
        "path-leads-elsewhere" stays PathLeadsElsewhere { path: RawPath }:
            "a file that its path does not lead to ({path})";
        "path-unreachable" stays PathUnreachable { path: RawPath }:
            "a file that cannot be reached by its path ({path})";
        "character-device" stays CharacterDevice { path: RawPath, major: u64, minor: u64 }:
            "a character device ({path}, {major}:{minor})";
        "block-device" stays BlockDevice { path: RawPath, major: u64, minor: u64 }:
            "a block device ({path}, {major}:{minor})";
        "socket-file" stays SocketFile { path: RawPath }: "a socket file ({path})";
        "file-type-unknown" stays UnknownType { path: RawPath }: "a file of unknown type ({path})";
        "proc-of-other-process" stays ProcOfOtherProcess { path: RawPath }:
            "a /proc file of another process ({path})";
        "proc-of-thread" stays ProcOfThread { path: RawPath }: "a /proc file of a thread ({path})";
        "proc-shared" stays ProcShared { path: RawPath }:
            "a /proc file that several processes share ({path})";
        "pressure-trigger" stays PressureTrigger { path: RawPath }:
            "a pressure trigger of which nobody tells the threshold ({path})";
        "lease" stays Lease { path: RawPath }: "a lease on a file ({path})";
        "mapped-file-locked" stays MappedFileLocked { object: String }:
            "a lock of a file that is mapped but not open any more ({object})";
        "dnotify" stays Dnotify: "a directory that is watched by dnotify (F_NOTIFY)";
        "volatile-file-large" stays VolatileFileLarge { len_bytes: u64, most_bytes: u64, path: RawPath }:
            "a file of {len_bytes} bytes (at most {most_bytes}) that nobody has open in a volatile directory ({path})";
        "volatile-files-large" stays VolatileFilesLarge { most_bytes: u64, path: RawPath }:
            "more than {most_bytes} bytes of files that nobody has open in a volatile directory ({path})";
        "volatile-special-file" stays VolatileSpecialFile { path: RawPath }:
            "a special file in a volatile directory ({path})";
        "fifo-held-outside" stays FifoHeldOutside { path: RawPath, by: Pid }:
            "a named FIFO ({path}) that pid {by} outside the tree has open too";
        "fifo-unread" passes FifoUnread: "a FIFO of systemd with unread data";
    }
}
