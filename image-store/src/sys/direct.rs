//! Reads past the page cache with several under way, into memory that is registered with the ring.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsRawFd as _;
use std::ptr::NonNull;
use std::time::Duration;

use io_uring::{IoUring, opcode, types};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};

/// Bytes of one read.
pub(crate) const SLOT_LEN: usize = 1 << 20;

/// A ring with its memory, and a file that was opened with `O_DIRECT`.
///
/// The kernel writes only to pages that it holds by their registration: dropping this in the middle
/// of a read frees addresses, not pages, so that what still arrives harms nobody.
#[derive(Debug)]
pub(crate) struct Reads {
    ring: Ring,
    file: File,
    slots: Slots,
    free: Vec<usize>,
    under_way: usize,
}

/// `IoUring` does not say what it is.
struct Ring(IoUring);

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ring")
    }
}

/// A read that has ended. Its slot is used again after [`Reads::put_back`].
#[derive(Debug)]
pub(crate) struct Arrived {
    /// What [`Reads::start`] was given.
    pub tag: u64,
    /// Where the bytes are.
    pub slot: usize,
    /// How many there are.
    pub result: io::Result<usize>,
}

impl Reads {
    /// Room for `depth` reads under way.
    ///
    /// # Errors
    /// No ring, one that cannot wait for a bounded time (before Linux 5.11), or memory that may not
    /// be registered.
    pub fn new(file: File, depth: usize) -> io::Result<Reads> {
        let entries = u32::try_from(depth.next_power_of_two()).map_err(io::Error::other)?;
        let ring = IoUring::new(entries)?;
        if !ring.params().is_feature_ext_arg() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let slots = Slots::new(depth)?;
        let vectors: Vec<libc::iovec> = (0..depth)
            .map(|slot| libc::iovec { iov_base: slots.at(slot).cast(), iov_len: SLOT_LEN })
            .collect();
        // SAFETY: the vectors lie within one mapping of ours. The kernel holds its pages from here
        // on, and only `bytes` and `bytes_mut` look at them.
        unsafe { ring.submitter().register_buffers(&vectors) }?;
        Ok(Reads { ring: Ring(ring), file, slots, free: (0..depth).rev().collect(), under_way: 0 })
    }

    /// Whether one more read can be started.
    pub fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// Reads that have not been returned by [`next`](Reads::next).
    pub fn under_way(&self) -> usize {
        self.under_way
    }

    /// Prepare a read of at most [`SLOT_LEN`] bytes, which [`next`](Reads::next) hands over.
    /// Offset and length are multiples of a page.
    ///
    /// # Errors
    /// There is no room for it.
    pub fn start(&mut self, offset: u64, len: usize, tag: u64) -> io::Result<()> {
        let full = || io::Error::from_raw_os_error(libc::EBUSY);
        let slot = self.free.pop().ok_or_else(full)?;
        let len = len.min(SLOT_LEN) as u32;
        // The tag is the index of a chunk, far below 2^56.
        let token = tag << 8 | slot as u64;
        let read =
            opcode::ReadFixed::new(types::Fd(self.file.as_raw_fd()), self.slots.at(slot), len, slot as u16);
        let read = read.offset(offset).build().user_data(token);
        // SAFETY: the slot is one of the registered buffers, longer than `len` and free: nobody
        // looks into it until the read has come back and the slot with it. The file is ours as long
        // as the ring is.
        unsafe { self.ring.0.submission().push(&read) }.map_err(|_| full())?;
        self.under_way += 1;
        Ok(())
    }

    /// Hand over what is prepared, and return a read that has ended. `None`: none has, within
    /// `wait`.
    ///
    /// # Errors
    /// io_uring_enter(2).
    pub fn next(&mut self, wait: Duration) -> io::Result<Option<Arrived>> {
        if let Some(arrived) = self.take() {
            // What is prepared goes on its way while the caller is busy with this one.
            return self.submit().map(|()| Some(arrived));
        }
        if wait.is_zero() {
            self.submit()?;
            return Ok(self.take());
        }
        let time = types::Timespec::new().sec(wait.as_secs()).nsec(wait.subsec_nanos());
        let args = types::SubmitArgs::new().timespec(&time);
        let waited = self.ring.0.submitter().submit_with_args(1, &args);
        pass(waited).map(|()| self.take())
    }

    fn submit(&mut self) -> io::Result<()> {
        if self.ring.0.submission().is_empty() {
            return Ok(());
        }
        pass(self.ring.0.submit())
    }

    fn take(&mut self) -> Option<Arrived> {
        let done = self.ring.0.completion().next()?;
        self.under_way -= 1;
        let (tag, slot) = (done.user_data() >> 8, (done.user_data() & 0xff) as usize);
        let result = match done.result() {
            errno if errno < 0 => Err(io::Error::from_raw_os_error(-errno)),
            len => Ok(len as usize),
        };
        Some(Arrived { tag, slot, result })
    }

    /// The bytes of a slot that has arrived.
    pub fn bytes(&mut self, arrived: &Arrived) -> &mut [u8] {
        // SAFETY: the slot is part of the mapping, whose bytes are initialised. No read into it is
        // under way, because `Arrived` is made once for each, and `self` is borrowed.
        unsafe { std::slice::from_raw_parts_mut(self.slots.at(arrived.slot), SLOT_LEN) }
    }

    /// The slot may be read into again.
    pub fn put_back(&mut self, arrived: Arrived) {
        self.free.push(arrived.slot);
    }
}

/// A wait that was cut short is none that failed.
fn pass(entered: io::Result<usize>) -> io::Result<()> {
    match entered {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EAGAIN)) => {
            Ok(())
        }
        entered => entered.map(drop),
    }
}

/// Memory of the reads.
#[derive(Debug)]
struct Slots {
    memory: NonNull<u8>,
    len: NonZeroUsize,
}

impl Slots {
    fn new(count: usize) -> io::Result<Slots> {
        let len = NonZeroUsize::new(count * SLOT_LEN).ok_or(io::ErrorKind::InvalidInput)?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping, at an address that the kernel chooses, takes nothing from anybody.
        let memory = unsafe { mmap_anonymous(None, len, protection, MapFlags::MAP_PRIVATE) }?;
        // SAFETY: the mapping of above; the advice changes no content. Where it is refused there
        // are more faults.
        let _ = unsafe { madvise(memory, len.get(), MmapAdvise::MADV_HUGEPAGE) };
        Ok(Slots { memory: memory.cast(), len })
    }

    fn at(&self, slot: usize) -> *mut u8 {
        debug_assert!((slot + 1) * SLOT_LEN <= self.len.get());
        // SAFETY: slots are handed out by `Reads` alone, which has as many as fit the mapping.
        unsafe { self.memory.as_ptr().add(slot * SLOT_LEN) }
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing refers to it: `Reads::bytes` borrows. It cannot
        // fail for a whole mapping.
        let _ = unsafe { munmap(self.memory.cast(), self.len.get()) };
    }
}
