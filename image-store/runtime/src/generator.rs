//! What the generator decided at the first run of a boot: `generator.json`.
//!
//! Later runs (every `daemon-reload`) repeat it instead of deciding again, so that nothing changes
//! under a running unit. The restore daemon answers only for units that are in front of a shim, and
//! `fastboot status` says why the others are not.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use image_store::{ImageId, ReasonCode, StaleReason, UnitEvidence};
use serde::{Deserialize, Serialize};

use crate::file::{self, PRIVATE};
use crate::{NamedReason, RunDir};

/// Name of the file.
pub const FILE_NAME: &str = "generator.json";
/// Version that is written and read.
pub const VERSION: u32 = 1;
/// Longest file that is read, in bytes.
const MAX_LEN: u64 = 64 << 20;

/// The decisions of one boot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GeneratorRecord {
    /// [`VERSION`].
    pub version: u32,
    /// How often userspace had begun anew by then ([`count`](crate::soft_reboot::count)).
    #[serde(default)]
    pub soft_reboots: u64,
    /// Why there are no decisions at all: the catalogue could not be read.
    #[serde(default)]
    pub error: Option<String>,
    /// One per unit that had an image, by name.
    pub units: Vec<UnitDecision>,
}

/// The decision about one unit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnitDecision {
    /// Name of the unit.
    pub unit: String,
    /// Image that it may be restored from.
    pub image_id: ImageId,
    /// Whether the shim stands in front of its command.
    pub armed: bool,
    /// Why not.
    pub reason_code: Option<ReasonCode>,
    /// The same for people.
    pub reason: Option<String>,
    /// Every reason of the judge, where it was the unit that stood against it.
    #[serde(default)]
    pub obstacles: Vec<NamedReason>,
    /// Why the shim is not in front of an armed unit any more, since systemd was reloaded last.
    #[serde(default)]
    pub withheld: Option<StaleReason>,
    /// `Type=`, when armed.
    pub service_type: Option<String>,
    /// Text of the drop-in, when armed.
    pub drop_in: Option<String>,
    /// Text of the unit that this was decided for.
    pub unit_evidence: UnitEvidence,
}

impl GeneratorRecord {
    /// A record of these decisions.
    pub fn new(units: Vec<UnitDecision>) -> GeneratorRecord {
        GeneratorRecord { version: VERSION, soft_reboots: 0, error: None, units }
    }

    /// A record that says why nothing is decided.
    pub fn undecided(error: impl Into<String>) -> GeneratorRecord {
        GeneratorRecord { error: Some(error.into()), ..GeneratorRecord::new(Vec::new()) }
    }

    /// Where it lies.
    pub fn path(run_dir: &RunDir) -> PathBuf {
        run_dir.file(FILE_NAME)
    }

    /// Read the record of this boot; `None` when there is none yet.
    ///
    /// # Errors
    /// When there is one that cannot be read or understood. Nothing can be repeated then.
    pub fn load(run_dir: &RunDir) -> io::Result<Option<GeneratorRecord>> {
        let record: Option<GeneratorRecord> = file::read_json(&GeneratorRecord::path(run_dir), MAX_LEN)?;
        match record {
            Some(record) if record.version != VERSION => {
                Err(io::Error::other(format!("record of version {}", record.version)))
            }
            record => Ok(record),
        }
    }

    /// Write the record; the file appears complete or not at all. The directory is made where it is
    /// missing.
    ///
    /// # Errors
    /// Any; nothing may be put in front of a unit then.
    pub fn store(&self, run_dir: &RunDir) -> io::Result<()> {
        run_dir.create()?;
        file::replace_json(&GeneratorRecord::path(run_dir), self)
    }

    /// Write the record unless there is one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn store_if_missing(&self, run_dir: &RunDir) -> io::Result<()> {
        run_dir.create()?;
        file::create(&GeneratorRecord::path(run_dir), PRIVATE, &serde_json::to_vec(self)?).map(drop)
    }

    /// Units that have the shim in front of their command.
    pub fn armed(&self) -> BTreeSet<String> {
        self.units.iter().filter(|decision| decision.armed).map(|decision| decision.unit.clone()).collect()
    }

    /// The decision about a unit.
    pub fn unit(&self, name: &str) -> Option<&UnitDecision> {
        self.units.iter().find(|unit| unit.unit == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_record_of_a_boot_stays() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = RunDir::below(dir.path());
        assert_eq!(GeneratorRecord::load(&run_dir).unwrap(), None);
        let first = GeneratorRecord { soft_reboots: 3, ..GeneratorRecord::undecided("no catalogue") };
        first.store_if_missing(&run_dir).unwrap();
        GeneratorRecord::new(Vec::new()).store_if_missing(&run_dir).unwrap();
        assert_eq!(GeneratorRecord::load(&run_dir).unwrap(), Some(first));
        GeneratorRecord::new(Vec::new()).store(&run_dir).unwrap();
        assert_eq!(GeneratorRecord::load(&run_dir).unwrap().unwrap().error, None);
    }
}
