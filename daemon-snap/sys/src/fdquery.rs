//! Questions to descriptors that we share with a frozen process. Nothing here changes the
//! description, except for [`PeekOffset`], which puts back what it sets.

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use snap_state::{BusyPollV1, CredentialsV1, FileOwnerV1, PeerV1, Pid};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Instant;
use std::{io, mem, ptr};

/// `struct f_owner_ex`.
#[repr(C)]
#[derive(Default)]
struct FOwnerEx {
    kind: i32,
    pid: i32,
}
const _: () = assert!(size_of::<FOwnerEx>() == 8);

fn fcntl(fd: BorrowedFd<'_>, op: i32) -> Result<i32, Errno> {
    // SAFETY: only used with operations that take no argument.
    Errno::result(unsafe { libc::fcntl(fd.as_raw_fd(), op) })
}

/// F_GETFL.
///
/// # Errors
/// None in practice.
pub fn status_flags(fd: BorrowedFd<'_>) -> Result<i32, Errno> {
    fcntl(fd, libc::F_GETFL)
}

/// F_GETPIPE_SZ in bytes.
///
/// # Errors
/// `EBADF` when it is not a pipe.
pub fn pipe_capacity(fd: BorrowedFd<'_>) -> Result<u32, Errno> {
    fcntl(fd, libc::F_GETPIPE_SZ).map(|bytes| bytes as u32)
}

/// F_GET_SEALS.
///
/// # Errors
/// `EINVAL` when the file system has none.
pub fn seals(fd: BorrowedFd<'_>) -> Result<u32, Errno> {
    fcntl(fd, libc::F_GET_SEALS).map(|seals| seals as u32)
}

/// F_GETOWN_EX and F_GETSIG; `None` when neither is set.
///
/// # Errors
/// None in practice.
pub fn owner(fd: BorrowedFd<'_>) -> Result<Option<FileOwnerV1>, Errno> {
    const F_GETOWN_EX: i32 = 16;
    const F_GETSIG: i32 = 11;
    let mut owner = FOwnerEx::default();
    // SAFETY: F_GETOWN_EX writes a struct f_owner_ex.
    Errno::result(unsafe { libc::fcntl(fd.as_raw_fd(), F_GETOWN_EX, &raw mut owner) })?;
    let signal = fcntl(fd, F_GETSIG)?;
    Ok((owner.pid != 0 || signal != 0).then_some(FileOwnerV1 {
        kind: owner.kind,
        pid: Pid(owner.pid),
        signal,
    }))
}

/// Lets the kernel bring a periodic timerfd up to date whose expirations nobody has read: it counts
/// them and says when the next one is due, which fdinfo alone does not.
///
/// # Errors
/// `EINVAL` when it is not a timerfd.
pub fn update_timerfd(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: itimerspec is plain data that the call fills.
    let mut now: libc::itimerspec = unsafe { mem::zeroed() };
    // SAFETY: now is writable.
    Errno::result(unsafe { libc::timerfd_gettime(fd.as_raw_fd(), &raw mut now) }).map(drop)
}

/// FIONREAD: unread bytes.
///
/// # Errors
/// `ENOTTY` and others for objects that do not have the notion.
pub fn unread_bytes(fd: BorrowedFd<'_>) -> Result<usize, Errno> {
    let mut bytes = 0i32;
    // SAFETY: FIONREAD writes an int.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &raw mut bytes) })?;
    Ok(bytes.max(0) as usize)
}

/// FS_IOC_GETFLAGS: what chattr(1) has set of a file.
///
/// # Errors
/// `ENOTTY` and others where the file system has no such attributes.
pub fn file_attributes(fd: BorrowedFd<'_>) -> Result<u32, Errno> {
    const FS_IOC_GETFLAGS: libc::c_ulong = 0x8008_6601;
    // The request says long, and file systems write an int.
    let mut flags = [0u32; 2];
    // SAFETY: the request writes eight bytes at most.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), FS_IOC_GETFLAGS, flags.as_mut_ptr()) })?;
    Ok(flags[0])
}

/// Whether a description may be read from.
pub fn can_be_read(fd: BorrowedFd<'_>) -> bool {
    status_flags(fd).is_ok_and(|flags| flags & libc::O_PATH == 0 && flags & libc::O_ACCMODE != libc::O_WRONLY)
}

/// How an epoll set polls network devices; `None` when it does not, or the kernel cannot
/// (EPIOCGPARAMS, since Linux 6.9).
pub fn busy_poll(fd: BorrowedFd<'_>) -> Option<BusyPollV1> {
    const EPIOCGPARAMS: libc::c_ulong = 0x8008_8a02;
    // struct epoll_params: microseconds, budget, preferred, padding.
    let mut params = [0u8; 8];
    // SAFETY: the request writes eight bytes.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), EPIOCGPARAMS, params.as_mut_ptr()) }).ok()?;
    let [a, b, c, d, e, f, prefer, _] = params;
    let found = BusyPollV1 {
        usecs: u32::from_ne_bytes([a, b, c, d]),
        budget: u16::from_ne_bytes([e, f]),
        prefer: prefer != 0,
    };
    (params != [0; 8]).then_some(found)
}

/// Bytes that the other end of a socket has not taken yet (SIOCOUTQ), or that it has not sent.
///
/// # Errors
/// `ENOTTY` and others for objects that do not have the notion.
pub fn unsent_bytes(fd: BorrowedFd<'_>) -> Result<usize, Errno> {
    let mut bytes = 0i32;
    // SAFETY: SIOCOUTQ, which has the number of TIOCOUTQ, writes an int.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) })?;
    Ok(bytes.max(0) as usize)
}

/// poll(2) without waiting: the events that hold now.
///
/// # Errors
/// None in practice.
pub fn poll_now(fd: BorrowedFd<'_>, events: i16) -> Result<i16, Errno> {
    let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
    // SAFETY: one live pollfd, count 1.
    Errno::result(unsafe { libc::poll(&raw mut entry, 1, 0) })?;
    Ok(entry.revents)
}

/// poll(2) until one of the events holds; `false` when the time is up. Signals do not end it.
///
/// # Errors
/// None in practice.
pub fn poll_until(fd: BorrowedFd<'_>, events: PollFlags, deadline: Instant) -> Result<bool, Errno> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(fd, events)], timeout) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e),
        }
    }
}

/// Unread content of a pipe, which stays in it (tee(2)): one piece, or a piece for each packet.
///
/// # Errors
/// `EBADF` when this end is not for reading.
pub fn pipe_content(fd: BorrowedFd<'_>, capacity: u32, packets: bool) -> Result<Vec<Vec<u8>>, Errno> {
    let unread = unread_bytes(fd)?;
    if unread == 0 {
        return Ok(Vec::new());
    }
    let (read_end, write_end) =
        nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC | nix::fcntl::OFlag::O_NONBLOCK)?;
    // SAFETY: F_SETPIPE_SZ takes an int.
    Errno::result(unsafe { libc::fcntl(write_end.as_raw_fd(), libc::F_SETPIPE_SZ, capacity as i32) })?;
    // SAFETY: plain system call without pointers.
    let copied = unsafe { libc::tee(fd.as_raw_fd(), write_end.as_raw_fd(), unread, libc::SPLICE_F_NONBLOCK) };
    let copied = Errno::result(copied)? as usize;
    let (mut pieces, mut filled) = (Vec::new(), 0);
    while filled < copied {
        // A read takes one packet at most, or as much of a stream as there is.
        let mut piece = vec![0; copied - filled];
        let got = nix::unistd::read(&read_end, &mut piece)?;
        if got == 0 {
            break;
        }
        piece.truncate(got);
        filled += got;
        match pieces.last_mut() {
            Some(last) if !packets => Vec::append(last, &mut piece),
            _ => pieces.push(piece),
        }
    }
    if filled == unread { Ok(pieces) } else { Err(Errno::EIO) }
}

/// Longest value that [`socket_option`] reads, in bytes.
pub const OPTION_BYTES: usize = 256;

/// getsockopt(2).
///
/// # Errors
/// `ENOPROTOOPT`, `EOPNOTSUPP` for options that the socket does not have.
pub fn socket_option(fd: BorrowedFd<'_>, level: i32, name: i32) -> Result<Vec<u8>, Errno> {
    let mut value = vec![0u8; OPTION_BYTES];
    let mut len = value.len() as libc::socklen_t;
    // SAFETY: value is writable for len bytes.
    let got =
        unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, value.as_mut_ptr().cast(), &raw mut len) };
    Errno::result(got)?;
    value.truncate(len as usize);
    Ok(value)
}

/// getsockopt(2) for an int.
///
/// # Errors
/// As [`socket_option`].
pub fn socket_int(fd: BorrowedFd<'_>, level: i32, name: i32) -> Result<i32, Errno> {
    let value = socket_option(fd, level, name)?;
    value.first_chunk::<4>().map(|word| i32::from_ne_bytes(*word)).ok_or(Errno::EINVAL)
}

/// Number of instructions of the attached classic filter.
///
/// # Errors
/// `EACCES` when the filter is not a classic one.
pub fn socket_filter_len(fd: BorrowedFd<'_>) -> Result<u32, Errno> {
    // Room for none: the kernel then only tells the number.
    let mut len: libc::socklen_t = 0;
    // SAFETY: nothing is written for length 0 but the length itself.
    let got = unsafe {
        libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_GET_FILTER, ptr::null_mut(), &raw mut len)
    };
    Errno::result(got).map(|_| len)
}

/// Instructions of the attached classic filter, eight bytes each; empty when there is none.
///
/// # Errors
/// `EACCES` when the filter is not a classic one.
pub fn socket_filter(fd: BorrowedFd<'_>) -> Result<Vec<u8>, Errno> {
    const INSTRUCTION_BYTES: usize = 8;
    let count = socket_filter_len(fd)?;
    let mut program = vec![0u8; count as usize * INSTRUCTION_BYTES];
    if count == 0 {
        return Ok(program);
    }
    // Length in instructions, not bytes.
    let mut len: libc::socklen_t = count;
    // SAFETY: program has room for `len` instructions.
    let got = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_GET_FILTER,
            program.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    Errno::result(got)?;
    if len == count { Ok(program) } else { Err(Errno::EBUSY) }
}

/// getsockname(2) or, with `peer`, getpeername(2): the bytes of the address.
///
/// # Errors
/// `ENOTCONN` when there is no peer.
pub fn socket_address(fd: BorrowedFd<'_>, peer: bool) -> Result<Vec<u8>, Errno> {
    let mut address = vec![0u8; size_of::<libc::sockaddr_storage>()];
    let mut len = address.len() as libc::socklen_t;
    let call = if peer { libc::getpeername } else { libc::getsockname };
    // SAFETY: address is writable for len bytes.
    Errno::result(unsafe { call(fd.as_raw_fd(), address.as_mut_ptr().cast(), &raw mut len) })?;
    address.truncate(len as usize);
    Ok(address)
}

/// SO_PEERCRED and SO_PEERGROUPS; `None` when there is no peer, or one whose process is of another
/// PID namespace.
///
/// # Errors
/// Those of getsockopt(2).
pub fn socket_peer(fd: BorrowedFd<'_>) -> Result<Option<PeerV1>, Errno> {
    const SO_PEERGROUPS: i32 = 59;
    const MAX_GROUPS: usize = 65536;
    let ucred = socket_option(fd, libc::SOL_SOCKET, libc::SO_PEERCRED)?;
    let credentials = credentials(&ucred).ok_or(Errno::EINVAL)?;
    if credentials.pid.0 == 0 {
        return Ok(None);
    }
    let mut groups = vec![0u32; MAX_GROUPS];
    let mut len = size_of_val(groups.as_slice()) as libc::socklen_t;
    // SAFETY: groups is writable for len bytes.
    let got = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    match Errno::result(got) {
        Ok(_) => groups.truncate(len as usize / size_of::<u32>()),
        // Never set for this peer.
        Err(Errno::ENODATA) => groups.clear(),
        Err(e) => return Err(e),
    }
    Ok(Some(PeerV1 { credentials, groups }))
}

/// `struct ucred`.
fn credentials(bytes: &[u8]) -> Option<CredentialsV1> {
    let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    Some(CredentialsV1 { pid: Pid(word(0)? as i32), uid: word(4)?, gid: word(8)? })
}

/// A message that was looked at and is still in the queue.
#[derive(Debug)]
pub struct Peeked {
    pub bytes: Vec<u8>,
    /// Duplicates of the descriptors that it carries.
    pub descriptors: Vec<OwnedFd>,
    /// SCM_CREDENTIALS.
    pub credentials: Option<CredentialsV1>,
    /// It carries something else, or more than there was room for.
    pub other_control: bool,
    /// It is longer than what was asked for.
    pub truncated: bool,
    /// Address of its sender, family first; empty when it has none.
    pub sender: Vec<u8>,
}

impl Peeked {
    /// Neither bytes nor descriptors.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.descriptors.is_empty()
    }
}

/// Looks at the next message of at most `max_bytes`; `None` when there is none.
///
/// # Errors
/// Those of recvmsg(2).
pub fn peek_message(fd: BorrowedFd<'_>, max_bytes: usize) -> Result<Option<Peeked>, Errno> {
    let mut bytes = vec![0u8; max_bytes];
    let mut control = [0u64; 256];
    let mut sender = [0u8; 128];
    let mut iov = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: msghdr is plain data; zero is a valid value for every field.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_iov = &raw mut iov;
    header.msg_iovlen = 1;
    header.msg_name = sender.as_mut_ptr().cast();
    header.msg_namelen = size_of_val(&sender) as libc::socklen_t;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control);
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: header points at live buffers with their lengths.
    let got = match Errno::result(unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut header, flags) }) {
        Ok(got) => got as usize,
        Err(Errno::EAGAIN) => return Ok(None),
        Err(e) => return Err(e),
    };
    bytes.truncate(got);
    let sender = sender[..(header.msg_namelen as usize).min(sender.len())].to_vec();
    let mut peeked = Peeked {
        bytes,
        descriptors: Vec::new(),
        credentials: None,
        other_control: header.msg_flags & libc::MSG_CTRUNC != 0,
        truncated: header.msg_flags & libc::MSG_TRUNC != 0,
        sender,
    };
    // SAFETY: the CMSG functions walk the control buffer that the kernel has just filled; data of
    // SCM_RIGHTS and of SCM_PIDFD are descriptors that were made for us and that nobody else owns.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(&raw const header);
        while !message.is_null() {
            const SCM_PIDFD: i32 = 4;
            let data = libc::CMSG_DATA(message);
            let data_bytes = (*message).cmsg_len - (data as usize - message as usize);
            let data = std::slice::from_raw_parts(data, data_bytes);
            let numbers = data.chunks_exact(4).filter_map(|number| number.try_into().ok());
            match ((*message).cmsg_level, (*message).cmsg_type) {
                (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                    let numbers = numbers.map(i32::from_ne_bytes);
                    peeked.descriptors.extend(numbers.map(|number| OwnedFd::from_raw_fd(number)));
                }
                (libc::SOL_SOCKET, SCM_PIDFD) => {
                    peeked.other_control = true;
                    numbers.map(i32::from_ne_bytes).filter(|number| *number >= 0).for_each(|number| {
                        drop(OwnedFd::from_raw_fd(number));
                    });
                }
                (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) => peeked.credentials = credentials(data),
                _ => peeked.other_control = true,
            }
            message = libc::CMSG_NXTHDR(&raw const header, message);
        }
    }
    Ok(Some(peeked))
}

/// SO_PEEK_OFF set to 0, so that one peek after the other walks through the queue; the old value
/// comes back at the end.
#[derive(Debug)]
pub struct PeekOffset<'a> {
    fd: BorrowedFd<'a>,
    before: i32,
}

impl<'a> PeekOffset<'a> {
    /// Starts at the beginning of the queue.
    ///
    /// # Errors
    /// `EOPNOTSUPP` for other than unix sockets.
    pub fn begin(fd: BorrowedFd<'a>) -> Result<Self, Errno> {
        Self::at(fd, 0)
    }

    /// Every peek shows the first message.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub fn begin_without(fd: BorrowedFd<'a>) -> Result<Self, Errno> {
        Self::at(fd, -1)
    }

    fn at(fd: BorrowedFd<'a>, offset: i32) -> Result<Self, Errno> {
        let before = socket_int(fd, libc::SOL_SOCKET, libc::SO_PEEK_OFF)?;
        set_peek_offset(fd, offset)?;
        Ok(Self { fd, before })
    }

    /// Puts the old value back.
    ///
    /// # Errors
    /// None in practice.
    pub fn finish(self) -> Result<(), Errno> {
        let (fd, before) = (self.fd, self.before);
        mem::forget(self);
        set_peek_offset(fd, before)
    }
}

impl Drop for PeekOffset<'_> {
    fn drop(&mut self) {
        // Best effort on the way out of another error.
        let _ = set_peek_offset(self.fd, self.before);
    }
}

/// Looks at a queue from its beginning, wherever the daemon has set its own peeks to begin, and puts
/// that place back, which each peek moves.
///
/// # Errors
/// Those of `look`.
pub fn peek_from_beginning<T>(
    fd: BorrowedFd<'_>,
    look: impl FnOnce() -> Result<T, Errno>,
) -> Result<T, Errno> {
    match PeekOffset::begin_without(fd) {
        Ok(offset) => {
            let seen = look();
            offset.finish()?;
            seen
        }
        // TCP has none before Linux 6.9.
        Err(Errno::EOPNOTSUPP) => look(),
        Err(e) => Err(e),
    }
}

fn set_peek_offset(fd: BorrowedFd<'_>, offset: i32) -> Result<(), Errno> {
    // SAFETY: the option takes an int.
    let set = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEEK_OFF,
            (&raw const offset).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    Errno::result(set).map(drop)
}

/// Opens a file by its handle (open_by_handle_at(2)) with O_PATH.
///
/// # Errors
/// `ESTALE` when it is not there any more or the mount is of another file system, `EPERM` without
/// CAP_DAC_READ_SEARCH.
pub fn open_handle(mount: BorrowedFd<'_>, handle_type: i32, handle: &[u8]) -> Result<OwnedFd, Errno> {
    // struct file_handle: u32 bytes, i32 type, then the bytes.
    let mut raw = Vec::with_capacity(8 + handle.len());
    raw.extend_from_slice(&(handle.len() as u32).to_ne_bytes());
    raw.extend_from_slice(&handle_type.to_ne_bytes());
    raw.extend_from_slice(handle);
    let flags = libc::O_PATH | libc::O_CLOEXEC;
    // SAFETY: raw is a complete struct file_handle; the kernel copies it in.
    let fd = unsafe { libc::syscall(libc::SYS_open_by_handle_at, mount.as_raw_fd(), raw.as_ptr(), flags) };
    let fd = Errno::result(fd)?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// SEEK_DATA: where data starts at or after `offset`; `None` behind the last data.
///
/// # Errors
/// Those of lseek(2).
pub fn next_data(fd: BorrowedFd<'_>, offset: u64) -> io::Result<Option<u64>> {
    seek(fd, offset, libc::SEEK_DATA)
}

/// SEEK_HOLE: where the next hole (or the end) is.
///
/// # Errors
/// Those of lseek(2).
pub fn next_hole(fd: BorrowedFd<'_>, offset: u64) -> io::Result<Option<u64>> {
    seek(fd, offset, libc::SEEK_HOLE)
}

fn seek(fd: BorrowedFd<'_>, offset: u64, whence: i32) -> io::Result<Option<u64>> {
    // SAFETY: plain system call without pointers.
    match Errno::result(unsafe { libc::lseek64(fd.as_raw_fd(), offset as i64, whence) }) {
        Ok(at) => Ok(Some(at as u64)),
        Err(Errno::ENXIO) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// `fstatfs(2)`: magic number of the file system of a path.
///
/// # Errors
/// Those of statfs(2).
pub fn file_system_magic(path: &std::ffi::CStr) -> Result<i64, Errno> {
    // SAFETY: statfs is plain data; the call fills it.
    let mut info: libc::statfs = unsafe { mem::zeroed() };
    // SAFETY: path ends with NUL, info is writable.
    Errno::result(unsafe { libc::statfs(path.as_ptr(), &raw mut info) })?;
    Ok(info.f_type)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn pipe_content_stays_in_the_pipe() {
        let (read_end, write_end) = nix::unistd::pipe().unwrap();
        nix::unistd::write(&write_end, b"hello").unwrap();
        let capacity = pipe_capacity(read_end.as_fd()).unwrap();
        for _ in 0..2 {
            assert_eq!(pipe_content(read_end.as_fd(), capacity, false).unwrap(), [b"hello"]);
        }
    }

    #[test]
    fn peek_walks_through_datagrams_and_leaves_them() {
        use std::os::unix::net::UnixDatagram;
        let (a, b) = UnixDatagram::pair().unwrap();
        let sent = [&b"one"[..], b"two", b"", b"four"];
        for message in sent {
            a.send(message).unwrap();
        }
        let walk = || {
            let offset = PeekOffset::begin(b.as_fd()).unwrap();
            let mut seen = Vec::new();
            while let Some(message) = peek_message(b.as_fd(), 64).unwrap() {
                seen.push(message.bytes);
                assert!(seen.len() < 9);
            }
            offset.finish().unwrap();
            seen
        };
        assert_eq!(walk(), sent);
        // The kernel shows an empty message to one peek only; that it is still there can be seen by
        // reading.
        assert_eq!(walk().len(), 3);
        let mut buffer = [0; 64];
        let lens: Vec<usize> = (0..4).map(|_| b.recv(&mut buffer).unwrap()).collect();
        assert_eq!(lens, [3, 3, 0, 4]);
    }
}
