//! What became of each image in this boot.
//!
//! Two files of this boot say it: initd's record of the starts that it answered, and before that
//! the generator's record of the units that it armed.

use super::chain::{self, Link};
use super::history::{ColdStart, PastBoot};
use super::summary::Summary;
use super::times::Chains;
use crate::unit::Systemd;
use fastboot_runtime::{BootStatus, GeneratorRecord, Outcome, RunDir, UnitDecision, UnitStatus, cmdline};
use image_store::{Catalogue, CatalogueEntry, ErrorKind, ReasonCode, StaleReason, Store};
use serde::Serialize;
use snap_error::{Error, Result};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

const BOOT_ID_FILE: &str = "/proc/sys/kernel/random/boot_id";
/// How often the record is looked at, and how long apart.
const LOOKS: u32 = 6;
const PAUSE: Duration = Duration::from_millis(50);

/// This boot.
#[derive(Debug, Serialize)]
pub struct BootReport {
    pub boot_id: String,
    /// Why this boot looked at no image at all.
    pub error: Option<String>,
    /// All of it in one sentence.
    pub summary: String,
    /// From the start of userspace until the last service was there, in milliseconds; `None` while
    /// that is not over, or without a bus.
    pub boot_ms: Option<f64>,
    /// The same if every restored service had started cold, by its measured cold start.
    pub cold_boot_ms: Option<f64>,
    pub gain_ms: Option<f64>,
    pub units: Vec<UnitRow>,
}

/// A unit with an image, in this boot.
#[derive(Debug, Serialize)]
pub struct UnitRow {
    #[serde(flatten)]
    pub status: UnitStatus,
    /// From systemd's start of it until it had taken over, for one that was restored.
    pub start_ms: Option<f64>,
    /// Its cold start as the snapshot has measured it, and what was gained over that.
    pub cold_start_ms: Option<f64>,
    pub gain_ms: Option<f64>,
}

impl BootReport {
    /// Looks at this boot.
    ///
    /// # Errors
    /// When a record cannot be read.
    pub fn collect(store: &Store) -> Result<Self> {
        let boot_id = boot_id()?;
        let run_dir = RunDir::default();
        let of_file = |path: &Path| {
            let path = path.display().to_string();
            move |e: std::io::Error| Error::io("read", path, &e)
        };
        let generator = GeneratorRecord::load(&run_dir).map_err(of_file(&GeneratorRecord::path(&run_dir)))?;
        // A catalogue that is damaged ends in cold starts, and to say so is what this is for.
        let (catalogue, damage) = match store.load() {
            Ok(catalogue) => (catalogue, None),
            Err(error) if error.kind() == ErrorKind::Io => return Err(error.into()),
            Err(error) => (Catalogue::default(), Some(error.to_string())),
        };
        let is_off = generator.is_none() && cmdline::is_off(&cmdline::read(Path::new("/")));
        let error = generator.as_ref().and_then(|record| record.error.clone()).or(damage);
        let armed = generator.iter().flat_map(|record| &record.units).map(|unit| unit.unit.as_str());
        let mut names: Vec<&str> = catalogue.units().into_iter().chain(armed).collect();
        names.sort_unstable();
        names.dedup();
        let mut units = answered(&run_dir, &boot_id, generator.as_ref())?;
        for name in names {
            if !units.iter().any(|row| row.unit == name) {
                units.push(without_answer(name, generator.as_ref(), is_off, &catalogue));
            }
        }
        units.sort_by(|a, b| a.unit.cmp(&b.unit));
        let systemd = Systemd::connect().ok();
        let units: Vec<UnitRow> =
            units.into_iter().map(|status| row(systemd.as_ref(), status, &catalogue)).collect();
        let times = systemd.as_ref().and_then(|systemd| boot_times(systemd, &units));
        let (boot_ms, cold_boot_ms) = times.unzip();
        let gain_ms = boot_ms.zip(cold_boot_ms).map(|(boot_ms, cold_ms)| cold_ms - boot_ms);
        let summary = summary(&units, error.clone(), is_off, gain_ms).to_string();
        Ok(Self { boot_id, error, summary, boot_ms, cold_boot_ms, gain_ms, units })
    }

    /// How it goes into the history.
    pub fn to_past(&self, store: &Store) -> PastBoot {
        let cold = self.units.iter().filter(|unit| unit.status.outcome == Outcome::Cold);
        let catalogue = store.load().unwrap_or_default();
        let bad = catalogue
            .newest_images()
            .into_iter()
            .filter(|(_, entry)| store.is_quarantined(entry.image_id).is_ok_and(|record| record.is_some()));
        PastBoot {
            boot_id: self.boot_id.clone(),
            unix_s: image_store::now_unix_s(),
            summary: self.summary.clone(),
            restored: self.count(Outcome::Restored),
            cold: cold
                .map(|unit| ColdStart {
                    unit: unit.status.unit.clone(),
                    code: unit.status.reason_code.map(|code| code.as_str().to_owned()),
                    reason: unit.status.reason.clone().unwrap_or_default(),
                })
                .collect(),
            boot_ms: self.boot_ms,
            cold_boot_ms: self.cold_boot_ms,
            gain_ms: self.gain_ms,
            quarantined: bad.map(|(_, entry)| entry.unit.clone()).collect(),
        }
    }

    /// Units with this outcome.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.units.iter().filter(|unit| unit.status.outcome == outcome).count()
    }
}

/// The kernel's id of this boot, without dashes.
///
/// # Errors
/// Without /proc.
pub fn boot_id() -> Result<String> {
    let text = std::fs::read_to_string(BOOT_ID_FILE).map_err(|e| Error::io("read", BOOT_ID_FILE, &e))?;
    Ok(text.trim().replace('-', ""))
}

fn summary(units: &[UnitRow], error: Option<String>, is_off: bool, gain_ms: Option<f64>) -> Summary {
    let of = |outcome| units.iter().map(|unit| &unit.status).filter(move |unit| unit.outcome == outcome);
    let cold = of(Outcome::Cold).map(|unit| (unit.unit.clone(), unit.reason.clone().unwrap_or_default()));
    Summary {
        error,
        is_off,
        restored: of(Outcome::Restored).count(),
        cold: cold.collect(),
        waiting: of(Outcome::Waiting).count(),
        gain_ms,
    }
}

fn row(systemd: Option<&Systemd>, mut status: UnitStatus, catalogue: &Catalogue) -> UnitRow {
    add_systemd(systemd, &mut status);
    let is_restored = status.outcome == Outcome::Restored;
    let entry = status.image_id.and_then(|id| catalogue.by_image_id(id));
    let cold_start_ms = entry.and_then(|entry| entry.service.cold_start_ms);
    let spent_ms = status.phases_ms.0.iter().map(|(_, ms)| ms).sum::<f64>();
    let start_ms = Some((spent_ms * 10.0).round() / 10.0).filter(|ms| is_restored && *ms > 0.0);
    let gain_ms = cold_start_ms.zip(start_ms).map(|(cold_ms, start_ms)| cold_ms - start_ms);
    UnitRow { status, start_ms, cold_start_ms, gain_ms }
}

/// What initd has recorded. A unit becomes active a moment before its record is written: one that
/// was armed, has started and is not in there is looked for again, for as long as a boot may still
/// be at it.
fn answered(run_dir: &RunDir, boot_id: &str, generator: Option<&GeneratorRecord>) -> Result<Vec<UnitStatus>> {
    let mut looks_left = LOOKS;
    loop {
        let recorded = BootStatus::load(run_dir, boot_id);
        let path = BootStatus::path(run_dir);
        let units = recorded.map_err(|e| Error::io("read", path.display(), &e))?.units;
        let armed = generator.iter().flat_map(|record| &record.units).filter(|unit| unit.armed);
        let mut silent = armed.filter(|unit| !units.iter().any(|row| row.unit == unit.unit));
        looks_left -= 1;
        if looks_left == 0 || !silent.any(|unit| has_started(&unit.unit)) {
            return Ok(units);
        }
        std::thread::sleep(PAUSE);
    }
}

/// The record of the unit of an entry in this boot, where it started cold.
fn cold_row(entry: &CatalogueEntry) -> Option<UnitStatus> {
    let recorded = BootStatus::load(&RunDir::default(), &boot_id().ok()?).ok()?;
    let is_it = |row: &UnitStatus| row.unit == entry.unit && row.outcome == Outcome::Cold;
    recorded.units.into_iter().find(is_it).filter(|row| row.image_id == Some(entry.image_id))
}

/// What this boot did not find when it asked for the image of an entry. It may have come since: the
/// next boot may ask as early.
pub fn missing_in_this_boot(entry: &CatalogueEntry) -> Option<StaleReason> {
    let row = cold_row(entry).filter(|row| row.reason_code == Some(ReasonCode::FileMissing))?;
    let reason = row.reason.as_deref()?;
    let sentence =
        format!("{reason}, said this boot when the service started; the next one may find the same");
    Some(StaleReason::new(ReasonCode::FileMissing, sentence))
}

/// Why this boot has not used the image of an entry, where it was asked for.
pub fn cold_in_this_boot(entry: &CatalogueEntry) -> Option<String> {
    let row = cold_row(entry)?;
    // Who restarts a service wants it fresh; that says nothing of the image.
    let (code, reason) = (row.reason_code?, row.reason.as_deref()?);
    (code != ReasonCode::NotFirstStart).then(|| format!("started cold in this boot: {reason} ({code})"))
}

/// What can be said of a unit that initd has not answered.
fn without_answer(
    name: &str,
    generator: Option<&GeneratorRecord>,
    is_off: bool,
    catalogue: &Catalogue,
) -> UnitStatus {
    let image_id = catalogue.newest(name).map(|(_, entry)| entry.image_id);
    let cold =
        |code: ReasonCode, reason: &str| UnitStatus { image_id, ..UnitStatus::cold(name, code, reason) };
    let Some(generator) = generator else {
        let why = match is_off {
            true => "switched off by fastboot=0 on the kernel command line",
            false => "fastboot-generator did not run in this boot, or was not done in time",
        };
        return cold(ReasonCode::Disabled, why);
    };
    match generator.unit(name) {
        None => cold(ReasonCode::NoImage, "there was no image of it when this boot began"),
        Some(unit) if !unit.armed => UnitStatus {
            reason_code: unit.reason_code,
            reason: unit.reason.clone(),
            ..cold(ReasonCode::Disabled, "")
        },
        Some(UnitDecision { withheld: Some(reason), .. }) => cold(reason.code, &reason.sentence),
        Some(_) if has_started(name) => {
            cold(ReasonCode::InitdUnavailable, "the restore daemon did not answer when it started")
        }
        Some(_) => UnitStatus {
            outcome: Outcome::Waiting,
            reason_code: None,
            ..cold(ReasonCode::Disabled, "not started in this boot so far")
        },
    }
}

/// What systemd did before the shim could ask: commands before the start, the sandbox, the shim
/// itself. Not known any more when the unit has been started again.
fn add_systemd(systemd: Option<&Systemd>, row: &mut UnitStatus) {
    let Some(requested_us) = row.requested_monotonic_us else { return };
    let unit = systemd.and_then(|systemd| systemd.properties(&row.unit).ok());
    let before = unit.and_then(|unit| requested_us.checked_sub(unit.inactive_exit_us));
    if let Some(before_us) = before {
        row.phases_ms.0.insert(0, ("systemd".to_owned(), before_us as f64 / 1e3));
    }
}

/// Whether it was started in this boot; not known without a bus.
fn has_started(name: &str) -> bool {
    Systemd::connect().and_then(|systemd| systemd.properties(name)).is_ok_and(|unit| unit.active_enter_us > 0)
}

/// How long this boot took, and how long it would have taken with cold starts. `None` while it is
/// not over.
fn boot_times(systemd: &Systemd, rows: &[UnitRow]) -> Option<(f64, f64)> {
    let Chains { userspace_us, mut links, .. } = Chains::read(systemd).ok()??;
    let mut cold_us = BTreeMap::new();
    for row in rows.iter().filter(|row| row.status.outcome == Outcome::Restored) {
        let (Some(requested_us), Some(done_us)) =
            (row.status.requested_monotonic_us, row.status.done_monotonic_us)
        else {
            continue;
        };
        let link = links.iter_mut().find(|link| link.name == row.status.unit);
        // One that was started again since has left no trace but this.
        let link = match link {
            Some(link) => link,
            None => {
                let name = row.status.unit.clone();
                links.push(Link { name, start_us: requested_us, done_us, ..Link::default() });
                links.last_mut()?
            }
        };
        link.ready_us = link.ready_us.max(done_us);
        cold_us.extend(row.cold_start_ms.map(|ms| (row.status.unit.clone(), (ms * 1e3) as u64)));
    }
    let since_us = |us: u64| us.saturating_sub(userspace_us) as f64 / 1e3;
    let ended_us = chain::end_us(&links, &BTreeMap::new());
    Some((since_us(ended_us), since_us(chain::end_us(&links, &cold_us))))
}
