//! Who is at the other end of a unix socket, and to whom a namespace belongs.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd};

/// `SO_PEERPIDFD`, since Linux 6.5; not in every C library's headers yet.
const SO_PEERPIDFD: libc::c_int = 77;
/// `_IO(0xb7, 0x1)` and `_IO(0xb7, 0x4)` of ioctl_ns(2).
const NS_GET_USERNS: libc::Ioctl = 0xb701;
const NS_GET_OWNER_UID: libc::Ioctl = 0xb704;

/// The process that has connected this socket, as the kernel noted it at that moment. `None` before
/// Linux 6.5.
///
/// # Errors
/// From `getsockopt(2)`: the process is gone already.
pub fn peer_pidfd(connection: impl AsFd) -> io::Result<Option<OwnedFd>> {
    let mut fd: libc::c_int = -1;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    let socket = connection.as_fd().as_raw_fd();
    // SAFETY: value and length are live for the call and the length is that of the value.
    let result = unsafe {
        libc::getsockopt(socket, libc::SOL_SOCKET, SO_PEERPIDFD, (&raw mut fd).cast(), &raw mut len)
    };
    match result {
        // SAFETY: the kernel has just installed this descriptor for us; nobody else knows its
        // number.
        0 => Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) })),
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(None),
            error => Err(error),
        },
    }
}

/// The user namespace that owns a namespace, `ioctl_ns(2)`.
///
/// # Errors
/// EPERM: it is none of ours and of those below.
pub fn owning_user_namespace(namespace: impl AsFd) -> io::Result<OwnedFd> {
    // SAFETY: this request takes no argument; the descriptor is borrowed for the call.
    let fd = unsafe { libc::ioctl(namespace.as_fd().as_raw_fd(), NS_GET_USERNS) };
    match fd {
        fd if fd < 0 => Err(io::Error::last_os_error()),
        // SAFETY: the kernel has just installed this descriptor for us; nobody else knows its
        // number.
        fd => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
    }
}

/// The user who has made a user namespace, as we number users.
///
/// # Errors
/// EINVAL: it is no user namespace.
pub fn maker_of_user_namespace(namespace: impl AsFd) -> io::Result<u32> {
    let mut uid: libc::uid_t = u32::MAX;
    // SAFETY: this request writes one uid_t, which is live for the call.
    let result = unsafe { libc::ioctl(namespace.as_fd().as_raw_fd(), NS_GET_OWNER_UID, &raw mut uid) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(uid) }
}
