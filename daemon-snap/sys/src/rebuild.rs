//! System calls that make recorded objects again, where `nix` has no binding.

use nix::errno::Errno;
use snap_state::{BusyPollV1, CredentialsV1};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

fn owned(result: libc::c_int) -> Result<OwnedFd, Errno> {
    let fd = Errno::result(result)?;
    // SAFETY: the system call just returned this new descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A duplicate at or above `min` (F_DUPFD_CLOEXEC).
///
/// # Errors
/// `EMFILE`.
pub fn duplicate_above(fd: BorrowedFd<'_>, min: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: only makes a new descriptor.
    owned(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, min) })
}

/// Puts a description under a chosen number that nothing of ours uses; the number is not owned by
/// anyone afterwards.
///
/// # Errors
/// `EBADF` above RLIMIT_NOFILE.
pub fn place(fd: BorrowedFd<'_>, number: i32, cloexec: bool) -> Result<(), Errno> {
    let flags = if cloexec { libc::O_CLOEXEC } else { 0 };
    // SAFETY: the caller keeps all owned descriptors above the range of recorded numbers, so none
    // is closed behind its owner.
    Errno::result(unsafe { libc::dup3(fd.as_raw_fd(), number, flags) }).map(drop)
}

/// Closes a range of numbers, both inclusive, that no owned descriptor uses (close_range(2), since
/// Linux 5.9).
///
/// # Errors
/// `EINVAL` for an empty range.
pub fn close_numbers(first: i32, last: i32) -> Result<(), Errno> {
    // SAFETY: as for `place`.
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}

/// `eventfd(2)`.
///
/// # Errors
/// As eventfd(2).
pub fn eventfd(count: u32, flags: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: no pointers.
    owned(unsafe { libc::eventfd(count, flags) })
}

/// `signalfd(2)` with a raw 64-bit mask.
///
/// # Errors
/// As signalfd(2).
pub fn signalfd(mask: u64) -> Result<OwnedFd, Errno> {
    // SAFETY: the mask is live and 8 bytes long, as said.
    owned(unsafe { libc::syscall(libc::SYS_signalfd4, -1, &raw const mask, 8usize, libc::SFD_CLOEXEC) }
        as libc::c_int)
}

/// `timerfd_create(2)`.
///
/// # Errors
/// As timerfd_create(2).
pub fn timerfd(clock_id: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: no pointers.
    owned(unsafe { libc::timerfd_create(clock_id, libc::TFD_CLOEXEC) })
}

/// `timerfd_settime(2)`; nanoseconds.
///
/// # Errors
/// As timerfd_settime(2).
pub fn timerfd_set(fd: BorrowedFd<'_>, flags: i32, value_ns: u64, interval_ns: u64) -> Result<(), Errno> {
    let spec = |ns: u64| libc::timespec {
        tv_sec: (ns / 1_000_000_000) as i64,
        tv_nsec: (ns % 1_000_000_000) as i64,
    };
    let new = libc::itimerspec { it_interval: spec(interval_ns), it_value: spec(value_ns) };
    // SAFETY: `new` is live.
    Errno::result(unsafe { libc::timerfd_settime(fd.as_raw_fd(), flags, &new, std::ptr::null_mut()) })
        .map(drop)
}

/// Sets the number of expirations not yet read (TFD_IOC_SET_TICKS, since Linux 3.17).
///
/// # Errors
/// `ENOTTY` where the kernel lacks CONFIG_CHECKPOINT_RESTORE.
pub fn timerfd_set_ticks(fd: BorrowedFd<'_>, ticks: u64) -> Result<(), Errno> {
    const TFD_IOC_SET_TICKS: libc::c_ulong = 0x4008_5400;
    // SAFETY: `ticks` is live and 8 bytes long, as the request wants.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), TFD_IOC_SET_TICKS, &raw const ticks) }).map(drop)
}

/// `epoll_ctl(2)` with EPOLL_CTL_ADD under a descriptor number.
///
/// # Errors
/// As epoll_ctl(2).
pub fn epoll_add(epoll: BorrowedFd<'_>, number: i32, events: u32, data: u64) -> Result<(), Errno> {
    let mut event = libc::epoll_event { events, u64: data };
    // SAFETY: `event` is live.
    Errno::result(unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, number, &mut event) })
        .map(drop)
}

/// `epoll_ctl(2)` with EPOLL_CTL_MOD for a descriptor number.
///
/// # Errors
/// As epoll_ctl(2).
pub fn epoll_modify(epoll: BorrowedFd<'_>, number: i32, events: u32, data: u64) -> Result<(), Errno> {
    let mut event = libc::epoll_event { events, u64: data };
    // SAFETY: `event` is live.
    Errno::result(unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_MOD, number, &mut event) })
        .map(drop)
}

/// `epoll_ctl(2)` with EPOLL_CTL_DEL for a descriptor number.
///
/// # Errors
/// As epoll_ctl(2).
pub fn epoll_remove(epoll: BorrowedFd<'_>, number: i32) -> Result<(), Errno> {
    let none = std::ptr::null_mut();
    // SAFETY: EPOLL_CTL_DEL looks at no event.
    Errno::result(unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_DEL, number, none) }).map(drop)
}

/// Data of all events that are to be had at once (epoll_wait(2)).
///
/// # Errors
/// As epoll_wait(2).
pub fn epoll_take(epoll: BorrowedFd<'_>) -> Result<Vec<u64>, Errno> {
    let mut taken = Vec::new();
    loop {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 32];
        // SAFETY: `events` is writable for the length that is passed.
        let got = unsafe { libc::epoll_wait(epoll.as_raw_fd(), events.as_mut_ptr(), events.len() as i32, 0) };
        let got = Errno::result(got)? as usize;
        taken.extend(events[..got].iter().map(|event| event.u64));
        // Less than there is room for is all there is; what stays ready would be told again and
        // again.
        if got < events.len() {
            return Ok(taken);
        }
    }
}

/// Makes the next inotify watch get this descriptor (INOTIFY_IOC_SETNEXTWD, since Linux 4.16).
///
/// # Errors
/// `ENOTTY` where the kernel lacks CONFIG_CHECKPOINT_RESTORE.
pub fn inotify_set_next(fd: BorrowedFd<'_>, wd: i32) -> Result<(), Errno> {
    const INOTIFY_IOC_SETNEXTWD: libc::c_ulong = 0x4004_4900;
    // SAFETY: the argument is a plain number.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), INOTIFY_IOC_SETNEXTWD, wd as libc::c_long) }).map(drop)
}

/// `inotify_init1(2)`, non-blocking.
///
/// # Errors
/// As inotify_init1(2).
pub fn inotify() -> Result<OwnedFd, Errno> {
    // SAFETY: no pointers.
    owned(unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) })
}

/// `inotify_add_watch(2)`; returns the watch descriptor.
///
/// # Errors
/// As inotify_add_watch(2).
pub fn inotify_add(fd: BorrowedFd<'_>, path: &[u8], mask: u32) -> Result<i32, Errno> {
    let mut path = path.to_vec();
    path.push(0);
    // SAFETY: the path is live and NUL-terminated.
    Errno::result(unsafe { libc::inotify_add_watch(fd.as_raw_fd(), path.as_ptr().cast(), mask) })
}

/// `fcntl` with a number.
///
/// # Errors
/// As fcntl(2).
pub fn fcntl_number(fd: BorrowedFd<'_>, command: i32, argument: i32) -> Result<i32, Errno> {
    // SAFETY: used only for commands whose argument is a number (F_SETFL, F_SETPIPE_SZ, F_SETSIG,
    // F_ADD_SEALS).
    Errno::result(unsafe { libc::fcntl(fd.as_raw_fd(), command, argument) })
}

/// Whether a number of our PID namespace belongs to anybody or anything, if only for a moment more.
/// `fd`, which must be able to have an owner, gets that one (fcntl(2), F_SETOWN): of all calls this
/// one asks for the number alone, and not for a task.
pub fn is_number_in_use(fd: BorrowedFd<'_>, id: i32) -> bool {
    // SAFETY: plain system call without pointers.
    unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETOWN, id) == 0 }
}

/// `F_SETOWN_EX` (since Linux 2.6.32).
///
/// # Errors
/// `ESRCH`: no such process.
pub fn set_owner(fd: BorrowedFd<'_>, kind: i32, pid: i32) -> Result<(), Errno> {
    const F_SETOWN_EX: i32 = 15;
    let owner = [kind, pid];
    // SAFETY: two ints, the layout of struct f_owner_ex, live.
    Errno::result(unsafe { libc::fcntl(fd.as_raw_fd(), F_SETOWN_EX, owner.as_ptr()) }).map(drop)
}

/// How an epoll set polls network devices (EPIOCSPARAMS, since Linux 6.9).
///
/// # Errors
/// `ENOTTY` on older kernels, `EPERM` for a large budget without CAP_NET_ADMIN.
pub fn set_busy_poll(fd: BorrowedFd<'_>, wanted: BusyPollV1) -> Result<(), Errno> {
    const EPIOCSPARAMS: libc::c_ulong = 0x4008_8a01;
    let mut params = [0u8; 8];
    params[..4].copy_from_slice(&wanted.usecs.to_ne_bytes());
    params[4..6].copy_from_slice(&wanted.budget.to_ne_bytes());
    params[6] = u8::from(wanted.prefer);
    // SAFETY: the request reads eight bytes.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), EPIOCSPARAMS, params.as_ptr()) }).map(drop)
}

/// `setsockopt` with raw bytes.
///
/// # Errors
/// As setsockopt(2).
pub fn set_socket_option(fd: BorrowedFd<'_>, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
    // SAFETY: pointer and length belong to one live slice.
    Errno::result(unsafe {
        libc::setsockopt(fd.as_raw_fd(), level, name, value.as_ptr().cast(), value.len() as libc::socklen_t)
    })
    .map(drop)
}

/// Sets a socket's buffer size to what getsockopt(2) gave: the kernel doubles what it is given, and
/// bounds it unless forced.
///
/// # Errors
/// As setsockopt(2).
pub fn set_buffer_size(fd: BorrowedFd<'_>, name: i32, value: &[u8]) -> Result<(), Errno> {
    let wanted = value.first_chunk::<4>().map_or(0, |b| i32::from_ne_bytes(*b)) / 2;
    let forced = if name == libc::SO_SNDBUF { libc::SO_SNDBUFFORCE } else { libc::SO_RCVBUFFORCE };
    let bytes = wanted.to_ne_bytes();
    set_socket_option(fd, libc::SOL_SOCKET, forced, &bytes)
        .or_else(|_| set_socket_option(fd, libc::SOL_SOCKET, name, &bytes))
}

/// Attaches a classic packet filter (SO_ATTACH_FILTER); eight bytes an instruction.
///
/// # Errors
/// As setsockopt(2).
pub fn attach_filter(fd: BorrowedFd<'_>, program: &[u8]) -> Result<(), Errno> {
    let mut instructions: Vec<libc::sock_filter> = program
        .chunks_exact(8)
        .map(|i| libc::sock_filter {
            code: u16::from_ne_bytes([i[0], i[1]]),
            jt: i[2],
            jf: i[3],
            k: u32::from_ne_bytes([i[4], i[5], i[6], i[7]]),
        })
        .collect();
    let len = u16::try_from(instructions.len()).map_err(|_| Errno::EINVAL)?;
    let program = libc::sock_fprog { len, filter: instructions.as_mut_ptr() };
    // SAFETY: `program` points at as many live instructions as it says; the kernel checks and
    // copies them.
    Errno::result(unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    })
    .map(drop)
}

/// Sets a recorded option.
///
/// # Errors
/// As setsockopt(2).
pub fn restore_option(fd: BorrowedFd<'_>, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
    if level == libc::SOL_SOCKET && (name == libc::SO_SNDBUF || name == libc::SO_RCVBUF) {
        return set_buffer_size(fd, name, value);
    }
    if level == libc::SOL_SOCKET && name == libc::SO_ATTACH_FILTER {
        return attach_filter(fd, value);
    }
    set_socket_option(fd, level, name, value)
}

/// `socket(2)`, close-on-exec.
///
/// # Errors
/// As socket(2).
pub fn socket(family: i32, kind: i32, protocol: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: no pointers.
    owned(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) })
}

/// `sockaddr_un` bytes (unix(7)): family, then a path with its NUL or an abstract name, which
/// begins with one.
pub fn unix_address(name: &[u8]) -> Vec<u8> {
    let mut bytes = (libc::AF_UNIX as u16).to_ne_bytes().to_vec();
    bytes.extend_from_slice(name);
    if name.first().is_some_and(|first| *first != 0) {
        bytes.push(0);
    }
    bytes
}

/// `bind(2)` to raw address bytes (family first).
///
/// # Errors
/// As bind(2).
pub fn bind(fd: BorrowedFd<'_>, address: &[u8]) -> Result<(), Errno> {
    // SAFETY: pointer and length belong to one live slice; the kernel checks the contents.
    Errno::result(unsafe {
        libc::bind(fd.as_raw_fd(), address.as_ptr().cast(), address.len() as libc::socklen_t)
    })
    .map(drop)
}

/// `connect(2)` to raw address bytes (family first).
///
/// # Errors
/// As connect(2).
pub fn connect(fd: BorrowedFd<'_>, address: &[u8]) -> Result<(), Errno> {
    // SAFETY: pointer and length belong to one live slice; the kernel checks the contents.
    Errno::result(unsafe {
        libc::connect(fd.as_raw_fd(), address.as_ptr().cast(), address.len() as libc::socklen_t)
    })
    .map(drop)
}

/// `listen(2)`.
///
/// # Errors
/// As listen(2).
pub fn listen(fd: BorrowedFd<'_>, backlog: u32) -> Result<(), Errno> {
    // SAFETY: no pointers.
    Errno::result(unsafe { libc::listen(fd.as_raw_fd(), i32::try_from(backlog).unwrap_or(i32::MAX)) })
        .map(drop)
}

/// `accept4(2)`.
///
/// # Errors
/// As accept(2).
pub fn accept(fd: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    // SAFETY: no address is asked for.
    owned(unsafe {
        libc::accept4(fd.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut(), libc::SOCK_CLOEXEC)
    })
}

/// `socketpair(2)` of unix sockets, close-on-exec; the numbers are not owned by anyone.
///
/// # Errors
/// As socketpair(2).
pub fn socket_pair(kind: i32) -> Result<[i32; 2], Errno> {
    let mut pair = [0; 2];
    // SAFETY: pair has room for two descriptors.
    let made = unsafe { libc::socketpair(libc::AF_UNIX, kind | libc::SOCK_CLOEXEC, 0, pair.as_mut_ptr()) };
    Errno::result(made).map(|_| pair)
}

/// Takes over two numbers that a stand-in has left open in our table.
pub fn adopt(numbers: [i32; 2]) -> (OwnedFd, OwnedFd) {
    // SAFETY: a stand-in that shares our table made them with `socket_pair` and ended without
    // closing or telling anyone else.
    unsafe { (OwnedFd::from_raw_fd(numbers[0]), OwnedFd::from_raw_fd(numbers[1])) }
}

/// `sendmsg(2)` with descriptors and credentials, to the peer or to an address.
///
/// # Errors
/// As sendmsg(2).
pub fn send_message(
    fd: BorrowedFd<'_>,
    to: &[u8],
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
    credentials: Option<CredentialsV1>,
) -> Result<usize, Errno> {
    let mut to = to.to_vec();
    let mut control = Vec::new();
    let mut append = |kind: i32, words: &[i32]| {
        let len = size_of::<libc::cmsghdr>() + size_of_val(words);
        control.extend_from_slice(&len.to_ne_bytes());
        control.extend_from_slice(&libc::SOL_SOCKET.to_ne_bytes());
        control.extend_from_slice(&kind.to_ne_bytes());
        words.iter().for_each(|word| control.extend_from_slice(&word.to_ne_bytes()));
        control.resize(control.len().next_multiple_of(size_of::<usize>()), 0);
    };
    if let Some(from) = credentials {
        append(libc::SCM_CREDENTIALS, &[from.pid.0, from.uid as i32, from.gid as i32]);
    }
    if !descriptors.is_empty() {
        let numbers: Vec<i32> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        append(libc::SCM_RIGHTS, &numbers);
    }
    let mut iov = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: msghdr is plain data; zero is a valid value for every field.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    (header.msg_iov, header.msg_iovlen) = (&raw mut iov, 1);
    if !to.is_empty() {
        (header.msg_name, header.msg_namelen) = (to.as_mut_ptr().cast(), to.len() as libc::socklen_t);
    }
    if !control.is_empty() {
        (header.msg_control, header.msg_controllen) = (control.as_mut_ptr().cast(), control.len());
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: header points at live buffers with their lengths; the kernel only reads them.
    Errno::result(unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const header, flags) })
        .map(|sent| sent as usize)
}

/// flock(2) without waiting.
///
/// # Errors
/// `EWOULDBLOCK` when somebody else has it.
pub fn flock(fd: BorrowedFd<'_>, exclusive: bool) -> Result<(), Errno> {
    let how = if exclusive { libc::LOCK_EX } else { libc::LOCK_SH };
    // SAFETY: plain system call without pointers.
    Errno::result(unsafe { libc::flock(fd.as_raw_fd(), how | libc::LOCK_NB) }).map(drop)
}

/// `shutdown(2)`; SHUT_RD 0, SHUT_WR 1.
///
/// # Errors
/// As shutdown(2).
pub fn shutdown(fd: BorrowedFd<'_>, how: i32) -> Result<(), Errno> {
    // SAFETY: no pointers.
    Errno::result(unsafe { libc::shutdown(fd.as_raw_fd(), how) }).map(drop)
}

/// `memfd_create(2)` with a name of raw bytes.
///
/// # Errors
/// As memfd_create(2).
pub fn memfd(name: &[u8], flags: u32) -> Result<OwnedFd, Errno> {
    let mut name = name.to_vec();
    name.push(0);
    // SAFETY: the name is live and NUL-terminated.
    owned(unsafe { libc::memfd_create(name.as_ptr().cast(), flags | libc::MFD_CLOEXEC) })
}

/// Size of a new shared anonymous mapping, as address range; the caller opens it through map_files
/// and unmaps it.
///
/// # Errors
/// `ENOMEM`.
pub fn map_shared_anonymous(len_bytes: u64) -> Result<std::ops::Range<u64>, Errno> {
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let at = unsafe {
        libc::mmap(std::ptr::null_mut(), len_bytes as usize, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
    };
    if at == libc::MAP_FAILED { Err(Errno::last()) } else { Ok(at as u64..at as u64 + len_bytes) }
}

/// Unmaps what [`map_shared_anonymous`] mapped.
pub fn unmap(range: std::ops::Range<u64>) {
    // SAFETY: the range came from `map_shared_anonymous`; no reference into it was ever made.
    unsafe { libc::munmap(range.start as *mut _, (range.end - range.start) as usize) };
}

/// A number that [`place`] has just filled in this process.
pub fn placed(number: i32) -> BorrowedFd<'static> {
    // SAFETY: the number is open (just placed) and stays so: the process only goes on to its tape.
    unsafe { BorrowedFd::borrow_raw(number) }
}

/// A duplicate at or above `min` of whatever a number refers to; `None` when it is not open.
pub fn duplicate_number(number: i32, min: i32) -> Option<OwnedFd> {
    // SAFETY: only makes a new descriptor; a number that is not open gives EBADF.
    owned(unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, min) }).ok()
}

/// The address that a socket is bound to, as raw bytes with the family first (getsockname(2)).
///
/// # Errors
/// As getsockname(2).
pub fn own_address(fd: BorrowedFd<'_>) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0u8; 128];
    let mut len = bytes.len() as libc::socklen_t;
    // SAFETY: buffer and its length are live; the kernel writes at most that much.
    Errno::result(unsafe { libc::getsockname(fd.as_raw_fd(), bytes.as_mut_ptr().cast(), &mut len) })?;
    bytes.truncate(len as usize);
    Ok(bytes)
}

/// The node that a unix socket is bound to, opened with O_PATH (SIOCUNIXFILE, since Linux 4.11).
///
/// # Errors
/// `EPERM` without CAP_NET_ADMIN where the socket's network namespace belongs; `ENOENT`: it has
/// none.
pub fn unix_node(fd: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    const SIOCUNIXFILE: libc::c_ulong = 0x89e0;
    // SAFETY: the request has no argument and answers with a new descriptor.
    owned(unsafe { libc::ioctl(fd.as_raw_fd(), SIOCUNIXFILE) })
}
