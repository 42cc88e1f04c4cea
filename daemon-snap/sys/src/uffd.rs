//! Putting pages into memory that has none yet (userfaultfd(2); ioctl_userfaultfd(2)).
//!
//! `UFFDIO_COPY` makes a page, fills it and puts it in its place in one step: nothing is zeroed
//! first, and no fault is taken. It works on the address space that the descriptor was made in,
//! whoever holds the descriptor. An area is registered while pages are put into it; it is an
//! ordinary one again when the last duplicate of the descriptor is closed.

use nix::errno::Errno;
use snap_state::Addr;
use std::ops::Range;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

/// Faults of system calls are not waited for, which needs no privilege (since Linux 5.11).
const UFFD_USER_MODE_ONLY: i32 = 1;
const UFFD_API: u64 = 0xaa;
const UFFDIO_REGISTER_MODE_MISSING: u64 = 1;
/// Nobody waits in a fault for these pages.
const UFFDIO_COPY_MODE_DONTWAKE: u64 = 1;

/// `struct uffdio_api`.
#[repr(C)]
#[derive(Debug)]
pub struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

/// `struct uffdio_register`.
#[repr(C)]
#[derive(Debug)]
pub struct Register {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

/// `struct uffdio_copy`.
#[repr(C)]
#[derive(Debug)]
pub struct Copy {
    dst: u64,
    src: u64,
    len: u64,
    mode: u64,
    copied: i64,
}

/// Requests as ioctl(2) takes them.
pub const UFFDIO_REGISTER: u64 = nix::request_code_readwrite!(0xaa, 0x00, size_of::<Register>()) as u64;
/// See [`UFFDIO_REGISTER`].
pub const UFFDIO_COPY: u64 = nix::request_code_readwrite!(0xaa, 0x03, size_of::<Copy>()) as u64;

nix::ioctl_readwrite!(uffdio_api, 0xaa, 0x3f, Api);
nix::ioctl_readwrite!(uffdio_copy, 0xaa, 0x03, Copy);

impl Register {
    /// Page-aligned; the areas are anonymous and private.
    pub fn new(range: &Range<u64>) -> Register {
        let (start, len) = (range.start, range.end - range.start);
        Register { start, len, mode: UFFDIO_REGISTER_MODE_MISSING, ioctls: 0 }
    }

    /// As the kernel reads it.
    pub fn bytes(&self) -> Vec<u8> {
        words(&[self.start, self.len, self.mode, self.ioctls])
    }
}

impl Copy {
    /// Page-aligned but for the source.
    pub fn new(dst: Addr, src: u64, len: u64) -> Copy {
        Copy { dst: dst.0, src, len, mode: UFFDIO_COPY_MODE_DONTWAKE, copied: 0 }
    }

    /// As the kernel reads it.
    pub fn bytes(&self) -> Vec<u8> {
        words(&[self.dst, self.src, self.len, self.mode, 0])
    }
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// A descriptor for the address space of the caller. It is not inherited over exec.
///
/// # Errors
/// `EINVAL` before Linux 5.11, `ENOSYS`, `EPERM` under a filter.
pub fn open() -> Result<OwnedFd, Errno> {
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK | UFFD_USER_MODE_ONLY;
    // SAFETY: plain system call without pointers.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_userfaultfd, flags) })?;
    // SAFETY: the kernel just made this descriptor for us.
    let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    let mut api = Api { api: UFFD_API, features: 0, ioctls: 0 };
    // SAFETY: the struct is live and as large as the request says.
    unsafe { uffdio_api(fd.as_raw_fd(), &raw mut api) }?;
    Ok(fd)
}

/// Makes the pages of an area of the address space that the descriptor belongs to, and fills them.
/// It is registered and has none of them.
///
/// # Errors
/// `EEXIST` where there is one already, `ENOENT` in an area that is not registered, `ESRCH` when
/// the process has ended, `ENOMEM`.
pub fn copy(uffd: BorrowedFd<'_>, to: Addr, bytes: &[u8]) -> Result<(), Errno> {
    let mut done = 0;
    while done < bytes.len() {
        let from = bytes[done..].as_ptr() as u64;
        let mut copy = Copy::new(Addr(to.0 + done as u64), from, (bytes.len() - done) as u64);
        // SAFETY: the struct is live and as large as the request says; the kernel reads the bytes,
        // which are ours, and writes into another address space or into memory that no reference
        // of ours leads to, since it does not exist before.
        let result = unsafe { uffdio_copy(uffd.as_raw_fd(), &raw mut copy) };
        match result {
            Ok(_) => return Ok(()),
            // Some of it; the next call says why it went no further, if it does not go on.
            Err(Errno::EAGAIN) if copy.copied > 0 => done += copy.copied as usize,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
    use std::num::NonZero;
    use std::os::fd::AsFd as _;

    nix::ioctl_readwrite!(uffdio_register, 0xaa, 0x00, Register);

    #[test]
    fn pages_are_put_where_none_are() {
        let uffd = open().unwrap();
        let len = 4 * 4096;
        let (prot, flags) = (ProtFlags::PROT_READ, MapFlags::MAP_PRIVATE);
        // SAFETY: a new mapping at a place that the kernel chooses.
        let area = unsafe { mmap_anonymous(None, NonZero::new(len).unwrap(), prot, flags) }.unwrap();
        let at = Addr(area.as_ptr() as u64);
        assert_eq!(copy(uffd.as_fd(), at, &[1; 4096]), Err(Errno::ENOENT));
        let mut register = Register::new(&(at.0..at.0 + len as u64));
        // SAFETY: the struct is live; the area is the one made above, which nobody reads meanwhile.
        unsafe { uffdio_register(uffd.as_raw_fd(), &raw mut register) }.unwrap();
        copy(uffd.as_fd(), Addr(at.0 + 4096), &[7; 2 * 4096]).unwrap();
        assert_eq!(copy(uffd.as_fd(), at, &[1; 2 * 4096]), Err(Errno::EEXIST));
        drop(uffd);
        // SAFETY: mapped, readable, and written by nobody any more.
        let bytes = unsafe { std::slice::from_raw_parts(area.as_ptr().cast::<u8>(), len) };
        let firsts: Vec<u8> = bytes.iter().step_by(4096).copied().collect();
        assert_eq!(firsts, [1, 7, 7, 0]);
        // SAFETY: the reference into it is not used after this.
        unsafe { munmap(area, len) }.unwrap();
    }

    #[test]
    fn requests_are_those_of_the_header() {
        assert_eq!((UFFDIO_REGISTER, UFFDIO_COPY), (0xc020_aa00, 0xc028_aa03));
        assert_eq!(Copy::new(Addr(1), 2, 3).bytes().len(), size_of::<Copy>());
        assert_eq!(Register::new(&(0..1)).bytes().len(), size_of::<Register>());
    }
}
