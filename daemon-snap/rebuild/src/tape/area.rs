//! The memory that tape, interpreter and frames live in.

use super::x86_64;
use nix::errno::Errno;
use snap_error::{Error, RestoreFault, Result};
use snap_state::PAGE_BYTES;
use snap_sys::leftover::MAGIC;
use std::ops::Range;

/// Which part of the area: kept behind under the daemon, or unmapped before it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Region {
    Keep,
    Drop,
}

/// An arena at a fixed address: the interpreter and what is kept, then what is dropped.
#[derive(Debug)]
pub struct Area {
    base: u64,
    keep: Range<u64>,
    drop: Range<u64>,
    keep_used: u64,
    drop_used: u64,
}

/// Lowest address that is tried; above anything that `vm.mmap_min_addr` forbids.
const LOWEST: u64 = 0x1_0000;
/// End of user addresses with four-level page tables.
pub const TASK_END: u64 = 0x7fff_ffff_f000;
/// Distance kept from mappings that can grow (stack guard gap is 1 MiB; heaps grow upwards).
const CLEARANCE: u64 = 64 << 20;

/// Finds `len` bytes that none of the ranges touches, at some distance from them where possible. Searched from the top
/// of the address space, away from program, heap and the growing side of stacks.
pub fn find_gap(taken: &mut [Range<u64>], len: u64) -> Option<u64> {
    taken.sort_by_key(|r| r.start);
    for clearance in [CLEARANCE, 0] {
        let mut upper = TASK_END;
        for range in taken.iter().rev() {
            if range.start >= TASK_END {
                continue;
            }
            let gap_start = range.end + clearance;
            if gap_start < upper && upper - gap_start >= len + clearance {
                return Some(upper - clearance - len);
            }
            upper = upper.min(range.start);
        }
        if upper > LOWEST + len + 2 * clearance {
            return Some(upper - clearance - len);
        }
    }
    None
}

impl Area {
    /// Maps an area of the wanted sizes at a place that `taken` leaves free, with the interpreter in it.
    ///
    /// # Errors
    /// No such place, or no memory.
    pub fn map(taken: &mut [Range<u64>], keep_bytes: u64, drop_bytes: u64) -> Result<Self> {
        let code = x86_64::code();
        let head = MAGIC.len() as u64 + code.len() as u64;
        let keep_len = (head + keep_bytes).next_multiple_of(PAGE_BYTES);
        let drop_len = drop_bytes.next_multiple_of(PAGE_BYTES);
        let len = keep_len + drop_len;
        let base = find_gap(taken, len).ok_or(RestoreFault::NoRoomForTape { len_bytes: len })?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE | libc::MAP_NORESERVE;
        // SAFETY: MAP_FIXED_NOREPLACE maps only where nothing is; the result is checked.
        let got = unsafe {
            libc::mmap(base as *mut _, len as usize, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
        };
        if got as u64 != base {
            return Err(Error::kernel("mapping the tape", format!("{base:#x}"), Errno::last()));
        }
        let keep = base..base + keep_len;
        let mut area = Self { base, drop: keep.end..base + len, keep_used: 0, drop_used: 0, keep };
        area.put(Region::Keep, &MAGIC, 1)?;
        area.put(Region::Keep, code, 1)?;
        Ok(area)
    }

    /// Makes the kept part readable and executable, and nothing else. Called when everything has been written.
    ///
    /// # Errors
    /// mprotect(2).
    pub fn seal(&self) -> Result<()> {
        let (start, len) = (self.keep.start, (self.keep.end - self.keep.start) as usize);
        // SAFETY: our own mapping; nothing writes to it after this. Name and advice are harmless when they fail.
        unsafe {
            if libc::mprotect(start as *mut _, len, libc::PROT_READ | libc::PROT_EXEC) != 0 {
                return Err(Error::kernel("mapping the tape", "code", Errno::last()));
            }
            libc::prctl(libc::PR_SET_VMA, libc::PR_SET_VMA_ANON_NAME, start, len, c"fastboot".as_ptr());
            libc::madvise(start as *mut _, len, libc::MADV_DONTFORK);
        }
        Ok(())
    }

    /// The whole area.
    pub fn range(&self) -> Range<u64> {
        self.base..self.drop.end
    }

    /// The part that is unmapped at the end.
    pub fn drop_range(&self) -> Range<u64> {
        self.drop.clone()
    }

    /// Address of the interpreter.
    pub fn code(&self) -> u64 {
        self.base + MAGIC.len() as u64
    }

    /// Reserves room and returns its address.
    ///
    /// # Errors
    /// The area was made too small: a defect of the size estimate, reported as such.
    pub fn reserve(&mut self, region: Region, len: u64, align: u64) -> Result<u64> {
        let (range, used) = match region {
            Region::Keep => (&self.keep, &mut self.keep_used),
            Region::Drop => (&self.drop, &mut self.drop_used),
        };
        let at = (range.start + *used).next_multiple_of(align);
        if at + len > range.end {
            return Err(Error::Internal {
                step: "compiling the tape",
                message: format!("{region:?} region of {} bytes is full", range.end - range.start),
            });
        }
        *used = at + len - range.start;
        Ok(at)
    }

    /// Copies bytes into the area and returns their address.
    ///
    /// # Errors
    /// As [`Area::reserve`].
    pub fn put(&mut self, region: Region, bytes: &[u8], align: u64) -> Result<u64> {
        let at = self.reserve(region, bytes.len() as u64, align)?;
        self.write(at, bytes);
        Ok(at)
    }

    /// Overwrites bytes that were reserved before.
    pub fn write(&self, at: u64, bytes: &[u8]) {
        assert!(at >= self.base && at + bytes.len() as u64 <= self.drop.end);
        // SAFETY: the destination lies in our mapping (asserted), which is writable and has no Rust references into it.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), at as *mut u8, bytes.len()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gap_avoids_every_taken_range() {
        let mut taken =
            vec![0x10000..0x20000, 0x7fff_0000_0000..TASK_END, 0x5555_0000_0000..0x5555_1000_0000];
        let at = find_gap(&mut taken, 1 << 20).unwrap();
        assert!(taken.iter().all(|r| at + (1 << 20) <= r.start || at >= r.end));
    }

    #[test]
    fn gap_is_none_when_everything_is_taken() {
        assert_eq!(find_gap(&mut [0..TASK_END; 1], 4096), None);
    }
}
