//! `fastboot status`: what became of each image in this boot.

use super::common::{StoreArgs, dash, ms};
use super::page::{Column, Mood, Page, outcome};
use comfy_table::Cell;
use daemon_snap::boot::{BootReport, UnitRow, history};
use daemon_snap::unit::Systemd;
use fastboot_runtime::status::Phases;
use fastboot_runtime::{Outcome, journal};
use std::time::{Duration, Instant};

/// How long the end of a boot is waited for before it is reported on, and how often it is asked
/// for.
const LONGEST_BOOT: Duration = Duration::from_secs(900);
const PAUSE: Duration = Duration::from_millis(500);

/// Say for this boot which services were restored, and which started cold and why
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Also main PIDs, and where the time of each start went
    #[arg(short, long)]
    verbose: bool,
    /// Wait for the end of the boot, then write the summary into the journal and the history
    /// (fastboot-report.service does)
    #[arg(long, hide = true, conflicts_with_all = ["json", "verbose"])]
    report: bool,
    #[command(flatten)]
    store: StoreArgs,
}

pub fn run(args: &Args) -> anyhow::Result<u8> {
    let store = args.store.open();
    if args.report {
        wait_for_boot();
        let report = BootReport::collect(&store)?;
        tell_journal(&report);
        history::add(store.root(), &report.to_past(&store))?;
        return Ok(0);
    }
    let report = BootReport::collect(&store)?;
    match args.store.json {
        true => say!("{}", serde_json::to_string(&report)?),
        false => print(&report, args.verbose),
    }
    Ok(0)
}

/// systemd may not even be on the bus yet.
fn wait_for_boot() {
    let deadline = Instant::now() + LONGEST_BOOT;
    let is_over = || {
        let times = Systemd::connect().and_then(|systemd| systemd.boot_times());
        times.is_ok_and(|times| times.finished_us.is_some())
    };
    while !is_over() && Instant::now() < deadline {
        std::thread::sleep(PAUSE);
    }
}

fn tell_journal(report: &BootReport) {
    let (restored, cold) = (report.count(Outcome::Restored), report.count(Outcome::Cold));
    let number = |value: Option<f64>| value.map(|ms| format!("{ms:.0}")).unwrap_or_default();
    let (restored, cold) = (restored.to_string(), cold.to_string());
    let (gain, boot) = (number(report.gain_ms), number(report.boot_ms));
    let mut fields = vec![
        ("MESSAGE", report.summary.as_str()),
        ("MESSAGE_ID", journal::BOOT),
        ("PRIORITY", "6"),
        ("SYSLOG_IDENTIFIER", "fastboot"),
        ("FASTBOOT_RESTORED", &restored),
        ("FASTBOOT_COLD", &cold),
        ("FASTBOOT_GAIN_MS", &gain),
        ("FASTBOOT_BOOT_MS", &boot),
    ];
    fields.retain(|(_, value)| !value.is_empty());
    if journal::send(&fields).is_err() {
        eprintln!("{}", report.summary);
    }
}

fn print(report: &BootReport, verbose: bool) {
    let mut page = Page::new();
    page.say(&report.summary);
    if !report.units.is_empty() {
        page.gap();
        let mut columns = vec![Column::Text("UNIT"), Column::Text("START"), Column::Figure("MS")];
        columns.push(Column::Figure("GAIN MS"));
        if verbose {
            columns.push(Column::Figure("PID"));
        }
        columns.push(Column::Rest(if verbose { "WHY, OR WHERE THE TIME WENT (MS)" } else { "WHY" }));
        page.table(&columns, report.units.iter().map(|unit| cells(unit, verbose)));
    }
    page.show();
}

fn cells(unit: &UnitRow, verbose: bool) -> Vec<Cell> {
    let row = &unit.status;
    let mood = match row.outcome {
        Outcome::Restored => Mood::Good,
        Outcome::Cold | Outcome::Waiting => Mood::Poor,
    };
    let reason = match (&row.reason, row.reason_code) {
        (Some(reason), Some(code)) => format!("{reason} ({code})"),
        (Some(reason), None) => reason.clone(),
        (None, _) if verbose => spent(&row.phases_ms),
        (None, _) => String::new(),
    };
    let mut cells = vec![
        Cell::new(&row.unit),
        outcome(row.outcome, mood),
        Cell::new(ms(unit.start_ms)),
        Cell::new(ms(unit.gain_ms)),
    ];
    if verbose {
        cells.push(Cell::new(row.main_pid.map_or_else(dash, |pid| pid.to_string())));
    }
    cells.push(Cell::new(reason));
    cells
}

fn spent(Phases(phases): &Phases) -> String {
    let spent = phases.iter().filter(|(_, ms)| *ms >= 0.05);
    spent.map(|(phase, ms)| format!("{phase} {ms:.1}")).collect::<Vec<_>>().join(" · ")
}
