//! State that a running unit has open for writing, seen from /proc: known before anything is
//! touched. The collected tree is judged again by the same rules (`files.rs`), with what is only
//! mapped.

use super::files::{Access, is_log, writes_state};
use super::patterns;
use super::{Cgroup, UnitProperties};
use snap_error::{Result, UnitObstacle};
use snap_policy::Options;
use snap_state::Pid;
use snap_sys::proc::{self, FdInfo};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

/// Where files do not outlive a reboot; they travel in the image.
pub(super) const TRAVELS: [&str; 5] = ["/run", "/dev", "/proc", "/sys", "/var/run"];

/// Reasons not to take the unit, one per file.
///
/// # Errors
/// When its control group cannot be read. What ends meanwhile is left out.
pub fn inspect_open_state(
    unit: &UnitProperties,
    options: &Options,
    cgroup: &Cgroup,
) -> Result<Vec<UnitObstacle>> {
    if options.allow_state {
        return Ok(Vec::new());
    }
    let mut files: BTreeMap<PathBuf, (u64, Access)> = BTreeMap::new();
    for pid in cgroup.processes()? {
        for fd in proc::fds(pid).unwrap_or_default() {
            let Ok(info) = FdInfo::of(pid, fd) else { continue };
            let access = Access::of_flags(info.flags);
            if let Some((path, len_bytes)) = access.writes.then(|| regular_file(pid, fd.0)).flatten() {
                let entry = files.entry(path).or_default();
                entry.0 = len_bytes;
                entry.1.add(access);
            }
        }
    }
    for stored in unit.stored.iter().filter(|stored| stored.mode & libc::S_IFMT == libc::S_IFREG) {
        let access = Access::of_flags(stored.flags);
        if access.writes && is_name(&stored.path) {
            let path = PathBuf::from(OsString::from_vec(stored.path.clone()));
            let len_bytes = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
            let entry = files.entry(path).or_default();
            entry.0 = len_bytes;
            entry.1.add(access);
        }
    }
    let volatile_roots = unit.volatile_roots();
    let travels = |path: &Path| {
        let roots = TRAVELS.iter().map(Path::new).chain(volatile_roots.iter().map(PathBuf::as_path));
        roots.into_iter().any(|root| path.starts_with(root))
    };
    let is_ignored =
        |path: &Path| options.ignore_changes.iter().any(|pattern| patterns::covers(pattern, path));
    let state = files.iter().filter(|(path, (len, access))| {
        !travels(path) && !is_log(path, *len, access, unit) && !is_ignored(path)
    });
    Ok(state.map(|(path, _)| writes_state(path)).collect())
}

pub(super) fn is_name(link: &[u8]) -> bool {
    link.starts_with(b"/") && !link.ends_with(b" (deleted)")
}

/// Path and length of what a descriptor leads to, if that is a regular file that has a name.
pub(super) fn regular_file(pid: Pid, fd: i32) -> Option<(PathBuf, u64)> {
    let link = proc::read_link(pid, &format!("fd/{fd}")).ok()?;
    if !is_name(&link) {
        return None;
    }
    let metadata = std::fs::metadata(format!("/proc/{pid}/fd/{fd}")).ok()?;
    metadata.is_file().then(|| (PathBuf::from(OsString::from_vec(link)), metadata.len()))
}
