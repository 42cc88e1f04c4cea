//! Every file that a unit may write, and how each was when the unit had been taken.
//!
//! Nothing of it may differ afterwards, not even a change time: who restores a backup of a file sets
//! its size and its modification time, and cannot set that.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Part, Result};
use crate::evidence::{FileEvidence, FileKind, MountTable, ReasonCode, StaleReason};

/// Files up to this length are compared by their content too, in bytes.
const SMALL: u64 = 64 << 10;
/// Most files and directories of one unit.
const MOST: usize = 50_000;

/// All of a unit's files, by path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateEvidence {
    files: Vec<FileEvidence>,
}

impl StateEvidence {
    /// Longest encoded form, in bytes.
    pub const MAX_LEN: u64 = 64 << 20;

    /// Look at everything below `roots`, and at `files`. Paths that lead to nothing are noted as
    /// that.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Unsupported`] for too many of them, and for a file system that may
    /// not answer.
    pub fn collect(roots: &[PathBuf], files: &[PathBuf]) -> Result<StateEvidence> {
        let mounts = MountTable::read(Path::new("/"));
        let mut found = BTreeMap::new();
        let mut left: Vec<(PathBuf, bool)> = roots.iter().map(|root| (root.clone(), true)).collect();
        left.extend(files.iter().map(|file| (file.clone(), false)));
        while let Some((path, is_walked)) = left.pop() {
            let unsupported = |what: String| Error::Unsupported { path: path.clone(), what };
            if let Some(kind) = mounts.remote(&path) {
                return Err(unsupported(format!("state on {kind}, which may not answer")));
            }
            if found.len() >= MOST {
                return Err(unsupported(format!("more than {MOST} files that the unit may write")));
            }
            let mut evidence = FileEvidence::collect(Path::new("/"), &path, false)?;
            if evidence.kind == FileKind::File && evidence.size <= SMALL {
                evidence = FileEvidence::collect(Path::new("/"), &path, true)?;
            }
            if evidence.kind == FileKind::Dir && is_walked {
                let fail = |source| Error::io(&path, "list", source);
                for entry in fs::read_dir(&path).map_err(fail)? {
                    left.push((entry.map_err(fail)?.path(), true));
                }
            }
            found.insert(path, evidence);
        }
        Ok(StateEvidence { files: found.into_values().collect() })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Paths that are not in both, or not as they were.
    pub fn differences<'a>(&'a self, other: &'a StateEvidence) -> Vec<&'a Path> {
        let of = |state: &'a StateEvidence| -> BTreeMap<&'a Path, &'a FileEvidence> {
            state.files.iter().map(|file| (file.path.as_path(), file)).collect()
        };
        let (ours, theirs) = (of(self), of(other));
        let mut paths: Vec<&Path> = ours.keys().chain(theirs.keys()).copied().collect();
        paths.sort_unstable();
        paths.dedup();
        paths.retain(|path| ours.get(path) != theirs.get(path));
        paths
    }

    /// Compare with what is there now.
    ///
    /// # Errors
    /// [`ReasonCode::StateChanged`], naming the first file that differs.
    pub fn check(&self) -> std::result::Result<(), StaleReason> {
        let mounts = MountTable::read(Path::new("/"));
        for was in &self.files {
            let path = was.path.display();
            let refuse =
                |how: String| Err(StaleReason::new(ReasonCode::StateChanged, format!("{path} {how}")));
            if mounts.remote(&was.path).is_some() {
                return refuse("lies on a file system that may not answer".to_owned());
            }
            let now = FileEvidence::collect(Path::new("/"), &was.path, was.blake3.is_some());
            match now {
                Ok(now) => match difference(was, &now) {
                    Some(how) => return refuse(how),
                    None => continue,
                },
                Err(error) => return refuse(format!("cannot be examined: {error}")),
            }
        }
        Ok(())
    }

    pub(super) fn encode(&self, path: &Path) -> Result<Vec<u8>> {
        let bytes = postcard::to_stdvec(self)
            .map_err(|error| Error::misuse(path, format!("it cannot be encoded: {error}")))?;
        match bytes.len() as u64 <= StateEvidence::MAX_LEN {
            true => Ok(bytes),
            false => Err(Error::misuse(path, format!("{} bytes are too long", bytes.len()))),
        }
    }

    pub(super) fn decode(bytes: &[u8], path: &Path) -> Result<StateEvidence> {
        let damage = |what: String| Error::corrupt(path, Part::Catalogue, 0, what);
        match postcard::take_from_bytes(bytes) {
            Ok((state, [])) => Ok(state),
            Ok((_, rest)) => Err(damage(format!("{} bytes too many", rest.len()))),
            Err(error) => Err(damage(error.to_string())),
        }
    }
}

/// How a file that was taken has changed. Device numbers are the kernel's own in each boot.
fn difference(was: &FileEvidence, now: &FileEvidence) -> Option<String> {
    let since = "since the service was taken";
    if was.kind != now.kind {
        return Some(match (was.kind, now.kind) {
            (_, FileKind::Absent) => format!("has gone {since}"),
            (FileKind::Absent, _) => format!("has appeared {since}"),
            _ => format!("has become something else {since}"),
        });
    }
    if was.size != now.size && was.kind != FileKind::Dir {
        return Some(format!("was written {since} (size {}, was {})", now.size, was.size));
    }
    if was.ino != now.ino {
        return Some(format!("is another file {since} (inode {}, was {})", now.ino, was.ino));
    }
    if was.mtime_ns != now.mtime_ns {
        let what = if was.kind == FileKind::Dir { "names in it changed" } else { "it was written" };
        return Some(format!("changed {since}: {what}"));
    }
    if was.ctime_ns != now.ctime_ns {
        return Some(format!("changed {since}: it was put back, or its owner or mode was set"));
    }
    let is_same = (was.mode, was.uid, was.gid, was.rdev, was.blake3)
        == (now.mode, now.uid, now.gid, now.rdev, now.blake3);
    (!is_same).then(|| format!("changed {since}, although its times are the same"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    fn dir_with_file() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("data");
        fs::write(&file, "one").unwrap();
        (dir, file)
    }

    fn take(dir: &tempfile::TempDir) -> StateEvidence {
        StateEvidence::collect(&[dir.path().to_owned()], &[]).unwrap()
    }

    #[test]
    fn what_nobody_touches_is_as_it_was() {
        let (dir, _) = dir_with_file();
        let state = take(&dir);
        assert_eq!(state.len(), 2);
        state.check().unwrap();
        assert!(state.differences(&take(&dir)).is_empty());
        let bytes = state.encode(dir.path()).unwrap();
        assert_eq!(StateEvidence::decode(&bytes, dir.path()).unwrap(), state);
    }

    #[test]
    fn a_backup_with_the_same_size_and_time_is_another_file() {
        let (dir, file) = dir_with_file();
        let time = fs::metadata(&file).unwrap().modified().unwrap();
        let state = take(&dir);
        // The change time moves on by ticks.
        std::thread::sleep(Duration::from_millis(20));
        fs::write(&file, "two").unwrap();
        fs::File::options().write(true).open(&file).unwrap().set_modified(time).unwrap();
        let reason = state.check().unwrap_err();
        assert_eq!(reason.code, ReasonCode::StateChanged);
        assert!(reason.sentence.starts_with(&format!("{} changed", file.display())), "{reason}");
        assert_eq!(state.differences(&take(&dir)), [file.as_path()]);
    }

    #[test]
    fn what_came_or_went_is_named() {
        let (dir, file) = dir_with_file();
        let state = take(&dir);
        std::thread::sleep(Duration::from_millis(20));
        fs::write(dir.path().join("more"), "").unwrap();
        assert!(state.check().unwrap_err().sentence.contains("names in it changed"));
        let absent = StateEvidence::collect(&[], &[dir.path().join("later")]).unwrap();
        absent.check().unwrap();
        fs::write(dir.path().join("later"), "").unwrap();
        assert!(absent.check().unwrap_err().sentence.contains("has appeared"));
        let alone = StateEvidence::collect(&[], std::slice::from_ref(&file)).unwrap();
        fs::File::options().write(true).open(&file).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert!(alone.check().unwrap_err().sentence.contains("it was written"));
        fs::remove_file(&file).unwrap();
        assert!(alone.check().unwrap_err().sentence.contains("has gone"));
    }
}
