//! Objects of another namespace, made by a short-lived thread that enters it.

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::Mode;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// `socket(2)` with SOCK_CLOEXEC; `netns`: the network namespace that it shall belong to, ours when
/// `None`.
///
/// # Errors
/// `EPERM` when the namespace may not be entered; those of `socket(2)`.
pub fn socket(
    netns: Option<BorrowedFd<'_>>,
    family: i32,
    kind: i32,
    protocol: i32,
) -> Result<OwnedFd, Errno> {
    let make = || {
        // SAFETY: plain system call without pointers.
        let fd = Errno::result(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) })?;
        // SAFETY: the kernel just made this descriptor for us.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    };
    match netns {
        None => make(),
        Some(ns) => in_thread(|| {
            setns(ns, CloneFlags::CLONE_NEWNET)?;
            make()
        }),
    }
}

/// The network namespace that a socket belongs to (SIOCGSKNS, since Linux 4.10).
///
/// # Errors
/// `EPERM` without CAP_NET_ADMIN over it.
pub fn of_socket(socket: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    const SIOCGSKNS: libc::c_ulong = 0x894c;
    // SAFETY: the request takes no argument and gives a new descriptor.
    let fd = Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGSKNS) })?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The root directory of a mount namespace (O_PATH).
///
/// # Errors
/// `EPERM` when the namespace may not be entered.
pub fn mount_root(mntns: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    in_thread(|| {
        // Entering a mount namespace is refused while root and working directory are shared with
        // other threads.
        unshare(CloneFlags::CLONE_FS)?;
        setns(mntns, CloneFlags::CLONE_NEWNS)?;
        open("/", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
    })
}

/// Open on the list of all mounts of a mount namespace (`/proc/PID/mountinfo`), as seen from its
/// root, which processes in it may have left for another one.
///
/// # Errors
/// `EPERM` when the namespace may not be entered.
pub fn mount_list(mntns: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    in_thread(|| {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        // There may be no /proc in the other one.
        let own = open("/proc/thread-self", flags, Mode::empty())?;
        unshare(CloneFlags::CLONE_FS)?;
        setns(mntns, CloneFlags::CLONE_NEWNS)?;
        // Opening it decides whose mounts and which root it is about.
        openat(&own, "mountinfo", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
    })
}

fn in_thread(job: impl FnOnce() -> Result<OwnedFd, Errno> + Send) -> Result<OwnedFd, Errno> {
    std::thread::scope(|scope| scope.spawn(job).join().unwrap_or(Err(Errno::EIO)))
}
