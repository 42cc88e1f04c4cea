//! Memory at recorded addresses in a process that has not come to its tape yet.

use nix::errno::Errno;
use std::ops::Range;
use std::os::fd::{AsRawFd as _, OwnedFd};

/// Maps private memory at a place where nothing is.
///
/// # Errors
/// `EEXIST`: something is there. Others as mmap(2).
pub fn map(range: Range<u64>, prot: i32, flags: i32, fd: Option<i32>, offset: u64) -> Result<(), Errno> {
    let anonymous = if fd.is_none() { libc::MAP_ANONYMOUS } else { 0 };
    let flags = flags | anonymous | libc::MAP_PRIVATE | libc::MAP_FIXED_NOREPLACE;
    let len = (range.end - range.start) as usize;
    // SAFETY: MAP_FIXED_NOREPLACE maps only where nothing is, so no memory of ours changes.
    let at = unsafe { libc::mmap(range.start as *mut _, len, prot, flags, fd.unwrap_or(-1), offset as i64) };
    if at == libc::MAP_FAILED { Err(Errno::last()) } else { Ok(()) }
}

/// `madvise(2)` on what [`map`] mapped.
///
/// # Errors
/// As madvise(2).
pub fn advise(range: Range<u64>, advice: i32) -> Result<(), Errno> {
    // SAFETY: the caller mapped the range with `map`; the advice used here (huge pages or not)
    // changes no content.
    Errno::result(unsafe { libc::madvise(range.start as *mut _, (range.end - range.start) as usize, advice) })
        .map(drop)
}

/// Reads consecutive bytes of a file into places (address, length) that [`map`] mapped.
///
/// # Errors
/// As preadv(2); `EIO` when the file is too short.
pub fn read(file: &OwnedFd, places: &[(u64, u64)], offset: u64) -> Result<(), Errno> {
    let vectors: Vec<libc::iovec> = places
        .iter()
        .map(|(at, len)| libc::iovec { iov_base: *at as *mut _, iov_len: *len as usize })
        .collect();
    let wanted: u64 = places.iter().map(|(_, len)| len).sum();
    // SAFETY: the places lie in mappings made by `map`, into which no Rust reference exists; the
    // vector is live and at most IOV_MAX long, as its maker (`tape::chunks`) sees to.
    let got =
        unsafe { libc::preadv(file.as_raw_fd(), vectors.as_ptr(), vectors.len() as i32, offset as i64) };
    if Errno::result(got)? as u64 == wanted { Ok(()) } else { Err(Errno::EIO) }
}
