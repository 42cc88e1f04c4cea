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

/// Bytes of the two regions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    keep: u64,
    drop: u64,
}

impl Room {
    /// Whether `used` fits into the pages of this.
    pub fn holds(self, used: Self) -> bool {
        let (room, used) = (self.in_pages(), used.in_pages());
        used.keep <= room.keep && used.drop <= room.drop
    }

    /// What holds both.
    pub fn larger(one: Self, other: Self) -> Self {
        Self { keep: one.keep.max(other.keep), drop: one.drop.max(other.drop) }
    }

    fn in_pages(self) -> Self {
        Self { keep: self.keep.next_multiple_of(PAGE_BYTES), drop: self.drop.next_multiple_of(PAGE_BYTES) }
    }
}

/// An arena for a fixed address: the interpreter and what is kept, then what is dropped. It is
/// written here and mapped when it is whole.
#[derive(Debug)]
pub struct Area {
    keep: Range<u64>,
    drop: Range<u64>,
    keep_bytes: Vec<u8>,
    drop_bytes: Vec<u8>,
}

/// Lowest address that is tried; above anything that `vm.mmap_min_addr` forbids.
const LOWEST: u64 = 0x1_0000;
/// End of user addresses with four-level page tables.
pub const TASK_END: u64 = 0x7fff_ffff_f000;
/// Distance kept from mappings that can grow (stack guard gap is 1 MiB; heaps grow upwards).
const CLEARANCE: u64 = 64 << 20;

/// Finds `len` bytes that none of the ranges touches, at some distance from them where possible.
/// Searched from the top of the address space, away from program, heap and the growing side of
/// stacks.
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
    /// One that is only to be measured: as large as it needs, at no real place.
    pub fn measuring() -> Self {
        let middle = (TASK_END / 2) & !(PAGE_BYTES - 1);
        Self::over(LOWEST..middle, middle..TASK_END)
    }

    /// One for a place that `taken` leaves free.
    ///
    /// # Errors
    /// There is no such place.
    pub fn placed(taken: &mut [Range<u64>], room: Room) -> Result<Self> {
        let Room { keep, drop } = room.in_pages();
        let base =
            find_gap(taken, keep + drop).ok_or(RestoreFault::NoRoomForTape { len_bytes: keep + drop })?;
        Ok(Self::over(base..base + keep, base + keep..base + keep + drop))
    }

    fn over(keep: Range<u64>, drop: Range<u64>) -> Self {
        let keep_bytes = [&MAGIC, x86_64::code()].concat();
        Self { keep, drop, keep_bytes, drop_bytes: Vec::new() }
    }

    /// How much has been written.
    pub fn used(&self) -> Room {
        Room { keep: self.keep_bytes.len() as u64, drop: self.drop_bytes.len() as u64 }
    }

    /// Maps the area at its place and copies everything there. The kept part is readable and
    /// executable afterwards, and nothing else.
    ///
    /// # Errors
    /// No memory, or something is there by now.
    pub fn map(&self) -> Result<()> {
        let base = self.keep.start;
        let (keep_len, len) = ((self.keep.end - base) as usize, (self.drop.end - base) as usize);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE | libc::MAP_NORESERVE;
        // SAFETY: MAP_FIXED_NOREPLACE maps only where nothing is; the result is checked.
        let got =
            unsafe { libc::mmap(base as *mut _, len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if got as u64 != base {
            return Err(Error::kernel("mapping the tape", format!("{base:#x}"), Errno::last()));
        }
        for (range, bytes) in [(&self.keep, &self.keep_bytes), (&self.drop, &self.drop_bytes)] {
            // The measure was for these pages.
            assert!(bytes.len() as u64 <= range.end - range.start);
            // SAFETY: the destination lies in the mapping made above (asserted), which is writable
            // and has no Rust references into it; the source is memory of ours that was there
            // before, so they do not overlap.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), range.start as *mut u8, bytes.len()) };
        }
        // SAFETY: our own mapping; nothing writes to it after this. Name and advice are harmless
        // when they fail.
        unsafe {
            if libc::mprotect(base as *mut _, keep_len, libc::PROT_READ | libc::PROT_EXEC) != 0 {
                return Err(Error::kernel("mapping the tape", "code", Errno::last()));
            }
            libc::prctl(libc::PR_SET_VMA, libc::PR_SET_VMA_ANON_NAME, base, keep_len, c"fastboot".as_ptr());
            libc::madvise(base as *mut _, keep_len, libc::MADV_DONTFORK);
        }
        Ok(())
    }

    /// The whole area.
    pub fn range(&self) -> Range<u64> {
        self.keep.start..self.drop.end
    }

    /// The part that is unmapped at the end.
    pub fn drop_range(&self) -> Range<u64> {
        self.drop.clone()
    }

    /// Address of the interpreter.
    pub fn code(&self) -> u64 {
        self.keep.start + MAGIC.len() as u64
    }

    /// Address that the next bytes of a region get.
    pub fn next(&self, region: Region, align: u64) -> u64 {
        let (range, bytes) = match region {
            Region::Keep => (&self.keep, &self.keep_bytes),
            Region::Drop => (&self.drop, &self.drop_bytes),
        };
        (range.start + bytes.len() as u64).next_multiple_of(align)
    }

    /// Reserves room, zeroed, and returns its address.
    ///
    /// # Errors
    /// No tape is that long: the address space has no room for it.
    pub fn reserve(&mut self, region: Region, len: u64, align: u64) -> Result<u64> {
        let at = self.next(region, align);
        let (range, bytes) = match region {
            Region::Keep => (&self.keep, &mut self.keep_bytes),
            Region::Drop => (&self.drop, &mut self.drop_bytes),
        };
        if len > TASK_END - at {
            return Err(RestoreFault::NoRoomForTape { len_bytes: len }.into());
        }
        bytes.resize((at + len - range.start) as usize, 0);
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
    pub fn write(&mut self, at: u64, bytes: &[u8]) {
        let in_keep = at >= self.keep.start && at < self.keep.start + self.keep_bytes.len() as u64;
        let (range, target) =
            if in_keep { (&self.keep, &mut self.keep_bytes) } else { (&self.drop, &mut self.drop_bytes) };
        let from = (at - range.start) as usize;
        target[from..from + bytes.len()].copy_from_slice(bytes);
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

    #[test]
    fn measured_area_is_as_long_as_the_placed_one() {
        let fill = |mut area: Area| {
            area.put(Region::Keep, &[1; 100], 64).unwrap();
            area.put(Region::Drop, &[2; 5000], 8).unwrap();
            area.reserve(Region::Drop, 8192, PAGE_BYTES).unwrap();
            area
        };
        let room = fill(Area::measuring()).used();
        let placed = fill(Area::placed(&mut [0..0x20000, 0x5000_0000_0000..TASK_END], room).unwrap());
        assert_eq!(placed.used(), room);
        assert!(room.holds(placed.used()) && !Room { keep: 0, ..room }.holds(room));
    }

    #[test]
    fn mapped_area_holds_what_was_written() {
        let mut area =
            Area::placed(&mut [0..0x20000, 0x5000_0000_0000..TASK_END], Room { keep: 9000, drop: 9000 })
                .unwrap();
        let at = area.put(Region::Drop, b"tape", 8).unwrap();
        area.map().unwrap();
        let own = snap_state::Pid(std::process::id() as i32);
        assert_eq!(snap_sys::vmread::read(own, snap_state::Addr(at), 4).unwrap(), b"tape");
        assert!(snap_sys::leftover::begins_at(own, snap_state::Addr(area.range().start)));
        assert!(area.map().is_err(), "what is there is not mapped over");
    }
}
