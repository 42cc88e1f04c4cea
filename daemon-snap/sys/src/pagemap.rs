//! Which pages of an address space are its own: PAGEMAP_SCAN (since Linux 6.7), else
//! `/proc/PID/pagemap`.

use nix::errno::Errno;
use snap_state::{Addr, PAGE_BYTES, Pid};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt as _;

const PAGE_IS_FILE: u64 = 1 << 2;
const PAGE_IS_PRESENT: u64 = 1 << 3;
const PAGE_IS_SWAPPED: u64 = 1 << 4;
const PAGE_IS_PFNZERO: u64 = 1 << 5;
/// Since Linux 6.16.
const PAGE_IS_GUARD: u64 = 1 << 8;

/// Bits of an entry of `/proc/PID/pagemap` (pagemap.rst).
const ENTRY_PRESENT: u64 = 1 << 63;
const ENTRY_SWAPPED: u64 = 1 << 62;
const ENTRY_FILE_OR_SHARED: u64 = 1 << 61;
/// Since Linux 6.15.
const ENTRY_GUARD: u64 = 1 << 58;
/// Nobody else maps the page (since Linux 4.2).
const ENTRY_EXCLUSIVE: u64 = 1 << 56;
/// Number of the page frame, or place in swap. Zero for who lacks CAP_SYS_ADMIN.
const ENTRY_PLACE: u64 = (1 << 55) - 1;

/// Where a page physically is: equal frames at one moment are one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Frame(u64);

impl Frame {
    /// `None` when nobody else has the page, or when we are not told.
    fn of_entry(entry: u64) -> Option<Self> {
        let there = entry & (ENTRY_PRESENT | ENTRY_SWAPPED) != 0 && entry & ENTRY_PLACE != 0;
        (there && entry & (ENTRY_EXCLUSIVE | ENTRY_GUARD) == 0)
            .then_some(Self(entry & (ENTRY_PRESENT | ENTRY_SWAPPED | ENTRY_PLACE)))
    }
}

/// `struct page_region`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct PageRegion {
    start: u64,
    end: u64,
    categories: u64,
}
const _: () = assert!(size_of::<PageRegion>() == 24);

/// `struct pm_scan_arg`.
#[repr(C)]
#[derive(Default)]
struct PmScanArg {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}
const _: () = assert!(size_of::<PmScanArg>() == 96);

nix::ioctl_readwrite!(pagemap_scan, b'f', 16, PmScanArg);

/// A range of pages that belong to the address space alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnPages {
    pub start: Addr,
    pub end: Addr,
    /// Guard markers (`MADV_GUARD_INSTALL`), not pages.
    pub guard: bool,
}

/// How to ask; found out at the first question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    ScanWithGuard,
    Scan,
    Entries,
}

/// Open `/proc/PID/pagemap`.
#[derive(Debug)]
pub struct PageMap {
    file: File,
    method: Method,
}

impl PageMap {
    /// Opens the page map of a process.
    ///
    /// # Errors
    /// When the process has ended or may not be read.
    pub fn open(pid: Pid) -> io::Result<Self> {
        let file = File::open(format!("/proc/{pid}/pagemap"))?;
        let mut map = Self { file, method: Method::ScanWithGuard };
        while map.own_pages(Addr(0)..Addr(PAGE_BYTES), &mut Vec::new()).is_err()
            && map.method != Method::Entries
        {
            map.method = match map.method {
                Method::ScanWithGuard => Method::Scan,
                _ => Method::Entries,
            };
        }
        Ok(map)
    }

    /// Whether unused address space costs nothing.
    pub fn is_fast(&self) -> bool {
        self.method != Method::Entries
    }

    /// Appends the anonymous pages of a range that are present or swapped, in ascending order. The
    /// shared zero page is left out.
    ///
    /// # Errors
    /// When the process has ended.
    pub fn own_pages(&self, range: Range<Addr>, found: &mut Vec<OwnPages>) -> Result<(), Errno> {
        match self.method {
            Method::ScanWithGuard => self.scan(range, PAGE_IS_GUARD, found),
            Method::Scan => self.scan(range, 0, found),
            Method::Entries => self.entries(range, found),
        }
    }

    /// Frames of a range, a page after the other.
    ///
    /// # Errors
    /// When the process has ended.
    pub fn frames(&self, range: Range<Addr>) -> Result<Vec<Option<Frame>>, Errno> {
        let pages = (range.end.0 - range.start.0) / PAGE_BYTES;
        let mut bytes = vec![0u8; pages as usize * 8];
        let at = range.start.0 / PAGE_BYTES * 8;
        let failed = |e: io::Error| e.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
        self.file.read_exact_at(&mut bytes, at).map_err(failed)?;
        Ok(bytes.as_chunks::<8>().0.iter().map(|entry| Frame::of_entry(u64::from_ne_bytes(*entry))).collect())
    }

    fn scan(&self, range: Range<Addr>, guard_bit: u64, found: &mut Vec<OwnPages>) -> Result<(), Errno> {
        let mut regions = [PageRegion::default(); 512];
        let mut start = range.start.0;
        while start < range.end.0 {
            let mut arg = PmScanArg {
                size: size_of::<PmScanArg>() as u64,
                start,
                end: range.end.0,
                vec: regions.as_mut_ptr() as u64,
                vec_len: regions.len() as u64,
                category_inverted: PAGE_IS_FILE | PAGE_IS_PFNZERO,
                category_mask: PAGE_IS_FILE | PAGE_IS_PFNZERO,
                category_anyof_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
                // A category that never matches merges neighbours where guard pages are not known.
                return_mask: if guard_bit == 0 { PAGE_IS_FILE } else { guard_bit },
                ..PmScanArg::default()
            };
            // SAFETY: arg and the vector that it points to live through the call, lengths are
            // theirs.
            let count = unsafe { pagemap_scan(self.file.as_raw_fd(), &raw mut arg) }?;
            found.extend(regions[..count as usize].iter().map(|region| OwnPages {
                start: Addr(region.start),
                end: Addr(region.end),
                guard: region.categories & guard_bit != 0,
            }));
            if arg.walk_end <= start {
                break;
            }
            start = arg.walk_end;
        }
        Ok(())
    }

    /// One entry of eight bytes a page. Page tables that do not exist cost as much as others here,
    /// so that a kernel without PAGEMAP_SCAN pays for huge reservations.
    fn entries(&self, range: Range<Addr>, found: &mut Vec<OwnPages>) -> Result<(), Errno> {
        let mut buffer = vec![0u8; 1 << 19];
        let mut page = range.start.0 / PAGE_BYTES;
        let last = range.end.0.div_ceil(PAGE_BYTES);
        while page < last {
            let wanted = buffer.len().min((last - page) as usize * 8);
            let failed = |e: io::Error| e.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
            let got = self.file.read_at(&mut buffer[..wanted], page * 8).map_err(failed)?;
            if got == 0 {
                break;
            }
            for entry in buffer[..got].as_chunks::<8>().0 {
                let entry = u64::from_ne_bytes(*entry);
                let guard = entry & ENTRY_GUARD != 0;
                let own = entry & (ENTRY_PRESENT | ENTRY_SWAPPED) != 0 && entry & ENTRY_FILE_OR_SHARED == 0;
                if own || guard {
                    push(found, page * PAGE_BYTES, guard);
                }
                page += 1;
            }
        }
        Ok(())
    }
}

fn push(found: &mut Vec<OwnPages>, addr: u64, guard: bool) {
    match found.last_mut() {
        Some(last) if last.end.0 == addr && last.guard == guard => last.end.0 += PAGE_BYTES,
        _ => found.push(OwnPages { start: Addr(addr), end: Addr(addr + PAGE_BYTES), guard }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_pages_are_the_touched_ones() {
        let pages = 64;
        // Not from the heap: what somebody had used before would be cleared, which is touching it.
        let mut bytes = memmap2::MmapMut::map_anon(pages * PAGE_BYTES as usize).unwrap();
        let start = bytes.as_ptr() as u64;
        for page in [3, 4, 9] {
            bytes[page * PAGE_BYTES as usize] = 1;
        }
        let range = Addr(start + PAGE_BYTES)..Addr(start + 32 * PAGE_BYTES);
        let mut map = PageMap::open(Pid(std::process::id() as i32)).unwrap();
        for method in [map.method, Method::Entries] {
            map.method = method;
            let mut found = Vec::new();
            map.own_pages(range.clone(), &mut found).unwrap();
            let numbers: Vec<_> = found
                .iter()
                .map(|own| ((own.start.0 - start) / PAGE_BYTES, (own.end.0 - start) / PAGE_BYTES))
                .collect();
            assert_eq!(numbers, [(3, 5), (9, 10)], "{method:?}");
        }
    }
}
