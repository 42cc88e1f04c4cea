//! Memory that stands at its recorded place before the tape runs, because parent and children are
//! to share it.
//!
//! The parent maps and loads it, then forks. What a tape finds there it keeps as far as it fits the
//! recorded areas; it loads only pages that differ.

use snap_state::{BackingV1, PAGE_BYTES, PageRunV1, VmaV1};
use std::ops::Range;

const WRITABLE: u8 = (libc::PROT_READ | libc::PROT_WRITE) as u8;

/// What is in place.
#[derive(Clone, Debug, Default)]
pub struct Inherited {
    /// Sorted, not overlapping; mapped readable and writable whatever their recorded protection.
    pub areas: Vec<VmaV1>,
    /// Which pages of the image they hold, sorted by address. Elsewhere they are as freshly mapped.
    pub runs: Vec<PageRunV1>,
}

/// What of it a process keeps, and what is left to do.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Sorted. Each lies within one recorded area.
    pub pieces: Vec<Piece>,
    /// Pages to load.
    pub loads: Vec<PageRunV1>,
    /// Pages that this process does not have.
    pub drops: Vec<Range<u64>>,
}

/// A range that need not be mapped again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub start: u64,
    pub end: u64,
    pub prot: u8,
}

/// Whether the memory of an area can be handed on by fork and be kept as it is.
pub fn can_be_inherited(vma: &VmaV1) -> bool {
    let flags = &vma.flags;
    let private = matches!(vma.backing, BackingV1::Anon | BackingV1::Inode { .. }) && !vma.shared;
    private && !flags.wipe_on_fork && !flags.droppable && !flags.grows_down
}

/// Whether mapping one area gives what mapping the other gives, where they overlap.
pub fn is_alike(a: &VmaV1, b: &VmaV1) -> bool {
    let content = match (&a.backing, &b.backing) {
        (BackingV1::Anon, BackingV1::Anon) => true,
        (BackingV1::Inode { inode, offset, .. }, BackingV1::Inode { inode: other, offset: at, .. }) => {
            inode == other && offset.wrapping_sub(a.start.0) == at.wrapping_sub(b.start.0)
        }
        _ => false,
    };
    let (f, g) = (&a.flags, &b.flags);
    let flags = (f.no_reserve, f.huge_page, f.no_huge_page) == (g.no_reserve, g.huge_page, g.no_huge_page);
    content && flags && can_be_inherited(a) && can_be_inherited(b)
}

/// The protection that inherited areas are mapped with.
pub fn prot_in_place(vma: &VmaV1) -> u8 {
    vma.prot | WRITABLE
}

impl Kept {
    /// Compares what is in place with what is recorded.
    pub fn new(vmas: &[VmaV1], runs: &[PageRunV1], inherited: &Inherited) -> Self {
        if inherited.areas.is_empty() {
            return Self { loads: runs.to_vec(), ..Self::default() };
        }
        let mut pieces = Vec::new();
        let mut first = 0;
        for vma in vmas {
            while inherited.areas.get(first).is_some_and(|area| area.end <= vma.start) {
                first += 1;
            }
            let near = inherited.areas[first..].iter().take_while(|area| area.start < vma.end);
            for area in near.filter(|area| is_alike(area, vma)) {
                let (start, end) = (area.start.max(vma.start).0, area.end.min(vma.end).0);
                pieces.push(Piece { start, end, prot: prot_in_place(area) });
            }
        }
        let held = within(&inherited.runs, &pieces);
        Self { loads: without_equal(runs, &held), drops: not_covered(&held, runs), pieces }
    }

    /// The pieces inside an area.
    pub fn inside(&self, vma: &VmaV1) -> &[Piece] {
        let first = self.pieces.partition_point(|piece| piece.end <= vma.start.0);
        let last = self.pieces.partition_point(|piece| piece.start < vma.end.0);
        &self.pieces[first.min(last)..last]
    }
}

fn end_of(run: &PageRunV1) -> u64 {
    run.addr.0 + u64::from(run.pages) * PAGE_BYTES
}

/// The part of a run between two addresses inside it.
pub fn part_of(run: &PageRunV1, start: u64, end: u64) -> PageRunV1 {
    PageRunV1 {
        addr: snap_state::Addr(start),
        pages: ((end - start) / PAGE_BYTES) as u32,
        image_offset: run.image_offset + (start - run.addr.0),
    }
}

/// Parts of runs that lie in the pieces.
fn within(runs: &[PageRunV1], pieces: &[Piece]) -> Vec<PageRunV1> {
    let mut out = Vec::new();
    let mut next = 0;
    for run in runs {
        while pieces.get(next).is_some_and(|piece| piece.end <= run.addr.0) {
            next += 1;
        }
        for piece in pieces[next..].iter().take_while(|piece| piece.start < end_of(run)) {
            out.push(part_of(run, run.addr.0.max(piece.start), end_of(run).min(piece.end)));
        }
    }
    out
}

/// Walks `runs` cut at the bounds of `others`; `each` gets every part and what of `others` covers
/// it.
fn cut(runs: &[PageRunV1], others: &[PageRunV1], mut each: impl FnMut(PageRunV1, Option<PageRunV1>)) {
    let mut next = 0;
    for run in runs {
        let mut at = run.addr.0;
        while at < end_of(run) {
            while others.get(next).is_some_and(|other| end_of(other) <= at) {
                next += 1;
            }
            let end = end_of(run);
            match others.get(next) {
                Some(other) if other.addr.0 <= at => {
                    let end = end.min(end_of(other));
                    each(part_of(run, at, end), Some(part_of(other, at, end)));
                    at = end;
                }
                other => {
                    let end = end.min(other.map_or(end, |other| other.addr.0));
                    each(part_of(run, at, end), None);
                    at = end;
                }
            }
        }
    }
}

/// Runs at addresses that others have too, and the rest.
pub fn split(runs: &[PageRunV1], others: &[PageRunV1]) -> (Vec<PageRunV1>, Vec<PageRunV1>) {
    let (mut there, mut elsewhere) = (Vec::new(), Vec::new());
    cut(runs, others, |part, other| match other {
        Some(_) => push(&mut there, part),
        None => push(&mut elsewhere, part),
    });
    (there, elsewhere)
}

/// Runs without what others have equal at the same place.
pub fn without_equal(runs: &[PageRunV1], held: &[PageRunV1]) -> Vec<PageRunV1> {
    let mut out = Vec::new();
    cut(runs, held, |part, other| {
        if other != Some(part) {
            push(&mut out, part);
        }
    });
    out
}

/// Runs with others laid over them.
pub fn overlay(below: &[PageRunV1], above: &[PageRunV1]) -> Vec<PageRunV1> {
    let mut out = above.to_vec();
    cut(below, above, |part, other| {
        if other.is_none() {
            out.push(part);
        }
    });
    out.sort_by_key(|run| run.addr);
    out
}

fn not_covered(held: &[PageRunV1], runs: &[PageRunV1]) -> Vec<Range<u64>> {
    let mut out: Vec<Range<u64>> = Vec::new();
    cut(held, runs, |part, other| {
        if other.is_none() {
            match out.last_mut() {
                Some(last) if last.end == part.addr.0 => last.end = end_of(&part),
                _ => out.push(part.addr.0..end_of(&part)),
            }
        }
    });
    out
}

/// Appends a run, to the last one where it continues it.
pub fn push(out: &mut Vec<PageRunV1>, run: PageRunV1) {
    if let Some(last) = out.last_mut() {
        let follows = end_of(last) == run.addr.0
            && last.image_offset + u64::from(last.pages) * PAGE_BYTES == run.image_offset;
        if let (true, Some(pages)) = (follows, last.pages.checked_add(run.pages)) {
            last.pages = pages;
            return;
        }
    }
    out.push(run);
}

#[cfg(test)]
mod tests {
    use super::*;
    use snap_state::{Addr, VmaFlagsV1};

    fn run(page: u64, pages: u32, at: u64) -> PageRunV1 {
        PageRunV1 { addr: Addr(page * PAGE_BYTES), pages, image_offset: at * PAGE_BYTES }
    }

    fn vma(start: u64, end: u64, prot: u8) -> VmaV1 {
        VmaV1 {
            start: Addr(start * PAGE_BYTES),
            end: Addr(end * PAGE_BYTES),
            prot,
            shared: false,
            backing: BackingV1::Anon,
            flags: VmaFlagsV1::default(),
            name: None,
        }
    }

    #[test]
    fn equal_pages_are_kept_others_loaded_missing_ones_dropped() {
        let inherited =
            Inherited { areas: vec![vma(10, 20, 3)], runs: vec![run(10, 4, 100), run(16, 2, 106)] };
        // Page 11 was written, 13 given back, 17 lies behind the end of the child's area.
        let own = [run(10, 1, 100), run(11, 1, 500), run(12, 1, 102), run(16, 1, 106)];
        let kept = Kept::new(&[vma(10, 17, 1)], &own, &inherited);
        assert_eq!(kept.pieces, [Piece { start: 10 * PAGE_BYTES, end: 17 * PAGE_BYTES, prot: 3 }]);
        assert_eq!(kept.loads, [run(11, 1, 500)]);
        let drops: Vec<u64> = kept.drops.iter().flat_map(|drop| [drop.start, drop.end]).collect();
        assert_eq!(drops, [13 * PAGE_BYTES, 14 * PAGE_BYTES]);
    }

    #[test]
    fn areas_of_another_kind_are_not_kept() {
        let inherited = Inherited { areas: vec![vma(10, 20, 3)], runs: vec![run(10, 4, 100)] };
        let mut other = vma(10, 20, 3);
        other.flags.no_reserve = true;
        let kept = Kept::new(&[other], &[run(10, 4, 100)], &inherited);
        assert!(kept.pieces.is_empty() && kept.drops.is_empty());
        assert_eq!(kept.loads, [run(10, 4, 100)]);
    }

    #[test]
    fn runs_are_split_by_address_whatever_they_hold() {
        let (there, elsewhere) = split(&[run(0, 10, 100), run(20, 1, 7)], &[run(2, 1, 102), run(9, 3, 50)]);
        assert_eq!(there, [run(2, 1, 102), run(9, 1, 109)]);
        assert_eq!(elsewhere, [run(0, 2, 100), run(3, 6, 103), run(20, 1, 7)]);
    }

    #[test]
    fn overlay_covers_what_is_below() {
        assert_eq!(
            overlay(&[run(0, 10, 100)], &[run(2, 1, 7), run(9, 3, 50)]),
            [run(0, 2, 100), run(2, 1, 7), run(3, 6, 103), run(9, 3, 50)]
        );
    }
}
