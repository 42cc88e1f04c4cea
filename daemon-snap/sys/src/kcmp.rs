//! Whether two processes share a kernel object (kcmp(2), since Linux 3.5).

use nix::errno::Errno;
use snap_state::{Pid, TargetFd};
use std::cmp::Ordering;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Resource {
    Vm = 1,
    Files = 2,
    Fs = 3,
    SigHand = 4,
}

/// `struct kcmp_epoll_slot`.
#[repr(C)]
struct EpollSlot {
    efd: u32,
    tfd: u32,
    toff: u32,
}
const _: () = assert!(size_of::<EpollSlot>() == 12);

const KCMP_FILE: i32 = 0;
const KCMP_EPOLL_TFD: i32 = 7;

/// Orders the objects of two tasks; equal is shared.
///
/// # Errors
/// `ESRCH`, or `EPERM` without ptrace access.
pub fn compare(a: Pid, b: Pid, what: Resource) -> Result<Ordering, Errno> {
    call(a, b, what as i32, 0, 0)
}

/// Orders two open file descriptions.
///
/// # Errors
/// `EBADF`, `ESRCH`, `EPERM`.
pub fn compare_files(a: (Pid, TargetFd), b: (Pid, TargetFd)) -> Result<Ordering, Errno> {
    call(a.0, b.0, KCMP_FILE, a.1.0 as u64, b.1.0 as u64)
}

/// Whether `file` is what the `nth` watch on number `target` in the epoll set `epoll` refers to.
///
/// # Errors
/// `ENOENT` when there is no such watch.
pub fn is_epoll_target(
    file: (Pid, TargetFd),
    epoll: (Pid, TargetFd),
    target: TargetFd,
    nth: u32,
) -> Result<bool, Errno> {
    let slot = EpollSlot { efd: epoll.1.0 as u32, tfd: target.0 as u32, toff: nth };
    let slot: *const EpollSlot = &raw const slot;
    call(file.0, epoll.0, KCMP_EPOLL_TFD, file.1.0 as u64, slot as u64).map(Ordering::is_eq)
}

fn call(a: Pid, b: Pid, kind: i32, x: u64, y: u64) -> Result<Ordering, Errno> {
    // SAFETY: the only pointer that is passed (KCMP_EPOLL_TFD) refers to a live EpollSlot of the
    // caller.
    match Errno::result(unsafe { libc::syscall(libc::SYS_kcmp, a.0, b.0, kind, x, y) })? {
        0 => Ok(Ordering::Equal),
        1 => Ok(Ordering::Less),
        // 2 is greater; 3 is "not equal, order unknown", which no 64-bit kernel returns.
        _ => Ok(Ordering::Greater),
    }
}
