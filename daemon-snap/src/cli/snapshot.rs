//! `fastboot snapshot`.

use super::common::{StoreArgs, mb, ms, table, unit_names};
use daemon_snap::snapshot::{self, Options, Outcome, Report};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal as _;
use std::time::Duration;

/// Phases of one unit, in order; the bar counts them.
const PHASES: &[&str] = &["inspect", "restart", "settle", "freeze", "collect", "store"];

/// Take running services into images for the next boot
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Services; none: all that are eligible
    units: Vec<String>,
    /// Take the running instance as it is; its PIDs may be taken at boot
    #[arg(long)]
    no_restart: bool,
    /// Longest wait until a service is quiet, seconds
    #[arg(long, value_name = "S", default_value_t = 30)]
    settle: u64,
    /// Run for each service before the last quiet moment, with UNIT in the environment
    #[arg(long, value_name = "CMD")]
    warm_up: Option<String>,
    #[command(flatten)]
    store: StoreArgs,
}

pub fn run(args: &Args) -> anyhow::Result<u8> {
    let units = if args.units.is_empty() { eligible()? } else { unit_names(&args.units) };
    let options = Options {
        no_restart: args.no_restart,
        settle: Duration::from_secs(args.settle),
        warm_up: args.warm_up.clone(),
    };
    let bar = ProgressBar::new((units.len() * PHASES.len()) as u64);
    if args.store.json || !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} {elapsed}")?);
    let report = snapshot::snapshot(&args.store.open(), &units, &options, |unit, phase| {
        if let Some(index) = units.iter().position(|u| u == unit) {
            let step = PHASES.iter().position(|p| *p == phase).unwrap_or(0);
            bar.set_position((index * PHASES.len() + step) as u64);
        }
        bar.set_message(format!("{unit}: {phase}"));
    });
    bar.finish_and_clear();
    let report = report?;
    if args.store.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print(&report);
    }
    let any = |outcome| report.units.iter().any(|row| row.outcome == outcome);
    Ok(if any(Outcome::Failed) {
        1
    } else if any(Outcome::Refused) {
        3
    } else {
        0
    })
}

/// Services that run and have nothing against them.
fn eligible() -> anyhow::Result<Vec<String>> {
    let rows = snapshot::plan(&snapshot::default_units()?)?;
    Ok(rows.into_iter().filter(|row| row.eligible).map(|row| row.unit).collect())
}

fn print(report: &Report) {
    let heading =
        ["unit", "outcome", "procs/threads", "cold start ms", "CPU ms", "frozen ms", "image MB", "why"];
    let mut table = table(&heading);
    for row in &report.units {
        let outcome = format!("{:?}", row.outcome).to_lowercase();
        let why: Vec<&str> = row.reasons.iter().chain(&row.notes).map(String::as_str).collect();
        table.add_row([
            row.unit.clone(),
            outcome,
            format!("{}/{}", row.processes, row.threads),
            ms(row.cold_start_ms),
            ms(row.cold_cpu_ms),
            format!("{:.1}", row.freeze_ms),
            mb(row.image_bytes),
            why.join("\n"),
        ]);
    }
    println!("{table}");
    match report.generation {
        Some(id) => println!("generation {id} is used from the next boot on"),
        None => println!("nothing was stored"),
    }
}
