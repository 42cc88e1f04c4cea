//! Files that appear complete or not at all, and readers that do not read for ever.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Mode of what only root may read: unit texts, image ids.
pub(crate) const PRIVATE: u32 = 0o600;
/// Mode of what tells nothing about anybody.
pub(crate) const PUBLIC: u32 = 0o644;

/// Distinguishes what threads of one process write at the same time.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Replace a file by one with this content.
///
/// # Errors
/// When it cannot be written; then the file is what it was.
pub(crate) fn replace(path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
    place(path, mode, content, |temporary| fs::rename(temporary, path))
}

/// Make a file with this content unless there is one. Returns whether it was made.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn create(path: &Path, mode: u32, content: &[u8]) -> io::Result<bool> {
    // A link is not made over what is there, which a rename would be.
    let made = place(path, mode, content, |temporary| {
        fs::hard_link(temporary, path)?;
        fs::remove_file(temporary)
    });
    match made {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

fn place(
    path: &Path,
    mode: u32,
    content: &[u8],
    into_place: impl FnOnce(&Path) -> io::Result<()>,
) -> io::Result<()> {
    let temporary = temporary_for(path);
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(content)?;
        into_place(&temporary)
    };
    let written = write();
    if written.is_err() {
        // The first error is the one that matters.
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn temporary_for(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    path.with_file_name(format!(".{name}.{}-{number}", std::process::id()))
}

/// The same for a value, as JSON.
///
/// # Errors
/// As [`replace`].
pub(crate) fn replace_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    replace(path, PRIVATE, &serde_json::to_vec(value)?)
}

/// A file of at most `max_len` bytes; `None` when there is none.
///
/// # Errors
/// When it cannot be read, or is longer.
pub(crate) fn read(path: &Path, max_len: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(max_len + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max_len {
        let what = format!("it is longer than {max_len} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    Ok(Some(bytes))
}

/// The same for a value that was written as JSON.
///
/// # Errors
/// As [`read`], and when it is something else.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path, max_len: u64) -> io::Result<Option<T>> {
    let bytes = read(path, max_len)?;
    Ok(bytes.map(|bytes| serde_json::from_slice(&bytes)).transpose()?)
}

/// That something is gone already is what whoever removes it wants.
pub(crate) fn unless_missing(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_whole_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        replace(&path, PRIVATE, b"first").unwrap();
        replace(&path, PUBLIC, b"x").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"x");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        // A directory in its place: the rename fails.
        fs::create_dir(dir.path().join("b.json")).unwrap();
        replace(&dir.path().join("b.json"), PRIVATE, b"x").unwrap_err();
        assert_eq!(names(dir.path()), ["a.json", "b.json"]);
    }

    #[test]
    fn a_file_that_is_there_stays_when_another_would_be_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        assert!(create(&path, PRIVATE, b"first").unwrap());
        assert!(!create(&path, PRIVATE, b"second").unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(names(dir.path()), ["a.json"]);
    }

    #[test]
    fn a_file_longer_than_its_bound_is_refused_and_a_missing_one_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        assert_eq!(read(&path, 4).unwrap(), None);
        fs::write(&path, "1234").unwrap();
        assert_eq!(read(&path, 4).unwrap().unwrap(), b"1234");
        assert_eq!(read_json::<u32>(&path, 4).unwrap(), Some(1234));
        assert_eq!(read(&path, 3).unwrap_err().kind(), io::ErrorKind::InvalidData);
        read_json::<String>(&path, 4).unwrap_err();
    }
}
