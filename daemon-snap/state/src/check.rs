//! What checks have in common. What has to hold for a part of a tree stands beside that part.
//!
//! An image is untrusted until everything in it has been checked: a checked tree has no id out of
//! range, no overlapping areas, and no page outside its area or outside the image.

pub use crate::corrupt::{Corrupt, SectionFault, Wanted};
use crate::{FileId, FilterId, InodeId, PAGE_BYTES, Pid, PipeId, TargetFd};
use std::collections::BTreeSet;
use std::ops::Range;

/// User space ends here (47 bits).
pub(crate) const USER_END: u64 = 1 << 47;
pub(crate) const MAX_COMM_BYTES: usize = 15;

pub(crate) type Result<T> = std::result::Result<T, Corrupt>;

pub(crate) fn corrupt(what: &'static str) -> Corrupt {
    Corrupt::Rule(what)
}

pub(crate) fn check(holds: bool, what: &'static str) -> Result<()> {
    if holds { Ok(()) } else { Err(corrupt(what)) }
}

/// What a part of a tree may refer to.
#[derive(Debug)]
pub(crate) struct Around<'a> {
    /// Where the image holds pages.
    pub page_area: &'a Range<u64>,
    /// How many entries the tables have.
    pub files: usize,
    pub inodes: usize,
    pub pipes: usize,
    pub filters: usize,
    /// Objects that are io_uring rings.
    pub rings: BTreeSet<InodeId>,
    pub processes: BTreeSet<Pid>,
    pub zombies: BTreeSet<Pid>,
    pub threads: BTreeSet<Pid>,
}

impl Around<'_> {
    pub fn has_file(&self, id: FileId) -> bool {
        id.index() < self.files
    }

    pub fn has_inode(&self, id: InodeId) -> bool {
        id.index() < self.inodes
    }

    pub fn has_pipe(&self, id: PipeId) -> bool {
        id.index() < self.pipes
    }

    pub fn has_filter(&self, id: FilterId) -> bool {
        id.index() < self.filters
    }

    pub fn has_process(&self, pid: Pid) -> bool {
        self.processes.contains(&pid)
    }

    /// A process, living or not; a thread where that may be meant.
    pub fn has_task(&self, pid: Pid, of_thread: bool) -> bool {
        self.has_process(pid) || self.zombies.contains(&pid) || of_thread && self.threads.contains(&pid)
    }

    /// Whether the image has these pages.
    pub fn has_pages(&self, offset: u64, pages: u32) -> bool {
        let len = u64::from(pages) * PAGE_BYTES;
        let aligned = offset.is_multiple_of(PAGE_BYTES) && offset >= self.page_area.start;
        aligned && offset.checked_add(len).is_some_and(|end| end <= self.page_area.end)
    }
}

/// A descriptor number, with room above it for ours.
pub(crate) fn is_number(fd: TargetFd) -> bool {
    (0..1 << 30).contains(&fd.0)
}

/// Absolute, and one that a system call takes.
pub(crate) fn is_path(path: &[u8]) -> bool {
    path.first() == Some(&b'/') && path.len() < libc::PATH_MAX as usize && !path.contains(&0)
}
