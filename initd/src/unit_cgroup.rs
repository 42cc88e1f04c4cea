//! The cgroup of a unit during one restore: who was there before, and removing everybody who came since.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use crate::sys::process::{pidfd_kill, pidfd_open};

/// Where the unified hierarchy may be mounted: alone, or beside the old ones.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// An opened cgroup directory and the processes that were in it then.
#[derive(Debug)]
pub struct UnitCgroup {
    dir: OwnedFd,
    before: BTreeSet<i32>,
}

impl UnitCgroup {
    /// Open the cgroup with this path (from `/proc/PID/cgroup`), which must hold the process `member`.
    ///
    /// # Errors
    /// When there is no such directory, or the process is not in it.
    pub fn open(path: &str, member: i32) -> io::Result<UnitCgroup> {
        for mount in MOUNTS {
            let path = Path::new(mount).join(path.trim_start_matches('/'));
            let Ok(dir) = File::open(&path) else { continue };
            let cgroup = UnitCgroup::from_dir(dir.into())?;
            if cgroup.before.contains(&member) {
                return Ok(cgroup);
            }
        }
        Err(io::Error::other(format!("cgroup {path} with process {member} was not found")))
    }

    /// Take an open directory; whoever is in it now was there before.
    ///
    /// # Errors
    /// When its processes cannot be listed.
    pub fn from_dir(dir: OwnedFd) -> io::Result<UnitCgroup> {
        let before = processes(dir.as_fd())?;
        Ok(UnitCgroup { dir, before })
    }

    /// The directory.
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Processes in it now.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn processes(&self) -> io::Result<BTreeSet<i32>> {
        processes(self.dir())
    }

    /// Kill everybody who was not there before, until nobody is left. Returns whether that was reached in time.
    ///
    /// # Errors
    /// When the processes cannot be listed.
    pub fn remove_new(&self, timeout: Duration) -> io::Result<bool> {
        self.remove_unless(|pid| self.before.contains(&pid), timeout)
    }

    /// Kill everybody but one. Returns whether that was reached in time.
    ///
    /// # Errors
    /// As [`remove_new`](UnitCgroup::remove_new).
    pub fn remove_all_but(&self, survivor: i32, timeout: Duration) -> io::Result<bool> {
        self.remove_unless(|pid| pid == survivor, timeout)
    }

    fn remove_unless(&self, stays: impl Fn(i32) -> bool, timeout: Duration) -> io::Result<bool> {
        let deadline = Instant::now() + timeout;
        loop {
            let new: Vec<i32> = self.processes()?.into_iter().filter(|pid| !stays(*pid)).collect();
            if new.is_empty() {
                return Ok(true);
            }
            for pid in new {
                // The number may pass to a stranger between two looks; a pidfd that is still a member cannot.
                if let Ok(pidfd) = pidfd_open(pid)
                    && self.processes()?.contains(&pid)
                {
                    // Gone already is what we want.
                    let _ = pidfd_kill(&pidfd);
                }
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn processes(dir: BorrowedFd<'_>) -> io::Result<BTreeSet<i32>> {
    let file = openat(dir, "cgroup.procs", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut text = String::new();
    File::from(file).read_to_string(&mut text)?;
    Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
}
