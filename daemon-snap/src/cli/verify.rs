//! `fastboot verify`: what the next boot would find.

use super::common::{StoreArgs, service_name, short};
use super::page::{Column, Mood, Page, outcome};
use comfy_table::Cell;
use daemon_snap::boot::missing_in_this_boot;
use daemon_snap::unit::{Systemd, judge_unit, read_text};
use fastboot_runtime::{EARLY_CATALOGUE, stale_reason};
use image_store::evidence::{Digests, StartEvidence};
use image_store::validate::Place;
use image_store::{
    CatalogueEntry, ImageId, MachineEvidence, Opened, ReasonCode, StaleReason, Store, SystemdEvidence,
    UnitEvidence,
};
use serde::Serialize;
use snap_error::Error;
use snap_policy::{StartBudget, StartTimes};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

const REFUSED: u8 = 3;
/// Nobody knows it before systemd has started the service.
const ASKED_AT_START: &str = "Compared only when a service starts: its user and groups, capabilities, limits, \
                              credentials, environment and priority.";

/// Check images as the next boot would; exit code 3 when one of the services would start cold
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Services; none: all with an image
    #[arg(value_name = "UNIT", value_parser = service_name)]
    units: Vec<String>,
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Serialize)]
pub struct Row {
    pub unit: String,
    /// Of its newest image.
    #[serde(skip)]
    pub image_id: Option<ImageId>,
    generation: Option<u64>,
    /// The next boot would restore it.
    pub usable: bool,
    /// Everything that stands against it.
    pub reasons: Vec<StaleReason>,
    /// Whether the start itself is compared too, when there is one.
    asked_at_start: bool,
}

pub fn run(args: &Args) -> anyhow::Result<u8> {
    let rows = check_all(&args.store.open(), &args.units)?;
    let all_usable = rows.iter().all(|row| row.usable);
    if args.store.json {
        say!("{}", serde_json::to_string(&serde_json::json!({ "units": rows }))?);
    } else if rows.is_empty() {
        args.store.say_empty();
    } else {
        print(rows);
    }
    Ok(if all_usable { 0 } else { REFUSED })
}

/// Checks the images of these services; none: of all.
///
/// # Errors
/// When the catalogue or this machine cannot be read.
pub fn check_all(store: &Store, names: &[String]) -> anyhow::Result<Vec<Row>> {
    let catalogue = store.load()?;
    let units = match names.is_empty() {
        true => catalogue.units().into_iter().map(str::to_owned).collect(),
        false => names.to_vec(),
    };
    let root = Path::new("/");
    let mut start = StartEvidence::default();
    start.put_machine(root)?;
    let now = Now {
        start,
        unix_s: SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
        machine: MachineEvidence::collect(root)?,
        running: SystemdEvidence::collect(root),
        systemd: Systemd::connect().ok(),
    };
    let mut rows = Vec::new();
    for unit in units {
        let newest = catalogue.newest(&unit);
        let asked_at_start = newest.is_some_and(|(_, entry)| entry.start.is_some());
        let (generation, reasons) = match newest {
            None => {
                (None, vec![StaleReason::new(ReasonCode::NoImage, format!("there is no image of {unit}"))])
            }
            Some((generation, entry)) => (Some(generation.id), check(store, entry, &now)),
        };
        let image_id = newest.map(|(_, entry)| entry.image_id);
        rows.push(Row { unit, image_id, generation, usable: reasons.is_empty(), reasons, asked_at_start });
    }
    Ok(rows)
}

/// What images are compared with.
struct Now {
    machine: MachineEvidence,
    /// The systemd that runs.
    running: Option<SystemdEvidence>,
    unix_s: u64,
    /// As much of a start as there is before one.
    start: StartEvidence,
    /// Without a bus, unit texts are compared at the paths of the snapshot; a drop-in that was
    /// added goes unnoticed.
    systemd: Option<Systemd>,
}

/// Everything against one image, in the order of a boot: what the generator asks, then what the
/// restore daemon asks, then what a worker would find while it loads.
fn check(store: &Store, entry: &CatalogueEntry, now: &Now) -> Vec<StaleReason> {
    let mut reasons = Vec::new();
    let mut note = |result: Result<(), StaleReason>| reasons.extend(result.err());
    note(entry.machine.check(&now.machine));
    note(entry.systemd.as_ref().map_or(Ok(()), |was| was.check(now.running.as_ref())));
    note(check_unit_text(&entry.unit_evidence, &entry.unit, now));
    note(check_unit(entry));
    note(check_early(store, entry));
    note(entry.check_age(now.unix_s));
    note(entry.start.as_ref().map_or(Ok(()), |start| start.check_machine(&now.start)));
    reasons.extend(missing_in_this_boot(entry));
    let opened = match Opened::open(store, entry) {
        Ok(opened) => opened,
        Err(reason) => {
            reasons.push(reason);
            return reasons;
        }
    };
    let digests = Digests::default();
    let place = Place { root: Path::new("/"), store, digests: &digests };
    let _ = opened.check_now(place, |reason| {
        // It is missing still.
        reasons.retain(|known| known.code != reason.code || !known.sentence.starts_with(&reason.sentence));
        reasons.push(reason);
        ControlFlow::Continue(())
    });
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    reasons.extend(opened.check_content(threads).and_then(|()| check_state(&opened)).err());
    reasons
}

fn check_early(store: &Store, entry: &CatalogueEntry) -> Result<(), StaleReason> {
    match store.is_seen_early(entry) {
        Ok(true) => Ok(()),
        Ok(false) => {
            let sentence =
                format!("the store is mounted late, and {EARLY_CATALOGUE} does not name this image");
            Err(StaleReason::new(ReasonCode::ImageMissing, sentence))
        }
        Err(error) => Err(error.to_stale_reason()),
    }
}

fn check_state(opened: &Opened) -> Result<(), StaleReason> {
    snap_image::read_tree(&opened.image).map(drop).map_err(|error| error.to_stale_reason())
}

/// The generator's own question.
fn check_unit(entry: &CatalogueEntry) -> Result<(), StaleReason> {
    let evidence = &entry.unit_evidence;
    let known: Vec<PathBuf> =
        std::iter::once(&evidence.fragment).chain(&evidence.drop_ins).map(|text| text.path.clone()).collect();
    let unreadable = |error: Error| StaleReason::new(ReasonCode::UnitChanged, error.to_string());
    let unit = read_text(&entry.unit, &known).map_err(unreadable)?;
    let mut reasons = match judge_unit(&unit) {
        Ok(_) => Vec::new(),
        Err(Error::Unit(reasons)) => reasons,
        Err(error) => return Err(unreadable(error)),
    };
    let times =
        StartTimes { timeout_ms: entry.service.timeout_start_ms, cold_ms: entry.service.cold_start_ms };
    reasons.extend(StartBudget::of(times, entry.len_bytes).err());
    stale_reason(&reasons).map_or(Ok(()), Err)
}

fn check_unit_text(evidence: &UnitEvidence, unit: &str, now: &Now) -> Result<(), StaleReason> {
    let loaded = now.systemd.as_ref().and_then(|systemd| systemd.properties(unit).ok());
    let (fragment, drop_ins) = match loaded.and_then(|unit| Some((unit.fragment?, unit.drop_ins))) {
        Some(loaded) => loaded,
        None => {
            let drop_ins = evidence.drop_ins.iter().map(|text| text.path.clone()).collect();
            (evidence.fragment.path.clone(), drop_ins)
        }
    };
    evidence.check(Path::new("/"), &fragment, &drop_ins)
}

fn print(rows: Vec<Row>) {
    let mut page = Page::new();
    page.say(summary(&rows));
    page.gap();
    let asked_at_start = rows.iter().any(|row| row.usable && row.asked_at_start);
    let columns = [Column::Text("UNIT"), Column::Text("NEXT BOOT"), Column::Rest("REASON")];
    let table = rows.into_iter().map(|row| {
        let why: Vec<String> =
            row.reasons.iter().map(|reason| format!("{} ({})", reason.sentence, reason.code)).collect();
        let next = if row.usable { outcome("restored", Mood::Good) } else { outcome("cold", Mood::Poor) };
        vec![Cell::new(row.unit), next, Cell::new(why.join("\n"))]
    });
    page.table(&columns, table);
    if asked_at_start {
        page.gap();
        page.say(ASKED_AT_START);
    }
    page.show();
}

fn summary(rows: &[Row]) -> String {
    let cold: Vec<&str> = rows.iter().filter(|row| !row.usable).map(|row| short(&row.unit)).collect();
    let all = rows.len();
    match cold.as_slice() {
        [] => format!("The next boot would restore all of {all} services."),
        names => format!(
            "The next boot would restore {} of {all} services; `fastboot refresh` takes {} again.",
            all - names.len(),
            names.join(", ")
        ),
    }
}
