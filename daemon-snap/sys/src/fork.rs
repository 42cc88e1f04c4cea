//! Creating processes with chosen ids (clone3(2), `set_tid` since Linux 5.5, CLONE_INTO_CGROUP
//! since Linux 5.7).

use nix::errno::Errno;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};

#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const _: () = assert!(size_of::<CloneArgs>() == 88);

/// Which side of [`fork`] this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Child,
    Parent { child: i32 },
}

/// Like fork(2), with the child's id, its exit signal (0: none is sent) and its cgroup chosen.
/// Must be called in a process with one thread: the child goes on with a copy of its memory.
///
/// # Errors
/// `EEXIST`: the id is taken. `EPERM`: no CAP_CHECKPOINT_RESTORE where the PID namespace was made.
pub fn fork(pid: Option<i32>, exit_signal: i32, cgroup: Option<BorrowedFd<'_>>) -> Result<Side, Errno> {
    create(pid, exit_signal, cgroup, 0)
}

/// A process with a chosen id that shares our table of descriptors: it does one thing in its own
/// name and ends. What it opens stays open here. `job` gives two numbers, which become the answer.
///
/// # Errors
/// `EEXIST`: the id is taken; that of `job`; `ECHILD` when it ended otherwise.
pub fn stand_in(pid: i32, job: impl FnOnce() -> Result<[i32; 2], Errno>) -> Result<[i32; 2], Errno> {
    aside(Some(pid), job)
}

/// A descriptor that a process of its own opens, which may change itself as it likes. It shares our
/// table of descriptors and nothing else.
///
/// # Errors
/// As [`stand_in`].
pub fn open_aside(job: impl FnOnce() -> Result<OwnedFd, Errno>) -> Result<OwnedFd, Errno> {
    let [number, _] = aside(None, || job().map(|fd| [fd.into_raw_fd(), 0]))?;
    // SAFETY: the child has left it open to us, and is gone.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Something that such a process does.
///
/// # Errors
/// As [`stand_in`].
pub fn do_aside(job: impl FnOnce() -> Result<(), Errno>) -> Result<(), Errno> {
    aside(None, || job().map(|()| [0; 2])).map(drop)
}

fn aside(pid: Option<i32>, job: impl FnOnce() -> Result<[i32; 2], Errno>) -> Result<[i32; 2], Errno> {
    const CLONE_FILES: u64 = 0x400;
    const ANSWER_BYTES: usize = 12;
    let (answers, answer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    match create(pid, 0, None, CLONE_FILES)? {
        Side::Child => {
            let words = match job() {
                Ok([first, second]) => [0, first, second],
                Err(errno) => [errno as i32, 0, 0],
            };
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
            // Nobody is left to tell if this fails; no answer is an error. Nothing may be closed
            // here: the table is not ours alone.
            let _ = nix::unistd::write(&answer, &bytes);
            exit_now(0)
        }
        Side::Parent { child } => {
            let child = nix::unistd::Pid::from_raw(child);
            nix::sys::wait::waitpid(child, Some(nix::sys::wait::WaitPidFlag::__WALL))?;
            drop(answer);
            let mut bytes = [0u8; ANSWER_BYTES];
            if nix::unistd::read(&answers, &mut bytes)? != ANSWER_BYTES {
                return Err(Errno::ECHILD);
            }
            let word =
                |at: usize| i32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
            match word(0) {
                0 => Ok([word(4), word(8)]),
                errno => Err(Errno::from_raw(errno)),
            }
        }
    }
}

fn create(
    pid: Option<i32>,
    exit_signal: i32,
    cgroup: Option<BorrowedFd<'_>>,
    flags: u64,
) -> Result<Side, Errno> {
    let tid = pid.unwrap_or(0);
    let mut args = CloneArgs { flags, exit_signal: exit_signal as u64, ..CloneArgs::default() };
    if pid.is_some() {
        args.set_tid = &raw const tid as u64;
        args.set_tid_size = 1;
    }
    if let Some(dir) = cgroup {
        args.flags |= 0x2_0000_0000; // CLONE_INTO_CGROUP
        args.cgroup = dir.as_raw_fd() as u64;
    }
    // SAFETY: `args` and `tid` are live for the call; without CLONE_VM the child has a memory of
    // its own, so this is a fork; the caller is single-threaded (documented), so no lock of libc
    // can be held by a thread that is missing there.
    let got = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    match got {
        0 => Ok(Side::Child),
        child if child > 0 => Ok(Side::Parent { child: child as i32 }),
        _ => Err(Errno::last()),
    }
}

/// Ends this process at once, without destructors or exit handlers.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: ends the process; nothing of ours runs afterwards.
    unsafe { libc::_exit(status) }
}
