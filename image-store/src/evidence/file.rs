//! Fingerprints of files, directories and links.

use std::ffi::OsString;
use std::fs::{self, Metadata, OpenOptions};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::digests::Digests;
use super::reason::{ReasonCode, StaleReason};
use crate::digest::Digest;
use crate::error::{Error, Result};

/// Links followed by [`FileEvidence::collect_chain`] before it gives up, as in path resolution(7).
const MAX_LINKS: usize = 40;

/// What a path led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileKind {
    /// Regular file: its content counts.
    File,
    /// Directory: the names in it count, but for `__pycache__`.
    Dir,
    /// Symbolic link: its target text counts.
    Symlink,
    /// Character or block device: only its number counts.
    Device,
    /// Socket or FIFO: it only has to be one again.
    Other,
    /// Nothing: it must still be nothing.
    Absent,
}

/// How far a check goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckDepth {
    /// stat only: any difference is a change. Never reads content.
    StatOnly,
    /// stat first; where only times, inode or device differ, the content has the last word.
    ContentIfStatDiffers,
}

/// One path, as it was at the snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEvidence {
    /// Absolute path.
    pub path: PathBuf,
    /// What was there.
    pub kind: FileKind,
    /// Device the file was on; `None` where device numbers are not stable.
    pub dev: Option<u64>,
    /// Inode number.
    pub ino: u64,
    /// Size in bytes.
    pub size: u64,
    /// Modification time in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Change time in nanoseconds since 1970.
    pub ctime_ns: i64,
    /// Type and permission bits, as `st_mode`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a [`FileKind::Device`], else 0.
    pub rdev: u64,
    /// Digest of content, sorted names or link target; `None` where it was not taken.
    pub blake3: Option<Digest>,
}

impl FileEvidence {
    /// Look at `path` itself, without following a final link. `with_content` takes the digest too.
    ///
    /// A path that leads to nothing is recorded as [`FileKind::Absent`].
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn collect(root: &Path, path: &Path, with_content: bool) -> Result<FileEvidence> {
        FileEvidence::collect_with(root, path, with_content.then_some(&Digests::default()))
    }

    /// The same; with `digests` the content counts, and what has been read for another unit is not
    /// read again.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn collect_with(root: &Path, path: &Path, digests: Option<&Digests>) -> Result<FileEvidence> {
        let real = under_root(root, path);
        let fail = |source| Error::io(&real, "examine", source);
        let metadata = match fs::symlink_metadata(&real) {
            Ok(metadata) => metadata,
            Err(error) if is_absent(&error) => return Ok(FileEvidence::absent(path)),
            Err(error) => return Err(fail(error)),
        };
        let mut evidence = FileEvidence::from_metadata(path, &metadata);
        if let Some(digests) = digests {
            evidence.blake3 = digests.of(&real, &evidence).map_err(fail)?;
        }
        Ok(evidence)
    }

    /// Look at `path` and, as long as it is a symbolic link, at what it points to: every link on
    /// the way and the end.
    ///
    /// # Errors
    /// [`Error::Io`]; also for too many links.
    pub fn collect_chain(root: &Path, path: &Path, with_content: bool) -> Result<Vec<FileEvidence>> {
        let mut chain = Vec::new();
        let mut path = path.to_owned();
        while chain.len() < MAX_LINKS {
            let evidence = FileEvidence::collect(root, &path, with_content)?;
            let is_link = evidence.kind == FileKind::Symlink;
            chain.push(evidence);
            if !is_link {
                return Ok(chain);
            }
            let real = under_root(root, &path);
            let target = fs::read_link(&real).map_err(|source| Error::io(&real, "read link", source))?;
            // `join` replaces everything for an absolute target, which is what the kernel does.
            path = path.parent().unwrap_or(Path::new("/")).join(target);
        }
        Err(Error::io(&path, "follow links to", io::Error::from_raw_os_error(libc::ELOOP)))
    }

    fn absent(path: &Path) -> FileEvidence {
        FileEvidence {
            path: path.to_owned(),
            kind: FileKind::Absent,
            dev: None,
            ino: 0,
            size: 0,
            mtime_ns: 0,
            ctime_ns: 0,
            mode: 0,
            uid: 0,
            gid: 0,
            rdev: 0,
            blake3: None,
        }
    }

    fn from_metadata(path: &Path, metadata: &Metadata) -> FileEvidence {
        let file_type = metadata.file_type();
        let kind = if file_type.is_file() {
            FileKind::File
        } else if file_type.is_dir() {
            FileKind::Dir
        } else if file_type.is_symlink() {
            FileKind::Symlink
        } else if file_type.is_char_device() || file_type.is_block_device() {
            FileKind::Device
        } else {
            FileKind::Other
        };
        FileEvidence {
            path: path.to_owned(),
            kind,
            dev: Some(metadata.dev()),
            ino: metadata.ino(),
            size: metadata.size(),
            mtime_ns: time_ns(metadata.mtime(), metadata.mtime_nsec()),
            ctime_ns: time_ns(metadata.ctime(), metadata.ctime_nsec()),
            mode: metadata.mode(),
            uid: metadata.uid(),
            gid: metadata.gid(),
            rdev: if kind == FileKind::Device { metadata.rdev() } else { 0 },
            blake3: None,
        }
    }

    /// Compare with what is there now.
    ///
    /// # Errors
    /// [`ReasonCode::FileMissing`] or [`ReasonCode::FileChanged`].
    pub fn check(&self, root: &Path, depth: CheckDepth) -> std::result::Result<(), StaleReason> {
        self.check_with(root, depth, &Digests::default())
    }

    /// The same; contents that have been read for another image are not read again.
    ///
    /// # Errors
    /// As [`check`](FileEvidence::check).
    pub fn check_with(
        &self,
        root: &Path,
        depth: CheckDepth,
        digests: &Digests,
    ) -> std::result::Result<(), StaleReason> {
        let path = self.path.display();
        let changed = |how: String| Err(StaleReason::new(ReasonCode::FileChanged, format!("{path} {how}")));
        let real = under_root(root, &self.path);
        let now = match fs::symlink_metadata(&real) {
            Ok(metadata) => FileEvidence::from_metadata(&self.path, &metadata),
            Err(error) if is_absent(&error) && self.kind == FileKind::Absent => return Ok(()),
            Err(error) if is_absent(&error) => {
                return Err(StaleReason::new(ReasonCode::FileMissing, format!("{path} is missing")));
            }
            Err(error) => return changed(format!("cannot be examined: {error}")),
        };
        if self.kind == FileKind::Absent {
            return changed("appeared".to_owned());
        }
        if self.kind != now.kind {
            return changed(format!("changed (is a {}, was a {})", now.kind.noun(), self.kind.noun()));
        }
        match self.kind {
            FileKind::Device if self.rdev != now.rdev => {
                return changed(format!("changed (device number {:#x}, was {:#x})", now.rdev, self.rdev));
            }
            // Made anew at each boot: times, inodes and, for a while, even the owner say nothing.
            FileKind::Device | FileKind::Other => return Ok(()),
            _ => {}
        }
        if (self.mode, self.uid, self.gid) != (now.mode, now.uid, now.gid) {
            let show = |e: &FileEvidence| format!("mode {:o}, owner {}:{}", e.mode & 0o7777, e.uid, e.gid);
            return changed(format!("changed ({}, was {})", show(&now), show(self)));
        }
        // A directory's size is a matter of its file system, not of what is in it.
        if self.size != now.size && self.kind != FileKind::Dir {
            return changed(format!("changed (size {}, was {})", now.size, self.size));
        }
        let same_stat = self.ino == now.ino
            && self.mtime_ns == now.mtime_ns
            && self.ctime_ns == now.ctime_ns
            && self.dev.is_none_or(|dev| Some(dev) == now.dev);
        if same_stat {
            return Ok(());
        }
        let (Some(was), CheckDepth::ContentIfStatDiffers) = (self.blake3, depth) else {
            return changed("changed (time, inode or device differ)".to_owned());
        };
        match digests.of(&real, &now) {
            Ok(Some(is)) if is == was => Ok(()),
            Ok(_) if self.kind == FileKind::Dir => changed("changed (its entries differ)".to_owned()),
            Ok(_) if self.kind == FileKind::Symlink => changed("changed (it points elsewhere)".to_owned()),
            Ok(_) => changed(format!("changed (same size {}, other content)", self.size)),
            Err(error) => changed(format!("cannot be read: {error}")),
        }
    }
}

impl FileKind {
    fn noun(self) -> &'static str {
        match self {
            FileKind::File => "regular file",
            FileKind::Dir => "directory",
            FileKind::Symlink => "symbolic link",
            FileKind::Device => "device",
            FileKind::Other => "socket or FIFO",
            FileKind::Absent => "missing file",
        }
    }
}

/// `path`, looked up below `root`. `..` at the top stays at the top, as the kernel has it for `/`.
pub(super) fn under_root(root: &Path, path: &Path) -> PathBuf {
    if root == Path::new("/") {
        return path.to_owned();
    }
    let below = path.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    root.join(below.collect::<PathBuf>())
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn time_ns(s: i64, ns: i64) -> i64 {
    s.saturating_mul(1_000_000_000).saturating_add(ns)
}

pub(super) fn content_digest(real: &Path, kind: FileKind) -> io::Result<Option<Digest>> {
    match kind {
        FileKind::File => {
            // The path may have become a FIFO or a link since it was examined: neither may block or
            // be followed.
            let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
            let file = OpenOptions::new().read(true).custom_flags(flags).open(real)?;
            Digest::of_reader(file).map(Some)
        }
        FileKind::Dir => {
            let names = fs::read_dir(real)?.map(|entry| entry.map(|entry| entry.file_name()));
            let mut names: Vec<OsString> = names.collect::<io::Result<_>>()?;
            // Python makes it beside any program at its first run; nothing depends on whether it is
            // there.
            names.retain(|name| name != "__pycache__");
            names.sort();
            // A name cannot contain NUL, so the joined text is unambiguous.
            let joined: Vec<u8> =
                names.into_iter().flat_map(|name| [name.into_vec(), vec![0]]).flatten().collect();
            Ok(Some(Digest::of(&joined)))
        }
        FileKind::Symlink => Ok(Some(Digest::of(fs::read_link(real)?.as_os_str().as_bytes()))),
        FileKind::Device | FileKind::Other | FileKind::Absent => Ok(None),
    }
}
