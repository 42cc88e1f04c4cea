//! Limits and weights of control groups (cgroup-v2, the kernel's admin-guide): which files of one
//! are set.
//!
//! What a new group has in them is asked of a new group, beside the unit's own, where the unit does
//! not see it. That holds on any kernel and for files that this program has never heard of.

use snap_error::{Error, Result};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What is written back, in this order: a burst may not be above the quota. Others that are set
/// refuse the unit: `io.*` names devices by number, `cpuset.cpus.partition` takes CPUs from
/// everybody else, `cpu.idle` shuts `cpu.weight`.
const CARRIED: [&str; 17] = [
    "cpuset.cpus",
    "cpuset.mems",
    "cpu.weight",
    "cpu.max",
    "cpu.max.burst",
    "cpu.uclamp.min",
    "cpu.uclamp.max",
    "pids.max",
    "memory.min",
    "memory.low",
    "memory.high",
    "memory.max",
    "memory.oom.group",
    "memory.swap.high",
    "memory.swap.max",
    "memory.zswap.max",
    "memory.zswap.writeback",
];
/// The same setting under another name.
const ALIAS: &str = "cpu.weight.nice";

/// A new group, for as long as this lives.
#[derive(Debug)]
pub(super) struct Fresh(PathBuf);

/// What differs from a new group's.
#[derive(Debug, Default)]
pub(super) struct Controllers {
    /// Name and value, in the order in which they are written.
    pub settings: Vec<(String, String)>,
    /// The same of files that are not written back.
    pub foreign: Vec<(String, String)>,
}

impl Fresh {
    /// Beside the group `unit`, so that it has all controllers that any group below that can have.
    pub fn make(unit: &Path) -> Result<Self> {
        let dir = unit.with_file_name(format!("fastboot-fresh-{}", std::process::id()));
        match std::fs::create_dir(&dir) {
            Ok(()) => Ok(Self(dir)),
            // Left by a process of this number that was killed.
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(Self(dir)),
            Err(e) => Err(Error::io("make control group", dir.display(), &e)),
        }
    }

    /// Files of controllers in the group `dir` that have another value.
    pub fn compare(&self, dir: &Path) -> Result<Controllers> {
        let failed = |e: &std::io::Error| Error::io("read control group", dir.display(), e);
        let mut found = Controllers::default();
        for entry in std::fs::read_dir(dir).map_err(|e| failed(&e))? {
            let entry = entry.map_err(|e| failed(&e))?;
            let metadata = entry.metadata().map_err(|e| failed(&e))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !metadata.is_file() || !is_setting(&name, metadata.mode()) {
                continue;
            }
            let value = std::fs::read_to_string(entry.path()).map_err(|e| failed(&e))?;
            if std::fs::read_to_string(self.0.join(&name)).is_ok_and(|fresh| fresh == value) {
                continue;
            }
            let value = value.trim().to_owned();
            match CARRIED.contains(&name.as_str()) {
                true => found.settings.push((name, value)),
                false => found.foreign.push((name, value)),
            }
        }
        found.settings.sort_by_key(|(name, _)| CARRIED.iter().position(|carried| carried == name));
        found.foreign.sort();
        Ok(found)
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        // One that is left is empty and harms nobody.
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// Whether a file of a controller holds what somebody has written to it. Others are statistics and
/// events, which begin anew, triggers (`*.pressure`, `*.peak`), which belong to descriptors, and
/// orders (not readable).
fn is_setting(name: &str, mode: u32) -> bool {
    let is_both = mode & 0o400 != 0 && mode & 0o200 != 0;
    let is_trigger = name.ends_with(".pressure") || name.ends_with(".peak");
    is_both && !is_trigger && !name.starts_with("cgroup.") && name != ALIAS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_read_and_written_is_a_setting() {
        assert!(is_setting("memory.max", 0o100_644));
        assert!(is_setting("io.max", 0o100_644));
        for (name, mode) in [
            ("memory.stat", 0o100_444),
            ("memory.reclaim", 0o100_200),
            ("memory.pressure", 0o100_644),
            ("memory.swap.peak", 0o100_644),
            ("cgroup.procs", 0o100_644),
            (ALIAS, 0o100_644),
        ] {
            assert!(!is_setting(name, mode), "{name}");
        }
    }
}
