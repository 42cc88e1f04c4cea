//! Address spaces and the pages they own.

use super::check::{Around, Result, USER_END, check, corrupt};
use super::object::Mapped;
use super::{Addr, InodeId, InodeV1, PAGE_BYTES};
use serde::{Deserialize, Serialize};

/// One address space.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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

impl MmV1 {
    /// `inodes`: of the whole tree.
    pub(crate) fn check(&self, inodes: &[InodeV1], around: &Around<'_>) -> Result<()> {
        let mut end = 0;
        for vma in &self.vmas {
            let aligned = vma.start.0.is_multiple_of(PAGE_BYTES) && vma.end.0.is_multiple_of(PAGE_BYTES);
            check(aligned && vma.start.0 >= end && vma.start < vma.end, "areas out of order")?;
            end = vma.end.0;
            check(end <= USER_END && vma.prot <= 7, "an area outside user space")?;
            vma.check_backing(inodes)?;
        }
        let mut at = 0;
        for guard in &self.guards {
            let aligned = guard.start.0.is_multiple_of(PAGE_BYTES) && guard.end.0.is_multiple_of(PAGE_BYTES);
            let in_order = guard.start.0 >= at && guard.start < guard.end && guard.end.0 <= USER_END;
            check(aligned && in_order, "guard pages out of order")?;
            at = guard.end.0;
        }
        self.check_runs(around)
    }

    fn check_runs(&self, around: &Around<'_>) -> Result<()> {
        let mut areas = self.vmas.iter().peekable();
        let mut at = 0;
        for run in &self.runs {
            let len = u64::from(run.pages) * PAGE_BYTES;
            let run_end = run.addr.0.checked_add(len).ok_or_else(|| corrupt("pages outside user space"))?;
            check(
                run.addr.0 >= at && run.addr.0.is_multiple_of(PAGE_BYTES) && len > 0,
                "pages out of order",
            )?;
            check(around.has_pages(run.image_offset, run.pages), "pages outside the image")?;
            // A run may go on from one area to the next one behind it.
            let mut covered = run.addr.0;
            while covered < run_end {
                while areas.next_if(|vma| vma.end.0 <= covered).is_some() {}
                let area = areas.peek().filter(|vma| vma.start.0 <= covered && vma.carries_pages());
                covered = area.ok_or_else(|| corrupt("pages outside their area"))?.end.0;
            }
            at = run_end;
        }
        Ok(())
    }
}

impl VmaV1 {
    fn check_backing(&self, inodes: &[InodeV1]) -> Result<()> {
        let BackingV1::Inode { inode, offset, .. } = self.backing else { return Ok(()) };
        let inode = inodes.get(inode.index()).ok_or_else(|| corrupt("an area without inode"))?;
        check(offset.is_multiple_of(PAGE_BYTES), "an area with an odd offset")?;
        let (shared, len_bytes) = (self.shared, self.len_bytes());
        let whole = shared && offset == 0 && len_bytes == inode.len_bytes.next_multiple_of(PAGE_BYTES);
        inode.kind.check_mapping(Mapped { shared, offset, len_bytes, whole })
    }

    /// Whether pages of it may be in the image.
    fn carries_pages(&self) -> bool {
        let own = matches!(self.backing, BackingV1::Anon | BackingV1::Inode { .. });
        own && !self.shared && !self.flags.wipe_on_fork && !self.flags.droppable
    }
}
