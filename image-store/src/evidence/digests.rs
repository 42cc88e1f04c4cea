//! Digests of files that several images depend on, each taken once as long as the file stays as it
//! is.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::file::{FileEvidence, content_digest};
use crate::digest::Digest;

/// A file in one state: whoever writes to it changes one of its times.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    path: PathBuf,
    dev: Option<u64>,
    ino: u64,
    size: u64,
    mtime_ns: i64,
    ctime_ns: i64,
}

/// What has been read so far. Two that want the same file at once may both read it.
#[derive(Debug, Default)]
pub struct Digests(Mutex<HashMap<Key, Option<Digest>>>);

impl Digests {
    /// Digest of the content of `real`, which was found to be as `now` says.
    pub(super) fn of(&self, real: &Path, now: &FileEvidence) -> io::Result<Option<Digest>> {
        let key = Key {
            path: real.to_owned(),
            dev: now.dev,
            ino: now.ino,
            size: now.size,
            mtime_ns: now.mtime_ns,
            ctime_ns: now.ctime_ns,
        };
        if let Some(known) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(*known);
        }
        let digest = content_digest(real, now.kind)?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key, digest);
        Ok(digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_once_until_it_changes() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "one").unwrap();
        let digests = Digests::default();
        let look = || FileEvidence::collect(Path::new("/"), file.path(), false).unwrap();
        let first = look();
        assert_eq!(digests.of(file.path(), &first).unwrap(), Some(Digest::of(b"one")));
        std::fs::write(file.path(), "two!").unwrap();
        // Known by the state that it was asked for in.
        assert_eq!(digests.of(file.path(), &first).unwrap(), Some(Digest::of(b"one")));
        assert_eq!(digests.of(file.path(), &look()).unwrap(), Some(Digest::of(b"two!")));
    }
}
