//! Extended attributes by path (xattr(7)); the last part may be a link only where it is said.

use nix::errno::Errno;
use snap_state::XattrsV1;
use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

fn c_path(path: &Path) -> Result<CString, Errno> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)
}

/// Names and values; empty where the file system has none. A link is not followed.
///
/// # Errors
/// As llistxattr(2) and lgetxattr(2).
pub fn all(path: &Path) -> Result<XattrsV1, Errno> {
    read_all(path, libc::llistxattr, libc::lgetxattr)
}

/// The same of what a link in /proc leads to.
///
/// # Errors
/// As listxattr(2) and getxattr(2).
pub fn all_behind(link: &Path) -> Result<XattrsV1, Errno> {
    read_all(link, libc::listxattr, libc::getxattr)
}

type List = unsafe extern "C" fn(*const libc::c_char, *mut libc::c_char, usize) -> isize;
type Get = unsafe extern "C" fn(*const libc::c_char, *const libc::c_char, *mut libc::c_void, usize) -> isize;

fn read_all(path: &Path, list: List, get: Get) -> Result<XattrsV1, Errno> {
    let path = c_path(path)?;
    let mut names = vec![0u8; 64 << 10];
    // SAFETY: path ends with NUL, names is writable for its length.
    let got = unsafe { list(path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    let len = match Errno::result(got) {
        Ok(len) => len as usize,
        Err(Errno::ENOTSUP) => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let names = names[..len]
        .split_inclusive(|byte| *byte == 0)
        .filter_map(|name| CStr::from_bytes_with_nul(name).ok());
    let value = |name: &CStr| -> Result<Vec<u8>, Errno> {
        let mut value = vec![0u8; 64 << 10];
        // SAFETY: both strings end with NUL, value is writable for its length.
        let got = unsafe { get(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
        value.truncate(Errno::result(got)? as usize);
        Ok(value)
    };
    names.map(|name| Ok((name.to_bytes().to_vec(), value(name)?))).collect()
}

/// Sets one of an open file.
///
/// # Errors
/// As fsetxattr(2).
pub fn set_of(fd: BorrowedFd<'_>, name: &[u8], value: &[u8]) -> Result<(), Errno> {
    let name = CString::new(name).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the name ends with NUL, value is live for its length.
    let got =
        unsafe { libc::fsetxattr(fd.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    Errno::result(got).map(drop)
}

/// Sets one.
///
/// # Errors
/// As lsetxattr(2).
pub fn set(path: &Path, name: &[u8], value: &[u8]) -> Result<(), Errno> {
    let (path, name) = (c_path(path)?, CString::new(name).map_err(|_| Errno::EINVAL)?);
    // SAFETY: both strings end with NUL, value is live for its length.
    let got = unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    Errno::result(got).map(drop)
}
