//! `fastboot snapshot`.

use super::ask::{confirm, tell_before};
use super::bars::Bars;
use super::common::{StoreArgs, dash, mb, ms, service_name, short};
use super::interrupt::{Again, Signals};
use super::page::{Column, Mood, Page, outcome};
use comfy_table::Cell;
use daemon_snap::boot::counted;
use daemon_snap::doctor::volatile_file_system;
use daemon_snap::snapshot::{self, Options, Outcome, Report, TrialPolicy, UnitReport};
use daemon_snap::unit::{Interrupt, Patience};
use fastboot_runtime::cmdline;
use image_store::Store;
use image_store::evidence::Scope;
use std::path::Path;
use std::time::Duration;

const FAILED: u8 = 1;
const REFUSED: u8 = 3;

/// Take running services into images for the next boot
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Services; none: those that gain by it, as `fastboot plan` lists them
    #[arg(value_name = "UNIT", value_parser = service_name)]
    units: Vec<String>,
    /// Take the running instances as they are; their PIDs may be taken at the next boot
    #[arg(long)]
    no_restart: bool,
    /// Longest wait until a service is quiet, in seconds
    #[arg(long, value_name = "S", default_value_t = 30)]
    settle: u64,
    /// Run with sh when all services are up, before the last wait for quiet, and again when all
    /// have been tried
    #[arg(long, value_name = "CMD")]
    warm_up: Option<String>,
    /// Do not restart each service once from its new image; images are kept whether they gain or
    /// not, and whether they work
    #[arg(long, conflicts_with = "keep_slow")]
    no_trial: bool,
    /// Keep images that are restored no faster than the service starts
    #[arg(long)]
    keep_slow: bool,
    /// Take images that all machines equal to this one can use, as for the image of a disk that is
    /// copied; services that have something of this machine alone in memory are refused
    #[arg(long, conflicts_with_all = ["no_restart", "no_trial"])]
    golden: bool,
    /// Do not ask. Without a terminal nothing is asked in any case
    #[arg(short, long)]
    yes: bool,
    /// Also processes, threads and memory
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    store: StoreArgs,
}

impl Args {
    /// As an operator who names services gets it.
    pub(super) fn of(units: Vec<String>, no_restart: bool, store: StoreArgs) -> Self {
        Self {
            units,
            no_restart,
            settle: 30,
            warm_up: None,
            no_trial: false,
            keep_slow: false,
            golden: false,
            yes: true,
            verbose: false,
            store,
        }
    }

    fn options(&self) -> Options {
        Options {
            restart: !self.no_restart,
            patience: Patience { longest: Duration::from_secs(self.settle), interrupt: Interrupt::default() },
            warm_up: self.warm_up.clone(),
            trial: match (self.no_trial, self.keep_slow) {
                (true, _) => TrialPolicy::None,
                (false, true) => TrialPolicy::KeepSlow,
                (false, false) => TrialPolicy::KeepWorth,
            },
            scope: if self.golden { Scope::EqualMachines } else { Scope::ThisMachine },
        }
    }
}

pub fn run(args: &Args) -> anyhow::Result<u8> {
    match take(args, &Signals::hold(Again::Ends)?)? {
        Taken::Ended(code) => Ok(code),
        Taken::Report(report) => {
            show(&report, args)?;
            Ok(exit_code(&report))
        }
    }
}

/// What a snapshot came to.
pub(super) enum Taken {
    /// Nothing was done, and it has been said why.
    Ended(u8),
    Report(Report),
}

/// Takes them, and says nothing of the result yet.
///
/// # Errors
/// When nothing can be taken at all.
pub(super) fn take(args: &Args, signals: &Signals) -> anyhow::Result<Taken> {
    let store = args.store.open();
    if store.is_locked()? {
        // Says who holds it.
        store.lock()?;
    }
    let mut options = args.options();
    if options.restart && !args.no_trial && cmdline::is_off(&cmdline::read(Path::new("/"))) {
        anyhow::bail!(
            "this boot has fastboot=0 on its kernel command line, so no image can be tried; nothing was done. \
             Boot without it, or take images untried (--no-trial)"
        );
    }
    if options.restart && !args.no_trial && !args.store.is_of_boots() {
        anyhow::bail!(
            "images in {} cannot be tried, because neither boots nor trials look there; nothing was done. \
             --no-trial takes them untried",
            store.root().display()
        );
    }
    let catalogue = store.load()?;
    let mut units = args.units.clone();
    if units.is_empty() {
        let plan = snapshot::plan(&[], &catalogue)?;
        let taken = plan.units.iter().filter(|row| row.by_default);
        units = taken.map(|row| row.unit.clone()).collect();
        let left_out = plan.units.len() - units.len();
        if !args.store.json && left_out > 0 {
            let left_out = counted(left_out, "running service");
            eprintln!("{left_out} would gain nothing or cannot be taken; `fastboot plan` says why");
        }
    }
    let (before, unknown) = snapshot::preflight(&units, &catalogue)?;
    if !unknown.is_empty() {
        return Ok(Taken::Ended(refuse_unknown(&unknown, args)));
    }
    if !before.is_empty() && !args.store.json {
        tell_before(&before, &options);
        if args.units.is_empty() && !args.yes && !confirm()? {
            eprintln!("fastboot: nothing was done");
            return Ok(Taken::Ended(FAILED));
        }
    }
    options.patience.interrupt = signals.begin();
    let mut bars = Bars::new(args.store.json);
    let report = snapshot::snapshot(&store, &units, &options, &mut |step| bars.show(step));
    bars.finish();
    Ok(Taken::Report(report?))
}

/// Prints the result.
///
/// # Errors
/// When it cannot be written as JSON.
pub(super) fn show(report: &Report, args: &Args) -> anyhow::Result<()> {
    if args.store.json {
        say!("{}", serde_json::to_string(report)?);
    } else {
        print(report, args, &args.store.open());
    }
    Ok(())
}

pub(super) fn exit_code(report: &Report) -> u8 {
    let any = |outcome| report.units.iter().any(|row| row.outcome == outcome);
    match (any(Outcome::Failed), any(Outcome::Refused)) {
        (true, _) => FAILED,
        (false, true) => REFUSED,
        (false, false) => 0,
    }
}

/// A name that is wrong is most likely meant for something: nothing is taken.
fn refuse_unknown(unknown: &[String], args: &Args) -> u8 {
    if args.store.json {
        let rows = unknown.iter().map(|unit| {
            let reason = format!("there is no unit {unit}");
            serde_json::json!({
                "unit": unit,
                "outcome": "failed",
                "reasons": [reason],
                "obstacles": [{ "code": "no-unit", "reason": reason, "passes": false }],
                "notes": [],
            })
        });
        let rows: Vec<_> = rows.collect();
        say!("{}", serde_json::json!({ "generation": null, "golden": args.golden, "units": rows }));
    }
    unknown.iter().for_each(|unit| eprintln!("fastboot: there is no unit {unit}"));
    eprintln!("fastboot: nothing was done");
    FAILED
}

fn print(report: &Report, args: &Args, store: &Store) {
    let mut page = Page::new();
    page.say(summary(report));
    if report.generation.is_some() {
        page.say(consequence(args, store));
    }
    if !report.units.is_empty() {
        page.gap();
        let mut columns = vec![Column::Text("UNIT"), Column::Text("OUTCOME")];
        if args.verbose {
            columns.extend([Column::Figure("PROCS"), Column::Figure("THREADS"), Column::Figure("DIRTY MB")]);
        }
        columns.extend([
            Column::Figure("COLD MS"),
            Column::Figure("TRIAL MS"),
            Column::Figure("FREEZE MS"),
            Column::Figure("MB"),
            Column::Rest("REASON"),
        ]);
        page.table(&columns, report.units.iter().map(|row| cells(row, args.verbose)));
    }
    page.show();
}

fn cells(row: &UnitReport, verbose: bool) -> Vec<Cell> {
    let (word, mood) = match row.outcome {
        Outcome::Stored => ("stored", Mood::Good),
        Outcome::Pointless => ("pointless", Mood::Poor),
        Outcome::Refused => ("refused", Mood::Poor),
        Outcome::Failed => ("failed", Mood::Bad),
    };
    let count = |count: Option<usize>| Cell::new(count.map_or_else(dash, |count| count.to_string()));
    let mut cells = vec![Cell::new(&row.unit), outcome(word, mood)];
    if verbose {
        let dirty = row.pages.map(|pages| pages * image_store::PAGE_SIZE as u64);
        cells.extend([count(row.processes), count(row.threads), Cell::new(dirty.map_or_else(dash, mb))]);
    }
    let why: Vec<&str> = row.reasons.iter().chain(&row.notes).map(String::as_str).collect();
    cells.extend([
        Cell::new(ms(row.cold_start_ms)),
        Cell::new(ms(row.restore_ms)),
        Cell::new(row.freeze_ms.map_or_else(dash, |ms| format!("{ms:.1}"))),
        Cell::new(row.image_bytes.map_or_else(dash, mb)),
        Cell::new(why.join("\n")),
    ]);
    cells
}

fn summary(report: &Report) -> String {
    let Some(generation) = report.generation else {
        return match report.units.len() {
            0 => "No service would gain by an image; nothing was done.".to_owned(),
            _ if report.down.is_empty() => "Nothing was stored; the services run on.".to_owned(),
            _ => format!("Nothing was stored. {}", no_longer_run(&report.down)),
        };
    };
    let stored = report.units.iter().filter(|row| row.outcome == Outcome::Stored);
    let bytes: u64 = stored.clone().filter_map(|row| row.image_bytes).sum();
    let all = counted(report.units.len(), "service");
    let taken = format!("{} of {all} taken as generation {generation} ({} MB).", stored.count(), mb(bytes));
    match report.down.is_empty() {
        true => taken,
        false => format!("{taken} {}", no_longer_run(&report.down)),
    }
}

/// What comes before everything else for whoever has asked for a snapshot.
fn no_longer_run(down: &[String]) -> String {
    let names: Vec<&str> = down.iter().map(|unit| short(unit)).collect();
    let verb = if down.len() == 1 { "does" } else { "do" };
    format!(
        "{} {verb} not run any more after the restart; `systemctl status` and `journalctl -u` say why.",
        names.join(", ")
    )
}

/// When the images are used.
fn consequence(args: &Args, store: &Store) -> String {
    let dir = store.root().display();
    if !args.store.is_of_boots() {
        return format!("A boot uses images in {} only, and none in {dir}.", image_store::DEFAULT_ROOT);
    }
    match volatile_file_system(store.root()) {
        Some(kind) => {
            format!("{dir} is on {kind}: the images are gone with the next reboot, and nothing uses them.")
        }
        None if args.golden => {
            "They are used from the next boot on, here and on every machine that has a copy and is equal."
                .to_owned()
        }
        None => "They are used from the next boot on.".to_owned(),
    }
}
