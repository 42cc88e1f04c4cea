//! Page content, in large batches straight from the process into the image.

use super::memory::{AddressSpace, Area};
use super::sharing::{Sharing, Sorted};
use crate::blockers::failed;
use crate::inode::Source;
use crate::sink::PageSink;
use crate::text::without_probes;
use nix::errno::Errno;
use snap_error::{Error, Result};
use snap_state::{Addr, BackingV1, ContentRunV1, GuardV1, PAGE_BYTES, PageRunV1, Pid};
use snap_sys::fdquery::{next_data, next_hole};
use snap_sys::mapped;
use snap_sys::pagemap::{Frame, OwnPages, PageMap};
use snap_sys::vmread::{self, MAX_AREAS};
use std::fs::File;
use std::io::{Seek as _, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt as _;

/// Bytes that one system call moves.
const BATCH_BYTES: usize = 1 << 20;
const PAGE: usize = PAGE_BYTES as usize;
/// VMA protection bit of readable memory.
const PROT_READ: u8 = 1;

/// What [`collect_pages`] found.
pub(crate) struct Pages {
    pub runs: Vec<PageRunV1>,
    pub guards: Vec<GuardV1>,
}

/// Pages of private memory that differ from what mapping again would give. With `sharing`, those
/// that another process has too are stored once.
pub(crate) fn collect_pages(
    pid: Pid,
    space: &AddressSpace,
    sink: &mut dyn PageSink,
    mut sharing: Option<&mut Sharing>,
) -> Result<Pages> {
    let map = PageMap::open(pid).map_err(|e| Error::io("open pagemap", format!("pid {pid}"), &e))?;
    let mem = File::open(format!("/proc/{pid}/mem"))
        .map_err(|e| Error::io("open mem", format!("pid {pid}"), &e))?;
    let (mut common, mut known) = (Vec::new(), Vec::new());
    let mut batch = Batch {
        pid,
        mem,
        areas: Vec::new(),
        buffer: vec![0; BATCH_BYTES],
        used: 0,
        forced: false,
        keep_zero: false,
        frames: Vec::new(),
        runs: Vec::new(),
    };
    let mut guards = Vec::new();
    for area in &space.areas {
        if matches!(area.vma.backing, BackingV1::Vdso | BackingV1::Vvar { .. }) {
            continue;
        }
        let mut own = own_pages(pid, &map, area)?;
        take_guards(&mut own, &mut guards);
        let own = without_probes(pid, &area.vma, own)?;
        if !area.carries_pages() {
            continue;
        }
        // Zero pages of anonymous memory come back by themselves; in a file mapping they hide the
        // file's.
        let keep_zero = area.vma.backing != BackingV1::Anon;
        let forced = area.vma.prot & PROT_READ == 0;
        if own.is_empty() {
            continue;
        }
        let sorted = match &sharing {
            Some(sharing) => {
                sharing.sort(&map, &own).map_err(failed("look at pages", pid, area.vma.start))?
            }
            None => Sorted { alone: own, ..Sorted::default() },
        };
        batch.read_as(forced, keep_zero, sink, &mut sharing)?;
        for pages in sorted.alone {
            batch.add(pages, &mut std::iter::empty(), sink, &mut sharing)?;
        }
        common.push((keep_zero, sorted.common, sorted.frames));
        known.extend(sorted.known);
    }
    // Pages with frames and pages without do not go into one batch.
    batch.flush(sink, &mut sharing)?;
    for (keep_zero, ranges, frames) in common {
        if !ranges.is_empty() {
            batch.read_as(true, keep_zero, sink, &mut sharing)?;
        }
        let mut frames = frames.into_iter();
        for pages in ranges {
            batch.add(pages, &mut frames, sink, &mut sharing)?;
        }
    }
    batch.flush(sink, &mut sharing)?;
    let mut runs = batch.runs;
    if let Some(sharing) = sharing {
        sharing.keep(pid, map);
        known.iter().for_each(|known| push_run(&mut runs, known.addr.0, known.image_offset));
        runs.sort_by_key(|run| run.addr);
    }
    Ok(Pages { runs, guards })
}

/// Pages that [`collect_pages`] would look at.
pub(crate) fn count_own_pages(pid: Pid, space: &AddressSpace) -> Result<u64> {
    let map = PageMap::open(pid).map_err(|e| Error::io("open pagemap", format!("pid {pid}"), &e))?;
    let mut count = 0;
    for area in space.areas.iter().filter(|area| area.carries_pages()) {
        let own = own_pages(pid, &map, area)?;
        count += own
            .iter()
            .filter(|pages| !pages.guard)
            .map(|pages| (pages.end.0 - pages.start.0) / PAGE_BYTES)
            .sum::<u64>();
    }
    Ok(count)
}

fn own_pages(pid: Pid, map: &PageMap, area: &Area) -> Result<Vec<OwnPages>> {
    let mut own = Vec::new();
    // Only a scan finds guard markers where there are no pages, and only there the question is
    // cheap.
    if !area.has_own_pages && !map.is_fast() {
        return Ok(own);
    }
    map.own_pages(area.vma.start..area.vma.end, &mut own).map_err(failed(
        "scan pages",
        pid,
        area.vma.start,
    ))?;
    Ok(own)
}

/// Takes the guard markers out of what was found.
fn take_guards(own: &mut Vec<OwnPages>, guards: &mut Vec<GuardV1>) {
    own.retain(|pages| {
        if pages.guard {
            match guards.last_mut() {
                Some(last) if last.end == pages.start => last.end = pages.end,
                _ => guards.push(GuardV1 { start: pages.start, end: pages.end }),
            }
        }
        !pages.guard
    });
}

struct Batch {
    pid: Pid,
    mem: File,
    areas: Vec<(Addr, usize)>,
    buffer: Vec<u8>,
    used: usize,
    /// The areas are not readable for the process itself.
    forced: bool,
    keep_zero: bool,
    /// Of each page; none for pages that are nobody else's.
    frames: Vec<Frame>,
    runs: Vec<PageRunV1>,
}

impl Batch {
    /// How the areas to come are read and kept.
    fn read_as(
        &mut self,
        forced: bool,
        keep_zero: bool,
        sink: &mut dyn PageSink,
        sharing: &mut Option<&mut Sharing>,
    ) -> Result<()> {
        if (forced, keep_zero) != (self.forced, self.keep_zero) {
            self.flush(sink, sharing)?;
            (self.forced, self.keep_zero) = (forced, keep_zero);
        }
        Ok(())
    }

    /// `frames` are those of the pages to come.
    fn add(
        &mut self,
        pages: OwnPages,
        frames: &mut impl Iterator<Item = Frame>,
        sink: &mut dyn PageSink,
        sharing: &mut Option<&mut Sharing>,
    ) -> Result<()> {
        let (mut addr, mut rest) = (pages.start.0, (pages.end.0 - pages.start.0) as usize);
        while rest > 0 {
            if self.used == self.buffer.len() || self.areas.len() == MAX_AREAS {
                self.flush(sink, sharing)?;
            }
            let now = rest.min(self.buffer.len() - self.used);
            self.frames.extend(frames.by_ref().take(now / PAGE));
            self.areas.push((Addr(addr), now));
            self.used += now;
            addr += now as u64;
            rest -= now;
        }
        Ok(())
    }

    fn flush(&mut self, sink: &mut dyn PageSink, sharing: &mut Option<&mut Sharing>) -> Result<()> {
        if self.used == 0 {
            return Ok(());
        }
        self.read().map_err(failed("read memory", self.pid, self.areas[0].0))?;
        let addrs = self.areas.iter().flat_map(|(addr, len)| {
            let pages = *len / PAGE;
            (0..pages as u64).map(move |page| addr.0 + page * PAGE_BYTES)
        });
        let bytes = &self.buffer[..self.used];
        let mut addrs = addrs.peekable();
        let mut at = 0;
        while at < bytes.len() {
            let span = kept_pages(&bytes[at..], self.keep_zero);
            if span > 0 {
                let offset = sink.append_pages(&bytes[at..at + span * PAGE])?;
                for (page, addr) in addrs.by_ref().take(span).enumerate() {
                    let image_offset = offset + page as u64 * PAGE_BYTES;
                    push_run(&mut self.runs, addr, image_offset);
                    let frame = self.frames.get(at / PAGE + page).copied();
                    if let (Some(sharing), Some(frame)) = (sharing.as_deref_mut(), frame) {
                        sharing.note(frame, self.pid, Addr(addr), image_offset);
                    }
                }
            } else {
                addrs.next();
            }
            at += span.max(1) * PAGE;
        }
        self.areas.clear();
        self.frames.clear();
        self.used = 0;
        Ok(())
    }

    fn read(&mut self) -> std::result::Result<(), Errno> {
        let buffer = &mut self.buffer[..self.used];
        if !self.forced && vmread::read_areas(self.pid, &self.areas, buffer).is_ok() {
            return Ok(());
        }
        let mut at = 0;
        for &(addr, len) in &self.areas {
            vmread::read_forced(&self.mem, addr, &mut buffer[at..at + len])?;
            at += len;
        }
        Ok(())
    }
}

/// How many pages at the start are to be kept.
fn kept_pages(bytes: &[u8], keep_zero: bool) -> usize {
    if keep_zero {
        return bytes.len() / PAGE;
    }
    bytes.chunks_exact(PAGE).take_while(|page| !is_zero(page)).count()
}

fn is_zero(page: &[u8]) -> bool {
    page.as_chunks::<64>().0.iter().all(|chunk| *chunk == [0; 64])
}

fn push_run(runs: &mut Vec<PageRunV1>, addr: u64, image_offset: u64) {
    if let Some(last) = runs.last_mut() {
        let len = u64::from(last.pages) * PAGE_BYTES;
        if last.addr.0 + len == addr && last.image_offset + len == image_offset && last.pages < u32::MAX {
            last.pages += 1;
            return;
        }
    }
    runs.push(PageRunV1 { addr: Addr(addr), pages: 1, image_offset });
}

/// The position of a description that is not ours; it comes back when this is dropped.
struct Position<'a> {
    file: &'a File,
    before: u64,
}

impl<'a> Position<'a> {
    fn of(mut file: &'a File) -> std::io::Result<Self> {
        let before = file.stream_position()?;
        Ok(Self { file, before })
    }
}

impl Drop for Position<'_> {
    fn drop(&mut self) {
        // It was there a moment ago.
        let _ = self.file.seek(SeekFrom::Start(self.before));
    }
}

/// Content of a file without its holes and zero pages.
pub(crate) fn collect_content(
    source: &Source,
    name: &dyn std::fmt::Display,
    len_bytes: u64,
    sink: &mut dyn PageSink,
) -> Result<Vec<ContentRunV1>> {
    let fail = |e: std::io::Error| Error::io("read content", name, &e);
    let file = &source.file;
    let _position = if source.quiet { Some(Position::of(file).map_err(fail)?) } else { None };
    let read = |buffer: &mut [u8], offset| -> std::io::Result<usize> {
        if source.quiet {
            mapped::read(file.as_fd(), offset, buffer)?;
            return Ok(buffer.len());
        }
        file.read_at(buffer, offset)
    };
    let mut runs = Vec::new();
    let mut buffer = Vec::new();
    let mut at = 0;
    while at < len_bytes {
        let Some(data) = next_data(file.as_fd(), at).map_err(fail)? else { break };
        let hole = next_hole(file.as_fd(), data).map_err(fail)?.unwrap_or(len_bytes).min(len_bytes);
        let mut offset = data / PAGE_BYTES * PAGE_BYTES;
        while offset < hole {
            let wanted = ((hole - offset) as usize).min(BATCH_BYTES);
            buffer.clear();
            // The last page of a file is filled up with zeroes.
            buffer.resize(wanted.next_multiple_of(PAGE), 0);
            let mut filled = 0;
            while filled < wanted {
                match read(&mut buffer[filled..wanted], offset + filled as u64).map_err(fail)? {
                    0 => break,
                    more => filled += more,
                }
            }
            append_content(&buffer, offset, &mut runs, sink)?;
            offset += buffer.len() as u64;
        }
        at = hole.max(offset);
    }
    Ok(runs)
}

fn append_content(
    bytes: &[u8],
    file_offset: u64,
    runs: &mut Vec<ContentRunV1>,
    sink: &mut dyn PageSink,
) -> Result<()> {
    let mut at = 0;
    while at < bytes.len() {
        let span = kept_pages(&bytes[at..], false);
        if span > 0 {
            let image_offset = sink.append_pages(&bytes[at..at + span * PAGE])?;
            let run = ContentRunV1 { file_offset: file_offset + at as u64, pages: span as u32, image_offset };
            match runs.last_mut() {
                Some(last) if follows(last, &run) => last.pages += run.pages,
                _ => runs.push(run),
            }
        }
        at += span.max(1) * PAGE;
    }
    Ok(())
}

fn follows(last: &ContentRunV1, next: &ContentRunV1) -> bool {
    let len = u64::from(last.pages) * PAGE_BYTES;
    let both = last.file_offset + len == next.file_offset && last.image_offset + len == next.image_offset;
    both && last.pages.checked_add(next.pages).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts pages and hands out offsets like an image.
    #[derive(Default)]
    struct Counter(Vec<u8>);

    impl PageSink for Counter {
        fn append_pages(&mut self, bytes: &[u8]) -> Result<u64> {
            let offset = PAGE_BYTES + self.0.len() as u64;
            self.0.extend_from_slice(bytes);
            Ok(offset)
        }
    }

    #[test]
    fn content_leaves_out_holes_and_fills_the_last_page() {
        use std::io::Write as _;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"start").unwrap();
        file.seek(SeekFrom::Start(10 * PAGE_BYTES)).unwrap();
        file.write_all(&[7; PAGE + 3]).unwrap();
        let len = file.metadata().unwrap().len();
        let mut sink = Counter::default();
        let source = Source { file, quiet: false };
        let runs = collect_content(&source, &"test", len, &mut sink).unwrap();
        let expected = [
            ContentRunV1 { file_offset: 0, pages: 1, image_offset: PAGE_BYTES },
            ContentRunV1 { file_offset: 10 * PAGE_BYTES, pages: 2, image_offset: 2 * PAGE_BYTES },
        ];
        assert_eq!(runs, expected);
        assert_eq!((&sink.0[..5], sink.0[PAGE]), (&b"start"[..], 7));
        assert_eq!((sink.0[2 * PAGE + 2], sink.0[2 * PAGE + 3]), (7, 0));
    }

    #[test]
    fn runs_merge_only_when_both_sides_are_consecutive() {
        let mut runs = Vec::new();
        for (addr, offset) in [(0x1000, 0x4000), (0x2000, 0x5000), (0x4000, 0x6000), (0x5000, 0x8000)] {
            push_run(&mut runs, addr, offset);
        }
        assert_eq!(runs.iter().map(|run| run.pages).collect::<Vec<_>>(), [2, 1, 1]);
    }
}
