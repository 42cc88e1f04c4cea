//! Files of the kernel that programs size themselves by.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::file::under_root;
use super::reason::{ReasonCode, StaleReason};

/// Longest value that is recorded.
const MAX_LEN: u64 = 4096;
const MEMORY: &str = "/proc/meminfo";
/// Says how many processors there are, whichever file a program asked.
const PROCESSORS: &str = "/sys/devices/system/cpu/online";
const CGROUPS: &str = "/sys/fs/cgroup";
const LIMITS: [&str; 8] = [
    "memory.max",
    "memory.high",
    "memory.swap.max",
    "cpu.max",
    "cpu.weight",
    "cpuset.cpus",
    "cpuset.cpus.effective",
    "pids.max",
];
/// Below /proc/sys: counters, random numbers, and what the kernel computes from the memory that is
/// free when it boots.
const UNSTABLE: [&str; 22] = [
    "fs/aio-nr",
    "fs/dentry-state",
    "fs/epoll/max_user_watches",
    "fs/file-max",
    "fs/file-nr",
    "fs/inode-nr",
    "fs/inode-state",
    "fs/quota",
    "kernel/ns_last_pid",
    "kernel/pid_max",
    "kernel/pty/nr",
    "kernel/random",
    "kernel/threads-max",
    "net/core/netdev_rss_key",
    "net/ipv4/tcp_fastopen_key",
    "net/ipv4/tcp_mem",
    "net/ipv4/udp_mem",
    "net/ipv4/tcp_max_orphans",
    "net/ipv4/tcp_max_tw_buckets",
    "net/netfilter/nf_conntrack_count",
    "user",
    "vm/min_free_kbytes",
];

/// What is taken from such a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ValueKind {
    /// Its text.
    Text,
    /// The memory of the machine, which differs by some pages from boot to boot: within 1/32.
    Memory,
    /// Which processors there are.
    Processors,
}

/// A value as it was at the snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValueEvidence {
    /// The file that the service read.
    pub path: PathBuf,
    /// What of it counts.
    pub kind: ValueKind,
    /// The value; of memory in KiB.
    pub value: String,
}

/// Whether a file of the kernel has a value that counts, and which.
pub(super) fn kind_of(path: &Path) -> Option<ValueKind> {
    if let Ok(name) = path.strip_prefix("/proc/sys") {
        let is_stable = !UNSTABLE.iter().any(|unstable| name.starts_with(unstable));
        return (is_stable && name != Path::new("")).then_some(ValueKind::Text);
    }
    if path.starts_with(CGROUPS) {
        let name = path.file_name().and_then(|name| name.to_str());
        return name.filter(|name| LIMITS.contains(name)).map(|_| ValueKind::Text);
    }
    match path.to_str()? {
        MEMORY => Some(ValueKind::Memory),
        "/proc/cpuinfo" | "/proc/stat" => Some(ValueKind::Processors),
        "/proc/cmdline" => Some(ValueKind::Text),
        text if text.starts_with("/sys/devices/system/cpu/") => Some(ValueKind::Processors),
        text if text.starts_with("/sys/kernel/mm/transparent_hugepage/") => Some(ValueKind::Text),
        _ => None,
    }
}

impl ValueEvidence {
    /// Read the value of a file of the kernel; `None` where it has none that counts, or cannot be
    /// read.
    pub fn collect(root: &Path, path: &Path) -> Option<ValueEvidence> {
        let kind = kind_of(path)?;
        let value = read(root, path, kind).ok()??;
        Some(ValueEvidence { path: path.to_owned(), kind, value })
    }

    /// Compare with what the kernel says now. A control group that is not there has no limits yet
    /// and says nothing.
    ///
    /// # Errors
    /// [`ReasonCode::ValueChanged`].
    pub fn check(&self, root: &Path) -> Result<(), StaleReason> {
        let stale = |sentence: String| Err(StaleReason::new(ReasonCode::ValueChanged, sentence));
        let path = self.path.display();
        let what = match self.kind {
            ValueKind::Text => format!("{path}"),
            ValueKind::Memory => format!("the machine's memory ({path})"),
            ValueKind::Processors => format!("the set of processors ({path})"),
        };
        match read(root, &self.path, self.kind) {
            Ok(Some(now)) if self.is_same(&now) => Ok(()),
            Ok(Some(now)) => stale(format!("{what} is {:?}, was {:?} at the snapshot", now, self.value)),
            Ok(None) => stale(format!("{what} cannot be understood")),
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.path.starts_with(CGROUPS) => Ok(()),
            Err(error) => stale(format!("{what} cannot be read: {error}")),
        }
    }

    fn is_same(&self, now: &str) -> bool {
        let numbers = || Some((self.value.parse::<u64>().ok()?, now.parse::<u64>().ok()?));
        match self.kind {
            ValueKind::Memory => numbers().is_some_and(|(was, is)| was.abs_diff(is) <= was / 32),
            ValueKind::Text | ValueKind::Processors => self.value == now,
        }
    }
}

fn read(root: &Path, path: &Path, kind: ValueKind) -> io::Result<Option<String>> {
    let file = match kind {
        ValueKind::Processors => Path::new(PROCESSORS),
        ValueKind::Text | ValueKind::Memory => path,
    };
    let mut bytes = Vec::new();
    File::open(under_root(root, file))?.take(MAX_LEN).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).trim().to_owned();
    Ok(match kind {
        ValueKind::Memory => {
            let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
            line.and_then(|line| line.split_whitespace().next()).map(str::to_owned)
        }
        ValueKind::Text | ValueKind::Processors => Some(text),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = under_root(root.path(), Path::new(path));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    fn verdict(path: &str, was: &[(&str, &str)], now: &[(&str, &str)]) -> Option<String> {
        let was = ValueEvidence::collect(root(was).path(), Path::new(path)).unwrap();
        let reason = was.check(root(now).path()).err()?;
        assert_eq!(reason.code, ReasonCode::ValueChanged);
        Some(reason.sentence)
    }

    #[test]
    fn a_setting_that_the_service_read_counts_by_its_value() {
        let path = "/proc/sys/net/core/somaxconn";
        assert_eq!(verdict(path, &[(path, "4096\n")], &[(path, "4096\n")]), None);
        let said = verdict(path, &[(path, "4096\n")], &[(path, "128\n")]).unwrap();
        assert_eq!(said, "/proc/sys/net/core/somaxconn is \"128\", was \"4096\" at the snapshot");
    }

    #[test]
    fn memory_counts_in_steps_and_processors_by_their_set() {
        let memory = |kib: u64| format!("MemTotal:   {kib} kB\nMemFree: {} kB\n", kib / 3);
        let (was, near, far) = (memory(8_000_000), memory(7_990_000), memory(4_000_000));
        assert_eq!(verdict(MEMORY, &[(MEMORY, &was)], &[(MEMORY, &near)]), None);
        assert!(verdict(MEMORY, &[(MEMORY, &was)], &[(MEMORY, &far)]).unwrap().contains("memory"));
        let two = [("/proc/cpuinfo", "any text"), (PROCESSORS, "0-1\n")];
        let four = [("/proc/cpuinfo", "other text"), (PROCESSORS, "0-3\n")];
        let said = verdict("/proc/cpuinfo", &two, &four).unwrap();
        assert_eq!(said, "the set of processors (/proc/cpuinfo) is \"0-3\", was \"0-1\" at the snapshot");
    }

    #[test]
    fn limits_of_a_group_count_where_the_group_is() {
        let path = "/sys/fs/cgroup/system.slice/a.service/memory.max";
        assert!(verdict(path, &[(path, "max\n")], &[(path, "1073741824\n")]).is_some());
        assert_eq!(verdict(path, &[(path, "max\n")], &[]), None, "the unit does not run yet");
    }

    #[test]
    fn counters_and_views_of_processes_have_no_value() {
        for path in [
            "/proc/sys/kernel/random/uuid",
            "/proc/sys/fs/file-nr",
            "/proc/self/maps",
            "/proc/uptime",
            "/sys/fs/cgroup/a/memory.current",
            "/proc/sys",
        ] {
            assert_eq!(kind_of(Path::new(path)), None, "{path}");
        }
    }
}
