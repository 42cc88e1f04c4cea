//! Memory of another process.

use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use snap_state::{Addr, Pid};
use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::os::unix::fs::FileExt as _;

/// Most areas that one [`read_areas`] takes (UIO_MAXIOV).
pub const MAX_AREAS: usize = 1024;

/// Reads readable areas one after the other into `buffer`, which they fill exactly.
///
/// # Errors
/// `EFAULT` when an area is not readable as a whole, `ESRCH`, `EPERM`.
pub fn read_areas(pid: Pid, areas: &[(Addr, usize)], buffer: &mut [u8]) -> Result<(), Errno> {
    let remote: Vec<_> =
        areas.iter().map(|(addr, len)| RemoteIoVec { base: addr.0 as usize, len: *len }).collect();
    let wanted = buffer.len();
    let pid = nix::unistd::Pid::from_raw(pid.0);
    let got = process_vm_readv(pid, &mut [IoSliceMut::new(buffer)], &remote)?;
    if got == wanted { Ok(()) } else { Err(Errno::EFAULT) }
}

/// Reads one area.
///
/// # Errors
/// As [`read_areas`].
pub fn read(pid: Pid, addr: Addr, len: usize) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0; len];
    read_areas(pid, &[(addr, len)], &mut bytes)?;
    Ok(bytes)
}

/// Writes one writable area.
///
/// # Errors
/// `EFAULT` when it is not writable as a whole, `ESRCH`, `EPERM`.
pub fn write(pid: Pid, addr: Addr, bytes: &[u8]) -> Result<(), Errno> {
    let remote = [RemoteIoVec { base: addr.0 as usize, len: bytes.len() }];
    let pid = nix::unistd::Pid::from_raw(pid.0);
    let written = process_vm_writev(pid, &[IoSlice::new(bytes)], &remote)?;
    if written == bytes.len() { Ok(()) } else { Err(Errno::EFAULT) }
}

/// Reads an area whatever its protection is, through `/proc/PID/mem`.
///
/// # Errors
/// `EIO` when nothing is mapped there.
pub fn read_forced(mem: &File, addr: Addr, buffer: &mut [u8]) -> Result<(), Errno> {
    let failed = |e: std::io::Error| e.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
    mem.read_exact_at(buffer, addr.0).map_err(failed)
}
