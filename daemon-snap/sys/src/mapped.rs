//! Files read by mapping them: nobody who watches a file (inotify, fanotify) hears of that.

use super::vmread;
use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use snap_state::{Addr, PAGE_BYTES, Pid};
use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

/// A piece of a file in our memory for as long as it is read.
struct Mapping {
    at: NonNull<c_void>,
    len: NonZeroUsize,
}

impl Mapping {
    fn of(fd: BorrowedFd<'_>, offset: u64, len: NonZeroUsize, prot: ProtFlags) -> Result<Self, Errno> {
        // SAFETY: a new mapping at an address of the kernel's choice; no reference into it is ever
        // made.
        let at = unsafe { mmap(None, len, prot, MapFlags::MAP_PRIVATE, fd, offset as i64)? };
        Ok(Self { at, len })
    }

    /// By a system call, which reports a page that the file does not have any more instead of
    /// ending us.
    fn copy(&self, skip: usize, buffer: &mut [u8]) -> Result<(), Errno> {
        let own = Pid(std::process::id() as i32);
        vmread::read_areas(own, &[(Addr((self.at.as_ptr() as usize + skip) as u64), buffer.len())], buffer)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: our own mapping, of that length.
        let _ = unsafe { munmap(self.at, self.len.get()) };
    }
}

/// Bytes of a file from `offset` on, all of `buffer`.
///
/// # Errors
/// `EACCES` when the description may not be read from, `EFAULT` beyond the end of the file.
pub fn read(fd: BorrowedFd<'_>, offset: u64, buffer: &mut [u8]) -> Result<(), Errno> {
    let start = offset / PAGE_BYTES * PAGE_BYTES;
    let skip = (offset - start) as usize;
    let Some(len) = NonZeroUsize::new(skip + buffer.len()) else { return Ok(()) };
    Mapping::of(fd, start, len, ProtFlags::PROT_READ)?.copy(skip, buffer)
}

/// A page of a program as this process would execute it: with the breakpoints that the kernel puts
/// into every mapping.
///
/// # Errors
/// As [`read`].
pub fn read_text(fd: BorrowedFd<'_>, offset: u64) -> Result<Vec<u8>, Errno> {
    let mut page = vec![0; PAGE_BYTES as usize];
    let Some(len) = NonZeroUsize::new(page.len()) else { return Ok(page) };
    let executable = Mapping::of(fd, offset, len, ProtFlags::PROT_READ | ProtFlags::PROT_EXEC);
    // A file system without programs.
    let mapping = executable.or_else(|_| Mapping::of(fd, offset, len, ProtFlags::PROT_READ))?;
    mapping.copy(0, &mut page)?;
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;

    #[test]
    fn mapped_bytes_are_those_of_the_file() {
        let path = std::env::current_exe().unwrap();
        let file = std::fs::File::open(&path).unwrap();
        let mut bytes = [0; 5000];
        read(file.as_fd(), 4090, &mut bytes).unwrap();
        assert_eq!(bytes[..], std::fs::read(&path).unwrap()[4090..9090]);
        assert_eq!(read(file.as_fd(), 1 << 40, &mut bytes), Err(Errno::EFAULT));
    }
}
