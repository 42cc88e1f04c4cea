//! A thread: registers, signal state, credentials, scheduling.

use super::check::{Around, MAX_COMM_BYTES, Result, USER_END, check};
use super::{Addr, FilterId, Pid, TargetFd};
use serde::{Deserialize, Serialize};

/// One thread. Every field is per thread in the kernel too (`task_struct`, `cred`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ThreadV1 {
    pub tid: Pid,
    /// At most 15 bytes.
    pub comm: Vec<u8>,
    /// Already rewound: an interrupted system call is repeated or returns -EINTR.
    pub regs: RegsV1,
    /// `NT_X86_XSTATE` as `PTRACE_GETREGSET` gives it (standard XSAVE format).
    pub xstate: Vec<u8>,
    pub sigmask: u64,
    pub altstack: AltStackV1,
    pub pending: Vec<SigInfoV1>,
    pub rseq: Option<RseqV1>,
    /// `set_robust_list(2)`: head and length; length 0 when none.
    pub robust_list: (Addr, u64),
    /// `set_tid_address(2)`; 0 when none.
    pub tid_address: Addr,
    pub pdeath_signal: i32,
    pub timer_slack_ns: u64,
    pub creds: CredsV1,
    pub sched: SchedV1,
    /// CPU mask, little-endian words.
    pub affinity: Vec<u64>,
    pub no_new_privs: bool,
    /// Outermost (installed first) to innermost. Filters that the restoring side has as well are
    /// not listed.
    pub seccomp: Vec<(FilterId, SeccompFlags)>,
    /// Numbers under which the thread has registered io_uring rings (IORING_REGISTER_RING_FDS), and
    /// a descriptor of each ring.
    pub ring_numbers: Vec<(u32, TargetFd)>,
    pub control: ThreadControlV1,
}

/// What only prctl(2) and arch_prctl(2) set, per thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadControlV1 {
    /// PR_TSC_SIGSEGV: reading the time stamp counter is an error.
    pub tsc_faults: bool,
    /// ARCH_SET_CPUID 0: `cpuid` is an error.
    pub cpuid_faults: bool,
    /// PR_MCE_KILL_GET: LATE 0, EARLY 1, DEFAULT 2.
    pub memory_failure: u32,
    /// PR_SET_IO_FLUSHER (since Linux 5.6).
    pub io_flusher: bool,
    /// PR_GET_SPECULATION_CTRL for store bypass, indirect branches, flushing of L1D; `None` where
    /// nothing can be set.
    pub speculation: [Option<u32>; 3],
}

impl Default for ThreadControlV1 {
    /// That of a thread that has asked for nothing.
    fn default() -> Self {
        Self {
            tsc_faults: false,
            cpuid_faults: false,
            memory_failure: MEMORY_FAILURE_DEFAULT,
            io_flusher: false,
            speculation: [None; 3],
        }
    }
}

/// PR_MCE_KILL_DEFAULT
pub const MEMORY_FAILURE_DEFAULT: u32 = 2;

/// `SECCOMP_FILTER_FLAG_*` that belong to a filter (only LOG so far).
pub type SeccompFlags = u32;

/// `struct user_regs_struct` of x86-64 without orig_rax.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegsV1 {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rip: u64,
    pub cs: u64,
    pub eflags: u64,
    pub rsp: u64,
    pub ss: u64,
    pub fs_base: u64,
    pub gs_base: u64,
}

/// `sigaltstack(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AltStackV1 {
    pub sp: Addr,
    pub flags: i32,
    pub len_bytes: u64,
}

/// `struct rseq` registration (`PTRACE_GET_RSEQ_CONFIGURATION`, since Linux 5.13).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RseqV1 {
    pub addr: Addr,
    pub len_bytes: u32,
    pub signature: u32,
}

/// A queued signal: the 128 bytes of `siginfo_t` as `PTRACE_PEEKSIGINFO` gives them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigInfoV1(pub Vec<u8>);

/// Credentials of one thread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredsV1 {
    /// Real, effective, saved, file system.
    pub uids: [u32; 4],
    pub gids: [u32; 4],
    pub groups: Vec<u32>,
    pub cap_inheritable: u64,
    pub cap_permitted: u64,
    pub cap_effective: u64,
    pub cap_bounding: u64,
    pub cap_ambient: u64,
    /// `PR_GET_SECUREBITS`, keepcaps included.
    pub securebits: u32,
}

/// `sched_getattr(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchedV1 {
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime_ns: u64,
    pub deadline_ns: u64,
    pub period_ns: u64,
    /// `ioprio_get(2)` value.
    pub ioprio: u32,
}

/// A classic BPF program: `struct sock_filter` array, 8 bytes an instruction.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SeccompFilterV1 {
    pub program: Vec<u8>,
}

const SIGINFO_BYTES: usize = 128;
const FILTER_INSTRUCTION_BYTES: usize = 8;

impl SigInfoV1 {
    pub(crate) fn is_whole(&self) -> bool {
        self.0.len() == SIGINFO_BYTES
    }
}

impl ThreadV1 {
    pub(crate) fn check(&self, around: &Around<'_>) -> Result<()> {
        check(self.pending.iter().all(SigInfoV1::is_whole), "a signal of wrong length")?;
        let known = self.seccomp.iter().all(|(id, _)| around.has_filter(*id));
        check(known, "a seccomp filter out of range")?;
        check(self.comm.len() <= MAX_COMM_BYTES, "a thread name too long")?;
        // Nothing of the kernel's half may come out of an image.
        check(self.regs.rip < USER_END && self.regs.fs_base < USER_END, "registers outside user space")
    }
}

impl SeccompFilterV1 {
    pub(crate) fn check(&self) -> Result<()> {
        let len = self.program.len();
        check(len > 0 && len.is_multiple_of(FILTER_INSTRUCTION_BYTES), "a seccomp filter of odd length")
    }
}
