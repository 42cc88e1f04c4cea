//! `fastboot status`: what became of each image in this boot.
//!
//! Two files of this boot say it: initd's record of the starts that it answered, and before that
//! the generator's record of the units that it armed.

use super::common::{StoreArgs, ms, table};
use anyhow::Context as _;
use daemon_snap::unit::Systemd;
use fastboot_runtime::status::Phases;
use fastboot_runtime::{BootStatus, GeneratorRecord, Outcome, RunDir, UnitDecision, UnitStatus};
use image_store::{Catalogue, CatalogueEntry, ErrorKind, ReasonCode, StaleReason};
use std::time::Duration;

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

pub fn run(args: &Args) -> anyhow::Result<u8> {
    let boot_id = std::fs::read_to_string(BOOT_ID_FILE).context(BOOT_ID_FILE)?.trim().replace('-', "");
    let run_dir = RunDir::default();
    let generator = GeneratorRecord::load(&run_dir)
        .with_context(|| GeneratorRecord::path(&run_dir).display().to_string())?;
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
    let mut units = answered(&run_dir, &boot_id, generator.as_ref())?;
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

/// What initd has recorded. A unit becomes active a moment before its record is written: one that
/// was armed, has started and is not in there is looked for again, for as long as a boot may still
/// be at it.
fn answered(
    run_dir: &RunDir,
    boot_id: &str,
    generator: Option<&GeneratorRecord>,
) -> anyhow::Result<Vec<UnitStatus>> {
    let mut looks_left = LOOKS;
    loop {
        let recorded = BootStatus::load(run_dir, boot_id);
        let units = recorded.with_context(|| BootStatus::path(run_dir).display().to_string())?.units;
        let armed = generator.iter().flat_map(|record| &record.units).filter(|unit| unit.armed);
        let mut silent = armed.filter(|unit| !units.iter().any(|row| row.unit == unit.unit));
        looks_left -= 1;
        if looks_left == 0 || !silent.any(|unit| has_started(&unit.unit)) {
            return Ok(units);
        }
        std::thread::sleep(PAUSE);
    }
}

/// What this boot did not find when it asked for the image of an entry. It may have come since: the
/// next boot may ask as early.
pub(super) fn missing_in_this_boot(entry: &CatalogueEntry) -> Option<StaleReason> {
    let boot_id = std::fs::read_to_string(BOOT_ID_FILE).ok()?.trim().replace('-', "");
    let recorded = BootStatus::load(&RunDir::default(), &boot_id).ok()?;
    let row = recorded.units.iter().find(|row| row.unit == entry.unit && row.outcome == Outcome::Cold)?;
    let is_this = row.image_id == Some(entry.image_id) && row.reason_code == Some(ReasonCode::FileMissing);
    let reason = row.reason.as_deref().filter(|_| is_this)?;
    let sentence =
        format!("{reason}, said this boot when the service started; the next one may find the same");
    Some(StaleReason::new(ReasonCode::FileMissing, sentence))
}

/// Why this boot has not used the image of an entry, where it was asked for.
pub(super) fn cold_in_this_boot(entry: &CatalogueEntry) -> Option<String> {
    let boot_id = std::fs::read_to_string(BOOT_ID_FILE).ok()?.trim().replace('-', "");
    let recorded = BootStatus::load(&RunDir::default(), &boot_id).ok()?;
    let is_it = |row: &&UnitStatus| row.unit == entry.unit && row.outcome == Outcome::Cold;
    let row = recorded.units.iter().find(is_it).filter(|row| row.image_id == Some(entry.image_id))?;
    // Who restarts a service wants it fresh; that says nothing of the image.
    let (code, reason) = (row.reason_code?, row.reason.as_deref()?);
    (code != ReasonCode::NotFirstStart).then(|| format!("started cold in this boot: {reason} ({code})"))
}

/// What can be said of a unit that initd has not answered.
fn without_answer(name: &str, generator: Option<&GeneratorRecord>, catalogue: &Catalogue) -> UnitStatus {
    let image_id = catalogue.newest(name).map(|(_, entry)| entry.image_id);
    let cold =
        |code: ReasonCode, reason: &str| UnitStatus { image_id, ..UnitStatus::cold(name, code, reason) };
    let Some(generator) = generator else {
        return cold(
            ReasonCode::Disabled,
            "fastboot-generator did not run in this boot, or was not done in time",
        );
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
fn add_systemd(row: &mut UnitStatus) {
    let Some(requested_us) = row.requested_monotonic_us else { return };
    let unit = Systemd::connect().and_then(|systemd| systemd.properties(&row.unit));
    let before = unit.ok().and_then(|unit| requested_us.checked_sub(unit.inactive_exit_us));
    if let Some(before_us) = before {
        row.phases_ms.0.insert(0, ("systemd".to_owned(), before_us as f64 / 1e3));
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
                let Phases(phases) = &row.phases_ms;
                let spent = phases.iter().filter(|(_, ms)| *ms >= 0.05);
                spent.map(|(phase, ms)| format!("{phase} {ms:.1}")).collect::<Vec<_>>().join(" · ")
            }
        };
        table.add_row([
            row.unit,
            row.outcome.to_string(),
            row.restore_ms.map_or_else(|| ms(None), |ms| format!("{ms:.1}")),
            row.main_pid.map_or_else(|| "–".into(), |pid| pid.to_string()),
            reason,
        ]);
    }
    say!("{table}");
}
