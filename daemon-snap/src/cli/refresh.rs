//! `fastboot refresh`: what has become stale is taken again.

use super::common::{StoreArgs, short};
use super::interrupt::{Again, Signals};
use super::page::{Column, Page};
use super::{snapshot, verify};
use comfy_table::Cell;
use daemon_snap::boot::counted;
use daemon_snap::package_manager;
use daemon_snap::snapshot::{Outcome, Report, preflight};
use daemon_snap::unit::{Systemd, read_text, text_mark};
use fastboot_runtime::boot;
use image_store::{Circumstances, ImageId, Opened, StaleReason, Store};
use serde::Serialize;
use snap_policy::Refresh;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Longest wait for a package manager.
const PACKAGES_BOUND: Duration = Duration::from_secs(900);
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Take the services again whose images a boot would not use any more, as after an upgrade; no
/// others
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only say which they are and why
    #[arg(long)]
    dry_run: bool,
    /// As a timer calls it: wait until no package manager is at work, and do not try again what
    /// could not be taken before for the same reasons
    #[arg(long)]
    background: bool,
    /// Wait this long after saying which services will be restarted, in seconds
    #[arg(long, value_name = "S", default_value_t = 0)]
    notice: u64,
    #[command(flatten)]
    store: StoreArgs,
}

/// A service that would be taken again.
#[derive(Serialize)]
struct Stale {
    unit: String,
    reasons: Vec<StaleReason>,
    #[serde(skip)]
    image_id: Option<ImageId>,
    #[serde(skip)]
    refresh: Refresh,
    /// How an attempt ends may depend on them.
    #[serde(skip)]
    now: Circumstances,
}

pub fn run(args: Args) -> anyhow::Result<u8> {
    let signals = Signals::hold(Again::Ends)?;
    if args.background && !wait_for_packages() {
        eprintln!("fastboot: packages are still being changed; nothing was done");
        return Ok(0);
    }
    let store = args.store.open();
    let checked = verify::check_all(&store, &[])?;
    let all = checked.len();
    let mut stale = find_stale(&store, checked)?;
    let found = stale.len();
    stale.retain(|row| {
        let left_alone = row.refresh == Refresh::No;
        if left_alone {
            eprintln!("{}: {}; Refresh=no leaves it alone", short(&row.unit), sentence(row));
        }
        !left_alone
    });
    if args.background {
        let attempts = store.refresh_attempts()?;
        stale.retain(|row| {
            let in_vain =
                row.image_id.is_some_and(|id| attempts.has_failed(&row.unit, id, &row.reasons, row.now));
            if in_vain {
                eprintln!("{}: could not be taken before for the same reasons", short(&row.unit));
            }
            !in_vain
        });
    }
    if args.dry_run || stale.is_empty() {
        match args.store.json {
            true => say!("{}", serde_json::json!({ "stale": stale })),
            false => print(&stale, all, found),
        }
        return Ok(0);
    }
    if !args.store.json {
        stale.iter().for_each(|row| eprintln!("{}: {}", short(&row.unit), sentence(row)));
    }
    if args.notice > 0 {
        announce(&stale, args.notice);
        sleep(Duration::from_secs(args.notice));
    }
    take(&stale, &args.store, &store, &signals)
}

/// Those that a boot would start cold and that are installed still.
fn find_stale(store: &Store, checked: Vec<verify::Row>) -> anyhow::Result<Vec<Stale>> {
    let checked: Vec<verify::Row> = checked.into_iter().filter(|row| !row.usable).collect();
    let names: Vec<String> = checked.iter().map(|row| row.unit.clone()).collect();
    let catalogue = store.load()?;
    let (_, gone) = preflight(&names, &catalogue)?;
    let systemd = Systemd::connect()?;
    gone.iter().for_each(|unit| {
        eprintln!("{unit} is not installed any more; `fastboot remove {}` removes its image", short(unit));
    });
    let there = checked.into_iter().filter(|row| !gone.contains(&row.unit));
    let stale = there.map(|row| {
        let refresh = read_text(&row.unit, &[])?.options().refresh;
        let entry = catalogue.newest(&row.unit).map(|(_, entry)| entry);
        let opened = entry.and_then(|entry| Opened::open(store, entry).ok());
        let mut around = format!("{refresh:?} {:?}", text_mark(&row.unit));
        if refresh == Refresh::AsItRuns {
            // Its restart, by whomever, is what such a one may have been waiting for.
            let runs = systemd.properties(&row.unit).ok();
            let runs = runs.map(|unit| (boot::boot_id(), unit.main_pid, unit.inactive_exit_us));
            around.push_str(&format!(" {runs:?}"));
        }
        let files = opened.iter().flat_map(|opened| opened.evidence.all_files());
        let now = Circumstances::now(Path::new("/"), files, &around);
        Ok(Stale { unit: row.unit, reasons: row.reasons, image_id: row.image_id, refresh, now })
    });
    stale.collect()
}

/// Returns whether there is none at work any more.
fn wait_for_packages() -> bool {
    let deadline = Instant::now() + PACKAGES_BOUND;
    let mut was_said = false;
    while let Some(lock) = package_manager::at_work(Path::new("/")) {
        if Instant::now() >= deadline {
            return false;
        }
        if !was_said {
            eprintln!("fastboot: waiting, because packages are being changed ({lock} is held)");
            was_said = true;
        }
        sleep(LOOK_AGAIN);
    }
    true
}

fn announce(stale: &[Stale], seconds: u64) {
    let restarted = stale.iter().filter(|row| row.refresh == Refresh::Restart);
    let names: Vec<&str> = restarted.map(|row| short(&row.unit)).collect();
    if !names.is_empty() {
        eprintln!("fastboot: in {seconds} s these will be restarted, twice each: {}", names.join(", "));
    }
}

/// Takes them, in a generation for each way, and notes which could not be taken.
fn take(stale: &[Stale], args: &StoreArgs, store: &Store, signals: &Signals) -> anyhow::Result<u8> {
    let mut result = Report { generation: None, golden: false, units: Vec::new(), down: Vec::new() };
    for (way, no_restart) in [(Refresh::AsItRuns, true), (Refresh::Restart, false)] {
        let rows = stale.iter().filter(|row| row.refresh == way);
        let units: Vec<String> = rows.map(|row| row.unit.clone()).collect();
        if units.is_empty() {
            continue;
        }
        match snapshot::take(&snapshot::Args::of(units, no_restart, args.clone()), signals)? {
            snapshot::Taken::Ended(code) => return Ok(code),
            snapshot::Taken::Report(report) => {
                result.generation = report.generation.or(result.generation);
                result.units.extend(report.units);
                result.down.extend(report.down);
            }
        }
    }
    note_failed(&result, stale, store)?;
    snapshot::show(&result, &snapshot::Args::of(Vec::new(), false, args.clone()))?;
    Ok(snapshot::exit_code(&result))
}

fn note_failed(report: &Report, stale: &[Stale], store: &Store) -> anyhow::Result<()> {
    let mut attempts = store.refresh_attempts()?;
    for row in &report.units {
        let Some(stale) = stale.iter().find(|stale| stale.unit == row.unit) else { continue };
        match (row.outcome, stale.image_id) {
            (Outcome::Stored, _) | (_, None) => attempts.forget(&row.unit),
            (_, Some(image_id)) => attempts.note_failed(&row.unit, image_id, &stale.reasons, stale.now),
        }
    }
    Ok(store.write_refresh_attempts(&attempts)?)
}

/// `found`: how many of all are stale, with those that are left alone.
fn print(stale: &[Stale], all: usize, found: usize) {
    let mut page = Page::new();
    let images = counted(all, "image");
    match stale.len() {
        0 if found == 0 => {
            page.say(format_args!("A boot would use all of {images}; there is nothing to take again."));
        }
        0 => page.say(format_args!("Stale, and left as they are: {found} of {images}.")),
        count => {
            page.say(format_args!("{count} of {images} would be taken again by `fastboot refresh`."));
            page.gap();
            let rows = stale.iter().map(|row| vec![Cell::new(&row.unit), Cell::new(sentence(row))]);
            page.table(&[Column::Text("UNIT"), Column::Rest("WHY")], rows);
        }
    }
    page.show();
}

fn sentence(row: &Stale) -> String {
    let said: Vec<&str> = row.reasons.iter().map(|reason| reason.sentence.as_str()).collect();
    said.join("; ")
}
