//! Which pages of a file lie in the page cache.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::ops::Range;

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use crate::layout::PAGE_SIZE;

/// One answer for each page of `range`, which begins and ends at pages. Reads nothing.
///
/// # Errors
/// mmap(2), mincore(2).
pub(crate) fn resident_pages(file: &File, range: Range<u64>) -> io::Result<Vec<bool>> {
    let len = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
    let Some(mapped_len) = NonZeroUsize::new(len) else { return Ok(Vec::new()) };
    let offset = i64::try_from(range.start).map_err(io::Error::other)?;
    // SAFETY: a new mapping at an address that the kernel chooses takes nothing from anybody, and
    // nobody ever looks into it: the file may become shorter without a fault.
    let at = unsafe { mmap(None, mapped_len, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, file, offset) }?;
    let mut pages = vec![0u8; len.div_ceil(PAGE_SIZE)];
    // SAFETY: the range is the mapping of above, and `pages` has a byte for each page of it.
    let asked = unsafe { libc::mincore(at.as_ptr(), len, pages.as_mut_ptr()) };
    let error = io::Error::last_os_error();
    // SAFETY: the mapping of above, to which nothing refers.
    unsafe { munmap(at, len) }?;
    if asked < 0 {
        return Err(error);
    }
    Ok(pages.into_iter().map(|page| page & 1 != 0).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn what_was_just_written_is_there_and_a_hole_is_not() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[1; 2 * PAGE_SIZE]).unwrap();
        file.set_len(4 * PAGE_SIZE as u64).unwrap();
        let pages = |range: Range<u64>| resident_pages(&file, range).unwrap();
        assert_eq!(pages(0..4 * PAGE_SIZE as u64), [true, true, false, false]);
        assert_eq!(pages(PAGE_SIZE as u64..3 * PAGE_SIZE as u64), [true, false]);
        assert!(pages(0..0).is_empty());
    }
}
