//! Where a running unit keeps what it writes: files that it has open or mapped for writing, and
//! directories that are its own. Other files there are its state too, open at the moment or not.

use super::files::Access;
use super::mounts::Mounts;
use super::open_state::{TRAVELS, is_name, regular_file};
use super::{Cgroup, UnitProperties};
use image_store::StateEvidence;
use snap_error::{Result, UnitObstacle};
use snap_state::{Pid, RawPath};
use snap_sys::proc::{self, FdInfo};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Directories of everybody: what lies right in one of them belongs to nobody in particular.
const SHARED: [&str; 19] = [
    "/",
    "/var",
    "/var/lib",
    "/var/lib/private",
    "/var/log",
    "/var/cache",
    "/var/cache/private",
    "/var/spool",
    "/var/tmp",
    "/tmp",
    "/home",
    "/root",
    "/srv",
    "/opt",
    "/mnt",
    "/media",
    "/boot",
    "/usr",
    "/etc",
];
/// Below these, nothing but files that are open counts.
const NO_ROOTS: [&str; 4] = ["/etc", "/usr", "/boot", "/var/log"];

/// Paths of ours, and of the unit where those are others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatePlaces {
    /// Directories of which everything counts.
    roots: BTreeSet<PathBuf>,
    /// Files elsewhere.
    files: BTreeSet<PathBuf>,
    /// The same as the unit sees them.
    inside: BTreeSet<PathBuf>,
}

impl StatePlaces {
    /// As the unit's processes are now.
    ///
    /// # Errors
    /// [`UnitObstacle::SeenInsideOnly`] for what we cannot find; when the control group cannot be
    /// read.
    pub(crate) fn of(unit: &UnitProperties, cgroup: &Cgroup) -> Result<Self> {
        let mounts = Mounts::of(Pid(unit.main_pid));
        let volatile = unit.volatile_roots();
        let travels = |path: &Path| {
            TRAVELS
                .iter()
                .map(Path::new)
                .chain(volatile.iter().map(PathBuf::as_path))
                .any(|root| path.starts_with(root))
        };
        let mut seen = Seen::default();
        for (parent, names) in
            [("/var/lib", &unit.state_directories), ("/var/cache", &unit.cache_directories)]
        {
            for name in names {
                let private = Path::new(parent).join("private").join(name);
                let plain = Path::new(parent).join(name);
                seen.dirs.insert(if unit.is_dynamic_user { private } else { plain });
            }
        }
        for path in &unit.writable_paths {
            let path = path.trim_start_matches(['-', '+']);
            seen.dirs.insert(PathBuf::from(path.trim_end_matches('/')));
        }
        for pid in cgroup.processes()? {
            seen.look_at(pid);
        }
        let mut places = Self::default();
        for dir in seen.dirs.iter().chain(&seen.own_dirs) {
            let is_shared = SHARED.iter().any(|shared| Path::new(shared) == dir);
            let is_elsewhere = NO_ROOTS.iter().any(|root| dir.starts_with(root));
            if !is_shared && !is_elsewhere && !travels(dir) {
                places.add(dir, &mounts, true)?;
            }
        }
        for file in seen.files.iter().filter(|file| !travels(file)) {
            places.add(file, &mounts, false)?;
        }
        places.forget_covered();
        Ok(places)
    }

    fn add(&mut self, path: &Path, mounts: &Mounts, is_root: bool) -> Result<()> {
        let is_there = mounts.inside(path).is_some_and(|inside| std::fs::symlink_metadata(inside).is_ok());
        let outside = match mounts.outside(path) {
            Some(outside) => outside,
            // It may be made later; then it appears.
            None if !is_there => path.to_owned(),
            None => return Err(UnitObstacle::SeenInsideOnly { path: RawPath::from_path(path) }.into()),
        };
        if path.to_str().is_none() {
            return Err(UnitObstacle::NameNotUtf8 { path: RawPath::from_path(path) }.into());
        }
        if is_root && mounts.inside(path).is_some_and(|inside| inside.is_file()) {
            self.files.insert(outside);
        } else if is_root {
            self.roots.insert(outside);
        } else {
            // A database puts its journal beside it, under a longer name.
            self.files.extend(beside(&outside));
            self.files.insert(outside);
        }
        self.inside.insert(path.to_owned());
        Ok(())
    }

    fn forget_covered(&mut self) {
        let roots = self.roots.clone();
        let is_covered = |path: &PathBuf| path.ancestors().skip(1).any(|above| roots.contains(above));
        self.roots.retain(|path| !is_covered(path));
        self.files.retain(|path| !is_covered(path));
    }

    /// What `IgnoreChanges=` would have to say: of its own state it is no evidence that it has read
    /// it.
    pub(crate) fn patterns(&self) -> Vec<String> {
        let all = self.roots.iter().chain(&self.files).chain(&self.inside);
        all.map(|path| glob::Pattern::escape(&path.to_string_lossy())).collect()
    }

    /// Whether a path of ours is, or lies in, one of these places.
    pub(crate) fn hold(&self, path: &Path) -> bool {
        path.ancestors().any(|above| self.roots.contains(above)) || self.files.contains(path)
    }

    /// How everything there is now. Sync before.
    ///
    /// # Errors
    /// [`UnitObstacle::StateUntold`] for what cannot be compared.
    pub(crate) fn look(&self) -> Result<StateEvidence> {
        let list = |paths: &BTreeSet<PathBuf>| paths.iter().cloned().collect::<Vec<_>>();
        let found = StateEvidence::collect(&list(&self.roots), &list(&self.files));
        found.map_err(|error| UnitObstacle::StateUntold { why: error.to_string() }.into())
    }

    /// Something on each file system that they may lie on.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.roots.iter().chain(&self.files)
    }
}

/// What processes show.
#[derive(Debug, Default)]
struct Seen {
    /// Named by the unit.
    dirs: BTreeSet<PathBuf>,
    /// Belong to the user of a process that is in them, or writes there.
    own_dirs: BTreeSet<PathBuf>,
    files: BTreeSet<PathBuf>,
}

impl Seen {
    fn look_at(&mut self, pid: Pid) {
        let Ok(process) = std::fs::metadata(format!("/proc/{pid}")) else { return };
        let is_own = |dir: &Path| {
            let inside =
                PathBuf::from(format!("/proc/{pid}/root")).join(dir.strip_prefix("/").unwrap_or(dir));
            std::fs::metadata(inside).is_ok_and(|found| found.is_dir() && found.uid() == process.uid())
        };
        let mut written = BTreeSet::new();
        for fd in proc::fds(pid).unwrap_or_default() {
            let writes = FdInfo::of(pid, fd).is_ok_and(|info| Access::of_flags(info.flags).writes);
            written.extend(writes.then(|| regular_file(pid, fd.0)).flatten().map(|(path, _)| path));
        }
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        written.extend(maps.lines().filter_map(shared_and_writable));
        if let Ok(cwd) = proc::read_link(pid, "cwd")
            && is_name(&cwd)
        {
            let cwd = PathBuf::from(OsString::from_vec(cwd));
            if is_own(&cwd) {
                self.own_dirs.insert(cwd);
            }
        }
        self.own_dirs.extend(
            written.iter().filter_map(|file| file.parent()).filter(|dir| is_own(dir)).map(Path::to_owned),
        );
        self.files.extend(written);
    }
}

/// The file of a line of /proc/PID/maps.
fn shared_and_writable(line: &str) -> Option<PathBuf> {
    let mut words = line.split_ascii_whitespace();
    let rights = words.nth(1)?;
    let path = &line[line.find('/')?..];
    let is_state = rights.contains('w') && rights.ends_with('s') && is_name(path.as_bytes());
    is_state.then(|| PathBuf::from(path))
}

/// Files in the same directory whose names begin with this one's.
fn beside(file: &Path) -> Vec<PathBuf> {
    let (Some(dir), Some(name)) = (file.parent(), file.file_name()) else { return Vec::new() };
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let longer = entries.filter(|entry| {
        entry.file_name().as_encoded_bytes().starts_with(name.as_encoded_bytes()) && entry.file_name() != name
    });
    longer.map(|entry| entry.path()).filter(|path| path.to_str().is_some()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_that_write_to_files_are_told_from_others() {
        let shared = "7f00-7f01 rw-s 00000000 fe:00 12 /srv/app/data base.mdb";
        assert_eq!(shared_and_writable(shared), Some("/srv/app/data base.mdb".into()));
        for other in [
            "7f00-7f01 rw-p 00000000 fe:00 12 /srv/app/data.mdb",
            "7f00-7f01 r--s 00000000 fe:00 12 /srv/app/data.mdb",
            "7f00-7f01 rw-s 00000000 00:01 12 /dev/zero (deleted)",
            "7f00-7f01 rw-p 00000000 00:00 0",
        ] {
            assert_eq!(shared_and_writable(other), None, "{other}");
        }
    }

    #[test]
    fn what_lies_in_a_root_needs_no_entry_of_its_own() {
        let set = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<BTreeSet<_>>();
        let mut places = StatePlaces {
            roots: set(&["/var/lib/db", "/var/lib/db/base/5"]),
            files: set(&["/var/lib/db/pid", "/srv/one"]),
            inside: BTreeSet::new(),
        };
        places.forget_covered();
        assert_eq!((places.roots.clone(), places.files.clone()), (set(&["/var/lib/db"]), set(&["/srv/one"])));
        assert!(places.hold(Path::new("/var/lib/db/base/5/1")) && places.hold(Path::new("/srv/one")));
        assert!(!places.hold(Path::new("/srv/one/two")) && !places.hold(Path::new("/var/lib/dbx")));
    }

    #[test]
    fn a_journal_beside_a_database_is_its_state() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.db", "a.db-wal", "b.db"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(beside(&dir.path().join("a.db")), [dir.path().join("a.db-wal")]);
    }
}
