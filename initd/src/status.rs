//! What became of each unit in this boot: `/run/fastboot/status.json`, mode 0600, replaced by rename.
//!
//! ```json
//! {"boot_id": "…", "units": [{"unit": "redis-server.service", "outcome": "restored", "reason_code": null,
//!   "reason": null, "restore_ms": 3.1, "main_pid": 300001, "image_id": "…",
//!   "phases": [["queue", 0.1], ["evidence", 0.7], …], "requested_monotonic_us": 812345, "done_monotonic_us": 815502}]}
//! ```

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use image_store::ReasonCode;
use serde::{Deserialize, Serialize};

/// File name below `/run/fastboot`.
pub const FILE_NAME: &str = "status.json";

/// The file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BootStatus {
    /// `/proc/sys/kernel/random/boot_id` without dashes.
    pub boot_id: String,
    /// By name. A unit that has not asked yet is not in it.
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
}

/// The first start of a unit in this boot.
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
    pub image_id: Option<String>,
    /// Where the time between the two moments below went, in order: phase and milliseconds.
    #[serde(default)]
    pub phases: Vec<(String, f64)>,
    /// When the shim asked, `CLOCK_MONOTONIC`.
    pub requested_monotonic_us: Option<u64>,
    /// When systemd had taken over, or the shim was told to start the service cold.
    pub done_monotonic_us: Option<u64>,
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
            phases: Vec::new(),
            requested_monotonic_us: None,
            done_monotonic_us: None,
        }
    }
}

/// The file and what is in it.
#[derive(Debug)]
pub struct StatusFile {
    path: PathBuf,
    status: Mutex<BootStatus>,
}

impl StatusFile {
    /// Continue the file of this boot, or begin one.
    pub fn open(run_dir: &Path, boot_id: &str) -> StatusFile {
        let path = run_dir.join(FILE_NAME);
        let earlier =
            fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<BootStatus>(&bytes).ok());
        let status = earlier.filter(|status| status.boot_id == boot_id);
        let status = status.unwrap_or_else(|| BootStatus { boot_id: boot_id.to_owned(), units: Vec::new() });
        StatusFile { path, status: Mutex::new(status) }
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
        let temporary = self.path.with_extension("json.new");
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(&serde_json::to_vec(&*status)?)?;
        fs::rename(&temporary, &self.path)
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

    #[test]
    fn the_file_has_the_documented_form_and_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let file = StatusFile::open(dir.path(), "boot");
        file.enter([UnitStatus::cold("b.service", ReasonCode::FileChanged, "/etc/x changed")]).unwrap();
        let again = StatusFile::open(dir.path(), "boot");
        let restored = UnitStatus {
            outcome: Outcome::Restored,
            restore_ms: Some(1.5),
            ..UnitStatus::cold("a.service", ReasonCode::NoImage, "")
        };
        again.enter([restored]).unwrap();
        let text = fs::read_to_string(dir.path().join(FILE_NAME)).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["boot_id"], "boot");
        assert_eq!(value["units"][0]["outcome"], "restored");
        assert_eq!(value["units"][0]["restore_ms"], 1.5);
        assert_eq!(value["units"][1]["reason_code"], "file-changed");
        assert_eq!(value["units"][1]["reason"], "/etc/x changed");
        assert!(!StatusFile::open(dir.path(), "other boot").has("a.service"));
    }

    /// A restore daemon that was started after another had died stood still here, and with it every later start.
    #[test]
    fn regression_units_that_are_entered_may_depend_on_who_is_in_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        let (done, is_done) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let file = StatusFile::open(&path, "boot");
            let names = ["a.service", "b.service"].into_iter().filter(|name| !file.has(name));
            let cold = names.map(|name| UnitStatus::cold(name, ReasonCode::InitdUnavailable, ""));
            done.send(file.enter(cold).is_ok() && file.has("b.service")).unwrap();
        });
        assert_eq!(is_done.recv_timeout(std::time::Duration::from_secs(20)), Ok(true));
    }
}
