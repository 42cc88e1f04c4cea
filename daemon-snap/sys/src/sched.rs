//! Scheduling, robust list and I/O priority of another thread, from outside.

use nix::errno::Errno;
use snap_state::{Addr, Pid, SchedV1};

/// `struct sched_attr` with what Linux 5.3 has added; older kernels leave that zero.
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
    util_min: u32,
    util_max: u32,
}
const _: () = assert!(size_of::<SchedAttr>() == 56);

fn get_attributes(tid: Pid) -> Result<SchedAttr, Errno> {
    let mut attr = SchedAttr::default();
    // SAFETY: attr is writable and its size is passed.
    let got =
        unsafe { libc::syscall(libc::SYS_sched_getattr, tid.0, &raw mut attr, size_of::<SchedAttr>(), 0) };
    Errno::result(got).map(|_| attr)
}

/// Whether the thread has asked for a share of its CPU's speed (utilisation clamps,
/// CONFIG_UCLAMP_TASK). Real-time threads have a lower bound that nobody has asked for.
///
/// # Errors
/// `ESRCH` when the thread has ended.
pub fn is_clamped(tid: Pid) -> Result<bool, Errno> {
    const WHOLE: u32 = 1024;
    let attr = get_attributes(tid)?;
    let realtime = [libc::SCHED_FIFO, libc::SCHED_RR].map(|policy| policy as u32).contains(&attr.policy);
    // Both are zero where the kernel has no clamps.
    Ok(attr.util_max != 0 && (attr.util_max != WHOLE || attr.util_min != 0 && !realtime))
}

/// Whether the thread shares a physical core with chosen others only (PR_SCHED_CORE, since Linux
/// 5.14).
pub fn has_core_cookie(tid: Pid) -> bool {
    const PR_SCHED_CORE: i32 = 62;
    const GET: libc::c_ulong = 0;
    const OF_THREAD: libc::c_ulong = 0;
    let mut cookie = 0u64;
    // SAFETY: the cookie is live and of the kernel's size. Kernels without it write nothing.
    unsafe { libc::prctl(PR_SCHED_CORE, GET, tid.0 as libc::c_ulong, OF_THREAD, &raw mut cookie) };
    cookie != 0
}

/// `sched_getattr(2)` and `ioprio_get(2)`.
///
/// # Errors
/// `ESRCH` when the thread has ended.
pub fn attributes(tid: Pid) -> Result<SchedV1, Errno> {
    const IOPRIO_WHO_PROCESS: i32 = 1;
    let attr = get_attributes(tid)?;
    // The kernel tells the nice value here only for policies that use it, but keeps it for the
    // others.
    let nice = nice_value(tid)?;
    // SAFETY: plain system call without pointers.
    let ioprio = Errno::result(unsafe { libc::syscall(libc::SYS_ioprio_get, IOPRIO_WHO_PROCESS, tid.0) })?;
    Ok(SchedV1 {
        policy: attr.policy,
        flags: attr.flags,
        nice,
        priority: attr.priority,
        runtime_ns: attr.runtime,
        deadline_ns: attr.deadline,
        period_ns: attr.period,
        ioprio: ioprio as u32,
    })
}

/// Lowest real-time priority (SCHED_FIFO); 0 is this thread.
///
/// # Errors
/// `EPERM` without CAP_SYS_NICE, `ESRCH` when the thread has ended (`sched_setscheduler(2)`).
pub fn set_realtime(tid: Pid) -> Result<(), Errno> {
    set_policy(tid, libc::SCHED_FIFO, 1)
}

/// SCHED_OTHER; the nice value stays what it was.
///
/// # Errors
/// `ESRCH` when the thread has ended (`sched_setscheduler(2)`).
pub fn set_ordinary(tid: Pid) -> Result<(), Errno> {
    set_policy(tid, libc::SCHED_OTHER, 0)
}

fn set_policy(tid: Pid, policy: i32, priority: i32) -> Result<(), Errno> {
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: parameters is live and of the kernel's type.
    let done = unsafe { libc::sched_setscheduler(tid.0, policy, &raw const parameters) };
    Errno::result(done).map(drop)
}

fn nice_value(tid: Pid) -> Result<i32, Errno> {
    const PRIO_PROCESS: i32 = 0;
    // SAFETY: plain system call without pointers. The bare call returns 20 minus the value, so that
    // it is never negative.
    let raw = Errno::result(unsafe { libc::syscall(libc::SYS_getpriority, PRIO_PROCESS, tid.0) })?;
    Ok(20 - raw as i32)
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
