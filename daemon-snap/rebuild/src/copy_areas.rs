//! Areas that get their pages by `UFFDIO_COPY`: one step makes a page, fills it and puts it in its
//! place, where a read into memory that has no pages yet zeroes each of them first.

use super::inherit::InheritedMemory;
use snap_state::{BackingV1, PAGE_BYTES, ProcessV1, Tree, VmaV1};
use std::ops::Range;

/// With fewer bytes than this a descriptor costs more than it brings.
const LEAST_BYTES: u64 = 8 << 20;
/// An area with fewer is not worth a request of its own.
const LEAST_AREA_BYTES: u64 = 64 << 10;
const HUGE_PAGE_BYTES: u64 = 2 << 20;

/// When the kernel makes huge pages at the first touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HugePages {
    Always,
    /// Where a program has asked for them.
    Advised,
    Never,
}

impl HugePages {
    /// Today's setting of the machine. Where it cannot be read they are taken to be made always.
    pub fn of_machine() -> HugePages {
        let text = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
        text.map_or(HugePages::Always, |text| HugePages::parse(&text))
    }

    fn parse(text: &str) -> HugePages {
        match text.split(['[', ']']).nth(1) {
            Some("never") => HugePages::Never,
            Some("madvise") => HugePages::Advised,
            _ => HugePages::Always,
        }
    }

    /// Whether an area gets them. They are worth more than what is saved here.
    fn are_made_in(self, vma: &VmaV1) -> bool {
        let asked = match self {
            HugePages::Always => !vma.flags.no_huge_page,
            HugePages::Advised => vma.flags.huge_page,
            HugePages::Never => false,
        };
        asked && vma.start.0.next_multiple_of(HUGE_PAGE_BYTES) + HUGE_PAGE_BYTES <= vma.end.0
    }
}

/// By index of the process: such areas, in order. None where it does not pay.
pub fn plan(tree: &Tree, inherited: &[InheritedMemory], huge_pages: HugePages) -> Vec<Vec<Range<u64>>> {
    (0..tree.processes.len()).map(|index| of_process(&tree.processes, inherited, index, huge_pages)).collect()
}

fn of_process(
    processes: &[ProcessV1],
    inherited: &[InheritedMemory],
    index: usize,
    huge_pages: HugePages,
) -> Vec<Range<u64>> {
    let process = &processes[index];
    let huge_pages = if process.thp_disable { HugePages::Never } else { huge_pages };
    // What stands in place before the process begins has pages already.
    let in_place: Vec<&VmaV1> =
        lineage(processes, index).filter_map(|index| inherited.get(index)).flat_map(|m| m.areas()).collect();
    let is_fresh = |vma: &VmaV1| !in_place.iter().any(|area| area.start < vma.end && vma.start < area.end);
    let fits = |vma: &&VmaV1| {
        vma.backing == BackingV1::Anon
            && !vma.shared
            && !vma.flags.droppable
            && !huge_pages.are_made_in(vma)
            && is_fresh(vma)
    };
    let mut total = 0;
    let mut areas = Vec::new();
    for vma in process.mm.vmas.iter().filter(fits) {
        let len = bytes_inside(process, vma);
        if len >= LEAST_AREA_BYTES {
            total += len;
            areas.push(vma.start.0..vma.end.0);
        }
    }
    if total < LEAST_BYTES { Vec::new() } else { areas }
}

/// How much is loaded into an area.
fn bytes_inside(process: &ProcessV1, vma: &VmaV1) -> u64 {
    let end = |at: usize| process.mm.runs[at].addr.0 + u64::from(process.mm.runs[at].pages) * PAGE_BYTES;
    let first =
        process.mm.runs.partition_point(|run| run.addr.0 + u64::from(run.pages) * PAGE_BYTES <= vma.start.0);
    let near = (first..process.mm.runs.len()).take_while(|at| process.mm.runs[*at].addr < vma.end);
    near.map(|at| end(at).min(vma.end.0) - process.mm.runs[at].addr.0.max(vma.start.0)).sum()
}

/// A process, its parent, and so on.
pub fn lineage(processes: &[ProcessV1], index: usize) -> impl Iterator<Item = usize> {
    let parent = |index: &usize| {
        let parent = processes.get(*index)?.parent?;
        processes.iter().position(|other| other.pid == parent)
    };
    // No chain of parents is longer than the tree.
    std::iter::successors(Some(index), parent).take(processes.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use snap_state::{Addr, VmaFlagsV1};

    #[test]
    fn setting_is_the_word_in_brackets() {
        assert_eq!(HugePages::parse("always [madvise] never\n"), HugePages::Advised);
        assert_eq!(HugePages::parse("always madvise [never]\n"), HugePages::Never);
        assert_eq!(HugePages::parse("[always] madvise never\n"), HugePages::Always);
        assert_eq!(HugePages::parse(""), HugePages::Always);
    }

    #[test]
    fn areas_with_room_for_huge_pages_are_left_to_faults() {
        let area = |start: u64, end: u64| VmaV1 {
            start: Addr(start),
            end: Addr(end),
            prot: 3,
            shared: false,
            backing: BackingV1::Anon,
            flags: VmaFlagsV1::default(),
            name: None,
        };
        let (small, large) = (area(0x1f_f000, 0x3f_e000), area(0x1f_f000, 0x40_0000));
        assert!(!HugePages::Always.are_made_in(&small));
        assert!(HugePages::Always.are_made_in(&large));
        assert!(!HugePages::Advised.are_made_in(&large));
    }
}
