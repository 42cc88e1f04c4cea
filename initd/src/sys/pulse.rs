//! A counter that a process shares with those that it forks.

use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};

/// Counts up as long as somebody is at work.
#[derive(Debug)]
pub struct Pulse(NonNull<AtomicU64>);

// SAFETY: all that is ever reached through the pointer is an atomic.
unsafe impl Send for Pulse {}
// SAFETY: as above.
unsafe impl Sync for Pulse {}

impl Pulse {
    /// A new one. Its page is never given back: there is one for the life of a process.
    ///
    /// # Errors
    /// From `mmap(2)`.
    pub fn new() -> io::Result<Pulse> {
        let len = NonZeroUsize::MIN.saturating_add(size_of::<AtomicU64>() - 1);
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping, at an address that the kernel chooses, takes nothing from anybody.
        let page = unsafe { mmap_anonymous(None, len, protection, MapFlags::MAP_SHARED) }?;
        Ok(Pulse(page.cast()))
    }

    /// Something was done.
    pub fn beat(&self) {
        self.counter().fetch_add(1, Ordering::Release);
    }

    /// How often so far.
    pub fn beats(&self) -> u64 {
        self.counter().load(Ordering::Acquire)
    }

    fn counter(&self) -> &AtomicU64 {
        // SAFETY: the page is mapped for good, begins at a page's boundary and was zero, which is
        // an atomic's valid value.
        unsafe { self.0.as_ref() }
    }
}
