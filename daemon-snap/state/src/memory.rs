//! Address spaces and the pages they own.

use super::{Addr, InodeId};
use serde::{Deserialize, Serialize};

/// Bytes of a page on x86-64.
pub const PAGE_BYTES: u64 = 4096;

/// One address space.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MmV1 {
    pub layout: MmLayoutV1,
    /// Auxiliary vector as in /proc/PID/auxv.
    pub auxv: Vec<u8>,
    /// Sorted by address, not overlapping.
    pub vmas: Vec<VmaV1>,
    /// Pages of private memory that differ from what mapping again would give. Sorted by address.
    pub runs: Vec<PageRunV1>,
    /// Pages that nobody may touch (MADV_GUARD_INSTALL, since Linux 6.13). Sorted by address.
    pub guards: Vec<GuardV1>,
    /// `mlockall(MCL_FUTURE)`: what is mapped from now on is locked.
    pub lock_future: LockFutureV1,
    /// `PR_SET_MEMORY_MERGE` (since Linux 6.4).
    pub merge_all: bool,
}

/// Consecutive guard pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardV1 {
    pub start: Addr,
    /// Exclusive.
    pub end: Addr,
}

/// What `mlockall(2)` said of later mappings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LockFutureV1 {
    #[default]
    No,
    /// MCL_FUTURE
    AtOnce,
    /// MCL_FUTURE | MCL_ONFAULT
    OnFault,
}

/// Fields of `struct prctl_mm_map` (prctl(2), PR_SET_MM_MAP, since Linux 3.18).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MmLayoutV1 {
    pub start_code: Addr,
    pub end_code: Addr,
    pub start_data: Addr,
    pub end_data: Addr,
    pub start_brk: Addr,
    pub brk: Addr,
    pub start_stack: Addr,
    pub arg_start: Addr,
    pub arg_end: Addr,
    pub env_start: Addr,
    pub env_end: Addr,
}

/// A virtual memory area.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmaV1 {
    pub start: Addr,
    /// Exclusive.
    pub end: Addr,
    /// PROT_READ 1, PROT_WRITE 2, PROT_EXEC 4.
    pub prot: u8,
    /// MAP_SHARED.
    pub shared: bool,
    pub backing: BackingV1,
    pub flags: VmaFlagsV1,
    /// `PR_SET_VMA_ANON_NAME` (since Linux 5.17).
    pub name: Option<Vec<u8>>,
}

impl VmaV1 {
    /// Bytes.
    pub fn len_bytes(&self) -> u64 {
        self.end.0 - self.start.0
    }
}

/// What a VMA maps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BackingV1 {
    /// Private anonymous memory.
    Anon,
    /// A file, memfd or shared memory object from `offset` bytes; `may_write`: mapped through a
    /// writable description.
    Inode {
        inode: InodeId,
        offset: u64,
        may_write: bool,
    },
    Vdso,
    /// Kernel data pages of the vDSO; `part` numbers the areas by address (`[vvar]` 0,
    /// `[vvar_vclock]` 1 since 6.13).
    Vvar {
        part: u8,
    },
}

/// Attributes from smaps `VmFlags` that mmap and madvise can set again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmaFlagsV1 {
    /// gd
    pub grows_down: bool,
    /// lo
    pub locked: bool,
    /// lf (MLOCK_ONFAULT)
    pub lock_on_fault: bool,
    /// sr
    pub sequential: bool,
    /// rr
    pub random: bool,
    /// dc
    pub dont_fork: bool,
    /// dd
    pub dont_dump: bool,
    /// wf: comes back empty
    pub wipe_on_fork: bool,
    /// dp: comes back empty (MAP_DROPPABLE, since Linux 6.11)
    pub droppable: bool,
    /// nr
    pub no_reserve: bool,
    /// hg
    pub huge_page: bool,
    /// nh
    pub no_huge_page: bool,
    /// mg
    pub mergeable: bool,
    /// sl (mseal(2), since Linux 6.10)
    pub sealed: bool,
}

/// Consecutive pages of an address space and where the image holds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageRunV1 {
    pub addr: Addr,
    pub pages: u32,
    /// Absolute offset in the image file, a multiple of [`PAGE_BYTES`].
    pub image_offset: u64,
}
