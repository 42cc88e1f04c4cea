//! File system and memory objects, and open descriptions of files. What each kind of object consists
//! of is in the file of that kind.

use super::check::{Around, Result, check};
use super::kind::FileState;
use super::object::{Mapped, ObjectState};
use super::{
    DeletedFileV1, InodeId, MemfdV1, NamedFileV1, PAGE_BYTES, PosixQueueV1, ProcessFileV1, RawPath,
    RenamedFileV1, RingV1, SegmentV1, SharedAnonV1, VolatileFileV1, XattrsV1,
};
use serde::{Deserialize, Serialize};

/// A description of a regular file, directory, device node, O_PATH, memfd, shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenInodeV1 {
    pub inode: InodeId,
    pub pos: u64,
}

impl FileState for OpenInodeV1 {
    fn name(&self) -> &'static str {
        "file"
    }

    fn inode(&self) -> Option<InodeId> {
        Some(self.inode)
    }

    fn check(&self, _: i32, around: &Around<'_>) -> Result<()> {
        check(around.has_inode(self.inode), "a file without inode")
    }
}

/// A file system object or memory object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InodeV1 {
    pub id: InodeId,
    pub kind: InodeKindV1,
    /// `st_mode`.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub len_bytes: u64,
    /// For device nodes.
    pub rdev: u64,
    /// Of files whose content travels; nanoseconds since 1970.
    pub mtime_ns: i64,
    /// The same.
    pub atime_ns: i64,
    /// Of files that are made again; access control lists are among them.
    pub xattrs: XattrsV1,
    /// Content that travels in the image; holes are left out. Empty for [`InodeKindV1::Path`].
    pub content: Vec<ContentRunV1>,
}

/// Where an object comes from at the restore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InodeKindV1 {
    /// Opened by path; must be there. Covers files, directories, devices, named FIFOs, sockets
    /// opened with O_PATH.
    Path(NamedFileV1),
    /// On a volatile file system: made again with content if it is not there, overwritten if it is.
    Volatile(VolatileFileV1),
    /// Below the /proc directory of the process that has it open; opened by that process itself.
    OfProcess(ProcessFileV1),
    /// The name it was opened by is gone, but it has another one.
    Renamed(RenamedFileV1),
    /// Unlinked while open or mapped: made again as a nameless file in the directory of `path`, or
    /// as a memfd.
    Deleted(DeletedFileV1),
    /// `memfd_create(2)`.
    Memfd(MemfdV1),
    /// MAP_SHARED | MAP_ANONYMOUS.
    SharedAnon,
    /// System V shared memory; mapped as a whole only.
    Segment(SegmentV1),
    /// `io_uring_setup(2)`.
    Ring(RingV1),
    /// `mq_open(3)`; its messages stand here.
    MessageQueue(PosixQueueV1),
}

/// Consecutive pages of a file and where the image holds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentRunV1 {
    /// Multiple of the page size.
    pub file_offset: u64,
    pub pages: u32,
    pub image_offset: u64,
}

impl InodeKindV1 {
    /// The only place of this crate that tells kinds of objects apart: a line for each.
    fn state(&self) -> &dyn ObjectState {
        match self {
            Self::Path(file) => file,
            Self::Volatile(file) => file,
            Self::OfProcess(file) => file,
            Self::Renamed(file) => file,
            Self::Deleted(file) => file,
            Self::Memfd(memfd) => memfd,
            Self::SharedAnon => &SharedAnonV1,
            Self::Segment(segment) => segment,
            Self::Ring(ring) => ring,
            Self::MessageQueue(queue) => queue,
        }
    }

    /// Where an object that does not travel is found again.
    pub fn found_at(&self) -> Option<&RawPath> {
        self.state().found_at()
    }

    /// The name of an object that may have further ones.
    pub fn first_name(&self) -> Option<&RawPath> {
        self.state().first_name()
    }

    pub(crate) fn check_mapping(&self, mapped: Mapped) -> Result<()> {
        self.state().check_mapping(mapped)
    }
}

impl InodeV1 {
    pub(crate) fn check(&self, around: &Around<'_>) -> Result<()> {
        self.kind.state().check(self.len_bytes)?;
        let may_have_pages = self.content.is_empty() || self.kind.state().has_pages();
        check(may_have_pages, "pages of an object that has none")?;
        check(self.len_bytes <= i64::MAX as u64, "a file too long")?;
        let end = self.len_bytes.next_multiple_of(PAGE_BYTES);
        let mut at = 0;
        for run in &self.content {
            let within = run.file_offset >= at && run.file_offset.is_multiple_of(PAGE_BYTES);
            check(within && run.pages > 0, "content out of order")?;
            at = run.file_offset.saturating_add(u64::from(run.pages) * PAGE_BYTES);
            check(at <= end, "content behind the end of its file")?;
            check(around.has_pages(run.image_offset, run.pages), "content outside the image")?;
        }
        Ok(())
    }
}
