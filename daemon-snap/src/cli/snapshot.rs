//! `fastboot snapshot`.

use super::common::{StoreArgs, mb, ms, table, unit_names};
use daemon_snap::snapshot::{self, Options, Outcome, Phase, Report, Step, TrialPolicy};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal as _;
use std::time::Duration;

const FAILED: u8 = 1;
const REFUSED: u8 = 3;

/// Take running services into images for the next boot
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Services; none: all that are eligible
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
    #[command(flatten)]
    store: StoreArgs,
}

pub fn run(args: &Args) -> anyhow::Result<u8> {
    let store = args.store.open();
    let units = match args.units.is_empty() {
        true => {
            let plan = snapshot::plan(&[], &store.load()?)?;
            let left_out = plan.iter().filter(|row| !row.by_default).count();
            if !args.store.json && left_out > 0 {
                eprintln!("{left_out} running services are left out; `fastboot plan` says why");
            }
            plan.into_iter().filter(|row| row.by_default).map(|row| row.unit).collect()
        }
        false => unit_names(&args.units),
    };
    let options = Options {
        restart: !args.no_restart,
        settle: Duration::from_secs(args.settle),
        warm_up: args.warm_up.clone(),
        trial: match (args.no_trial, args.keep_slow) {
            (true, _) => TrialPolicy::None,
            (false, true) => TrialPolicy::KeepSlow,
            (false, false) => TrialPolicy::KeepWorth,
        },
    };
    let mut bars = Bars { hidden: args.store.json || !std::io::stderr().is_terminal(), current: None };
    let report = snapshot::snapshot(&store, &units, &options, &mut |step| bars.show(step));
    bars.finish();
    let report = report?;
    if args.store.json {
        say!("{}", serde_json::to_string(&report)?);
    } else {
        print(&report);
    }
    let any = |outcome| report.units.iter().any(|row| row.outcome == outcome);
    Ok(match (any(Outcome::Failed), any(Outcome::Refused)) {
        (true, _) => FAILED,
        (false, true) => REFUSED,
        (false, false) => 0,
    })
}

/// One progress bar per phase, under each other.
struct Bars {
    hidden: bool,
    current: Option<(Phase, ProgressBar)>,
}

impl Bars {
    fn show(&mut self, step: Step<'_>) {
        let is_new = self.current.as_ref().is_none_or(|(phase, _)| *phase != step.phase);
        if is_new {
            self.finish();
            let bar = ProgressBar::new(step.of as u64);
            bar.set_draw_target(if self.hidden {
                ProgressDrawTarget::hidden()
            } else {
                ProgressDrawTarget::stderr()
            });
            if let Ok(style) =
                ProgressStyle::with_template("{prefix:8} {bar:30} {pos}/{len} {elapsed:>4} {msg}")
            {
                bar.set_style(style);
            }
            bar.set_prefix(name(step.phase));
            bar.enable_steady_tick(Duration::from_millis(100));
            self.current = Some((step.phase, bar));
        }
        if let Some((_, bar)) = &self.current {
            bar.set_position(step.index as u64);
            bar.set_message(step.what.to_owned());
        }
    }

    fn finish(&mut self) {
        if let Some((_, bar)) = self.current.take() {
            bar.set_position(bar.length().unwrap_or_default());
            bar.finish_with_message("");
        }
    }
}

fn name(phase: Phase) -> &'static str {
    match phase {
        Phase::Inspect => "inspect",
        Phase::Restart => "restart",
        Phase::WarmUp => "warm up",
        Phase::Settle => "settle",
        Phase::Image => "image",
        Phase::Trial => "trial",
        Phase::Publish => "publish",
    }
}

fn print(report: &Report) {
    let heading = [
        "unit",
        "outcome",
        "procs/threads",
        "dirty MB",
        "cold ms",
        "trial ms",
        "freeze ms",
        "image MB",
        "reason",
    ];
    let mut table = table(&heading);
    let dash = || "–".to_owned();
    for row in &report.units {
        let why: Vec<&str> = row.reasons.iter().chain(&row.notes).map(String::as_str).collect();
        let counts = row.processes.zip(row.threads);
        table.add_row([
            row.unit.clone(),
            format!("{:?}", row.outcome).to_lowercase(),
            counts.map_or_else(dash, |(processes, threads)| format!("{processes}/{threads}")),
            row.pages.map_or_else(dash, |pages| mb(pages * image_store::PAGE_SIZE as u64)),
            ms(row.cold_start_ms),
            ms(row.restore_ms),
            row.freeze_ms.map_or_else(dash, |ms| format!("{ms:.1}")),
            row.image_bytes.map_or_else(dash, mb),
            why.join("\n"),
        ]);
    }
    say!("{table}");
    match report.generation {
        Some(id) => say!("generation {id} is used from the next boot on"),
        None => say!("nothing was stored"),
    }
}
