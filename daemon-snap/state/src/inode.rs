//! Files by path, volatile and deleted files, memfds, shared memory; and open descriptions of them.

use super::check::{Around, Result, check, is_path};
use super::kind::FileState;
use super::{InodeId, PAGE_BYTES, PosixQueueV1, RawPath, RingV1, SegmentV1, XattrsV1};
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
    Path { path: RawPath },
    /// On a volatile file system: made again with content if it is not there, overwritten if it is.
    Volatile { path: RawPath },
    /// Below the /proc directory of the process that has it open; opened by that process itself.
    OfProcess { path: RawPath },
    /// The name it was opened by is gone, but it has another one.
    Renamed { was: RawPath, path: RawPath },
    /// Unlinked while open or mapped: made again as a nameless file in the directory of `path`, or
    /// as a memfd.
    Deleted { path: RawPath },
    /// `memfd_create(2)`; flags MFD_*, seals F_SEAL_*.
    Memfd { name: Vec<u8>, flags: u32, seals: u32 },
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

impl InodeV1 {
    pub(crate) fn check(&self, around: &Around<'_>) -> Result<()> {
        match &self.kind {
            InodeKindV1::Path { path } | InodeKindV1::OfProcess { path } => {
                check(is_path(&path.0), "an inode that is not a path")?;
                check(self.content.is_empty(), "content of a file that does not travel")?;
            }
            InodeKindV1::Renamed { was, path } => {
                check(is_path(&was.0) && is_path(&path.0), "an inode that is not a path")?;
                check(self.content.is_empty(), "content of a file that does not travel")?;
            }
            InodeKindV1::Volatile { path } | InodeKindV1::Deleted { path } => {
                check(is_path(&path.0), "an inode that is not a path")?;
            }
            InodeKindV1::Memfd { name, .. } => check(!name.contains(&0), "a memfd name with NUL")?,
            InodeKindV1::SharedAnon => {}
            InodeKindV1::Ring(ring) => {
                ring.check()?;
                check(self.content.is_empty(), "an io_uring ring with more than it holds")?;
            }
            InodeKindV1::MessageQueue(queue) => {
                queue.check()?;
                check(self.content.is_empty(), "a message queue with pages")?;
            }
            InodeKindV1::Segment(segment) => segment.check(self.len_bytes)?,
        }
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
