//! Directories and files that a reboot takes away although the unit counts on them.

use super::handle::Handle;
use super::volatile_dirs::stat_of;
use crate::blockers::Blockers;
use crate::inode::Inodes;
use crate::member::Member;
use nix::sys::stat::{FileStat, SFlag};
use snap_error::obstacle::FileObstacle;
use snap_error::{Error, Part, Result};
use snap_state::{InodeId, InodeKindV1, Pid, RawPath, VolatileNodeKindV1, VolatileNodeV1};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Largest file that travels although nobody has it open, and all of them together. PID files and
/// the like are small; what is larger was put there by somebody who may not want it back.
const MAX_FILE_BYTES: u64 = 1 << 20;
const MAX_ALL_BYTES: u64 = 16 << 20;
/// Longest PID file.
const PID_FILE_BYTES: u64 = 16;

/// Files that nobody has open.
#[derive(Debug, Default)]
pub(crate) struct Loose {
    pub files: Vec<InodeId>,
    pub nodes: Vec<VolatileNodeV1>,
    bytes: u64,
}

impl Loose {
    fn note(&mut self, path: RawPath, kind: VolatileNodeKindV1, stat: &FileStat) {
        self.nodes.push(VolatileNodeV1 { path, kind, uid: stat.st_uid, gid: stat.st_gid });
    }

    /// Why a file of this length does not travel.
    fn refuses(&mut self, len_bytes: u64, path: &RawPath) -> Option<FileObstacle> {
        self.bytes = self.bytes.saturating_add(len_bytes);
        if len_bytes > MAX_FILE_BYTES {
            let (most_bytes, path) = (MAX_FILE_BYTES, path.clone());
            return Some(FileObstacle::VolatileFileLarge { len_bytes, most_bytes, path });
        }
        let too_much = self.bytes > MAX_ALL_BYTES;
        too_much.then(|| FileObstacle::VolatileFilesLarge { most_bytes: MAX_ALL_BYTES, path: path.clone() })
    }
}

/// Everything below the volatile roots, whether somebody has it open or not, and PID files. Returns
/// what nobody has.
pub(crate) fn collect_volatile_files(
    inodes: &mut Inodes<'_>,
    members: &[Member],
    blockers: &mut Blockers,
) -> Result<Loose> {
    let mut loose = Loose::default();
    let roots = inodes.options().volatile_roots.clone();
    for root in &roots {
        // A root that is not there has nothing to carry.
        if stat_of(inodes.spaces(), root).is_ok() {
            walk(root, inodes, &mut loose, blockers)?;
        }
    }
    if inodes.options().unit {
        collect_pid_files(inodes, members, &roots, &mut loose, blockers)?;
    }
    Ok(loose)
}

/// Files outside of the volatile roots that name a process of the tree: the unit's for certain,
/// whoever wrote them.
fn collect_pid_files(
    inodes: &mut Inodes<'_>,
    members: &[Member],
    roots: &[PathBuf],
    loose: &mut Loose,
    blockers: &mut Blockers,
) -> Result<()> {
    let is_root = |dir: &Path| roots.iter().any(|root| dir.starts_with(root));
    let run = PathBuf::from("/run");
    let noted = inodes.dirs.paths().map(|raw| raw.as_path().to_owned());
    let dirs: BTreeSet<PathBuf> = noted.chain([run]).filter(|dir| !is_root(dir)).collect();
    for dir in dirs {
        let spaces = inodes.spaces();
        let entries = std::fs::read_dir(spaces.reachable(&RawPath::from_path(&dir))).into_iter().flatten();
        for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file())) {
            let path = RawPath::from_path(&dir.join(entry.file_name()));
            // Gone meanwhile, or somebody else's.
            let Ok(stat) = stat_of(inodes.spaces(), path.as_path()) else { continue };
            let text =
                if stat.st_size as u64 <= PID_FILE_BYTES { std::fs::read(entry.path()) } else { continue };
            let named = text.is_ok_and(|text| {
                named_process(&text).is_some_and(|pid| members.iter().any(|m| m.pid == pid))
            });
            if named && inodes.known(&stat).is_none() {
                collect_loose(path, &stat, inodes, loose, blockers)?;
            }
        }
    }
    Ok(())
}

/// The process that a PID file names: a number and nothing else, but perhaps the end of its line.
fn named_process(text: &[u8]) -> Option<Pid> {
    std::str::from_utf8(text).ok()?.trim_end_matches('\n').parse().ok().map(Pid)
}

fn walk(dir: &Path, inodes: &mut Inodes<'_>, loose: &mut Loose, blockers: &mut Blockers) -> Result<()> {
    let spaces = inodes.spaces();
    let reachable = spaces.reachable(&RawPath::from_path(dir));
    let fail = |e: std::io::Error| Error::io("list", dir.display(), &e);
    for entry in std::fs::read_dir(&reachable).map_err(fail)? {
        let path = dir.join(entry.map_err(fail)?.file_name());
        let raw = RawPath::from_path(&path);
        let stat = stat_of(spaces, &path)?;
        match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFDIR => {
                inodes.dirs.note(spaces, raw, &stat)?;
                walk(&path, inodes, loose, blockers)?;
            }
            SFlag::S_IFREG | SFlag::S_IFIFO => match inodes.known(&stat) {
                Some(inode) => note_name(inode, raw, inodes, loose),
                None => collect_loose(raw, &stat, inodes, loose, blockers)?,
            },
            // Made again by who has it.
            SFlag::S_IFSOCK if inodes.nodes.contains(&(stat.st_dev, stat.st_ino)) => {}
            SFlag::S_IFSOCK => {
                let kind = VolatileNodeKindV1::DeadSocket { mode: stat.st_mode & 0o7777 };
                loose.note(raw, kind, &stat);
            }
            SFlag::S_IFLNK => {
                let target = std::fs::read_link(spaces.reachable(&raw));
                let target = target.map_err(|e| Error::io("read link", &raw, &e))?;
                let target = target.into_os_string().into_encoded_bytes();
                loose.note(raw, VolatileNodeKindV1::Symlink { target }, &stat);
            }
            _ => {
                let obstacle = FileObstacle::VolatileSpecialFile { path: raw };
                blockers.add(spaces.main, Part::Process, obstacle);
            }
        }
    }
    Ok(())
}

/// A further name of a file that has an entry.
fn note_name(inode: InodeId, raw: RawPath, inodes: &Inodes<'_>, loose: &mut Loose) {
    let first = inodes.get(inode).map(|inode| &inode.kind);
    if !matches!(first, Some(InodeKindV1::Volatile(file)) if file.path == raw) {
        let kind = VolatileNodeKindV1::Link { inode };
        loose.nodes.push(VolatileNodeV1 { path: raw, kind, uid: 0, gid: 0 });
    }
}

fn collect_loose(
    raw: RawPath,
    stat: &FileStat,
    inodes: &mut Inodes<'_>,
    loose: &mut Loose,
    blockers: &mut Blockers,
) -> Result<()> {
    let main = inodes.spaces().main;
    if let Some(obstacle) = loose.refuses(stat.st_size as u64, &raw) {
        blockers.add(main, Part::Process, obstacle);
        return Ok(());
    }
    let magic = inodes.spaces().reachable(&raw).to_string_lossy().into_owned();
    let handle = Handle {
        magic: &magic,
        link: &raw.0,
        by_name_only: false,
        writable: false,
        open: false,
        duplicate: None,
    };
    let found = inodes.intern(main, handle);
    loose.files.extend(blockers.note(main, Part::Process, found)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pid_files_name_a_process_and_nothing_else() {
        assert_eq!(named_process(b"812\n"), Some(Pid(812)));
        assert_eq!(named_process(b"812"), Some(Pid(812)));
        for other in [&b"812 nginx\n"[..], b"", b"x812", b"812\n813\n"] {
            assert_eq!(named_process(other), None);
        }
    }

    #[test]
    fn loose_files_are_bounded_each_and_together() {
        let mut loose = Loose::default();
        let path = RawPath(b"/run/x".to_vec());
        let len_bytes = MAX_FILE_BYTES + 1;
        let large =
            FileObstacle::VolatileFileLarge { len_bytes, most_bytes: MAX_FILE_BYTES, path: path.clone() };
        assert_eq!(loose.refuses(len_bytes, &path), Some(large));
        let mut loose = Loose::default();
        assert!((0..16).all(|_| loose.refuses(MAX_FILE_BYTES, &path).is_none()));
        let full = loose.refuses(1, &path);
        assert!(matches!(full, Some(FileObstacle::VolatileFilesLarge { .. })), "{full:?}");
    }
}
