//! Scheduling, robust list and I/O priority of another thread, from outside.

use crate::state::{Addr, Pid, SchedV1};
use nix::errno::Errno;

/// `struct sched_attr` (first published size).
#[repr(C)]
#[derive(Default)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}
const _: () = assert!(size_of::<SchedAttr>() == 48);

/// `sched_getattr(2)` and `ioprio_get(2)`.
///
/// # Errors
/// `ESRCH` when the thread has ended.
pub fn attributes(tid: Pid) -> Result<SchedV1, Errno> {
    const IOPRIO_WHO_PROCESS: i32 = 1;
    let mut attr = SchedAttr::default();
    // SAFETY: attr is writable and its size is passed.
    let got = unsafe { libc::syscall(libc::SYS_sched_getattr, tid.0, &raw mut attr, size_of::<SchedAttr>(), 0) };
    Errno::result(got)?;
    // SAFETY: plain system call without pointers.
    let ioprio = Errno::result(unsafe { libc::syscall(libc::SYS_ioprio_get, IOPRIO_WHO_PROCESS, tid.0) })?;
    Ok(SchedV1 {
        policy: attr.policy,
        flags: attr.flags,
        // Policies without nice report 0 here, yet keep the value (setpriority(2)).
        nice: nice(tid),
        priority: attr.priority,
        runtime_ns: attr.runtime,
        deadline_ns: attr.deadline,
        period_ns: attr.period,
        ioprio: ioprio as u32,
    })
}

/// CPU mask of a thread, little-endian words.
///
/// # Errors
/// `ESRCH` when the thread has ended.
pub fn affinity(tid: Pid) -> Result<Vec<u64>, Errno> {
    let mut mask = vec![0u64; 128];
    // SAFETY: mask is writable for the length that is passed.
    let len = unsafe { libc::syscall(libc::SYS_sched_getaffinity, tid.0, mask.len() * 8, mask.as_mut_ptr()) };
    mask.truncate(Errno::result(len)? as usize / 8);
    Ok(mask)
}

/// Head and length of the robust futex list.
///
/// # Errors
/// `ESRCH` when the thread has ended.
pub fn robust_list(tid: Pid) -> Result<(Addr, u64), Errno> {
    let (mut head, mut len) = (0u64, 0u64);
    // SAFETY: both results are live and of the kernel's size (pointer, size_t).
    let got = unsafe { libc::syscall(libc::SYS_get_robust_list, tid.0, &raw mut head, &raw mut len) };
    Errno::result(got)?;
    Ok((Addr(head), if head == 0 { 0 } else { len }))
}

/// Nice value of a thread; 0 when it is gone.
fn nice(tid: Pid) -> i32 {
    // SAFETY: reads a number. The system call gives 20 - nice, so that errors stay negative.
    let raw = unsafe { libc::syscall(libc::SYS_getpriority, libc::PRIO_PROCESS, tid.0) };
    if raw < 0 { 0 } else { 20 - raw as i32 }
}
