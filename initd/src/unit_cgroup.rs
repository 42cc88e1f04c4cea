//! The cgroup of a unit during one restore, with those below it: who was there before, and removing everybody who came since.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::sys::process::{pidfd_kill, pidfd_open};

/// Where the unified hierarchy may be mounted: alone, or beside the old ones.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// An opened cgroup directory and what was in it then.
#[derive(Debug)]
pub struct UnitCgroup {
    dir: OwnedFd,
    before: BTreeSet<i32>,
    /// Groups below it, relative.
    groups_before: BTreeSet<PathBuf>,
}

/// Processes of a group and of all below it, and those groups, relative.
#[derive(Debug, Default)]
struct Population {
    processes: BTreeSet<i32>,
    groups: BTreeSet<PathBuf>,
}

impl UnitCgroup {
    /// Open the cgroup with this path below the mount, which must hold the process `member`, itself or in one below.
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
        let Population { processes: before, groups: groups_before } = population(dir.as_fd())?;
        Ok(UnitCgroup { dir, before, groups_before })
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
        population(self.dir()).map(|population| population.processes)
    }

    /// Kill everybody who was not there before, until nobody is left, and remove groups that were not there: whoever starts cold makes
    /// its own. Returns whether that was reached in time.
    ///
    /// # Errors
    /// When the processes cannot be listed, or a group cannot be removed.
    pub fn remove_new(&self, timeout: Duration) -> io::Result<bool> {
        if !self.remove_unless(|pid| self.before.contains(&pid), timeout)? {
            return Ok(false);
        }
        // What is below another one comes behind it.
        let groups = population(self.dir())?.groups;
        for group in groups.iter().rev().filter(|group| !self.groups_before.contains(*group)) {
            match unlinkat(self.dir(), group, UnlinkatFlags::RemoveDir) {
                // initd and the zygote may both be at it.
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(true)
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

fn population(dir: BorrowedFd<'_>) -> io::Result<Population> {
    let mut found = Population::default();
    add_population(dir, Path::new(""), &mut found)?;
    Ok(found)
}

fn add_population(dir: BorrowedFd<'_>, path: &Path, found: &mut Population) -> io::Result<()> {
    let file = openat(dir, "cgroup.procs", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut text = String::new();
    match File::from(file).read_to_string(&mut text) {
        // A threaded group: its processes are listed in the one that it belongs to.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
        read => drop(read?),
    }
    found.processes.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
    // Most units have none below theirs; each is one link more (kernfs).
    if fstat(dir)?.st_nlink <= 2 {
        return Ok(());
    }
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    for entry in Dir::openat(dir, ".", flags, Mode::empty())?.iter() {
        let entry = entry?;
        let name = Path::new(OsStr::from_bytes(entry.file_name().to_bytes()));
        if entry.file_type() != Some(Type::Directory) || name == Path::new(".") || name == Path::new("..") {
            continue;
        }
        let below = openat(dir, name, flags, Mode::empty())?;
        found.groups.insert(path.join(name));
        add_population(below.as_fd(), &path.join(name), found)?;
    }
    Ok(())
}
