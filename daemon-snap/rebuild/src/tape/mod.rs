//! The tape: the last step of a restore, in which a process replaces its own address space while it
//! runs.
//!
//! Everything that is left to do is compiled into a flat table of system calls ([`op::Op`]) and
//! copied, with an interpreter of a few dozen instructions, into an area that no recorded mapping
//! uses. No ptrace, no stack, no libc.
//!
//! Sequence of a process, each step because the next one needs it:
//!  1. create the recorded threads: their ids must exist before helper threads of the kernel
//!     (io_uring) could take them
//!  2. move vDSO and its data pages aside, unmap everything but the area, move them to the recorded
//!     addresses
//!  3. map all VMAs writable where pages follow, load pages or wait until the worker has written
//!     them, lead what libraries ask for their process id to another answer, protect, advise
//!  4. `PR_SET_MM_MAP` (the old executable must be unmapped), close our descriptors but the two of
//!     the barrier, release the threads
//!  5. per thread: tid address, robust list, rseq, FS/GS, name, scheduling, credentials (need
//!     privilege themselves, and nothing after them does), pending signals
//!  6. limits, MDWE (after the last mprotect); signals of the process
//!  7. report ready; wait for the go of the whole unit
//!  8. timers; limits on signals and processes (what is there may be more); close the last two descriptors; seccomp filters by a helper thread that kept its
//!     privilege where they need one (TSYNC reaches the threads that gave theirs up)
//!  9. dumpable: others of the same user may look into the process from here on, so no descriptor
//!     and no thread of ours with another privilege may be left in it
//! 10. let the other threads go; unmap the tape; `rt_sigreturn`
//!
//! What stays behind of the tape is read-only, begins with [`snap_sys::leftover::MAGIC`] and is named
//! `fastboot`: interpreter, a signal frame per thread, filter programs if there are any. One page
//! for a process with one thread. The page of [`Reseed`] is another matter: it belongs to the process
//! from then on. What may not live here: decisions that need the outside world.
//! Those belong to `rebuild`.

mod area;
mod assembly;
mod bpf;
mod compile;
mod creds;
mod env;
mod finish;
mod inherited;
mod late;
mod memory;
mod op;
mod pages;
mod reseed;
mod sequence;
mod thread;
mod vacancy;

#[cfg(target_arch = "x86_64")]
mod x86_64;

pub use bpf::allows;
pub use compile::{Compiled, compile};
pub use env::{Duties, Objects, OwnFds, ProcessNow, Reseed, TapeEnv, TidMode, VdsoPart, VdsoPlace};
pub use inherited::{
    Inherited, can_be_inherited, is_alike, overlay, part_of, prot_in_place, push as push_run, split,
    without_equal,
};
pub use op::{OP_BYTES, Record, RecordKind, Step, code_of, reason_of, step_at};
pub use pages::{by_areas, chunks};
pub use x86_64::answer_key;
