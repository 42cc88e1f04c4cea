//! /proc of other processes: reading, and pure parsers for what we read.

mod fdinfo;
mod lock;
mod maps;
mod stat;
mod status;
mod timers;

pub use fdinfo::{
    EpollTarget, FanotifyInfo, FanotifyMark, FdInfo, InotifyMark, MarkedInode, MarkedObject, RingInfo,
    TimerFdInfo,
};
pub use lock::{LockClass, LockLine, locks_of_all};
pub use maps::{MapsEntry, parse_smaps};
pub use stat::{Stat, task_flags};
pub use status::Status;
pub use timers::{PosixTimerText, parse_posix_timers};

use procfs_core::FromRead as _;
use procfs_core::process::{Limit, LimitValue, Limits};
use snap_error::{Error, Result};
use snap_state::{Pid, TargetFd};
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStringExt as _;
use std::str::FromStr;

/// Reads `/proc/PID/NAME`.
///
/// # Errors
/// [`Error::Gone`] when the process has ended.
pub fn read(pid: Pid, name: &str) -> Result<Vec<u8>> {
    let path = format!("/proc/{pid}/{name}");
    read_path(&path).map_err(|e| failed(pid, path, &e))
}

/// Reads `/proc/PID/task/TID/NAME`.
///
/// # Errors
/// [`Error::Gone`] when the thread has ended.
pub fn read_task(pid: Pid, tid: Pid, name: &str) -> Result<Vec<u8>> {
    let path = format!("/proc/{pid}/task/{tid}/{name}");
    read_path(&path).map_err(|e| failed(tid, path, &e))
}

/// Value of a variable in what `/proc/PID/environ` says.
pub fn variable<'a>(environment: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut entries = environment.split(|&byte| byte == 0);
    entries.find_map(|entry| entry.strip_prefix(name)?.strip_prefix(b"="))
}

/// Target of the link `/proc/PID/NAME`, as the kernel writes it.
///
/// # Errors
/// [`Error::Gone`] when the process has ended.
pub fn read_link(pid: Pid, name: &str) -> Result<Vec<u8>> {
    let path = format!("/proc/{pid}/{name}");
    match fs::read_link(&path) {
        Ok(target) => Ok(target.into_os_string().into_vec()),
        Err(e) => Err(failed(pid, path, &e)),
    }
}

/// A process outside the tree that has an object open.
///
/// # Errors
/// /proc cannot be listed.
pub fn holder_outside(dev: u64, ino: u64, tree: &[Pid]) -> io::Result<Option<Pid>> {
    use std::os::unix::fs::MetadataExt as _;
    let own = std::process::id() as i32;
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| i32::from_str(name).ok()) else {
            continue;
        };
        if pid == own || tree.contains(&Pid(pid)) {
            continue;
        }
        // Who ends meanwhile has nothing open any more.
        let Ok(fds) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for fd in fds.flatten() {
            if fs::metadata(fd.path()).is_ok_and(|found| (found.dev(), found.ino()) == (dev, ino)) {
                return Ok(Some(Pid(pid)));
            }
        }
    }
    Ok(None)
}

/// Memory that is locked (`VmLck`), in KiB.
///
/// # Errors
/// [`Error::Gone`] when the process has ended.
pub fn locked_kib(pid: Pid) -> Result<u64> {
    let text = read(pid, "status")?;
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().find_map(|line| line.strip_prefix("VmLck:"));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
    number.ok_or_else(|| unreadable("status", format!("VmLck of pid {pid}")))
}

/// Threads of a process, in the kernel's order.
///
/// # Errors
/// [`Error::Gone`] when the process has ended.
pub fn threads(pid: Pid) -> Result<Vec<Pid>> {
    numbers(pid, "task").map(|tids| tids.into_iter().map(Pid).collect())
}

/// Descriptor numbers of a process, ascending.
///
/// # Errors
/// [`Error::Gone`] when the process has ended.
pub fn fds(pid: Pid) -> Result<Vec<TargetFd>> {
    let mut fds: Vec<_> = numbers(pid, "fd")?.into_iter().map(TargetFd).collect();
    fds.sort_unstable();
    Ok(fds)
}

/// Children that a thread has made and that are still its children, zombies included.
///
/// # Errors
/// [`Error::Gone`] when the thread has ended.
pub fn children(pid: Pid, tid: Pid) -> Result<Vec<Pid>> {
    let text = read_task(pid, tid, "children")?;
    Ok(String::from_utf8_lossy(&text)
        .split_ascii_whitespace()
        .filter_map(|n| n.parse().ok().map(Pid))
        .collect())
}

/// Soft and hard limits in the order of `getrlimit(2)`, from `/proc/PID/limits` (prlimit(2) would
/// need CAP_SYS_RESOURCE).
///
/// # Errors
/// [`Error::Gone`] when the process has ended.
pub fn limits(pid: Pid) -> Result<Vec<(u64, u64)>> {
    match Limits::from_read(read(pid, "limits")?.as_slice()) {
        Ok(limits) => {
            Ok(in_order(&limits).map(|limit| (value(limit.soft_limit), value(limit.hard_limit))).to_vec())
        }
        Err(_) => Err(unreadable("limits", format!("/proc/{pid}/limits"))),
    }
}

/// An error for text that is not what the kernel documents.
pub fn unreadable(step: &'static str, object: impl std::fmt::Display) -> Error {
    Error::Unreadable { step, object: object.to_string() }
}

/// `RLIMIT_CPU` is 0, `RLIMIT_RTTIME` 15.
fn in_order(limits: &Limits) -> [Limit; 16] {
    [
        limits.max_cpu_time,
        limits.max_file_size,
        limits.max_data_size,
        limits.max_stack_size,
        limits.max_core_file_size,
        limits.max_resident_set,
        limits.max_processes,
        limits.max_open_files,
        limits.max_locked_memory,
        limits.max_address_space,
        limits.max_file_locks,
        limits.max_pending_signals,
        limits.max_msgqueue_size,
        limits.max_nice_priority,
        limits.max_realtime_priority,
        limits.max_realtime_timeout,
    ]
}

fn value(limit: LimitValue) -> u64 {
    match limit {
        LimitValue::Unlimited => u64::MAX,
        LimitValue::Value(value) => value,
    }
}

fn numbers(pid: Pid, dir: &str) -> Result<Vec<i32>> {
    let path = format!("/proc/{pid}/{dir}");
    let list = || -> io::Result<Vec<i32>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&path)? {
            found.extend(entry?.file_name().to_str().and_then(|name| i32::from_str(name).ok()));
        }
        Ok(found)
    };
    list().map_err(|e| failed(pid, &path, &e))
}

/// Files in /proc have no length; most fit one read.
fn read_path(path: &str) -> io::Result<Vec<u8>> {
    let mut file = fs::File::open(path)?;
    let mut bytes = Vec::with_capacity(8192);
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn failed(pid: Pid, path: impl std::fmt::Display, e: &io::Error) -> Error {
    match e.raw_os_error() {
        Some(libc::ENOENT | libc::ESRCH) => Error::Gone { pid, step: "read /proc" },
        _ => Error::io("read", path, e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_ourselves_are_those_that_the_kernel_gives_by_number() {
        let limits = limits(Pid(std::process::id() as i32)).unwrap();
        let by_number: Vec<_> = (0..16).map(|resource| crate::limits::get(resource).unwrap()).collect();
        assert_eq!(limits, by_number);
    }

    #[test]
    fn fds_are_ascending() {
        let fds = fds(Pid(std::process::id() as i32)).unwrap();
        assert!(fds.windows(2).all(|w| w[0] < w[1]) && fds.len() >= 3);
    }
}
