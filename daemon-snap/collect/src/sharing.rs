//! Pages that several processes have in common since a fork: stored once, read once.
//!
//! The page map names the physical page behind an address. Two stopped processes with the same
//! physical page have the same content. The kernel may move a page meanwhile and give its frame to
//! another, so whoever was there first is looked at again after the other one has been: the frame
//! was his the whole time.
//!
//! process_vm_readv(2) pins what it reads, and since Linux 5.19 a page that others have too is
//! copied before it is pinned: the tree would grow by being looked at. Such pages are read through
//! /proc/PID/mem, which does not pin.

use nix::errno::Errno;
use snap_state::{Addr, PAGE_BYTES, Pid};
use snap_sys::pagemap::{Frame, OwnPages, PageMap};
use std::collections::HashMap;

/// Pages that have been stored.
#[derive(Debug, Default)]
pub(crate) struct Sharing {
    stored: HashMap<Frame, Stored>,
    maps: HashMap<Pid, PageMap>,
}

#[derive(Clone, Copy, Debug)]
struct Stored {
    pid: Pid,
    addr: Addr,
    image_offset: u64,
}

/// A page that is in the image already.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub addr: Addr,
    pub image_offset: u64,
}

/// Own pages of a process, sorted by whether they have to be read.
#[derive(Debug, Default)]
pub(super) struct Sorted {
    /// Nobody else's.
    pub alone: Vec<OwnPages>,
    /// Others may have them too.
    pub common: Vec<OwnPages>,
    /// Parallel to the pages of `common`.
    pub frames: Vec<Frame>,
    pub known: Vec<Known>,
}

impl Sharing {
    /// Notes where a page of a process that others may have too was stored.
    pub fn note(&mut self, frame: Frame, pid: Pid, addr: Addr, image_offset: u64) {
        self.stored.insert(frame, Stored { pid, addr, image_offset });
    }

    /// Keeps the page map of a process whose pages were noted.
    pub fn keep(&mut self, pid: Pid, map: PageMap) {
        self.maps.insert(pid, map);
    }

    /// Which of these pages are in the image already.
    pub(super) fn sort(&self, map: &PageMap, own: &[OwnPages]) -> Result<Sorted, Errno> {
        let mut sorted = Sorted::default();
        let mut candidates: Vec<(Addr, Frame, Stored)> = Vec::new();
        for pages in own {
            let mut addr = pages.start.0;
            for frame in map.frames(pages.start..pages.end)? {
                match frame.map(|frame| (frame, self.stored.get(&frame))) {
                    Some((frame, Some(stored))) => candidates.push((Addr(addr), frame, *stored)),
                    Some((frame, None)) => {
                        push(&mut sorted.common, addr);
                        sorted.frames.push(frame);
                    }
                    None => push(&mut sorted.alone, addr),
                }
                addr += PAGE_BYTES;
            }
        }
        self.confirm(candidates, &mut sorted)?;
        Ok(sorted)
    }

    /// Looks once more at who had the frames first.
    fn confirm(&self, candidates: Vec<(Addr, Frame, Stored)>, sorted: &mut Sorted) -> Result<(), Errno> {
        let follows = |a: &(Addr, Frame, Stored), b: &(Addr, Frame, Stored)| {
            a.2.pid == b.2.pid && a.2.addr.0 + PAGE_BYTES == b.2.addr.0
        };
        for group in candidates.chunk_by(follows) {
            let first = group[0].2;
            let range = first.addr..Addr(first.addr.0 + group.len() as u64 * PAGE_BYTES);
            let now = match self.maps.get(&first.pid) {
                Some(map) => map.frames(range)?,
                None => Vec::new(),
            };
            for (index, (addr, frame, stored)) in group.iter().enumerate() {
                if now.get(index) == Some(&Some(*frame)) {
                    sorted.known.push(Known { addr: *addr, image_offset: stored.image_offset });
                } else {
                    // It moved: stored once more.
                    push(&mut sorted.common, addr.0);
                    sorted.frames.push(*frame);
                }
            }
        }
        Ok(())
    }
}

fn push(ranges: &mut Vec<OwnPages>, addr: u64) {
    match ranges.last_mut() {
        Some(last) if last.end.0 == addr => last.end.0 += PAGE_BYTES,
        _ => ranges.push(OwnPages { start: Addr(addr), end: Addr(addr + PAGE_BYTES), guard: false }),
    }
}
