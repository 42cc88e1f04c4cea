//! Only the first start of a unit in a boot may come from an image: who restarts a service wants it
//! fresh.
//!
//! Whoever connects from the control group of a unit shows that the unit has been started, whatever
//! becomes of the question: too many at one time, a shim that waits no longer, a process that is no
//! shim at all. So the start is noted before anything else.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use crate::RunDir;
use crate::file::PRIVATE;

/// Name of the directory.
pub(crate) const DIR_NAME: &str = "asked";

/// Longest note that is read, in bytes.
const MAX_NOTE_LEN: u64 = 64;

/// A process for good: its number may be another's later, together with the moment of its start it
/// is nobody else's. Executing another program changes neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessId {
    /// In our PID namespace.
    pub pid: i32,
    /// Clock ticks since the kernel was booted, field 22 of proc_pid_stat(5).
    pub start_ticks: u64,
}

/// One file per unit that has asked, below /run: it outlives initd and not the boot.
#[derive(Clone, Debug)]
pub struct FirstStarts {
    dir: PathBuf,
}

/// What a note says about a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is the first.
    First,
    /// There was one before, by this very process: it asks again.
    Again,
    /// There was one before.
    Later,
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

    /// The same, for a unit that may be none of `armed`: then its start does not matter in this
    /// boot, and there is no claim.
    ///
    /// # Errors
    /// As [`claim`](FirstStarts::claim).
    pub fn note(
        &self,
        armed: &BTreeSet<String>,
        unit: &str,
        process: ProcessId,
    ) -> io::Result<Option<Claim>> {
        armed.contains(unit).then(|| self.claim(unit, process)).transpose()
    }

    /// Note that a process of a unit asks. Whether it is the first is decided by the file system,
    /// so also between threads, between initd and its zygote, and across a restart of initd.
    ///
    /// # Errors
    /// When it cannot be noted; the unit must start cold then.
    pub fn claim(&self, unit: &str, process: ProcessId) -> io::Result<Claim> {
        let path = self.dir.join(unit);
        let note = format!("{} {}", process.pid, process.start_ticks);
        let mut options = OpenOptions::new();
        match options.write(true).create_new(true).mode(PRIVATE).open(&path) {
            Ok(mut file) => {
                // The file alone is the claim; the note only helps those who ask again.
                let _ = file.write_all(note.as_bytes());
                Ok(Claim::First)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let mut earlier = String::new();
                fs::File::open(&path)?.take(MAX_NOTE_LEN).read_to_string(&mut earlier)?;
                Ok(if earlier == note { Claim::Again } else { Claim::Later })
            }
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
        let process = |pid| ProcessId { pid, start_ticks: 4711 };
        let first = FirstStarts::open(&RunDir::at(dir.path())).unwrap();
        assert_eq!(first.claim("a.service", process(7)).unwrap(), Claim::First);
        assert_eq!(first.claim("a.service", process(8)).unwrap(), Claim::Later);
        let again = FirstStarts::open(&RunDir::at(dir.path())).unwrap();
        assert_eq!(again.claim("a.service", process(7)).unwrap(), Claim::Again);
        let same_number = ProcessId { pid: 7, start_ticks: 4712 };
        assert_eq!(again.claim("a.service", same_number).unwrap(), Claim::Later);
        assert_eq!(again.claim("b.service", process(9)).unwrap(), Claim::First);
        assert_eq!(again.units().len(), 2);
    }
}
