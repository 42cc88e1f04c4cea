//! io_uring(7): making an instance, and the memory that it shares with its users.
//!
//! Written against the system calls because counters and memory of somebody else's ring are read
//! and set here, which no wrapper offers.

use memmap2::{MmapMut, MmapOptions};
use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::io;
use std::mem::{offset_of, size_of};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt as _;

/// `struct io_sqring_offsets`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct SqOffsets {
    pub head: u32,
    pub tail: u32,
    pub ring_mask: u32,
    pub ring_entries: u32,
    pub flags: u32,
    pub dropped: u32,
    pub array: u32,
    resv1: u32,
    user_addr: u64,
}

/// `struct io_cqring_offsets`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct CqOffsets {
    pub head: u32,
    pub tail: u32,
    pub ring_mask: u32,
    pub ring_entries: u32,
    pub overflow: u32,
    pub cqes: u32,
    pub flags: u32,
    resv1: u32,
    user_addr: u64,
}

/// `struct io_uring_params`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Params {
    pub sq_entries: u32,
    pub cq_entries: u32,
    pub flags: u32,
    sq_thread_cpu: u32,
    sq_thread_idle: u32,
    pub features: u32,
    wq_fd: u32,
    resv: [u32; 3],
    pub sq_off: SqOffsets,
    pub cq_off: CqOffsets,
}

const _: () = assert!(size_of::<Params>() == 120 && offset_of!(Params, sq_off) == 40);

/// IORING_OFF_SQ_RING: where both queues are mapped.
pub const OFF_QUEUES: u64 = 0;
/// IORING_OFF_SQES
pub const OFF_REQUESTS: u64 = 0x1000_0000;
/// Bytes of a `struct io_uring_sqe`.
pub const REQUEST_BYTES: u32 = 64;
/// Bytes of a `struct io_uring_cqe`.
pub const COMPLETION_BYTES: u32 = 16;
/// IORING_SETUP_CQSIZE
pub const SETUP_CQSIZE: u32 = 1 << 3;
/// IORING_SETUP_NO_SQARRAY, since Linux 6.6.
pub const SETUP_NO_SQARRAY: u32 = 1 << 16;
const FEAT_SINGLE_MMAP: u32 = 1;

impl Params {
    /// Bytes of the area with both queues.
    pub fn queues_bytes(&self) -> u64 {
        let completions = u64::from(self.cq_off.cqes) + u64::from(self.cq_entries * COMPLETION_BYTES);
        let array = u64::from(self.sq_off.array) + u64::from(self.sq_entries) * 4;
        if self.flags & SETUP_NO_SQARRAY == 0 { completions.max(array) } else { completions }
    }

    /// Bytes of the area with the requests.
    pub fn requests_bytes(&self) -> u64 {
        u64::from(self.sq_entries) * u64::from(REQUEST_BYTES)
    }
}

/// `io_uring_setup(2)`, since Linux 5.1; both queues in one mapping, since Linux 5.4.
///
/// # Errors
/// `EPERM`, `ENOSYS` where io_uring is not allowed; `EINVAL` for flags that this kernel does not
/// have.
pub fn setup(sq_entries: u32, cq_entries: u32, flags: u32) -> Result<(OwnedFd, Params), Errno> {
    let mut params = Params { cq_entries, flags, ..Params::default() };
    // SAFETY: `params` is a live, correctly laid out io_uring_params (sizes asserted above).
    let raw = unsafe { libc::syscall(libc::SYS_io_uring_setup, sq_entries, &raw mut params) };
    let raw = Errno::result(raw)? as i32;
    // SAFETY: a fresh descriptor that nobody else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(raw) };
    if params.features & FEAT_SINGLE_MMAP == 0 { Err(Errno::ENOSYS) } else { Ok((fd, params)) }
}

fn map(fd: BorrowedFd<'_>, offset: u64, len_bytes: u64) -> io::Result<MmapMut> {
    // SAFETY: a mapping of its own, of memory that the kernel keeps as long as it is mapped. Nobody
    // holds a reference into it: it is only copied from and to, and words of it are read and
    // written volatile.
    unsafe { MmapOptions::new().offset(offset).len(len_bytes as usize).map_mut(fd.as_raw_fd()) }
}

/// A copy of one area of a ring. Newer kernels map more than there is, so the kernel does the
/// copying: to us the end of the area would be SIGBUS.
///
/// # Errors
/// As mmap(2); `EFAULT` when the area is shorter.
pub fn read_area(fd: BorrowedFd<'_>, offset: u64, len_bytes: u64) -> io::Result<Vec<u8>> {
    let area = map(fd, offset, len_bytes)?;
    let copy = File::from(memfd_create(c"ring", MFdFlags::MFD_CLOEXEC)?);
    // SAFETY: the kernel reads from the mapping and finds out itself where it ends.
    let copied = unsafe { libc::write(copy.as_raw_fd(), area.as_ptr().cast(), area.len()) };
    if Errno::result(copied)? as usize != area.len() {
        return Err(Errno::EFAULT.into());
    }
    let mut bytes = vec![0; area.len()];
    copy.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Overwrites the beginning of one area of a ring, which must be as long.
///
/// # Errors
/// As mmap(2).
pub fn write_area(fd: BorrowedFd<'_>, offset: u64, bytes: &[u8]) -> io::Result<()> {
    map(fd, offset, bytes.len() as u64).map(|mut area| area.copy_from_slice(bytes))
}

/// `io_uring_enter(2)` without waiting. Returns the number of requests that the kernel took.
///
/// # Errors
/// `EBADFD`: the ring has been made disabled.
pub fn enter(fd: BorrowedFd<'_>, submit: u32) -> Result<u32, Errno> {
    let none = std::ptr::null::<u8>();
    // SAFETY: no signal mask is passed; what the requests point to is the caller's matter, and
    // no-operations point to nothing.
    let taken = unsafe { libc::syscall(libc::SYS_io_uring_enter, fd.as_raw_fd(), submit, 0, 0, none, 0) };
    Errno::result(taken).map(|taken| taken as u32)
}

/// Lets a fresh ring take and complete `turns` requests that do nothing: what it counts inside
/// cannot be set.
///
/// # Errors
/// As mmap(2) and io_uring_enter(2); `EIO` when the ring does something else.
pub fn turn(fd: BorrowedFd<'_>, params: &Params, turns: u32) -> io::Result<()> {
    let mut queues = map(fd, OFF_QUEUES, params.queues_bytes())?;
    let base = queues.as_mut_ptr();
    let word = |offset: u32| {
        debug_assert!(u64::from(offset) + 4 <= params.queues_bytes() && offset.is_multiple_of(4));
        // SAFETY: the kernel's offsets lie inside the area that was just mapped.
        unsafe { base.add(offset as usize) }.cast::<u32>()
    };
    let (tail, cq_head, cq_tail) =
        (word(params.sq_off.tail), word(params.cq_off.head), word(params.cq_off.tail));
    let mut done = 0;
    while done < turns {
        // The requests and the index array are zero: each turn is request 0, IORING_OP_NOP.
        let batch = (turns - done).min(params.sq_entries);
        // SAFETY: words of the mapped area, aligned; the kernel looks at them during the system
        // call only.
        unsafe { tail.write_volatile(done + batch) };
        let taken = enter(fd, batch)?;
        // SAFETY: as above.
        let completed = unsafe { cq_tail.read_volatile() };
        if taken != batch || completed != done + batch {
            return Err(Errno::EIO.into());
        }
        // SAFETY: as above.
        unsafe { cq_head.write_volatile(completed) };
        done += batch;
    }
    Ok(())
}

/// IORING_REGISTER_RING_FDS, since Linux 5.18.
pub const REGISTER_RING_FDS: u64 = 20;
const REGISTER_EVENTFD: u32 = 4;
const UNREGISTER_EVENTFD: u32 = 5;
/// Nothing lies there in any process (mmap_min_addr), so what would be read from it never is.
const NOWHERE: usize = 1;

/// What `io_uring_register(2)` says to an event descriptor at an address that does not exist:
/// `EFAULT` when there could be one, `EBUSY` when there is one already, `EEXIST` when only the
/// thread that made the ring may ask, `EACCES` when the ring is restricted.
pub fn answer_to_eventfd(fd: BorrowedFd<'_>) -> Errno {
    // SAFETY: the address is not one of ours; the kernel finds that it cannot read there and
    // changes nothing.
    let raw =
        unsafe { libc::syscall(libc::SYS_io_uring_register, fd.as_raw_fd(), REGISTER_EVENTFD, NOWHERE, 1) };
    Errno::result(raw).err().unwrap_or(Errno::UnknownErrno)
}

/// Arguments of the same question about the ring that the calling thread has under a number
/// (IORING_REGISTER_USE_REGISTERED_RING, since Linux 6.3; `EINVAL` before).
pub fn question_by_number(number: u32) -> [u64; 6] {
    const USE_REGISTERED_RING: u64 = 1 << 31;
    [u64::from(number), u64::from(REGISTER_EVENTFD) | USE_REGISTERED_RING, NOWHERE as u64, 1, 0, 0]
}

/// An event descriptor of ours on a ring at rest that has none, by which the ring can be told from
/// others. Dropped, it is taken off.
#[derive(Debug)]
pub struct Mark<'a> {
    ring: BorrowedFd<'a>,
    on: bool,
}

impl<'a> Mark<'a> {
    /// Puts it on.
    ///
    /// # Errors
    /// `EBUSY` when the ring has one.
    pub fn put(ring: BorrowedFd<'a>) -> Result<Self, Errno> {
        let event = super::rebuild::eventfd(0, libc::EFD_CLOEXEC)?;
        let number = event.as_raw_fd();
        let (call, ring_fd) = (libc::SYS_io_uring_register, ring.as_raw_fd());
        // SAFETY: the kernel reads one live int; it keeps the description, not our number.
        Errno::result(unsafe { libc::syscall(call, ring_fd, REGISTER_EVENTFD, &raw const number, 1) })?;
        Ok(Self { ring, on: true })
    }

    /// Takes it off.
    ///
    /// # Errors
    /// None in practice.
    pub fn remove(mut self) -> Result<(), Errno> {
        self.take_off()
    }

    fn take_off(&mut self) -> Result<(), Errno> {
        self.on = false;
        let (call, ring) = (libc::SYS_io_uring_register, self.ring.as_raw_fd());
        // SAFETY: no pointers.
        Errno::result(unsafe { libc::syscall(call, ring, UNREGISTER_EVENTFD, 0usize, 0) }).map(drop)
    }
}

impl Drop for Mark<'_> {
    fn drop(&mut self) {
        if self.on {
            // Best effort on the way out of another error.
            let _ = self.take_off();
        }
    }
}

/// Whether this kernel maps a ring where it is told to; since Linux 6.5 it chooses the place
/// itself.
///
/// # Errors
/// As mmap(2).
pub fn takes_address(fd: BorrowedFd<'_>, params: &Params) -> io::Result<bool> {
    let first = map(fd, OFF_QUEUES, params.queues_bytes())?;
    let (at, len) = (first.as_ptr(), first.len());
    drop(first);
    let (prot, flags) = (libc::PROT_READ, libc::MAP_SHARED | libc::MAP_FIXED_NOREPLACE);
    // SAFETY: MAP_FIXED_NOREPLACE maps only where nothing is.
    let again = unsafe { libc::mmap(at as *mut _, len, prot, flags, fd.as_raw_fd(), OFF_QUEUES as i64) };
    if again == libc::MAP_FAILED {
        return match Errno::last() {
            Errno::EINVAL => Ok(false),
            errno => Err(errno.into()),
        };
    }
    // SAFETY: the mapping that was just made, to which nothing refers.
    unsafe { libc::munmap(again, len) };
    Ok(again.cast_const() == at.cast())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_ring_counts_its_turns() {
        let (fd, params) = setup(8, 32, SETUP_CQSIZE).unwrap();
        turn(fd.as_fd(), &params, 1003).unwrap();
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).unwrap();
        for line in ["CachedSqHead:\t1003", "CachedCqTail:\t1003", "CqHead:\t1003"] {
            assert!(info.contains(line), "{info}");
        }
    }

    #[test]
    fn areas_are_read_as_written() {
        let (fd, params) = setup(8, 16, 0).unwrap();
        let requests = vec![7; params.requests_bytes() as usize];
        write_area(fd.as_fd(), OFF_REQUESTS, &requests).unwrap();
        assert_eq!(read_area(fd.as_fd(), OFF_REQUESTS, params.requests_bytes()).unwrap(), requests);
        // Longer than it is: an error, not a signal.
        read_area(fd.as_fd(), OFF_REQUESTS, 1 << 20).unwrap_err();
    }
}
