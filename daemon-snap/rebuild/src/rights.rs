//! Whose rights a path is opened with. Every path in an image was the service's to choose, and what
//! it leads to now may be too.
//!
//! 1. What each process that has the object may open by itself is opened with the rights of such a
//!    process, so the restore gives nobody what it could not take.
//! 2. What one of them may not open was opened before privileges were given up, or by systemd. It
//!    is opened as root if kind, owner, group and permissions are the recorded ones, and either
//!    nobody but root can put anything else in its place, or systemd has given this very file to
//!    today's start. A log that was rotated is another file with the same owner and permissions,
//!    and passes.
//! 3. Anything else is stale.

use super::trail;
use image_store::ReasonCode;
use nix::errno::Errno;
use nix::sys::stat::{FileStat, fstat};
use snap_error::{Error, Result};
use snap_state::{BackingV1, FileId, InodeId, InodeV1, ProcessV1, RawPath, Tree};
use snap_sys::fs_identity::FsIdentity;
use std::collections::BTreeSet;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

/// Whoever has this may open everything.
const CAP_DAC_OVERRIDE: u64 = 1 << 1;

/// Which processes have what, and their rights.
#[derive(Debug, Default)]
pub struct Rights {
    /// Without duplicates.
    all: Vec<FsIdentity>,
    /// Indices into `all`, by file.
    of_file: Vec<BTreeSet<usize>>,
    /// The same by object that is mapped or executed.
    of_mapped: Vec<BTreeSet<usize>>,
    /// Device and inode of what systemd has opened for this start.
    given: Vec<(u64, u64)>,
}

/// What is looked for, and where.
#[derive(Clone, Copy, Debug)]
pub struct Recorded<'a> {
    pub inode: &'a InodeV1,
    pub path: &'a RawPath,
}

/// Makes a description from what was found under a path, which is opened with O_PATH.
type Reopen<'a> = dyn Fn(BorrowedFd<'_>) -> nix::Result<OwnedFd> + 'a;

/// What is opened, for those who have it.
#[derive(Clone, Copy, Debug)]
pub enum Whose {
    File(FileId),
    Mapped(InodeId),
}

impl Rights {
    /// `in_user_namespace`: the capabilities of the tree count in a user namespace of its own only.
    pub fn of(tree: &Tree, in_user_namespace: bool, given: &[OwnedFd]) -> Self {
        let given = given.iter().filter_map(|fd| fstat(fd).ok()).map(|found| (found.st_dev, found.st_ino));
        let mut rights = Self {
            all: Vec::new(),
            of_file: vec![BTreeSet::new(); tree.files.len()],
            of_mapped: vec![BTreeSet::new(); tree.inodes.len()],
            given: given.collect(),
        };
        for process in &tree.processes {
            rights.add(process, in_user_namespace);
        }
        // Nobody has what is in a message, or with systemd, at the moment; anybody may get it.
        let everybody: BTreeSet<usize> = (0..rights.all.len()).collect();
        for holders in rights.of_file.iter_mut().filter(|holders| holders.is_empty()) {
            holders.clone_from(&everybody);
        }
        rights
    }

    fn add(&mut self, process: &ProcessV1, in_user_namespace: bool) {
        let Some(creds) = process.threads.first().map(|thread| &thread.creds) else { return };
        let identity = FsIdentity {
            uid: creds.uids[3],
            gid: creds.gids[3],
            groups: creds.groups.clone(),
            caps: if in_user_namespace { 0 } else { creds.cap_effective },
        };
        let index = self.all.iter().position(|known| *known == identity).unwrap_or_else(|| {
            self.all.push(identity);
            self.all.len() - 1
        });
        let files = process.fds.iter().map(|fd| fd.file).chain([process.cwd]).chain(process.root);
        for file in files {
            self.of_file.get_mut(file.index()).map(|holders| holders.insert(index));
        }
        let mapped = process.mm.vmas.iter().filter_map(|vma| match vma.backing {
            BackingV1::Inode { inode, .. } => Some(inode),
            _ => None,
        });
        for inode in mapped.chain([process.exe]) {
            self.of_mapped.get_mut(inode.index()).map(|holders| holders.insert(index));
        }
    }

    /// Rights with a bound; who has none of these may open everything.
    fn bounded(&self, whose: Option<Whose>) -> Vec<&FsIdentity> {
        let holders: Vec<&FsIdentity> = match whose {
            None => self.all.iter().collect(),
            Some(Whose::File(id)) => self.pick(self.of_file.get(id.index())),
            Some(Whose::Mapped(id)) => self.pick(self.of_mapped.get(id.index())),
        };
        holders.into_iter().filter(|identity| identity.caps & CAP_DAC_OVERRIDE == 0).collect()
    }

    fn pick(&self, indices: Option<&BTreeSet<usize>>) -> Vec<&FsIdentity> {
        indices.into_iter().flatten().filter_map(|index| self.all.get(*index)).collect()
    }

    /// Opens a recorded path by the rule above. `reopen` makes the description from what was found
    /// (O_PATH); it is called with the rights that were chosen.
    ///
    /// # Errors
    /// `Stale`: missing, another kind of file, or none that the processes may have.
    pub fn open(&self, whose: Whose, recorded: Recorded<'_>, reopen: &Reopen<'_>) -> Result<OwnedFd> {
        let path = recorded.path;
        let bounded = self.bounded(Some(whose));
        let mut opened = None;
        for identity in &bounded {
            let tried = identity.act(|| open_here(recorded, reopen));
            match tried.map_err(|e| Error::kernel("taking the rights of a process", path, e))? {
                Ok(fd) => opened = Some(fd),
                Err(Refused::Not) => return self.open_as_root(recorded, reopen),
                Err(Refused::Failed(error)) => return Err(error),
            }
        }
        match opened {
            Some(fd) => Ok(fd),
            None => open_here(recorded, reopen).map_err(|refused| refused.into_error(path)),
        }
    }

    fn open_as_root(&self, recorded: Recorded<'_>, reopen: &Reopen<'_>) -> Result<OwnedFd> {
        let Recorded { inode, path } = recorded;
        let found = trail::walk(path.as_path(), trail::Last::Itself).map_err(|e| failed(path, e))?;
        let stat = fstat(&found.fd).map_err(|e| Error::kernel("stat", path, e))?;
        check_kind(&stat, inode, path)?;
        let stale = |sentence: String| Err(Error::stale(ReasonCode::FileChanged, sentence));
        // Only root makes devices, and their number is what they are.
        if inode.rdev == 0 && (stat.st_uid, stat.st_gid, stat.st_mode) != (inode.uid, inode.gid, inode.mode) {
            return stale(format!(
                "{path} has another owner or other permissions, and the processes that had it open may not open it"
            ));
        }
        match found.replaceable_in {
            Some(directory) if !self.given.contains(&(stat.st_dev, stat.st_ino)) => stale(format!(
                "the processes that had {path} open may not open it, and others than root can replace it in {}",
                directory.display()
            )),
            _ => reopen(found.fd.as_fd()).map_err(|e| failed(path, e)),
        }
    }

    /// Does something by a path with the rights of some process of the tree that can, and as root
    /// where none can but root alone decides what the path leads to. A tree that may do everything
    /// does so.
    ///
    /// # Errors
    /// That of `what`.
    pub fn act<T>(&self, path: &Path, mut what: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
        let bounded = self.bounded(None);
        let mut denied = None;
        for identity in &bounded {
            match identity.act(&mut what)? {
                Err(errno @ (Errno::EACCES | Errno::EPERM)) => denied = Some(errno),
                done => return done,
            }
        }
        match denied {
            Some(errno) if !trail::Place::is_roots(path) => Err(errno),
            _ => what(),
        }
    }
}

/// Why nothing was opened.
enum Refused {
    /// These rights do not suffice.
    Not,
    Failed(Error),
}

impl Refused {
    fn into_error(self, path: &RawPath) -> Error {
        match self {
            Self::Not => Error::kernel("opening", path, Errno::EACCES),
            Self::Failed(error) => error,
        }
    }
}

fn open_here(recorded: Recorded<'_>, reopen: &Reopen<'_>) -> std::result::Result<OwnedFd, Refused> {
    let Recorded { inode, path } = recorded;
    let refused = |e: Errno| match e {
        Errno::EACCES | Errno::EPERM => Refused::Not,
        e => Refused::Failed(failed(path, e)),
    };
    let found = trail::resolve(path.as_path(), trail::Last::Itself).map_err(refused)?;
    let stat = fstat(&found).map_err(|e| Refused::Failed(Error::kernel("stat", path, e)))?;
    check_kind(&stat, inode, path).map_err(Refused::Failed)?;
    reopen(found.as_fd()).map_err(refused)
}

/// What it means that a path cannot be opened.
pub fn failed(path: &RawPath, errno: Errno) -> Error {
    match errno {
        Errno::ENOENT | Errno::ENOTDIR | Errno::ENXIO | Errno::ENODEV => {
            Error::stale(ReasonCode::FileMissing, format!("{path} is missing"))
        }
        Errno::ELOOP => {
            Error::stale(ReasonCode::FileChanged, format!("{path} leads through a symbolic link now"))
        }
        e => Error::kernel("opening", path, e),
    }
}

/// Another kind of file than recorded, or another device, is not the one.
///
/// # Errors
/// `Stale`.
pub fn check_kind(found: &FileStat, inode: &InodeV1, path: &RawPath) -> Result<()> {
    use nix::sys::stat::SFlag;
    let kind = trail::kind_of(inode.mode);
    if trail::kind_of(found.st_mode) != kind {
        return Err(Error::stale(ReasonCode::FileChanged, format!("{path} is another kind of file")));
    }
    let device = kind == SFlag::S_IFCHR || kind == SFlag::S_IFBLK;
    if device && found.st_rdev != inode.rdev {
        return Err(Error::stale(ReasonCode::FileChanged, format!("{path} is another device")));
    }
    Ok(())
}
