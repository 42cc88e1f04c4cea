//! `ids.lock`: whoever moves the kernel's counter of process ids, so that a thread gets the next one, holds it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;

use crate::RunDir;
use crate::file::PRIVATE;

const FILE_NAME: &str = "ids.lock";

/// Open the file, to be locked by `flock(2)`. It is never written.
///
/// # Errors
/// When it can be neither opened nor made.
pub fn open(run_dir: &RunDir) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(PRIVATE).open(run_dir.file(FILE_NAME))
}

/// The same, where nobody has needed it so far: then there is nothing to wait for.
pub fn open_if_made(run_dir: &RunDir) -> Option<File> {
    File::open(run_dir.file(FILE_NAME)).ok()
}
