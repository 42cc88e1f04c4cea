//! Pages of a large image are written into the processes by the worker, which reads each of them
//! once: past the page cache, compared when it arrives, written from there.
//!
//! A small image is read by its processes themselves while the worker compares it: two processors do
//! more than one there, and nobody waits for a device. Of a large one that lies in the page cache
//! the worker compares what the processes read, and then writes a part itself, where a processor is
//! idle and fewer processes have much memory than there are processors. What lies where processes have had something in
//! common since a fork they read in any case; and contents of files are read before there are
//! processes. All that is read in that way is compared where it was read: in the page cache.

use super::copy_areas::{self, HugePages};
use super::inherit::InheritedMemory;
use crate::tape::{by_areas, overlay, part_of, split};
use image_store::layout::CHECKSUM_CHUNK_LEN;
use image_store::load::{DirectFile, PIECE_LEN, PageLoader, Sink};
use image_store::{Image, fault};
use nix::errno::Errno;
use snap_error::{Error, Result};
use snap_state::{Addr, PAGE_BYTES, PageRunV1, Pid, ProcessV1, TargetFd, Tree};
use snap_sys as sys;
use std::collections::HashMap;
use std::num::NonZero;
use std::ops::Range;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Instant;

/// Page areas up to this length are read by the processes: a ring and its memory cost more than
/// they bring.
const SMALL_LEN: u64 = 16 << 20;

/// From this much of its own on a process is given a hand by the worker.
const MUCH_LEN: u64 = 8 << 20;

/// How the pages of an image come in.
#[derive(Debug)]
pub enum Loading<'a> {
    /// Every process reads its own.
    ByProcesses,
    /// The worker writes them.
    ByWorker(Box<Delivery<'a>>),
}

/// What there is to load a large image with.
#[derive(Debug)]
pub struct Means {
    /// The file for reading past the page cache, where the file system can do that.
    direct: Option<DirectFile>,
    /// Whether a processor has nothing else to do, or nearly so.
    has_idle_processor: bool,
    /// When memory gets huge pages.
    pub huge_pages: HugePages,
}

impl Means {
    /// Looks for them, while /proc and /sys are those that the worker began with.
    pub fn find(image: &Image) -> Means {
        let huge_pages = HugePages::of_machine();
        if !is_large(image) {
            return Means { direct: None, has_idle_processor: false, huge_pages };
        }
        // What runs, ourselves too: the fourth word, as in `2/345`.
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let running = load.split([' ', '/']).nth(3).and_then(|running| running.parse().ok());
        let is_idle = running.is_some_and(|running: usize| running <= processors());
        // Tests have it idle.
        let has_idle_processor = is_idle || fault::point("worker.load.idle").is_err();
        Means { direct: image.open_direct().ok(), has_idle_processor, huge_pages }
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// Pages, and where they go.
#[derive(Debug)]
pub struct Delivery<'a> {
    image: &'a Image,
    loader: PageLoader<'a>,
    /// By index of the process: pages at these addresses it reads itself. `None`: all of them.
    awaits_all_but: Vec<Option<Vec<PageRunV1>>>,
    /// By piece of the page area.
    places: Vec<Vec<Place>>,
    /// By chunk: whether somebody reads something of it through the page cache.
    is_read_elsewhere: Vec<bool>,
    /// Whether most of it lies in the page cache: nobody waits for a device then.
    is_cached: bool,
}

/// Part of a piece, and an address for it.
#[derive(Clone, Copy, Debug)]
struct Place {
    pid: Pid,
    addr: Addr,
    image_offset: u64,
    len_bytes: u64,
    /// Whether it lies in an area into which pages are copied.
    is_copied: bool,
}

impl<'a> Loading<'a> {
    /// Decides it. To be called while the caller has no children. `copy_areas`, by index of the
    /// process: cleared of what the worker could not copy into.
    ///
    /// # Errors
    /// The checksums of the image are damaged.
    pub fn choose(
        image: &'a Image,
        tree: &Tree,
        inherited: &[InheritedMemory],
        copy_areas: &mut [Vec<Range<u64>>],
        means: Means,
    ) -> Result<Loading<'a>> {
        let Some(direct) = means.direct else { return Ok(Loading::ByProcesses) };
        let loader = PageLoader::new(image, direct)?;
        let common = |index| common_memory(&tree.processes, inherited, index);
        let mut common: Vec<Vec<PageRunV1>> = (0..tree.processes.len()).map(common).collect();
        let (area, chunk) = (image.page_area(), CHECKSUM_CHUNK_LEN as u64);
        let is_cached = loader.is_mostly_cached();
        let takes_part =
            !is_cached || means.has_idle_processor && leave_part_to_worker(tree, &mut common, area.start);
        if !takes_part {
            return Ok(Loading::ByProcesses);
        }
        let ways = sys::vmread::ways_into_children();
        if !ways.write {
            return Ok(Loading::ByProcesses);
        }
        if !ways.take_descriptors {
            copy_areas.iter_mut().for_each(Vec::clear);
        }
        let count = |len: u64| (area.end - area.start).div_ceil(len) as usize;
        let mut is_read_elsewhere = vec![false; count(chunk)];
        let mut note = |offset: u64, pages: u32| {
            let (from, to) = (offset - area.start, offset - area.start + u64::from(pages) * PAGE_BYTES);
            is_read_elsewhere[(from / chunk) as usize..to.div_ceil(chunk) as usize].fill(true);
        };
        let mut places = vec![Vec::new(); count(PIECE_LEN as u64)];
        let mut awaits_all_but = Vec::with_capacity(tree.processes.len());
        for ((process, common), areas) in tree.processes.iter().zip(common).zip(copy_areas) {
            let (own, awaited) = split(&process.mm.runs, &common);
            own.iter().for_each(|run| note(run.image_offset, run.pages));
            let (copied, written) = by_areas(&awaited, areas);
            place((process.pid, true), &copied, area.start, &mut places);
            place((process.pid, false), &written, area.start, &mut places);
            awaits_all_but.push((!awaited.is_empty()).then_some(common));
        }
        inherited.iter().flat_map(InheritedMemory::runs).for_each(|run| note(run.image_offset, run.pages));
        for run in tree.inodes().iter().flat_map(|inode| &inode.content) {
            note(run.image_offset, run.pages);
        }
        let delivery = Delivery { image, loader, awaits_all_but, places, is_read_elsewhere, is_cached };
        Ok(Loading::ByWorker(Box::new(delivery)))
    }

    /// By index: whether a process waits for the worker, and what it reads itself even so.
    pub fn awaits_all_but(&self) -> Vec<Option<Vec<PageRunV1>>> {
        match self {
            Loading::ByProcesses => Vec::new(),
            Loading::ByWorker(delivery) => delivery.awaits_all_but.clone(),
        }
    }
}

/// Whether it pays to read an image past the page cache.
fn is_large(image: &Image) -> bool {
    let area = image.page_area();
    area.end - area.start > SMALL_LEN
}

impl Delivery<'_> {
    /// Whether most of it lies in the page cache.
    pub fn is_cached(&self) -> bool {
        self.is_cached
    }

    /// Compares what the processes read, but for the first chunks, which somebody has compared. It
    /// can be done while they map their memory. `go_on` may end it between two chunks.
    ///
    /// # Errors
    /// Damage, a read that fails, what `go_on` says.
    pub fn compare(&self, checked_chunks: u64, go_on: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        let sums = self.image.page_sums()?;
        let mut buffer = Vec::new();
        let of_processes = (0..).zip(&self.is_read_elsewhere).filter(|(_, is_read)| **is_read);
        for (chunk, _) in of_processes.skip_while(|(chunk, _)| *chunk < checked_chunks) {
            pass(go_on)?;
            self.image.verify_chunk(&sums, chunk, &mut buffer)?;
        }
        Ok(())
    }

    /// Reads, compares and writes all other pages. The processes have mapped their memory; `pagers`
    /// are theirs. `go_on` may end it between two reads.
    ///
    /// # Errors
    /// Damage, a read or a write that fails, what `go_on` says.
    pub fn write(&self, pagers: &Pagers, go_on: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        let Delivery { image, loader, places, is_read_elsewhere, .. } = self;
        let pieces_per_chunk = CHECKSUM_CHUNK_LEN / PIECE_LEN;
        let has_place = |chunk: u64| {
            let pieces = places.chunks(pieces_per_chunk).nth(chunk as usize);
            pieces.is_some_and(|pieces| pieces.iter().any(|places| !places.is_empty()))
        };
        let is_wanted = |chunk: u64| has_place(chunk) || !is_read_elsewhere[chunk as usize];
        let mut writer = Writer { places, pagers, start: image.page_area().start, go_on };
        loader.run(is_wanted, &mut writer)
    }

    /// Whether the process with this index waits for it.
    pub fn is_for(&self, index: usize) -> bool {
        self.awaits_all_but.get(index).is_some_and(Option::is_some)
    }
}

/// Of what each process with much memory reads itself, the later part is left to the worker: added
/// to `common` is the earlier one. `false` where all processors have enough to do without the
/// worker.
fn leave_part_to_worker(tree: &Tree, common: &mut [Vec<PageRunV1>], start: u64) -> bool {
    let own = |(process, common): (&ProcessV1, &Vec<PageRunV1>)| split(&process.mm.runs, common).1;
    let own: Vec<Vec<PageRunV1>> = tree.processes.iter().zip(&*common).map(own).collect();
    let busy = own.iter().filter(|runs| len_of(runs) >= MUCH_LEN).count();
    if busy == 0 || busy >= processors() {
        return false;
    }
    // The worker also compares what it leaves, which costs it half of what writing does.
    let kept = (4 * busy as u64, 4 * busy as u64 + 1);
    for (common, own) in common.iter_mut().zip(&own) {
        let is_busy = len_of(own) >= MUCH_LEN;
        let end = if is_busy { part_end(own, start, kept) } else { u64::MAX };
        *common = overlay(common, &before(own, end));
    }
    true
}

fn len_of(runs: &[PageRunV1]) -> u64 {
    runs.iter().map(|run| u64::from(run.pages) * PAGE_BYTES).sum()
}

/// The offset in the image, at the bound of a chunk, before which so many of all pages lie.
fn part_end(runs: &[PageRunV1], start: u64, (of, all): (u64, u64)) -> u64 {
    let mut runs: Vec<PageRunV1> = runs.to_vec();
    runs.sort_unstable_by_key(|run| run.image_offset);
    let mut left = len_of(&runs) * of / all;
    for run in runs {
        let len = u64::from(run.pages) * PAGE_BYTES;
        if len >= left {
            let end = run.image_offset + left - start;
            return start + end.next_multiple_of(CHECKSUM_CHUNK_LEN as u64);
        }
        left -= len;
    }
    u64::MAX
}

/// What of the runs lies before an offset in the image.
fn before(runs: &[PageRunV1], end: u64) -> Vec<PageRunV1> {
    let near = runs.iter().filter(|run| run.image_offset < end);
    let part = |run: &PageRunV1| {
        let len = (u64::from(run.pages) * PAGE_BYTES).min(end - run.image_offset);
        part_of(run, run.addr.0, run.addr.0 + len)
    };
    near.map(part).collect()
}

/// What a process and those that it descends from put in place before they fork. What of it stands
/// at its place in the end only the process knows.
fn common_memory(processes: &[ProcessV1], inherited: &[InheritedMemory], index: usize) -> Vec<PageRunV1> {
    let mut common = Vec::new();
    for index in copy_areas::lineage(processes, index) {
        common = overlay(&common, inherited.get(index).map_or(&[][..], InheritedMemory::runs));
    }
    common
}

/// Cuts the runs of a process at the bounds of pieces. `start`: of the page area.
fn place((pid, is_copied): (Pid, bool), runs: &[PageRunV1], start: u64, places: &mut [Vec<Place>]) {
    let piece_len = PIECE_LEN as u64;
    for run in runs {
        let (mut addr, mut offset) = (run.addr.0, run.image_offset);
        let mut left = u64::from(run.pages) * PAGE_BYTES;
        while left > 0 {
            let piece = (offset - start) / piece_len;
            let len_bytes = left.min(start + (piece + 1) * piece_len - offset);
            let one = Place { pid, addr: Addr(addr), image_offset: offset, len_bytes, is_copied };
            if let Some(places) = places.get_mut(piece as usize) {
                places.push(one);
            }
            (addr, offset, left) = (addr + len_bytes, offset + len_bytes, left - len_bytes);
        }
    }
}

/// What the worker copies pages with into the processes, duplicates of theirs.
#[derive(Debug, Default)]
pub struct Pagers {
    by_pid: HashMap<Pid, OwnedFd>,
}

impl Pagers {
    /// Takes that of a process, which has it under this number.
    ///
    /// # Errors
    /// The process has ended.
    pub fn take(&mut self, pid: Pid, number: TargetFd) -> Result<()> {
        let taken = sys::pidfd::open(pid).and_then(|process| sys::pidfd::get_fd(process.as_fd(), number));
        let pager = taken.map_err(|e| Error::kernel("pidfd_getfd", format!("userfaultfd of {pid}"), e))?;
        self.by_pid.insert(pid, pager);
        Ok(())
    }
}

/// Puts pieces where they belong.
struct Writer<'a> {
    places: &'a [Vec<Place>],
    pagers: &'a Pagers,
    /// Of the page area.
    start: u64,
    go_on: &'a mut dyn FnMut() -> Result<()>,
}

impl Sink for Writer<'_> {
    type Error = Error;

    fn take(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let piece = ((offset - self.start) / PIECE_LEN as u64) as usize;
        let places = self.places.get(piece).map_or(&[][..], Vec::as_slice);
        // Those of one process and one way follow each other.
        for alike in places.chunk_by(|one, next| (one.pid, one.is_copied) == (next.pid, next.is_copied)) {
            let part = |place: &Place| {
                let from = (place.image_offset - offset) as usize;
                bytes.get(from..from + place.len_bytes as usize).map(|bytes| (place.addr, bytes))
            };
            let Place { pid, is_copied, .. } = alike[0];
            let areas: Option<Vec<(Addr, &[u8])>> = alike.iter().map(part).collect();
            let put = |areas: Vec<(Addr, &[u8])>| match self.pagers.by_pid.get(&pid).filter(|_| is_copied) {
                Some(pager) => {
                    areas.iter().try_for_each(|(at, bytes)| sys::uffd::copy(pager.as_fd(), *at, bytes))
                }
                None => sys::vmread::write_areas(pid, &areas),
            };
            let done = areas.ok_or(Errno::ERANGE).and_then(put);
            done.map_err(|e| Error::kernel("writing pages", format!("process {pid}"), e))?;
        }
        Ok(())
    }

    fn go_on(&mut self) -> Result<()> {
        pass(self.go_on)
    }
}

/// Between two chunks.
fn pass(go_on: &mut dyn FnMut() -> Result<()>) -> Result<()> {
    fault::point("worker.load").map_err(|e| Error::io("fault point", "worker.load", &e))?;
    go_on()
}

/// Fails when the deadline has passed.
pub fn in_time(started: Instant, deadline: Instant) -> Result<()> {
    match Instant::now() < deadline {
        true => Ok(()),
        false => Err(Error::Deadline(started.elapsed().as_millis() as u64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_of_the_pages_ends_where_a_chunk_does() {
        let per_chunk = CHECKSUM_CHUNK_LEN as u64 / PAGE_BYTES;
        let run = |addr: u64, pages: u64, at: u64| {
            let image_offset = PAGE_BYTES + at * PAGE_BYTES;
            PageRunV1 { addr: Addr(addr * PAGE_BYTES), pages: pages as u32, image_offset }
        };
        // By address the other way round than in the image.
        let runs = [run(5, 5 * per_chunk, per_chunk), run(9000, per_chunk, 0)];
        let end = part_end(&runs, PAGE_BYTES, (1, 2));
        assert_eq!(end, PAGE_BYTES + 3 * CHECKSUM_CHUNK_LEN as u64);
        assert_eq!(before(&runs, end), [run(5, 2 * per_chunk, per_chunk), run(9000, per_chunk, 0)]);
        assert_eq!(part_end(&runs[1..], PAGE_BYTES, (1, 2)), PAGE_BYTES + CHECKSUM_CHUNK_LEN as u64);
        assert_eq!(before(&runs, u64::MAX), runs);
    }

    #[test]
    fn runs_are_cut_where_pieces_end() {
        let per_piece = PIECE_LEN as u64 / PAGE_BYTES;
        let start = PAGE_BYTES;
        let run = |addr: u64, pages: u32, at: u64| {
            let image_offset = start + at * PAGE_BYTES;
            PageRunV1 { addr: Addr(addr), pages, image_offset }
        };
        let mut places = vec![Vec::new(); 2];
        place((Pid(10), true), &[run(0x10_0000, 2, per_piece - 1), run(0x90_0000, 1, 0)], start, &mut places);
        let shown = |places: &[Place]| -> Vec<(u64, u64, u64)> {
            places.iter().map(|one| (one.addr.0, one.image_offset, one.len_bytes)).collect()
        };
        let last = start + PIECE_LEN as u64 - PAGE_BYTES;
        assert_eq!(shown(&places[0]), [(0x10_0000, last, PAGE_BYTES), (0x90_0000, start, PAGE_BYTES)]);
        assert_eq!(shown(&places[1]), [(0x10_1000, last + PAGE_BYTES, PAGE_BYTES)]);
    }
}
