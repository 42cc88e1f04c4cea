//! Whether two processes share a kernel object (kcmp(2), since Linux 3.5).

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;
use snap_state::{Pid, TargetFd};
use std::cmp::Ordering;
use std::io;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Resource {
    Vm = 1,
    Files = 2,
    Fs = 3,
    SigHand = 4,
    /// Of tasks that have one: compare with [`without_undo`].
    SemaphoreUndo = 6,
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

/// Tasks without a list of semaphore operations to undo, among `tasks`. (A process with several
/// threads always has one, which may be empty.)
///
/// # Errors
/// As [`compare`], and those of a new thread.
pub fn without_undo(tasks: &[Pid]) -> io::Result<Vec<Pid>> {
    let look = || {
        // A new thread has its process's list until it says that it wants none.
        unshare(CloneFlags::CLONE_SYSVSEM)?;
        let own = Pid(gettid().as_raw());
        let mut without = Vec::new();
        for task in tasks {
            if compare(own, *task, Resource::SemaphoreUndo)?.is_eq() {
                without.push(*task);
            }
        }
        Ok(without)
    };
    std::thread::scope(|scope| {
        scope.spawn(look).join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
    })
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
