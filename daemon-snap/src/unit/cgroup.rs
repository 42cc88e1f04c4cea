//! The unit's control group: who is in it and how much it has computed.

use snap_error::{Error, Result};
use snap_state::Pid;
use std::path::{Path, PathBuf};

/// Where the unified hierarchy may be.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// A directory of cgroup v2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// The group that systemd calls `control_group`.
    ///
    /// # Errors
    /// When it is not there: nothing runs in it.
    pub fn open(control_group: &str) -> Result<Self> {
        let below = control_group.trim_start_matches('/');
        let found = MOUNTS
            .iter()
            .map(|mount| Path::new(mount).join(below))
            .find(|path| path.join("cgroup.procs").exists());
        let missing =
            || Error::kernel("find control group", format!("{control_group:?}"), nix::errno::Errno::ENOENT);
        if below.is_empty() {
            return Err(missing());
        }
        found.map(Self).ok_or_else(missing)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// CPU time that everything in it has used since it was made, in microseconds.
    ///
    /// # Errors
    /// When the group is gone.
    pub fn cpu_us(&self) -> Result<u64> {
        let path = self.0.join("cpu.stat");
        let text = std::fs::read_to_string(&path).map_err(|e| Error::io("read", path.display(), &e))?;
        let usage = text.lines().find_map(|line| line.strip_prefix("usage_usec "));
        Ok(usage.and_then(|value| value.trim().parse().ok()).unwrap_or(0))
    }

    /// Processes in it and in the groups below it, ascending.
    ///
    /// # Errors
    /// When the group is gone.
    pub fn processes(&self) -> Result<Vec<Pid>> {
        let mut pids = Vec::new();
        add_processes(&self.0, &mut pids)
            .map_err(|e| Error::io("read processes of", self.0.display(), &e))?;
        pids.sort_unstable();
        Ok(pids)
    }

    /// Processes and threads in it.
    ///
    /// # Errors
    /// When the group is gone. What ends meanwhile is left out.
    pub fn threads(&self) -> Result<Vec<Pid>> {
        let pids = self.processes()?;
        Ok(pids.into_iter().flat_map(|pid| snap_sys::proc::threads(pid).unwrap_or_default()).collect())
    }
}

fn add_processes(dir: &Path, pids: &mut Vec<Pid>) -> std::io::Result<()> {
    let text = match std::fs::read_to_string(dir.join("cgroup.procs")) {
        // A threaded group: its processes are listed in the one that it belongs to.
        Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => String::new(),
        read => read?,
    };
    pids.extend(text.lines().filter_map(|line| line.parse().ok().map(Pid)));
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            add_processes(&entry.path(), pids)?;
        }
    }
    Ok(())
}
