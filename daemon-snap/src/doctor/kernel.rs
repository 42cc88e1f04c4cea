//! What the kernel has, and lets us use.

use super::finding::{Finding, Seen};
use nix::errno::Errno;
use snap_state::Pid;
use snap_sys::label;
use snap_sys::pagemap::PageMap;
use snap_sys::probe;
use snap_sys::procfs_own::OwnProc;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

/// What recorded numbers need.
const PID_MAX: i32 = 4_194_304;
const PID_MAX_FILE: &str = "sys/kernel/pid_max";
const UNIFIED: &str = "/sys/fs/cgroup";

pub(super) fn examine() -> Vec<Finding> {
    vec![
        Finding::necessary(
            "clone3-set-tid",
            pid_max().map_err(|e| e.to_string()).and_then(|max| tried(probe::chosen_pid(max - 1))),
            "processes cannot get their recorded PIDs back: nothing is restored",
        ),
        pid_numbering(),
        pid_maximum(),
        Finding::necessary("cgroup2", unified(), "a unit's processes cannot be found: nothing is taken"),
        Finding::necessary(
            "clone-into-cgroup",
            own_cgroup().and_then(|dir| {
                let dir = File::open(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
                tried(probe::born_in_cgroup(dir.as_fd()))
            }),
            "restored processes cannot be put into their unit: nothing is restored",
        ),
        Finding::necessary(
            "memory-layout",
            tried(probe::memory_layout()),
            "heap, stack and arguments cannot be put back (CONFIG_CHECKPOINT_RESTORE): nothing is restored",
        ),
        Finding::necessary(
            "ptrace-seize",
            tried(probe::seize()),
            "services cannot be stopped and read (kernel.yama.ptrace_scope, CAP_SYS_PTRACE): nothing is taken",
        ),
        Finding::necessary(
            "pidfd-getfd",
            tried(probe::foreign_descriptor()),
            "descriptors of services cannot be looked at: nothing is taken",
        ),
        Finding::necessary(
            "kcmp",
            tried(probe::shared_descriptor()),
            "what processes share cannot be found out (CONFIG_KCMP): nothing is taken",
        ),
        Finding::useful(
            "seccomp-dump",
            tried(probe::seccomp_dump()),
            "services with SystemCallFilter= and the like cannot be taken",
        ),
        Finding::useful(
            "apparmor-profiles",
            apparmor_profiles(),
            "services with an AppArmor profile cannot be taken",
        ),
        Finding::useful(
            "pagemap-scan",
            pagemap_scan(),
            "page tables are read entry by entry: snapshots of programs with huge reservations (JVM, Go) take longer",
        ),
        Finding::useful(
            "io_uring",
            tried(probe::io_uring()).map_err(io_uring_disabled),
            "large images are read through the page cache, which takes longer",
        ),
        Finding::useful(
            "userfaultfd",
            tried(probe::userfaultfd()),
            "none: this version loads all pages at once",
        )
        .but("not used by this version, which loads all pages at once"),
        Finding::useful(
            "fanotify",
            tried(probe::fanotify()),
            "starts are not observed: only units with a DependsOn= can be taken",
        ),
    ]
}

pub(super) fn tried(result: Result<(), Errno>) -> Seen {
    match result {
        Ok(()) => Ok("works".to_owned()),
        Err(errno) => Err(format!("does not work: {}", errno.desc())),
    }
}

/// A restored thread changes to its profile by itself.
fn apparmor_profiles() -> Seen {
    match (label::is_apparmor_on(), label::can_change_profile()) {
        (false, _) => Ok("AppArmor is off".to_owned()),
        (true, true) => Ok("works".to_owned()),
        (true, false) => Err("does not work: lsm_set_self_attr(2) came with Linux 6.8".to_owned()),
    }
}

fn pid_max() -> Result<i32, Errno> {
    let text = std::fs::read_to_string(Path::new("/proc").join(PID_MAX_FILE)).map_err(|_| Errno::EIO)?;
    text.trim().parse().map_err(|_| Errno::EIO)
}

/// The counter of PIDs, through a proc instance of our own as snapshots and restores use it. What
/// is written is no number that it could take: who may write hears that, who may not hears `EPERM`,
/// and a snapshot that runs is not disturbed.
fn pid_numbering() -> Finding {
    let rewrite = || match OwnProc::mount()?.set_last_pid(-1) {
        Err(Errno::EINVAL) => Ok(()),
        Err(errno) => Err(errno),
        Ok(()) => Err(Errno::ENOTSUP),
    };
    Finding::necessary(
        "ns_last_pid",
        tried(rewrite()),
        "services cannot be started with PIDs that the next boot leaves free: nothing is taken",
    )
}

fn pid_maximum() -> Finding {
    let seen = match pid_max() {
        Ok(max) if max >= PID_MAX => Ok(max.to_string()),
        Ok(max) => {
            let open = OwnProc::mount().and_then(|proc| proc.open(PID_MAX_FILE, nix::fcntl::OFlag::O_WRONLY));
            open.map(|_| format!("{max}, and may be raised"))
                .map_err(|e| format!("{max}, and may not be raised: {}", e.desc()))
        }
        Err(errno) => Err(errno.desc().to_owned()),
    };
    Finding::necessary(
        "pid_max",
        seen,
        "there is no room for the PIDs of recorded processes: nothing is restored",
    )
}

/// In a hybrid set-up systemd keeps units in version 1.
fn unified() -> Seen {
    let kind = nix::sys::statfs::statfs(UNIFIED).map_err(|e| format!("{UNIFIED}: {}", e.desc()))?;
    if kind.filesystem_type() == nix::sys::statfs::CGROUP2_SUPER_MAGIC {
        return Ok(format!("{UNIFIED} is the unified hierarchy"));
    }
    match own_cgroup() {
        Ok(dir) => Ok(format!("the unified hierarchy is there beside version 1: {}", dir.display())),
        Err(why) => Err(format!("{UNIFIED} is not the unified hierarchy, and {why}")),
    }
}

/// Directory of our own group in the unified hierarchy; of PID 1's for a visitor (nsenter) that is
/// in none of this machine's.
fn own_cgroup() -> Result<PathBuf, String> {
    let text = std::fs::read_to_string("/proc/self/cgroup").map_err(|e| format!("/proc/self/cgroup: {e}"))?;
    let group = text.lines().find_map(|line| line.strip_prefix("0::")).ok_or("we are in no group of it")?;
    let group = if group.starts_with("/..") { "/init.scope" } else { group };
    let mounts = [UNIFIED, "/sys/fs/cgroup/unified"].into_iter().map(Path::new);
    let mut dirs = mounts.map(|mount| mount.join(group.trim_start_matches('/')));
    dirs.find(|dir| dir.join("cgroup.procs").exists()).ok_or_else(|| format!("{group} is not to be seen"))
}

fn pagemap_scan() -> Seen {
    match PageMap::open(Pid(std::process::id() as i32)) {
        Ok(map) if map.is_fast() => Ok("works".to_owned()),
        Ok(_) => Err("the kernel does not know it (before Linux 6.7)".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn io_uring_disabled(why: String) -> String {
    match std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled") {
        Ok(value) if value.trim() != "0" => format!("{why} (kernel.io_uring_disabled={})", value.trim()),
        _ => why,
    }
}
