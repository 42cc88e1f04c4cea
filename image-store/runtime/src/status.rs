//! What became of each unit in this boot: `status.json`. `fastboot status --json` prints the same
//! form.
//!
//! ```json
//! {"boot_id": "…", "error": null, "units": [{"unit": "redis-server.service", "outcome": "restored", "reason_code": null,
//!   "reason": null, "restore_ms": 3.1, "main_pid": 300001, "image_id": "…",
//!   "phases_ms": {"queue": 0.1, "evidence": 0.7, …}, "requested_monotonic_us": 812345, "done_monotonic_us": 815502}]}
//! ```

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use image_store::{ImageId, ReasonCode};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::RunDir;
use crate::file;

/// Name of the file.
pub const FILE_NAME: &str = "status.json";
/// `STATUS=` of a restored service that says nothing of itself; no service's own word.
pub const STATUS_TEXT: &str = "Restored from its image by fastboot";
/// Longest file that is read, in bytes.
const MAX_LEN: u64 = 64 << 20;

/// The file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BootStatus {
    /// `/proc/sys/kernel/random/boot_id` without dashes.
    pub boot_id: String,
    /// Why this boot looked at no image at all; `fastboot status` fills it in.
    #[serde(default)]
    pub error: Option<String>,
    /// By name. In the file, a unit that has not asked yet is missing.
    pub units: Vec<UnitStatus>,
}

/// How a unit was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// From its image.
    Restored,
    /// The ordinary way.
    Cold,
    /// Armed, and not started in this boot so far; never in the file.
    Waiting,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::Restored => "restored",
            Outcome::Cold => "cold",
            Outcome::Waiting => "waiting",
        })
    }
}

/// The first start of a unit in this boot, or in a trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnitStatus {
    /// Its name.
    pub unit: String,
    /// How it was started.
    pub outcome: Outcome,
    /// Why not from its image.
    pub reason_code: Option<ReasonCode>,
    /// The same for people.
    pub reason: Option<String>,
    /// From the order to the worker until the tree runs as children of PID 1, in milliseconds.
    pub restore_ms: Option<f64>,
    /// Main process after a restore.
    pub main_pid: Option<i32>,
    /// The image.
    pub image_id: Option<ImageId>,
    /// Where the time between the two moments below went.
    #[serde(default)]
    pub phases_ms: Phases,
    /// When the shim asked, `CLOCK_MONOTONIC`.
    pub requested_monotonic_us: Option<u64>,
    /// When systemd had taken over, or the shim was told to start the service cold.
    pub done_monotonic_us: Option<u64>,
}

/// Phases of a start in their order, each with its milliseconds. Their names are unique, so that
/// they are a map in JSON.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Phases(pub Vec<(String, f64)>);

impl Serialize for Phases {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, ms)| (name, ms)))
    }
}

impl<'de> Deserialize<'de> for Phases {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Phases, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Phases;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of milliseconds by phase")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Phases, M::Error> {
                let mut phases = Vec::new();
                while let Some(phase) = map.next_entry()? {
                    phases.push(phase);
                }
                Ok(Phases(phases))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

impl UnitStatus {
    /// A unit that starts cold.
    pub fn cold(unit: &str, code: ReasonCode, reason: &str) -> UnitStatus {
        UnitStatus {
            unit: unit.to_owned(),
            outcome: Outcome::Cold,
            reason_code: Some(code),
            reason: Some(reason.to_owned()),
            restore_ms: None,
            main_pid: None,
            image_id: None,
            phases_ms: Phases::default(),
            requested_monotonic_us: None,
            done_monotonic_us: None,
        }
    }
}

impl BootStatus {
    /// Where it lies.
    pub fn path(run_dir: &RunDir) -> PathBuf {
        run_dir.file(FILE_NAME)
    }

    /// What the restore daemon has recorded in the boot of this id so far; nothing when it has not
    /// run.
    ///
    /// # Errors
    /// When there is a file that cannot be read or understood.
    pub fn load(run_dir: &RunDir, boot_id: &str) -> io::Result<BootStatus> {
        let recorded: Option<BootStatus> = file::read_json(&BootStatus::path(run_dir), MAX_LEN)?;
        let of_this_boot = recorded.filter(|status| status.boot_id == boot_id);
        Ok(of_this_boot
            .unwrap_or_else(|| BootStatus { boot_id: boot_id.to_owned(), ..BootStatus::default() }))
    }
}

/// The file and what is in it, for the one process that writes it.
#[derive(Debug)]
pub struct StatusFile {
    path: PathBuf,
    status: Mutex<BootStatus>,
}

impl StatusFile {
    /// Continue the file of this boot, or begin one.
    pub fn open(run_dir: &RunDir, boot_id: &str) -> StatusFile {
        let status = BootStatus::load(run_dir, boot_id)
            .unwrap_or_else(|_| BootStatus { boot_id: boot_id.to_owned(), ..BootStatus::default() });
        StatusFile { path: BootStatus::path(run_dir), status: Mutex::new(status) }
    }

    /// Enter units, each in the place of an earlier entry of that name, and write the file.
    ///
    /// # Errors
    /// When it cannot be written; the entries are kept for the next time.
    pub fn enter(&self, units: impl IntoIterator<Item = UnitStatus>) -> io::Result<()> {
        // Before the lock: the iterator may ask this file who is in it.
        let units: Vec<UnitStatus> = units.into_iter().collect();
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        for unit in units {
            status.units.retain(|other| other.unit != unit.unit);
            status.units.push(unit);
        }
        status.units.sort_by(|a, b| a.unit.cmp(&b.unit));
        file::replace_json(&self.path, &*status)
    }

    /// Notes what became of a unit after it was entered, and writes the file. A unit that is not
    /// entered stays so.
    ///
    /// # Errors
    /// When it cannot be written; the note is kept for the next time.
    pub fn note(&self, unit: &str, code: ReasonCode, sentence: &str) -> io::Result<()> {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(row) = status.units.iter_mut().find(|row| row.unit == unit) else { return Ok(()) };
        (row.reason_code, row.reason) = (Some(code), Some(sentence.to_owned()));
        file::replace_json(&self.path, &*status)
    }

    /// How many units have come to this end.
    pub fn count(&self, outcome: Outcome) -> usize {
        let status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.units.iter().filter(|unit| unit.outcome == outcome).count()
    }

    /// Whether there is an entry for this unit.
    pub fn has(&self, unit: &str) -> bool {
        let status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.units.iter().any(|other| other.unit == unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_file_has_the_documented_form_and_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = RunDir::at(dir.path());
        let file = StatusFile::open(&run_dir, "boot");
        file.enter([UnitStatus::cold("b.service", ReasonCode::FileChanged, "/etc/x changed")]).unwrap();
        let again = StatusFile::open(&run_dir, "boot");
        let restored = UnitStatus {
            outcome: Outcome::Restored,
            restore_ms: Some(1.5),
            phases_ms: Phases(vec![("read".to_owned(), 0.25), ("evidence".to_owned(), 0.5)]),
            ..UnitStatus::cold("a.service", ReasonCode::NoImage, "")
        };
        again.enter([restored.clone()]).unwrap();
        let text = fs::read_to_string(dir.path().join(FILE_NAME)).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["boot_id"], "boot");
        assert_eq!(value["units"][0]["outcome"], "restored");
        assert_eq!(value["units"][0]["restore_ms"], 1.5);
        assert_eq!(value["units"][0]["phases_ms"]["evidence"], 0.5);
        assert_eq!(value["units"][1]["reason_code"], "file-changed");
        assert_eq!(value["units"][1]["reason"], "/etc/x changed");
        assert_eq!(BootStatus::load(&run_dir, "boot").unwrap().units[0], restored);
        assert!(!StatusFile::open(&run_dir, "other boot").has("a.service"));
    }

    #[test]
    fn an_outcome_is_called_the_same_in_the_file_and_in_a_table() {
        for outcome in [Outcome::Restored, Outcome::Cold, Outcome::Waiting] {
            assert_eq!(serde_json::to_value(outcome).unwrap(), outcome.to_string());
        }
    }

    /// A restore daemon that was started after another had died stood still here, and with it every
    /// later start.
    #[test]
    fn regression_units_that_are_entered_may_depend_on_who_is_in_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = RunDir::at(dir.path());
        let (done, is_done) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let file = StatusFile::open(&run_dir, "boot");
            let names = ["a.service", "b.service"].into_iter().filter(|name| !file.has(name));
            let cold = names.map(|name| UnitStatus::cold(name, ReasonCode::InitdUnavailable, ""));
            done.send(file.enter(cold).is_ok() && file.has("b.service")).unwrap();
        });
        assert_eq!(is_done.recv_timeout(std::time::Duration::from_secs(20)), Ok(true));
    }
}
