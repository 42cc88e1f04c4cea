//! The worker's working directory, in which a relative address begins.

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::fchdir;
use snap_error::{Error, Result};
use std::os::fd::{BorrowedFd, OwnedFd};

/// Ours of before comes back when this is dropped.
#[derive(Debug)]
pub struct WorkingDirectory {
    before: OwnedFd,
}

impl WorkingDirectory {
    /// # Errors
    /// fchdir(2).
    pub fn enter(directory: BorrowedFd<'_>) -> Result<Self> {
        let before = open(".", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|e| Error::kernel("opening", "our working directory", e))?;
        fchdir(directory).map_err(|e| Error::kernel("fchdir", "a directory of sockets", e))?;
        Ok(Self { before })
    }
}

impl Drop for WorkingDirectory {
    fn drop(&mut self) {
        // Every process goes to its own directory later; a wrong one of ours could only make a
        // relative address fail.
        let _ = fchdir(&self.before);
    }
}
