//! Only the first start of a unit in a boot may come from an image: who restarts a service wants it fresh.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use crate::RunDir;
use crate::file::PRIVATE;

/// Name of the directory.
pub(crate) const DIR_NAME: &str = "asked";

/// One empty file per unit that has asked, below /run: it outlives initd and not the boot.
#[derive(Debug)]
pub struct FirstStarts {
    dir: PathBuf,
}

impl FirstStarts {
    /// Use `asked` in the run directory.
    ///
    /// # Errors
    /// When it cannot be made. Nothing may be restored then.
    pub fn open(run_dir: &RunDir) -> io::Result<FirstStarts> {
        let dir = run_dir.file(DIR_NAME);
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        Ok(FirstStarts { dir })
    }

    /// Note that a unit asks. Whether it is the first time is decided by the file system, so also between threads and
    /// across a restart of initd.
    ///
    /// # Errors
    /// When it cannot be noted; the unit must start cold then.
    pub fn claim(&self, unit: &str) -> io::Result<bool> {
        let mut options = OpenOptions::new();
        match options.write(true).create_new(true).mode(PRIVATE).open(self.dir.join(unit)) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Units that have asked.
    pub fn units(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_claim_of_a_unit_counts_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = RunDir::at(dir.path());
        let first = FirstStarts::open(&run_dir).unwrap();
        assert!(first.claim("a.service").unwrap());
        assert!(!first.claim("a.service").unwrap());
        let again = FirstStarts::open(&run_dir).unwrap();
        assert!(!again.claim("a.service").unwrap());
        assert!(again.claim("b.service").unwrap());
        assert_eq!(again.units().len(), 2);
    }
}
