//! An io_uring whose requests are prepared now and submitted by the tape (io_uring_setup(2), since Linux 5.1).
//!
//! Written against the system call because the rings must lie inside the area, which no wrapper offers.

use crate::error::{Error, Result};
use io_uring::squeue;
use nix::errno::Errno;
use std::mem::{offset_of, size_of};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct SqOffsets {
    head: u32,
    tail: u32,
    ring_mask: u32,
    ring_entries: u32,
    flags: u32,
    dropped: u32,
    array: u32,
    resv1: u32,
    user_addr: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CqOffsets {
    head: u32,
    tail: u32,
    ring_mask: u32,
    ring_entries: u32,
    overflow: u32,
    cqes: u32,
    flags: u32,
    resv1: u32,
    user_addr: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Params {
    sq_entries: u32,
    cq_entries: u32,
    flags: u32,
    sq_thread_cpu: u32,
    sq_thread_idle: u32,
    features: u32,
    wq_fd: u32,
    resv: [u32; 3],
    sq_off: SqOffsets,
    cq_off: CqOffsets,
}

const _: () = assert!(size_of::<Params>() == 120 && offset_of!(Params, sq_off) == 40);
const _: () = assert!(size_of::<squeue::Entry>() == 64);

const OFF_RINGS: i64 = 0;
const OFF_ENTRIES: i64 = 0x1000_0000;
const FEAT_SINGLE_MMAP: u32 = 1;
const CQE_BYTES: u32 = 16;
/// `IORING_MAX_ENTRIES`.
pub const MAX_ENTRIES: usize = 32768;

/// Addresses that the tape needs.
#[derive(Debug)]
pub struct Ring {
    pub fd: OwnedFd,
    pub cq_head: u64,
    pub cq_tail: u64,
    pub cq_mask: u32,
    pub cq_entries: u64,
}

/// Bytes that the rings of `requests` entries take at most, each mapping rounded to pages.
pub fn len_bound(requests: usize) -> u64 {
    let entries = requests.next_power_of_two() as u64;
    let rings = 4096 + entries * 4 + entries * 2 * u64::from(CQE_BYTES);
    rings.next_multiple_of(4096) + (entries * 64).next_multiple_of(4096) + 8192
}

/// Creates a ring, maps it at `at` (page-aligned, [`len_bound`] bytes reserved there) and queues the entries.
/// The descriptor is moved to `min_fd` or above.
///
/// # Errors
/// `EPERM`, `ENOSYS` where io_uring is not allowed: the caller falls back to preadv(2).
pub fn prepare(at: u64, entries: &[squeue::Entry], min_fd: i32) -> Result<Ring> {
    if entries.len() > MAX_ENTRIES {
        return Err(Error::Internal {
            step: "io_uring_setup",
            message: format!("{} requests", entries.len()),
        });
    }
    let mut params = Params::default();
    // SAFETY: `params` is a live, correctly laid out io_uring_params (sizes asserted above).
    let raw = unsafe {
        libc::syscall(libc::SYS_io_uring_setup, entries.len().next_power_of_two() as u32, &raw mut params)
    };
    let low = i32::try_from(raw).ok().filter(|fd| *fd >= 0);
    let Some(low) = low else { return Err(Error::kernel("io_uring_setup", "ring", Errno::last())) };
    // SAFETY: a fresh descriptor that nobody else owns.
    let low = unsafe { OwnedFd::from_raw_fd(low) };
    // SAFETY: F_DUPFD_CLOEXEC only makes a new descriptor.
    let high = unsafe { libc::fcntl(low.as_raw_fd(), libc::F_DUPFD_CLOEXEC, min_fd) };
    if high < 0 {
        return Err(Error::kernel("io_uring_setup", "descriptor", Errno::last()));
    }
    // SAFETY: as above.
    let fd = unsafe { OwnedFd::from_raw_fd(high) };
    if params.features & FEAT_SINGLE_MMAP == 0 {
        return Err(Error::kernel("io_uring_setup", "IORING_FEAT_SINGLE_MMAP", Errno::ENOSYS));
    }
    let sq_len = u64::from(params.sq_off.array + params.sq_entries * 4);
    let cq_len = u64::from(params.cq_off.cqes + params.cq_entries * CQE_BYTES);
    let rings_len = sq_len.max(cq_len).next_multiple_of(4096);
    let entries_at = at + rings_len;
    if rings_len + u64::from(params.sq_entries) * 64 > len_bound(entries.len()) {
        return Err(Error::Internal {
            step: "io_uring_setup",
            message: "rings larger than estimated".into(),
        });
    }
    map_ring(&fd, at, rings_len, OFF_RINGS)?;
    map_ring(&fd, entries_at, u64::from(params.sq_entries) * 64, OFF_ENTRIES)?;
    // SAFETY: both mappings were just made with at least these sizes; the kernel reads them only at io_uring_enter; the
    // offsets come from the kernel and lie inside; Entry is the 64-byte submission entry (asserted).
    unsafe {
        std::ptr::copy_nonoverlapping(entries.as_ptr(), entries_at as *mut squeue::Entry, entries.len());
        let array = (at + u64::from(params.sq_off.array)) as *mut u32;
        for index in 0..entries.len() {
            array.add(index).write(index as u32);
        }
        let tail = (at + u64::from(params.sq_off.tail)) as *mut u32;
        tail.write_volatile(entries.len() as u32);
    }
    Ok(Ring {
        fd,
        cq_head: at + u64::from(params.cq_off.head),
        cq_tail: at + u64::from(params.cq_off.tail),
        cq_mask: params.cq_entries - 1,
        cq_entries: at + u64::from(params.cq_off.cqes),
    })
}

/// The kernel chooses where a ring is mapped first; it may be moved afterwards.
fn map_ring(fd: &OwnedFd, at: u64, len: u64, offset: i64) -> Result<()> {
    let failed = || Error::kernel("mapping the io_uring", "ring", Errno::last());
    let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_POPULATE);
    let len = len as usize;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let first = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, fd.as_raw_fd(), offset) };
    if first == libc::MAP_FAILED {
        return Err(failed());
    }
    let moving = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    // SAFETY: moves the mapping just made onto pages inside the area that the caller reserved for this and that hold nothing.
    let got = unsafe { libc::mremap(first, len, len, moving, at as *mut libc::c_void) };
    if got as u64 == at { Ok(()) } else { Err(failed()) }
}
