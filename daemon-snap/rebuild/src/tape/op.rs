//! The flat table of system calls: layout shared with the interpreter, and the builder.

use image_store::ReasonCode;
use std::mem::{offset_of, size_of};

/// How the result of a system call is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Exactly this value.
    Exactly(i64),
    /// Not an error.
    Success,
    /// Whatever it is.
    Anything,
}

/// One row of the tape. 104 bytes; offsets are known to the interpreter.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Op {
    kind: u32,
    label: u32,
    number: u64,
    args: [u64; 6],
    expected: i64,
    on_ok: u64,
    on_bad: u64,
    mode: u64,
    child: u64,
}

const _: () = assert!(size_of::<Op>() == 104);
const _: () =
    assert!(offset_of!(Op, args) == 16 && offset_of!(Op, expected) == 64 && offset_of!(Op, on_ok) == 72);
const _: () =
    assert!(offset_of!(Op, on_bad) == 80 && offset_of!(Op, mode) == 88 && offset_of!(Op, child) == 96);

/// Bytes of an [`Op`].
pub const OP_BYTES: u64 = size_of::<Op>() as u64;

const KIND_SYSCALL: u32 = 0;
const KIND_CLONE: u32 = 1;
const KIND_WAIT: u32 = 2;
const KIND_POST: u32 = 3;
const KIND_SIGRETURN: u32 = 4;
const KIND_STORE: u32 = 5;

impl Op {
    const fn empty(kind: u32, step: Step) -> Self {
        Self {
            kind,
            label: step as u32,
            number: 0,
            args: [0; 6],
            expected: 0,
            on_ok: 0,
            on_bad: 0,
            mode: 0,
            child: 0,
        }
    }

    /// A system call with up to six arguments.
    pub fn syscall(step: Step, number: i64, args: &[u64], want: Want) -> Self {
        let mut op = Self::empty(KIND_SYSCALL, step);
        op.number = number as u64;
        op.args[..args.len()].copy_from_slice(args);
        op.judge(want)
    }

    /// `clone3` with CLONE_VM: the child continues at the tape of the context at `child`.
    pub fn clone(clone_args: u64, clone_args_len: u64, child: u64, want: Want) -> Self {
        let mut op = Self::empty(KIND_CLONE, Step::CloneThread);
        op.number = libc::SYS_clone3 as u64;
        op.args[..2].copy_from_slice(&[clone_args, clone_args_len]);
        op.child = child;
        op.judge(want)
    }

    /// Waits until the 32-bit word at `word` is at least `value`; `timeout` is the address of a
    /// timespec.
    pub fn wait_at_least(step: Step, word: u64, value: u32, timeout: u64) -> Self {
        let mut op = Self::empty(KIND_WAIT, step);
        op.args[..3].copy_from_slice(&[word, u64::from(value), timeout]);
        op
    }

    /// Adds one to the word, wakes all waiters, continues at `next` without touching this op again.
    pub fn post(word: u64, next: u64) -> Self {
        let mut op = Self::empty(KIND_POST, Step::Post);
        op.args[0] = word;
        op.on_ok = next;
        op
    }

    /// Writes a word to `place`, which is mapped writable.
    pub fn store(step: Step, place: u64, word: u64) -> Self {
        let mut op = Self::empty(KIND_STORE, step);
        op.args[..2].copy_from_slice(&[place, word]);
        op
    }

    /// `rt_sigreturn` into the frame of the thread's context.
    pub fn sigreturn() -> Self {
        Self::empty(KIND_SIGRETURN, Step::Sigreturn)
    }

    /// Where to continue when the result is as wanted (default: the next op).
    pub fn then(mut self, target: u64) -> Self {
        self.on_ok = target;
        self
    }

    /// Where to continue when it is not (default: the attempt fails).
    pub fn or_else(mut self, target: u64) -> Self {
        self.on_bad = target;
        self
    }

    fn judge(mut self, want: Want) -> Self {
        match want {
            Want::Exactly(value) => (self.mode, self.expected) = (0, value),
            Want::Success => self.mode = 1,
            Want::Anything => self.mode = 2,
        }
        self
    }

    /// The bytes as the interpreter reads them.
    pub fn bytes(&self) -> [u8; size_of::<Op>()] {
        let mut out = [0; size_of::<Op>()];
        out[0..4].copy_from_slice(&self.kind.to_ne_bytes());
        out[4..8].copy_from_slice(&self.label.to_ne_bytes());
        out[8..16].copy_from_slice(&self.number.to_ne_bytes());
        for (i, arg) in self.args.iter().enumerate() {
            out[16 + i * 8..24 + i * 8].copy_from_slice(&arg.to_ne_bytes());
        }
        out[64..72].copy_from_slice(&self.expected.to_ne_bytes());
        for (i, word) in [self.on_ok, self.on_bad, self.mode, self.child].iter().enumerate() {
            out[72 + i * 8..80 + i * 8].copy_from_slice(&word.to_ne_bytes());
        }
        out
    }
}

/// What the step is for whose row has these bytes, if it is one and the thread is in the system call
/// that it makes.
pub fn step_at(row: &[u8], system_call: i64) -> Option<&'static str> {
    let word = |at: usize| row.get(at..at + 4).and_then(|word| word.try_into().ok()).map(u32::from_ne_bytes);
    let number = match word(0)? {
        KIND_SYSCALL | KIND_CLONE => i64::from(word(8)?),
        KIND_WAIT | KIND_POST => libc::SYS_futex,
        _ => return None,
    };
    (number == system_call).then(|| Step::text(u64::from(word(4).unwrap_or(u32::MAX))))
}

macro_rules! steps {
    ($($name:ident => $text:literal),+ $(,)?) => {
        /// What an op is for; travels in its label so that a failure can be named by another
        /// process.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Step { $($name),+ }

        impl Step {
            /// The sentence part for messages.
            pub fn text(label: u64) -> &'static str {
                const TEXTS: &[&str] = &[$($text),+];
                TEXTS.get(label as usize).copied().unwrap_or("an unknown step")
            }
        }
    };
}

steps! {
    CloneThread => "creating a thread",
    CheckTid => "checking a thread id",
    WantTid => "asking for a thread id",
    Announce => "saying that the process exists",
    LateFd => "receiving a descriptor of a process",
    ParkVdso => "moving the vDSO aside",
    UnmapOld => "unmapping the restorer",
    MoveVdso => "moving the vDSO",
    Map => "mapping memory",
    ReadPages => "reading pages",
    WaitPages => "waiting for the pages",
    Protect => "protecting memory",
    Reseed => "having libraries seed themselves again",
    Advise => "advising memory",
    Lock => "locking memory",
    NameMemory => "naming memory",
    Guard => "installing guard pages",
    Seal => "sealing memory",
    LockFuture => "locking future memory",
    MergeMemory => "setting memory merging",
    SetMm => "setting the memory layout (PR_SET_MM_MAP)",
    Post => "waking threads",
    WaitMapped => "waiting for the memory",
    WaitThreads => "waiting for the threads",
    WaitGo => "waiting for the other threads to be ready",
    WaitFilters => "waiting for the seccomp filters",
    TidAddress => "set_tid_address",
    RobustList => "set_robust_list",
    Rseq => "registering rseq",
    FsBase => "setting the FS base",
    GsBase => "setting the GS base",
    Comm => "setting a thread's name",
    Scheduler => "setting the scheduling policy",
    Affinity => "setting the CPU affinity",
    IoPriority => "setting the I/O priority",
    TimerSlack => "setting the timer slack",
    MemoryFailure => "setting what a memory failure does (PR_MCE_KILL)",
    IoFlusher => "setting PR_SET_IO_FLUSHER",
    Speculation => "setting speculation (PR_SET_SPECULATION_CTRL)",
    TimeStampCounter => "forbidding the time stamp counter (PR_SET_TSC)",
    CpuIdentity => "forbidding cpuid (ARCH_SET_CPUID)",
    Tiles => "asking for AMX tiles (ARCH_REQ_XCOMP_PERM)",
    PendingSignal => "queueing a pending signal",
    RingNumber => "registering an io_uring ring under a number",
    BoundingSet => "dropping from the capability bounding set",
    Securebits => "setting securebits",
    Groups => "setting supplementary groups",
    Gid => "setting group ids",
    Uid => "setting user ids",
    Capabilities => "setting capabilities",
    Ambient => "setting ambient capabilities",
    NoNewPrivs => "setting no_new_privs",
    Profile => "changing to the AppArmor profile",
    ParentDeath => "setting the parent death signal",
    Rlimit => "setting a resource limit",
    Membarrier => "registering for membarrier",
    Personality => "setting the personality",
    Dumpable => "setting dumpable",
    Mdwe => "setting memory-deny-write-execute",
    ThpDisable => "setting THP disable",
    Subreaper => "setting child subreaper",
    FileLock => "taking a file lock",
    StopTold => "waiting for a child's stop that it was told of",
    Ready => "reporting ready",
    Go => "waiting for the go",
    IntervalTimer => "setting an interval timer",
    PosixTimer => "creating a POSIX timer",
    CloseFds => "closing the restorer's descriptors",
    UnmapTape => "unmapping the tape",
    Seccomp => "installing a seccomp filter",
    ExitHelper => "ending the helper thread",
    Sigreturn => "returning into the daemon",
}

/// Per-thread data of the interpreter. Offsets are known to it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// Address of the first op.
    pub tape: u64,
    /// Address of the signal frame.
    pub frame: u64,
    /// Descriptor for the failure record.
    pub status_fd: u64,
    /// Sent as it is; label and result are filled in by the interpreter.
    pub record: Record,
}

const _: () = assert!(offset_of!(Context, record) == 24 && size_of::<Record>() == 256);
const _: () = assert!(offset_of!(Record, label) == 8 && offset_of!(Record, result) == 16);

impl Context {
    /// The bytes as the interpreter reads them.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(size_of::<Self>());
        for word in [self.tape, self.frame, self.status_fd] {
            out.extend_from_slice(&word.to_ne_bytes());
        }
        out.extend_from_slice(&self.record.bytes());
        out
    }
}

/// A message from a process under construction to its restore worker. Written at once, so never
/// torn (below PIPE_BUF).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Record {
    pub kind: RecordKindRaw,
    pub pid: i32,
    pub label: u64,
    pub result: i64,
    /// NUL-padded UTF-8.
    pub text: [u8; 232],
}

type RecordKindRaw = u32;

/// What a [`Record`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum RecordKind {
    /// An op had another result than wanted.
    TapeFailed = 1,
    /// A rebuild step before the tape failed; `text` says which, `result` why ([`reason_of`]).
    RebuildFailed = 2,
    /// Everything but the last steps is done; the process waits for the go.
    Ready = 3,
    /// Please make `result` the next thread id to be given out.
    WantTid = 4,
    /// The process and its threads exist.
    Exists = 6,
    /// All memory is mapped; the process waits for its pages.
    Mapped = 7,
    /// The thread exists; ids may be given out from where they were again.
    TidTaken = 5,
}

/// A reason in the `result` of a [`RecordKind::RebuildFailed`]. Both ends are the same program.
pub fn code_of(reason: ReasonCode) -> i64 {
    ReasonCode::ALL.iter().position(|code| *code == reason).map_or(0, |index| index as i64 + 1)
}

/// The reason again; `None` for a failure that is not about today's machine.
pub fn reason_of(result: i64) -> Option<ReasonCode> {
    ReasonCode::ALL.get(usize::try_from(result - 1).ok()?).copied()
}

impl Record {
    /// Bytes on the pipe.
    pub const BYTES: usize = 256;

    /// A record without text.
    pub fn new(kind: RecordKind, pid: i32, result: i64) -> Self {
        Self { kind: kind as u32, pid, label: 0, result, text: [0; 232] }
    }

    /// The same with a text, cut to fit.
    pub fn with_text(mut self, text: &str) -> Self {
        let mut len = text.len().min(self.text.len());
        while !text.is_char_boundary(len) {
            len -= 1;
        }
        self.text[..len].copy_from_slice(&text.as_bytes()[..len]);
        self
    }

    /// As written to the pipe.
    pub fn bytes(&self) -> [u8; Self::BYTES] {
        let mut out = [0; Self::BYTES];
        out[0..4].copy_from_slice(&self.kind.to_ne_bytes());
        out[4..8].copy_from_slice(&self.pid.to_ne_bytes());
        out[8..16].copy_from_slice(&self.label.to_ne_bytes());
        out[16..24].copy_from_slice(&self.result.to_ne_bytes());
        out[24..].copy_from_slice(&self.text);
        out
    }

    /// As read from the pipe.
    pub fn parse(bytes: &[u8; Self::BYTES]) -> Self {
        let word = |at: usize| <[u8; 8]>::try_from(&bytes[at..at + 8]).unwrap_or_default();
        let half = |at: usize| <[u8; 4]>::try_from(&bytes[at..at + 4]).unwrap_or_default();
        let mut text = [0; 232];
        text.copy_from_slice(&bytes[24..]);
        Self {
            kind: u32::from_ne_bytes(half(0)),
            pid: i32::from_ne_bytes(half(4)),
            label: u64::from_ne_bytes(word(8)),
            result: i64::from_ne_bytes(word(16)),
            text,
        }
    }

    /// The text without padding.
    pub fn text(&self) -> String {
        let len = self.text.iter().position(|b| *b == 0).unwrap_or(self.text.len());
        String::from_utf8_lossy(&self.text[..len]).into_owned()
    }
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Record({} pid {} {} {} {:?})", self.kind, self.pid, self.label, self.result, self.text())
    }
}
