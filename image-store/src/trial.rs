//! The trial of a snapshot: leave for one start from an image that is in no catalogue yet.
//!
//! `fastboot snapshot` writes a leave per unit, has systemd read its units again (the generator puts the shim in front
//! of them) and restarts them; the restore daemon takes each leave once and writes down what became of it. All of it is
//! below /run and only counts while the snapshot holds the lock of the store.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::catalogue::CatalogueEntry;
use crate::quarantine::read_bounded;

/// Where leaves are.
pub const TRIAL_DIR: &str = "/run/fastboot/trial";
/// Longest file that is read, in bytes.
const MAX_LEN: u64 = 16 << 20;

/// The leaves of one snapshot.
#[derive(Clone, Debug)]
pub struct Trials {
    dir: PathBuf,
}

impl Trials {
    /// Leaves in this directory, which need not exist.
    pub fn open(dir: impl Into<PathBuf>) -> Trials {
        Trials { dir: dir.into() }
    }

    /// Let the next start of the entry's unit come from its image.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn allow(&self, entry: &CatalogueEntry) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        self.write(&entry.unit, "leave", entry)
    }

    /// Every leave that has not been taken.
    pub fn all(&self) -> Vec<CatalogueEntry> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let leaves =
            entries.map(|entry| entry.path()).filter(|path| path.extension() == Some("leave".as_ref()));
        let mut all: Vec<CatalogueEntry> = leaves.filter_map(|path| read(&path).ok()).collect();
        all.sort_by(|a, b| a.unit.cmp(&b.unit));
        all
    }

    /// Take the leave of a unit. There is one.
    pub fn claim(&self, unit: &str) -> Option<CatalogueEntry> {
        let taken = self.path(unit, "taken");
        // Renaming decides between two that want the same one.
        fs::rename(self.path(unit, "leave"), &taken).ok()?;
        read(&taken).ok().filter(|entry: &CatalogueEntry| entry.unit == unit)
    }

    /// Write down what became of a start.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn report(&self, unit: &str, outcome: &impl Serialize) -> io::Result<()> {
        self.write(unit, "outcome", outcome)
    }

    /// What became of it; `None` when nobody has written that down.
    ///
    /// # Errors
    /// When it cannot be read or understood.
    pub fn outcome<T: DeserializeOwned>(&self, unit: &str) -> io::Result<Option<T>> {
        match read(&self.path(unit, "outcome")) {
            Ok(outcome) => Ok(Some(outcome)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Withdraw everything.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn clear(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn path(&self, unit: &str, extension: &str) -> PathBuf {
        self.dir.join(format!("{unit}.{extension}"))
    }

    fn write(&self, unit: &str, extension: &str, value: &impl Serialize) -> io::Result<()> {
        let path = self.path(unit, extension);
        let temporary = self.path(unit, "new");
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(&serde_json::to_vec(value)?)?;
        fs::rename(temporary, path)
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    Ok(serde_json::from_slice(&read_bounded(path, MAX_LEN)?)?)
}
