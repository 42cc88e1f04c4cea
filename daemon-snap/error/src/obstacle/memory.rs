//! Mappings, and System V objects.

coded! {
    /// Memory that cannot be mapped again as it is.
    MemoryObstacle {
        "hugetlb" stays Hugetlb: "hugetlb memory";
        "userfaultfd-registered" stays UserfaultfdRegistered: "registered with a userfaultfd";
        "shadow-stack-memory" stays ShadowStack: "a shadow stack";
        "device-memory" stays Device: "device memory";
        "synchronous-faults" stays SynchronousFaults: "memory with synchronous faults (MAP_SYNC)";
        "mapping-flag-unknown" stays UnknownFlag { flag: String }:
            "memory with an attribute that is not known ({flag})";
        "protection-key" stays ProtectionKey { key: u32 }: "memory with protection key {key}";
        "numa-policy" stays NumaPolicy { policy: String }: "memory with a NUMA policy ({policy})";
        "uprobe-area" stays Uprobes: "a uprobe area";
        "breakpoint" passes Breakpoint: "a breakpoint of a debugger or of a probe in its program text";
        "aio-ring" stays AioRing: "an AIO ring";
        "secret-memory" stays Secret: "secret memory (memfd_secret)";
        "anonymous-inode-mapped" stays AnonymousInode { name: String }: "a mapping of {name}";
        "ring-closed" stays ClosedRing: "memory of an io_uring ring of which no descriptor is open";
        "ring-address-limit" stays RingUnderLimit:
            "a mapped io_uring ring under a limit on address space (RLIMIT_AS)";
        "sysv-segment-part" stays PartOfSegment { shmid: i32 }:
            "a part of a SysV shared memory segment (shmid {shmid})";
        "sysv-segment-shared" stays SegmentOfOthers { shmid: i32 }:
            "a SysV shared memory segment that others have attached too (shmid {shmid})";
        "sysv-segment-unattached" stays UnattachedSegment { shmid: i32 }:
            "a SysV shared memory segment that it made and only others have attached (shmid {shmid})";
        "sysv-segment-foreign" stays ForeignSegment { name: String }:
            "a SysV shared memory segment of another IPC namespace ({name})";
        "sysv-queue" stays QueueOfOthers { msqid: i32 }:
            "a SysV message queue that others use too (msqid {msqid})";
        "sysv-queue-untold" stays QueueUntold { msqid: i32 }:
            "a SysV message queue whose messages the kernel does not tell (msqid {msqid})";
        "sysv-semaphores" stays SemaphoresOfOthers { semid: i32 }:
            "SysV semaphores that others use too (semid {semid})";
        "sysv-unclear" stays MayBeOfOthers { object: &'static str, id: i32 }:
            "a SysV {object} that nobody uses and that other processes of its user may have made ({id})";
        "sysv-undo" stays UndoOfOthers { semid: i32 }:
            "operations to undo on SysV semaphores that others use too (semid {semid})";
    }
}
