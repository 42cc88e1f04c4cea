//! Recorded paths, resolved so that nobody but root can lead the restore astray. The names of
//! descriptors and mappings that the kernel gave at the snapshot have no symbolic link in them; one
//! that is there now was put there since.

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, open, openat, openat2, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

const NAME_ONLY: OFlag = OFlag::O_PATH.union(OFlag::O_CLOEXEC).union(OFlag::O_NOFOLLOW);
/// As many links as the kernel follows in one path (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// Where a path has led.
#[derive(Debug)]
pub struct Found {
    /// Opened with O_PATH.
    pub fd: OwnedFd,
    /// The first directory on the way in which somebody but root may put something else in the
    /// place of what was found.
    pub replaceable_in: Option<PathBuf>,
}

/// What is wanted at the end of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last {
    /// Whatever has the name, a symbolic link too.
    Itself,
    Directory,
}

/// Opens (O_PATH) what a path leads to. A symbolic link is followed only where root alone can have
/// put it there.
///
/// # Errors
/// `ELOOP`: another symbolic link is in the way. Those of openat2(2).
pub fn resolve(path: &Path, last: Last) -> Result<OwnedFd, Errno> {
    let flags = match last {
        Last::Itself => NAME_ONLY,
        // With O_NOFOLLOW a link at the end would be no directory instead of one link too many.
        Last::Directory => OFlag::O_PATH | OFlag::O_CLOEXEC | OFlag::O_DIRECTORY,
    };
    let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    match openat2(AT_FDCWD, path, how) {
        Err(Errno::ELOOP) => walk(path, last).map(|found| found.fd),
        done => done,
    }
}

/// The same step by step, looking at every directory on the way.
///
/// # Errors
/// As [`resolve`].
pub fn walk(path: &Path, last: Last) -> Result<Found, Errno> {
    let root = || open("/", NAME_ONLY | OFlag::O_DIRECTORY, Mode::empty());
    let (mut at, mut shown, mut replaceable_in) = (root()?, PathBuf::from("/"), None);
    let mut names = names_of(path)?;
    let mut links = 0;
    while let Some(name) = names.pop_front() {
        if replaceable_in.is_none() && may_be_written_by_others(&fstat(&at)?) {
            replaceable_in = Some(shown.clone());
        }
        let next = openat(&at, name.as_os_str(), NAME_ONLY, Mode::empty())?;
        let found = fstat(&next)?;
        let is_wanted = last == Last::Itself && names.is_empty();
        if kind_of(found.st_mode) != SFlag::S_IFLNK || is_wanted {
            shown.push(&name);
            at = next;
            continue;
        }
        links += 1;
        if replaceable_in.is_some() || found.st_uid != 0 || links > MOST_LINKS {
            return Err(Errno::ELOOP);
        }
        let target = PathBuf::from(readlinkat(&next, "")?);
        if target.is_absolute() {
            (at, shown) = (root()?, PathBuf::from("/"));
        }
        let mut further = names_of(&target)?;
        further.append(&mut names);
        names = further;
    }
    Ok(Found { fd: at, replaceable_in })
}

fn names_of(path: &Path) -> Result<VecDeque<OsString>, Errno> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(Ok(name.to_owned())),
            Component::ParentDir => Some(Ok(OsString::from(".."))),
            Component::RootDir | Component::CurDir => None,
            Component::Prefix(_) => Some(Err(Errno::EINVAL)),
        })
        .collect()
}

/// Bits of an access control list are in those of the group.
fn may_be_written_by_others(directory: &FileStat) -> bool {
    directory.st_uid != 0 || directory.st_mode & 0o022 != 0
}

/// The kind of a file, of its mode.
pub fn kind_of(mode: u32) -> SFlag {
    SFlag::from_bits_truncate(mode) & SFlag::S_IFMT
}

/// The directory that a name is in, and the name.
#[derive(Debug)]
pub struct Place<'a> {
    /// Opened with O_PATH.
    pub directory: OwnedFd,
    pub name: &'a OsStr,
}

impl<'a> Place<'a> {
    /// # Errors
    /// As [`resolve`]; `EINVAL` for a path without a name at its end.
    pub fn of(path: &'a Path) -> Result<Self, Errno> {
        let name = path.file_name().ok_or(Errno::EINVAL)?;
        Ok(Self { directory: resolve(path.parent().ok_or(Errno::EINVAL)?, Last::Directory)?, name })
    }

    /// Whether nobody but root can put something else in the directory's place, or into it.
    pub fn is_roots(path: &Path) -> bool {
        // What is to be looked at is the way to the name: a name that is not there yet ends no
        // walk.
        let Some(parent) = path.parent() else { return false };
        walk(parent, Last::Directory).is_ok_and(|found| {
            found.replaceable_in.is_none()
                && fstat(&found.fd).is_ok_and(|found| !may_be_written_by_others(&found))
        })
    }

    /// What has this name now (O_PATH).
    ///
    /// # Errors
    /// openat(2).
    pub fn look(&self) -> Result<OwnedFd, Errno> {
        openat(&self.directory, self.name, NAME_ONLY, Mode::empty())
    }
}
