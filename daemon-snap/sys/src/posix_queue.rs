//! POSIX message queues of this thread's IPC namespace (mq_overview(7)).

use nix::errno::Errno;
use snap_state::{PosixMessageV1, PosixQueueV1};
use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Number of messages, and most bytes of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub max_messages: u64,
    pub message_bytes: u64,
}

impl Limits {
    /// Those of a recorded queue.
    pub fn of(queue: &PosixQueueV1) -> Self {
        Self { max_messages: queue.max_messages, message_bytes: queue.message_bytes }
    }
}

/// For both, without waiting.
pub const OPEN: i32 = libc::O_RDWR | libc::O_NONBLOCK | libc::O_CLOEXEC;

fn attributes(limits: Limits) -> libc::mq_attr {
    // SAFETY: plain data.
    let mut attributes: libc::mq_attr = unsafe { std::mem::zeroed() };
    attributes.mq_maxmsg = limits.max_messages as _;
    attributes.mq_msgsize = limits.message_bytes as _;
    attributes
}

/// A new queue, opened for both without waiting; `name` has no slash.
///
/// # Errors
/// As mq_open(3); `EEXIST` when there is one of that name.
pub fn create(name: &CStr, mode: u32, limits: Limits) -> Result<OwnedFd, Errno> {
    let attributes = attributes(limits);
    let flags = OPEN | libc::O_CREAT | libc::O_EXCL;
    // SAFETY: name and attributes are live.
    let fd = unsafe { libc::syscall(libc::SYS_mq_open, name.as_ptr(), flags, mode, &raw const attributes) };
    let fd = Errno::result(fd)? as i32;
    // SAFETY: a new descriptor that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// One that there is, with these flags.
///
/// # Errors
/// As mq_open(3).
pub fn open(name: &CStr, flags: i32) -> Result<OwnedFd, Errno> {
    let none = std::ptr::null::<libc::mq_attr>();
    let flags = flags & !(libc::O_CREAT | libc::O_EXCL);
    // SAFETY: the name is live; without O_CREAT the others are not looked at.
    let fd = unsafe { libc::syscall(libc::SYS_mq_open, name.as_ptr(), flags, 0, none) };
    let fd = Errno::result(fd)? as i32;
    // SAFETY: a new descriptor that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Removes a name.
///
/// # Errors
/// As mq_unlink(3).
pub fn unlink(name: &CStr) -> Result<(), Errno> {
    // SAFETY: the name is live.
    Errno::result(unsafe { libc::syscall(libc::SYS_mq_unlink, name.as_ptr()) }).map(drop)
}

/// What it takes.
///
/// # Errors
/// As mq_getattr(3).
pub fn limits(queue: BorrowedFd<'_>) -> Result<Limits, Errno> {
    let mut found = attributes(Limits { max_messages: 0, message_bytes: 0 });
    let none = std::ptr::null::<libc::mq_attr>();
    // SAFETY: `found` is writable, and nothing is set.
    let done = unsafe { libc::syscall(libc::SYS_mq_getsetattr, queue.as_raw_fd(), none, &raw mut found) };
    Errno::result(done)?;
    Ok(Limits { max_messages: found.mq_maxmsg as u64, message_bytes: found.mq_msgsize as u64 })
}

/// Takes the next message out of a queue that was opened without waiting.
///
/// # Errors
/// `EAGAIN`: there is none. As mq_receive(3).
pub fn receive(queue: BorrowedFd<'_>, limits: Limits) -> Result<PosixMessageV1, Errno> {
    let mut data = vec![0u8; limits.message_bytes as usize];
    let mut priority = 0u32;
    let never = std::ptr::null::<libc::timespec>();
    // SAFETY: the buffer has that length, `priority` is writable.
    let got = unsafe {
        libc::syscall(
            libc::SYS_mq_timedreceive,
            queue.as_raw_fd(),
            data.as_mut_ptr(),
            data.len(),
            &raw mut priority,
            never,
        )
    };
    data.truncate(Errno::result(got)? as usize);
    Ok(PosixMessageV1 { priority, data })
}

/// Sends a message to a queue that was opened without waiting.
///
/// # Errors
/// As mq_send(3).
pub fn send(queue: BorrowedFd<'_>, message: &PosixMessageV1) -> Result<(), Errno> {
    let never = std::ptr::null::<libc::timespec>();
    let PosixMessageV1 { priority, data } = message;
    // SAFETY: the bytes are live.
    let sent = unsafe {
        libc::syscall(libc::SYS_mq_timedsend, queue.as_raw_fd(), data.as_ptr(), data.len(), *priority, never)
    };
    Errno::result(sent).map(drop)
}
