//! What a tape needs to know of the process that will run it, by what it is.

use super::inherited::Inherited;
use snap_error::Result;
use snap_state::{FileId, InodeId, PageRunV1, SeccompFilterV1};
use std::ops::Range;

/// How threads get their ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TidMode {
    /// `clone3` with `set_tid` (since Linux 5.5; needs CAP_CHECKPOINT_RESTORE in the owner of the
    /// PID namespace).
    SetTid,
    /// Inside a user namespace: the worker outside makes the id the next one to be given out;
    /// verified.
    LastPid,
}

/// A part of the vDSO by role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VdsoPart {
    Code,
    Data(u8),
}

/// Where this process has a part of the vDSO now.
#[derive(Clone, Copy, Debug)]
pub struct VdsoPlace {
    pub backing: VdsoPart,
    pub start: u64,
    pub end: u64,
}

/// Descriptors of ours in the process.
#[derive(Clone, Copy, Debug)]
pub struct OwnFds {
    pub image: i32,
    /// The recorded executable.
    pub exe: i32,
    /// Write end of the pipe to the worker.
    pub status: i32,
    /// Read end of this process's own pipe from the worker.
    pub go: i32,
    /// What pages are copied with into the areas that are meant for it (userfaultfd(2)).
    pub pages: Option<i32>,
    /// Socket that late descriptors of this process come from.
    pub late: Option<i32>,
    /// All descriptors from here up are ours and closed at the end.
    pub first: i32,
}

/// The process as it is before the tape runs.
#[derive(Debug)]
pub struct ProcessNow<'a> {
    /// Address ranges that are mapped.
    pub mapped: Vec<Range<u64>>,
    pub vdso_parts: Vec<VdsoPlace>,
    /// What of the recorded memory is in place already.
    pub inherited: &'a Inherited,
    /// The worker writes the pages of this process, but for those at the addresses of these.
    pub awaits_all_but: Option<&'a [PageRunV1]>,
    /// Sorted areas into which pages are copied, where there is a descriptor for it. They have none
    /// when they have been mapped.
    pub copy_areas: &'a [Range<u64>],
    /// Effective capabilities.
    pub caps: u64,
    /// Capability bounding set.
    pub bounding: u64,
    /// CPU mask; equal masks are not set again.
    pub affinity: &'a [u64],
}

/// What is made of the recorded objects on this machine.
pub trait Objects {
    /// Our descriptor for a mapped object; `writable`: one to write through is needed.
    ///
    /// # Errors
    /// There is none: the image refers to an object that it does not have.
    fn mapped_fd(&self, id: InodeId, writable: bool) -> Result<i32>;
    /// Id of a System V segment, when the object is one.
    fn segment(&self, id: InodeId) -> Option<i32>;
    /// Whether the kernel chooses where an object is mapped.
    fn is_unplaceable(&self, id: InodeId) -> bool;
    /// Whether a description is made when all processes exist.
    fn is_late(&self, id: FileId) -> bool;
    /// A recorded user id as one that system calls of this process take.
    ///
    /// # Errors
    /// The user namespace of the process does not have it.
    fn map_uid(&self, uid: u32) -> Result<u32>;
    /// The same for a group id.
    ///
    /// # Errors
    /// As [`Objects::map_uid`].
    fn map_gid(&self, gid: u32) -> Result<u32>;
}

/// What the tape has to do for this process beside what its state says.
#[derive(Clone, Copy, Debug)]
pub struct Duties {
    pub tid_mode: TidMode,
    /// Thread id for the thread that installs seccomp filters; free in the whole tree. 0: whichever
    /// comes.
    pub helper_tid: i32,
    /// Whether the process says that it exists, for the sake of those who have a descriptor of it.
    pub announces: bool,
    /// Whether children of this process are stopped.
    pub has_stopped_children: bool,
    /// Whether supplementary groups are still to be set (inside a user namespace they were set
    /// before it was entered).
    pub sets_groups: bool,
}

/// Words of libraries that are to lead to another answer than getpid(2)'s.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reseed {
    /// Addresses of the words; their pages are among those that are loaded.
    pub slots: Vec<u64>,
    /// The page that answers, where the recorded process has one already.
    pub page: Option<u64>,
    /// What process ids are mixed with in this life.
    pub key: u32,
}

/// All of it.
pub struct TapeEnv<'a> {
    pub fds: OwnFds,
    pub now: ProcessNow<'a>,
    pub duties: Duties,
    pub reseed: Option<&'a Reseed>,
    pub objects: &'a dyn Objects,
    pub filters: &'a [SeccompFilterV1],
}

impl std::fmt::Debug for TapeEnv<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("TapeEnv");
        shown
            .field("fds", &self.fds)
            .field("now", &self.now)
            .field("duties", &self.duties)
            .field("reseed", &self.reseed)
            .finish_non_exhaustive()
    }
}
