//! Memory of another process.

use crate::pidfd;
use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use snap_state::{Addr, Pid, TargetFd};
use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd as _, AsRawFd as _};
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

/// Writes several areas, each from bytes of ours. All of them are writable.
///
/// # Errors
/// `EFAULT` when one is not, `ESRCH`, `EPERM`.
pub fn write_areas(pid: Pid, areas: &[(Addr, &[u8])]) -> Result<(), Errno> {
    let pid = nix::unistd::Pid::from_raw(pid.0);
    for areas in areas.chunks(MAX_AREAS) {
        let local: Vec<_> = areas.iter().map(|(_, bytes)| IoSlice::new(bytes)).collect();
        let remote: Vec<_> = areas
            .iter()
            .map(|(addr, bytes)| RemoteIoVec { base: addr.0 as usize, len: bytes.len() })
            .collect();
        let wanted: usize = areas.iter().map(|(_, bytes)| bytes.len()).sum();
        if process_vm_writev(pid, &local, &remote)? != wanted {
            return Err(Errno::EFAULT);
        }
    }
    Ok(())
}

/// What the kernel lets us do with children of ours.
#[derive(Clone, Copy, Debug, Default)]
pub struct WaysIntoChildren {
    /// Writing their memory (process_vm_writev(2)).
    pub write: bool,
    /// Taking descriptors of theirs (pidfd_getfd(2)).
    pub take_descriptors: bool,
}

/// Finds out: a child is made and tried. Must be called in a process with one thread, as
/// [`fork`](crate::fork::fork).
pub fn ways_into_children() -> WaysIntoChildren {
    let (Ok((wait, hold)), byte) = (nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC), [0u8]) else {
        return WaysIntoChildren::default();
    };
    match crate::fork::fork(None, 0, None) {
        Ok(crate::fork::Side::Child) => {
            drop(hold);
            let mut end = [0];
            // Returns when the parent has closed its end, or has died.
            let _ = nix::unistd::read(&wait, &mut end);
            crate::fork::exit_now(0)
        }
        Ok(crate::fork::Side::Parent { child }) => {
            // What the child has at this address is a copy of the byte.
            let there = Addr(byte.as_ptr() as u64);
            let write = write(Pid(child), there, &[1]).is_ok();
            let number = TargetFd(wait.as_raw_fd());
            let taken = pidfd::open(Pid(child)).and_then(|child| pidfd::get_fd(child.as_fd(), number));
            drop(hold);
            let child = nix::unistd::Pid::from_raw(child);
            let ended = nix::sys::wait::waitpid(child, Some(nix::sys::wait::WaitPidFlag::__WALL));
            WaysIntoChildren { write: write && ended.is_ok(), take_descriptors: taken.is_ok() }
        }
        Err(_) => WaysIntoChildren::default(),
    }
}

/// Reads an area whatever its protection is, through `/proc/PID/mem`.
///
/// # Errors
/// `EIO` when nothing is mapped there.
pub fn read_forced(mem: &File, addr: Addr, buffer: &mut [u8]) -> Result<(), Errno> {
    let failed = |e: std::io::Error| e.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
    mem.read_exact_at(buffer, addr.0).map_err(failed)
}
