//! `fastboot status`: what became of each image in this boot.
//!
//! Two files of this boot say it: initd's record of the starts that it answered, and before that the generator's record
//! of the units that it armed.

use super::common::{StoreArgs, ms, table};
use anyhow::Context as _;
use daemon_snap::unit::Systemd;
use image_store::{Catalogue, ErrorKind, ReasonCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize, Serializer};
use std::io;
use std::path::Path;
use std::time::Duration;

/// Written by fastboot-initd.
const STATUS_FILE: &str = "/run/fastboot/status.json";
/// Written by fastboot-generator.
const GENERATOR_FILE: &str = "/run/fastboot/generator.json";
const BOOT_ID_FILE: &str = "/proc/sys/kernel/random/boot_id";
/// How often the record is looked at, and how long apart.
const LOOKS: u32 = 6;
const PAUSE: Duration = Duration::from_millis(50);

/// Say for this boot which services were restored, and which started cold and why
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct BootStatus {
    boot_id: String,
    /// Why this boot looked at no image at all: the catalogue could not be used.
    #[serde(default)]
    error: Option<String>,
    units: Vec<UnitStatus>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct UnitStatus {
    unit: String,
    /// `restored`, `cold`, or `waiting`: armed and not started in this boot so far.
    outcome: String,
    reason_code: Option<String>,
    reason: Option<String>,
    restore_ms: Option<f64>,
    main_pid: Option<i32>,
    image_id: Option<String>,
    /// Where the time of the start went.
    #[serde(rename = "phases_ms", alias = "phases", serialize_with = "as_map")]
    phases: Vec<(String, f64)>,
    requested_monotonic_us: Option<u64>,
    done_monotonic_us: Option<u64>,
}

/// Phase names are unique; a map is what readers of JSON look them up in.
fn as_map<S: Serializer>(phases: &[(String, f64)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(phases.iter().map(|(name, ms)| (name, ms)))
}

/// The part of the generator's record that is needed here.
#[derive(Debug, Deserialize)]
struct GeneratorRecord {
    #[serde(default)]
    error: Option<String>,
    units: Vec<GeneratorUnit>,
}

#[derive(Debug, Deserialize)]
struct GeneratorUnit {
    unit: String,
    armed: bool,
    reason_code: Option<String>,
    reason: Option<String>,
}

pub fn run(args: &Args) -> anyhow::Result<u8> {
    let boot_id = std::fs::read_to_string(BOOT_ID_FILE).context(BOOT_ID_FILE)?.trim().replace('-', "");
    let generator: Option<GeneratorRecord> = read(GENERATOR_FILE)?;
    // A catalogue that is damaged ends in cold starts, and to say so is what this command is for.
    let (catalogue, damage) = match args.store.open().load() {
        Ok(catalogue) => (catalogue, None),
        Err(error) if error.kind() == ErrorKind::Io => return Err(error.into()),
        Err(error) => (Catalogue::default(), Some(error.to_string())),
    };
    let error = generator.as_ref().and_then(|record| record.error.clone()).or(damage);
    let armed = generator.iter().flat_map(|record| &record.units).map(|unit| unit.unit.as_str());
    let mut names: Vec<&str> = catalogue.units().into_iter().chain(armed).collect();
    names.sort_unstable();
    names.dedup();
    let mut units = answered(&boot_id, generator.as_ref())?;
    for name in names {
        if !units.iter().any(|row| row.unit == name) {
            units.push(without_answer(name, generator.as_ref(), &catalogue));
        }
    }
    units.sort_by(|a, b| a.unit.cmp(&b.unit));
    units.iter_mut().for_each(add_systemd);
    if args.store.json {
        say!("{}", serde_json::to_string(&BootStatus { boot_id, error, units })?);
        return Ok(0);
    }
    match &error {
        Some(error) => say!("{error}; services start cold"),
        None if units.is_empty() => args.store.say_empty(),
        None => {}
    }
    if !units.is_empty() {
        print(units);
    }
    Ok(0)
}

/// What initd has recorded. A unit becomes active a moment before its record is written: one that was armed, has started
/// and is not in there is looked for again, for as long as a boot may still be at it.
fn answered(boot_id: &str, generator: Option<&GeneratorRecord>) -> anyhow::Result<Vec<UnitStatus>> {
    let mut looks_left = LOOKS;
    loop {
        let recorded: BootStatus = read(STATUS_FILE)?.unwrap_or_default();
        let units = if recorded.boot_id.replace('-', "") == boot_id { recorded.units } else { Vec::new() };
        let armed = generator.iter().flat_map(|record| &record.units).filter(|unit| unit.armed);
        let mut silent = armed.filter(|unit| !units.iter().any(|row| row.unit == unit.unit));
        looks_left -= 1;
        if looks_left == 0 || !silent.any(|unit| has_started(&unit.unit)) {
            return Ok(units);
        }
        std::thread::sleep(PAUSE);
    }
}

/// What can be said of a unit that initd has not answered.
fn without_answer(name: &str, generator: Option<&GeneratorRecord>, catalogue: &Catalogue) -> UnitStatus {
    let image_id = catalogue.newest(name).map(|(_, entry)| entry.image_id.to_string());
    let row = |outcome: &str, code: Option<String>, reason: Option<String>| UnitStatus {
        unit: name.to_owned(),
        outcome: outcome.to_owned(),
        reason_code: code,
        reason,
        image_id: image_id.clone(),
        ..UnitStatus::default()
    };
    let cold = |code: ReasonCode, reason: &str| row("cold", Some(code.to_string()), Some(reason.to_owned()));
    let Some(generator) = generator else {
        return cold(
            ReasonCode::Disabled,
            "fastboot-generator did not run in this boot, or was not done in time",
        );
    };
    match generator.units.iter().find(|unit| unit.unit == name) {
        None => cold(ReasonCode::NoImage, "there was no image of it when this boot began"),
        Some(unit) if !unit.armed => row("cold", unit.reason_code.clone(), unit.reason.clone()),
        Some(_) if has_started(name) => {
            cold(ReasonCode::InitdUnavailable, "the restore daemon did not answer when it started")
        }
        Some(_) => row("waiting", None, Some("not started in this boot so far".to_owned())),
    }
}

/// What systemd did before the shim could ask: commands before the start, the sandbox, the shim itself. Not known any
/// more when the unit has been started again.
fn add_systemd(row: &mut UnitStatus) {
    let Some(requested_us) = row.requested_monotonic_us else { return };
    let unit = Systemd::connect().and_then(|systemd| systemd.properties(&row.unit));
    let before = unit.ok().and_then(|unit| requested_us.checked_sub(unit.inactive_exit_us));
    if let Some(before_us) = before {
        row.phases.insert(0, ("systemd".to_owned(), before_us as f64 / 1e3));
    }
}

/// Whether it was started in this boot; not known without a bus.
fn has_started(name: &str) -> bool {
    Systemd::connect().and_then(|systemd| systemd.properties(name)).is_ok_and(|unit| unit.active_enter_us > 0)
}

fn print(units: Vec<UnitStatus>) {
    let mut table =
        table(&["unit", "outcome", "restore ms", "main PID", "reason, or where the time went (ms)"]);
    for row in units {
        let reason = match (row.reason, row.reason_code) {
            (Some(reason), Some(code)) => format!("{reason} ({code})"),
            (Some(reason), None) => reason,
            (None, _) => {
                let spent = row.phases.iter().filter(|(_, ms)| *ms >= 0.05);
                spent.map(|(phase, ms)| format!("{phase} {ms:.1}")).collect::<Vec<_>>().join(" · ")
            }
        };
        table.add_row([
            row.unit,
            row.outcome,
            row.restore_ms.map_or_else(|| ms(None), |ms| format!("{ms:.1}")),
            row.main_pid.map_or_else(|| "–".into(), |pid| pid.to_string()),
            reason,
        ]);
    }
    say!("{table}");
}

/// A JSON file of this boot; `None` when there is none yet.
fn read<T: DeserializeOwned>(path: &str) -> anyhow::Result<Option<T>> {
    match std::fs::read(Path::new(path)) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).context(path.to_owned())?)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).context(path.to_owned()),
    }
}
