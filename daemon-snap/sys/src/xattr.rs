//! Extended attributes by path, links not followed (xattr(7)).

use nix::errno::Errno;
use snap_state::XattrsV1;
use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

fn c_path(path: &Path) -> Result<CString, Errno> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)
}

/// Names and values; empty where the file system has none.
///
/// # Errors
/// As llistxattr(2) and lgetxattr(2).
pub fn all(path: &Path) -> Result<XattrsV1, Errno> {
    let path = c_path(path)?;
    let mut names = vec![0u8; 64 << 10];
    // SAFETY: path ends with NUL, names is writable for its length.
    let got = unsafe { libc::llistxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    let len = match Errno::result(got) {
        Ok(len) => len as usize,
        Err(Errno::ENOTSUP) => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let names = names[..len]
        .split_inclusive(|byte| *byte == 0)
        .filter_map(|name| CStr::from_bytes_with_nul(name).ok());
    names.map(|name| Ok((name.to_bytes().to_vec(), get(&path, name)?))).collect()
}

fn get(path: &CStr, name: &CStr) -> Result<Vec<u8>, Errno> {
    let mut value = vec![0u8; 64 << 10];
    // SAFETY: both strings end with NUL, value is writable for its length.
    let got =
        unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    value.truncate(Errno::result(got)? as usize);
    Ok(value)
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
