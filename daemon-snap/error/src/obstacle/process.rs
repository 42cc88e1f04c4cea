//! Processes and threads themselves: their life, what they share, their clocks.

use snap_state::Pid;
use std::fmt;

coded! {
    /// What a process or thread is or does that cannot be carried.
    ProcessObstacle {
        "restore-unfinished" stays RestoreUnfinished: "not come to the end of an earlier restore";
        "vfork-repeated" stays VforkRepeated: "a child in vfork(2) whenever it is looked at";
        "vfork-stuck" stays VforkStuck { child: Pid }:
            "a child in vfork(2) (pid {child}) that neither ends nor executes a program";
        "leader-ended" passes LeaderEnded: "a leader thread that has ended before the others";
        "traced" passes Traced { tracer: Pid }: "a tracer (pid {tracer})";
        "uninterruptible-wait" passes UninterruptibleWait:
            "an uninterruptible wait (a device or file system that hangs)";
        "partly-stopped" passes PartlyStopped: "threads of which some are about to be stopped by a signal";
        "stop-untold" stays StopUntold { signal: i32 }:
            "been stopped by signal {signal}, of which its parent has not been told yet";
        "zombie-of-outside" passes ZombieOfOutside: "ended and not been waited for by its parent (a zombie)";
        "zombie-core-dump" stays ZombieCoreDump { status: i32 }:
            "ended with a core dump and not been waited for (status {status:#x})";
        "zombie-session-leader" stays ZombieSessionLeader { member: Pid }:
            "ended and not been waited for while it leads a session (of pid {member})";
        "too-many-descriptors" stays TooManyDescriptors { needed: u64, most: u64 }:
            "more descriptors open than can be made again ({needed} are needed meanwhile, {most} allowed)";
        "child-in-other-cgroup" stays ChildInOtherCgroup { child: Pid }:
            "a child in another control group (pid {child})";
        "controlling-terminal" stays ControllingTerminal { major: i32, minor: i32 }:
            "a controlling terminal (device {major}:{minor})";
        "shared-resource" stays SharedResource { resource: SharedResource, with: Pid }:
            "the {resource} in common with pid {with}";
        "unshared-resource" stays UnsharedResource { resource: SharedResource }: "a {resource} of its own";
        "personality-differs" stays PersonalityDiffers:
            "a personality(2) that not all threads of its process have";
        "thread-death-signal" stays ThreadDeathSignal { signal: i32 }:
            "signal {signal} to come when a thread of its parent ends that is not the first (PR_SET_PDEATHSIG)";
        "no-room" stays NoRoom { len_bytes: u64 }:
            "no room for {len_bytes} bytes more within its limits of memory (RLIMIT_AS, RLIMIT_DATA)";
        "32-bit-program" stays ThirtyTwoBit: "a 32-bit program";
        "segment-descriptors" stays SegmentDescriptors: "segment descriptors of its own (modify_ldt)";
        "syscall-user-dispatch" stays SyscallUserDispatch: "Syscall User Dispatch";
        "utilisation-clamp" stays UtilisationClamp: "a utilisation clamp (sched_setattr)";
        "core-scheduling" stays CoreScheduling: "a core scheduling cookie (PR_SCHED_CORE)";
        "tagged-addresses" stays TaggedAddresses: "tagged addresses (ARCH_ENABLE_TAGGED_ADDR)";
        "shadow-stack" stays ShadowStack: "a shadow stack";
        "thp-restricted" stays ThpRestricted:
            "transparent huge pages restricted to advised areas (PR_SET_THP_DISABLE)";
        "no-vdso" stays NoVdso: "no vDSO";
        "no-usable-vdso" stays NoUsableVdso: "no usable vDSO";
        "timer-of-its-maker" stays TimerOfMaker { timer: i32 }:
            "a timer on the CPU time of the thread that made it, which the kernel does not name (timer {timer})";
        "timer-of-other-thread" stays TimerOfOtherThread { thread: Pid, timer: i32 }:
            "a timer on the CPU time of thread {thread}, which it does not have (timer {timer})";
        "timer-of-other-process" stays TimerOfOtherProcess { process: Pid, timer: i32 }:
            "a timer on the CPU time of another process (pid {process}) (timer {timer})";
    }
}

/// What fork(2) copies and the threads of one process share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SharedResource {
    AddressSpace,
    Descriptors,
    Directories,
    SignalHandlers,
    /// Adjustments of semaphores that are made when a process ends (CLONE_SYSVSEM).
    SemaphoreUndo,
}

impl fmt::Display for SharedResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AddressSpace => "address space",
            Self::Descriptors => "descriptor table",
            Self::Directories => "working directory, root and umask",
            Self::SignalHandlers => "table of signal handlers",
            Self::SemaphoreUndo => "list of SysV semaphore operations to undo",
        })
    }
}
