//! Settings of the kernel that a service has written while it started: files below `/proc/sys` and
//! `/sys`. They are lost at a reboot, and a restored service does not write them again.

use super::UnitProperties;
use snap_observe::UnitLog;
use snap_policy::Options;
use std::path::Path;

const SETTINGS: [&str; 2] = ["/proc/sys", "/sys"];
/// What lies below and is none: control groups of the unit, which the restore makes again, and file
/// systems of their own.
const OTHERS: [&str; 5] =
    ["/sys/fs/cgroup", "/sys/fs/bpf", "/sys/kernel/debug", "/sys/kernel/tracing", "/sys/kernel/security"];

/// Numbers of processes below this one are those of `ExecStartPre=`, which a restored start runs
/// too. 0 where that cannot be told: the main process of a service that forks is not its first.
pub(super) fn first_pid(options: &Options, unit: &UnitProperties) -> i32 {
    let is_told = unit.service_type != "forking" && !options.skip_start_pre;
    if is_told { unit.main_pid } else { 0 }
}

/// What processes from this number on have written.
pub(super) fn written(log: &UnitLog, first_pid: i32) -> impl Iterator<Item = &Path> {
    let is_setting = |path: &Path| {
        SETTINGS.iter().any(|dir| path.starts_with(dir)) && !OTHERS.iter().any(|dir| path.starts_with(dir))
    };
    let all = log.files.iter().filter(move |(_, seen)| seen.written && seen.writer >= first_pid);
    all.map(|(path, _)| path.as_path()).filter(move |path| is_setting(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use snap_observe::Seen;

    #[test]
    fn settings_that_the_service_itself_has_written_are_found() {
        let mut log = UnitLog::default();
        let mut add = |path: &str, written, writer| {
            log.files.insert(path.into(), Seen { written, writer, ..Seen::default() });
        };
        add("/proc/sys/net/ipv4/ip_forward", true, 105);
        add("/proc/sys/vm/swappiness", true, 99);
        add("/proc/sys/kernel/osrelease", false, 0);
        add("/sys/kernel/mm/ksm/run", true, 100);
        add("/sys/fs/cgroup/system.slice/a.service/cgroup.procs", true, 105);
        add("/proc/self/oom_score_adj", true, 105);
        let found: Vec<&Path> = written(&log, 100).collect();
        assert_eq!(found, ["/proc/sys/net/ipv4/ip_forward", "/sys/kernel/mm/ksm/run"].map(Path::new));
        assert_eq!(written(&log, 0).count(), 3, "where nobody knows who comes first everything counts");
    }
}
