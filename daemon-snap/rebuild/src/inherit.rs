//! Memory that processes had in common since a fork is put in place before they are forked again.
//!
//! Nothing about this is recorded: pages that several processes of an image have at the same
//! address and at the same place of the image are one page. For each parent the content is chosen
//! that most of the family has; the others load their own over it later. An area whose place is
//! taken by a mapping of the restorer is left out and loaded by each process.

use super::process::Builder;
use crate::tape::{
    Inherited, can_be_inherited, chunks, is_alike, overlay, part_of, prot_in_place, push_run, without_equal,
};
use nix::errno::Errno;
use snap_error::{Error, Result};
use snap_state::{BackingV1, PAGE_BYTES, PageRunV1, ProcessV1, VmaV1};
use snap_sys as sys;

/// Bytes that one read moves at most.
const CHUNK_BYTES: u64 = 2 << 20;

/// What a process, or the worker, puts in place before it forks.
#[derive(Debug, Default)]
pub struct InheritedMemory {
    areas: Vec<VmaV1>,
    runs: Vec<PageRunV1>,
}

impl InheritedMemory {
    /// Which pages of the image these are.
    pub fn runs(&self) -> &[PageRunV1] {
        &self.runs
    }

    /// The areas that they lie in.
    pub fn areas(&self) -> &[VmaV1] {
        &self.areas
    }
}

/// What each process of the tree puts in place for its children, by index.
pub fn plan_inherited_memory(processes: &[ProcessV1]) -> Vec<InheritedMemory> {
    let mut children: Vec<Vec<&ProcessV1>> = processes.iter().map(|_| Vec::new()).collect();
    for process in processes {
        let parent = process.parent.and_then(|parent| processes.iter().position(|p| p.pid == parent));
        if let Some(parent) = parent {
            children[parent].push(process);
        }
    }
    let of = |(process, children): (&ProcessV1, &Vec<&ProcessV1>)| plan_family(process, children);
    processes.iter().zip(&children).map(of).collect()
}

fn plan_family(parent: &ProcessV1, children: &[&ProcessV1]) -> InheritedMemory {
    if children.is_empty() {
        return InheritedMemory::default();
    }
    let family: Vec<&ProcessV1> = std::iter::once(parent).chain(children.iter().copied()).collect();
    let areas = areas_of(&family);
    let runs = common_runs(&family);
    let mut memory = InheritedMemory::default();
    let mut runs = runs.iter().peekable();
    for area in areas {
        let before = memory.runs.len();
        while let Some(run) = runs.peek() {
            let end = run.addr.0 + u64::from(run.pages) * PAGE_BYTES;
            if run.addr.0 >= area.end.0 {
                break;
            }
            let (from, to) = (run.addr.0.max(area.start.0), end.min(area.end.0));
            if from < to {
                memory.runs.push(part_of(run, from, to));
            }
            if end > area.end.0 {
                break;
            }
            runs.next();
        }
        if memory.runs.len() > before {
            memory.areas.push(area);
        }
    }
    memory
}

/// Areas that pages may be put into: those of the parent, then those of children where the parent
/// has none.
fn areas_of(family: &[&ProcessV1]) -> Vec<VmaV1> {
    let mut areas: Vec<VmaV1> = Vec::new();
    for process in family {
        let known = areas.len();
        for vma in process.mm.vmas.iter().filter(|vma| can_be_inherited(vma)) {
            let at = areas[..known].partition_point(|area| area.end <= vma.start);
            if areas[..known].get(at).is_none_or(|area| area.start >= vma.end) {
                areas.push(vma.clone());
            }
        }
        areas.sort_by_key(|area| area.start);
    }
    areas
}

/// Content that at least two of the family have at the same address; of several the one that most
/// have, the parent's first.
fn common_runs(family: &[&ProcessV1]) -> Vec<PageRunV1> {
    let runs = family.iter().flat_map(|process| &process.mm.runs);
    let mut bounds: Vec<u64> =
        runs.flat_map(|run| [run.addr.0, run.addr.0 + u64::from(run.pages) * PAGE_BYTES]).collect();
    bounds.sort_unstable();
    bounds.dedup();
    let mut cursors = vec![0; family.len()];
    let mut out = Vec::new();
    let mut found: Vec<(PageRunV1, usize)> = Vec::with_capacity(family.len());
    for pair in bounds.windows(2) {
        let (start, end) = (pair[0], pair[1]);
        found.clear();
        for (process, cursor) in family.iter().zip(&mut cursors) {
            let runs = &process.mm.runs;
            while runs.get(*cursor).is_some_and(|run| run.addr.0 + u64::from(run.pages) * PAGE_BYTES <= start)
            {
                *cursor += 1;
            }
            let Some(run) = runs.get(*cursor).filter(|run| run.addr.0 <= start) else { continue };
            let part = part_of(run, start, end);
            match found.iter_mut().find(|(other, _)| *other == part) {
                Some((_, count)) => *count += 1,
                None => found.push((part, 1)),
            }
        }
        let best = found.iter().rev().max_by_key(|(_, count)| *count);
        if let Some((part, 2..)) = best {
            push_run(&mut out, *part);
        }
    }
    out
}

impl Builder<'_> {
    /// Puts in place what the children of a process are to share with it. Returns what stands there
    /// then.
    ///
    /// # Errors
    /// mmap(2), preadv(2).
    pub fn put_in_place(&self, index: usize, inherited: &Inherited) -> Result<Inherited> {
        let memory = &self.inherited_memory[index];
        let mut now = inherited.clone();
        let mut usable = Vec::new();
        for area in &memory.areas {
            // What came from our own parent stays when it is the same.
            let same =
                |other: &VmaV1| (other.start, other.end) == (area.start, area.end) && is_alike(other, area);
            if inherited.areas.iter().any(same) {
                usable.push(area.start.0..area.end.0);
            } else if self.map_in_place(area)? {
                usable.push(area.start.0..area.end.0);
                now.areas.push(area.clone());
            }
        }
        now.areas.sort_by_key(|area| area.start);
        let is_usable = |run: &&PageRunV1| {
            let at = usable.partition_point(|range| range.end <= run.addr.0);
            usable.get(at).is_some_and(|range| range.start <= run.addr.0)
        };
        // Runs were cut at the bounds of areas.
        let wanted: Vec<PageRunV1> = memory.runs.iter().filter(is_usable).copied().collect();
        let loads = without_equal(&wanted, &inherited.runs);
        for chunk in chunks(&loads, CHUNK_BYTES) {
            sys::premap::read(&self.image, &chunk.vectors, chunk.image_offset)
                .map_err(|e| Error::kernel("reading pages", "image", e))?;
        }
        now.runs = overlay(&inherited.runs, &wanted);
        Ok(now)
    }

    /// `false` when the place is taken.
    fn map_in_place(&self, area: &VmaV1) -> Result<bool> {
        let (fd, offset) = match area.backing {
            BackingV1::Inode { inode, offset, .. } => (Some(self.desk.mapped(inode, false)?), offset),
            _ => (None, 0),
        };
        let mut flags = 0;
        if area.flags.no_reserve {
            flags |= libc::MAP_NORESERVE;
        }
        let prot = i32::from(prot_in_place(area));
        match sys::premap::map(area.start.0..area.end.0, prot, flags, fd, offset) {
            Ok(()) => {}
            Err(Errno::EEXIST) => return Ok(false),
            Err(e) => return Err(Error::kernel("mapping memory", area.start, e)),
        }
        for (set, advice) in
            [(area.flags.huge_page, libc::MADV_HUGEPAGE), (area.flags.no_huge_page, libc::MADV_NOHUGEPAGE)]
        {
            if set {
                sys::premap::advise(area.start.0..area.end.0, advice)
                    .map_err(|e| Error::kernel("advising memory", area.start, e))?;
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use snap_state::{Addr, VmaFlagsV1, testing::tree_of};

    fn run(page: u64, pages: u32, at: u64) -> PageRunV1 {
        PageRunV1 { addr: Addr(page * PAGE_BYTES), pages, image_offset: at * PAGE_BYTES }
    }

    fn vma(start: u64, end: u64) -> VmaV1 {
        VmaV1 {
            start: Addr(start * PAGE_BYTES),
            end: Addr(end * PAGE_BYTES),
            prot: 3,
            shared: false,
            backing: BackingV1::Anon,
            flags: VmaFlagsV1::default(),
            name: None,
        }
    }

    #[test]
    fn what_most_of_a_family_have_is_put_in_place() {
        let mut tree = tree_of(&[(10, None, 10, 10), (11, Some(10), 10, 10), (12, Some(10), 10, 10)]);
        let memory = [
            vec![run(1, 2, 100), run(3, 1, 900), run(8, 1, 50)],
            vec![run(1, 3, 100), run(8, 1, 51)],
            vec![run(1, 1, 100), run(2, 1, 800), run(3, 1, 102), run(8, 1, 52)],
        ];
        for (process, runs) in tree.processes.iter_mut().zip(memory) {
            process.mm.vmas = vec![vma(0, 4), vma(8, 9)];
            process.mm.runs = runs;
        }
        let memory = plan_inherited_memory(&tree.processes);
        // Page 3 is what both children have, though not the parent; nobody shares page 8.
        assert_eq!(memory[0].runs, [run(1, 3, 100)]);
        assert_eq!(memory[0].areas, [vma(0, 4)]);
        assert!(memory[1].runs.is_empty() && memory[2].areas.is_empty());
    }
}
