//! The cgroup of a unit during one restore, with those below it: who was where before, and removing
//! everybody who came since.

use std::collections::{BTreeMap, BTreeSet};
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
use nix::unistd::{UnlinkatFlags, unlinkat, write};

use crate::sys::process::{pidfd_kill, pidfd_open};

/// Where the unified hierarchy may be mounted: alone, or beside the old ones.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// An opened cgroup directory and what was in it then.
#[derive(Debug)]
pub struct UnitCgroup {
    dir: OwnedFd,
    before: Population,
}

/// Processes of a group and of all below it, with the group that each is in, and those groups with
/// the controllers that they enable for what is below them. Paths are relative; the group itself
/// has an empty one.
#[derive(Debug, Default)]
struct Population {
    processes: BTreeMap<i32, PathBuf>,
    groups: BTreeMap<PathBuf, BTreeSet<String>>,
}

impl UnitCgroup {
    /// Open the cgroup with this path below the mount, which must hold the process `member`, itself
    /// or in one below.
    ///
    /// # Errors
    /// When there is no such directory, or the process is not in it.
    pub fn open(path: &str, member: i32) -> io::Result<UnitCgroup> {
        for mount in MOUNTS {
            let path = Path::new(mount).join(path.trim_start_matches('/'));
            let Ok(dir) = File::open(&path) else { continue };
            let cgroup = UnitCgroup::from_dir(dir.into())?;
            if cgroup.before.processes.contains_key(&member) {
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
        let before = population(dir.as_fd())?;
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
        population(self.dir()).map(|population| population.processes.into_keys().collect())
    }

    /// Kill everybody who was not there before, until nobody is left, bring the others back to
    /// where they were, and remove groups that were not there: whoever starts cold makes its own.
    /// Returns whether that was reached in time.
    ///
    /// # Errors
    /// When the processes cannot be listed, or a group cannot be removed.
    pub fn remove_new(&self, timeout: Duration) -> io::Result<bool> {
        if !self.remove_unless(|pid| self.before.processes.contains_key(&pid), timeout)? {
            return Ok(false);
        }
        let now = population(self.dir())?;
        // What is below another one comes behind it, and has to give its controllers up first.
        // Nobody may be in a group that enables some.
        for (group, enabled) in now.groups.iter().rev() {
            let before = self.before.groups.get(group);
            let new = enabled.iter().filter(|name| before.is_none_or(|before| !before.contains(*name)));
            let words: Vec<String> = new.map(|controller| format!("-{controller}")).collect();
            if !words.is_empty() {
                self.write(group, "cgroup.subtree_control", &words.join(" "))?;
            }
        }
        for (pid, group) in &self.before.processes {
            if now.processes.get(pid).is_some_and(|there| there != group) {
                self.write(group, "cgroup.procs", &pid.to_string())?;
            }
        }
        for group in now.groups.keys().rev().filter(|group| !self.before.groups.contains_key(*group)) {
            match unlinkat(self.dir(), group, UnlinkatFlags::RemoveDir) {
                // initd and the zygote may both be at it.
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(true)
    }

    /// Write to a file of a group; that the group or the process in question is gone is no error.
    fn write(&self, group: &Path, name: &str, text: &str) -> io::Result<()> {
        let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        let written = openat(self.dir(), &group.join(name), flags, Mode::empty())
            .and_then(|file| write(&file, text.as_bytes()));
        match written {
            Ok(_) | Err(Errno::ENOENT | Errno::ENODEV | Errno::ESRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
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
                // The number may pass to a stranger between two looks; a pidfd that is still a
                // member cannot.
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
    let read = |name: &str| -> io::Result<String> {
        let file = openat(dir, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        let mut text = String::new();
        File::from(file).read_to_string(&mut text)?;
        Ok(text)
    };
    let members = match read("cgroup.procs") {
        // A threaded group: its processes are listed in the one that it belongs to.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => String::new(),
        read => read?,
    };
    let pids = members.lines().filter_map(|line| line.parse::<i32>().ok());
    found.processes.extend(pids.map(|pid| (pid, path.to_owned())));
    let enabled = read("cgroup.subtree_control")?;
    found.groups.insert(path.to_owned(), enabled.split_whitespace().map(str::to_owned).collect());
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
        add_population(below.as_fd(), &path.join(name), found)?;
    }
    Ok(())
}
