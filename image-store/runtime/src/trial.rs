//! The trial of a snapshot: a permit for one start from an image that is in no catalogue yet.
//!
//! `fastboot snapshot` writes a permit per unit, has systemd read its units again (the generator
//! puts the shim in front of them) and restarts them; the restore daemon takes each permit once and
//! writes down what became of it. So does the generator for a unit that it leaves alone. All of it
//! is below /run and only counts while the snapshot holds the lock of the store.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use image_store::CatalogueEntry;
use image_store::evidence::StartEvidence;

use crate::file::{self, unless_missing};
use crate::{RunDir, UnitStatus};

/// Name of the directory.
pub(crate) const DIR_NAME: &str = "trial";
/// Longest file that is read, in bytes.
const MAX_LEN: u64 = 16 << 20;
const PERMIT: &str = "permit";

/// The permits of one snapshot.
#[derive(Clone, Debug)]
pub struct Trials {
    dir: PathBuf,
}

impl Trials {
    /// Permits in the run directory, of which there may be none.
    pub fn open(run_dir: &RunDir) -> Trials {
        Trials { dir: run_dir.file(DIR_NAME) }
    }

    /// Where they are.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Let the next start of the entry's unit come from its image.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn allow(&self, entry: &CatalogueEntry) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        file::replace_json(&self.file(&entry.unit, PERMIT), entry)
    }

    /// Every permit that has not been taken.
    pub fn all(&self) -> Vec<CatalogueEntry> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let permits =
            entries.map(|entry| entry.path()).filter(|path| path.extension() == Some(PERMIT.as_ref()));
        let mut all: Vec<CatalogueEntry> = permits.filter_map(|path| read_permit(&path)).collect();
        all.sort_by(|a, b| a.unit.cmp(&b.unit));
        all
    }

    /// Take the permit of a unit. There is one.
    pub fn claim(&self, unit: &str) -> Option<CatalogueEntry> {
        let taken = self.file(unit, "taken");
        // Renaming decides between two that want the same one.
        fs::rename(self.file(unit, PERMIT), &taken).ok()?;
        read_permit(&taken).filter(|entry| entry.unit == unit)
    }

    /// Withdraw the permit of a unit, whether it was taken or not. What became of the start stays
    /// known.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn withdraw(&self, unit: &str) -> io::Result<()> {
        unless_missing(fs::remove_file(self.file(unit, PERMIT)))?;
        unless_missing(fs::remove_file(self.file(unit, "taken")))
    }

    /// Write down what became of a start.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn report(&self, outcome: &UnitStatus) -> io::Result<()> {
        file::replace_json(&self.file(&outcome.unit, "outcome"), outcome)
    }

    /// What became of it; `None` when nobody has written that down.
    ///
    /// # Errors
    /// When it cannot be read or understood.
    pub fn outcome(&self, unit: &str) -> io::Result<Option<UnitStatus>> {
        file::read_json(&self.file(unit, "outcome"), MAX_LEN)
    }

    /// Write down how systemd has started the unit.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn record_start(&self, unit: &str, start: &StartEvidence) -> io::Result<()> {
        file::replace_json(&self.file(unit, "start"), start)
    }

    /// How systemd has started it; `None` when nobody has written that down.
    ///
    /// # Errors
    /// When it cannot be read or understood.
    pub fn start(&self, unit: &str) -> io::Result<Option<StartEvidence>> {
        file::read_json(&self.file(unit, "start"), MAX_LEN)
    }

    /// Withdraw everything.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn clear(&self) -> io::Result<()> {
        unless_missing(fs::remove_dir_all(&self.dir))
    }

    fn file(&self, unit: &str, extension: &str) -> PathBuf {
        self.dir.join(format!("{unit}.{extension}"))
    }
}

/// One that cannot be read allows nothing.
fn read_permit(path: &Path) -> Option<CatalogueEntry> {
    file::read_json(path, MAX_LEN).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permit_that_was_withdrawn_lets_nobody_start() {
        let dir = tempfile::tempdir().unwrap();
        let trials = Trials::open(&RunDir::at(dir.path()));
        DirBuilder::new().recursive(true).create(trials.path()).unwrap();
        let permit = |unit: &str| fs::write(trials.file(unit, PERMIT), "{}").unwrap();
        permit("a.service");
        permit("b.service");
        trials.withdraw("a.service").unwrap();
        assert!(!trials.file("a.service", PERMIT).exists() && trials.file("b.service", PERMIT).exists());
        assert!(trials.claim("a.service").is_none());
        // One that was taken goes too, and nothing is missed.
        assert!(trials.claim("b.service").is_none(), "it allows nothing: it is no entry");
        assert!(trials.file("b.service", "taken").exists());
        trials.withdraw("b.service").unwrap();
        trials.withdraw("b.service").unwrap();
        assert_eq!(fs::read_dir(trials.path()).unwrap().count(), 0);
    }
}
