//! How urgent our own work is, for the processor and for the disk.

use std::io;

const IOPRIO_WHO_PROCESS: i32 = 1;
/// `IOPRIO_PRIO_VALUE(IOPRIO_CLASS_IDLE, 0)`, `ioprio_set(2)`. The schedulers mq-deadline and bfq
/// know it.
const IOPRIO_IDLE: i32 = 3 << 13;

/// The calling thread runs and reads only when nobody else wants to: `SCHED_IDLE`, I/O class idle.
///
/// # Errors
/// From `sched_setscheduler(2)` or `ioprio_set(2)`; neither needs a privilege.
pub fn become_idle() -> io::Result<()> {
    // SAFETY: sched_param is plain data, for which all zero bits are valid.
    let parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: the parameters outlive the call; 0 is the calling thread.
    check(unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) }.into())?;
    // SAFETY: takes three integers; 0 is the calling thread.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_IDLE) })
}

/// Nice value of the calling thread and of those that it makes.
///
/// # Errors
/// EACCES for a lower value than now, without CAP_SYS_NICE.
pub fn set_nice(nice: i32) -> io::Result<()> {
    // SAFETY: takes three integers; 0 is the calling thread.
    check(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) }.into())
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
