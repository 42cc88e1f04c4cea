//! `ids.lock`: whoever moves the kernel's counter of process ids, so that a thread gets the next
//! one, holds it.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};

use crate::RunDir;
use crate::file::PRIVATE;

const FILE_NAME: &str = "ids.lock";

/// Open the file, to be locked by `flock(2)`. It is never written. Only root may open it: whoever
/// may can hold the lock, and keep all restores waiting.
///
/// # Errors
/// When it can be neither opened nor made.
pub fn open(run_dir: &RunDir) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(PRIVATE).custom_flags(libc::O_NOFOLLOW);
    let file = options.open(run_dir.file(FILE_NAME))?;
    // One of an earlier version may have been open to everybody.
    file.set_permissions(Permissions::from_mode(PRIVATE))?;
    Ok(file)
}

/// The same, where nobody has needed it so far: then there is nothing to wait for.
pub fn open_if_made(run_dir: &RunDir) -> Option<File> {
    File::open(run_dir.file(FILE_NAME)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn the_lock_is_roots_alone_and_no_link_is_followed_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let (run_dir, path) = (RunDir::at(dir.path()), dir.path().join(FILE_NAME));
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert_eq!(open(&run_dir).unwrap().metadata().unwrap().mode() & 0o777, 0o600);
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), &path).unwrap();
        assert_eq!(open(&run_dir).unwrap_err().raw_os_error(), Some(libc::ELOOP));
        assert!(!dir.path().join("elsewhere").exists());
    }
}
