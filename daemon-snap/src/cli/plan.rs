//! `fastboot plan`.

use super::common::{StoreArgs, dash, mb, ms, service_name};
use super::explain::explain;
use super::page::{Column, Page};
use comfy_table::Cell;
use daemon_snap::boot::{Span, counted};
use daemon_snap::snapshot::{self, ColdBy, Plan, PlanRow};

const FAILED: u8 = 1;
/// The code of what is never taken; its sentence says all that there is to say.
const HUB: &str = "hub";
const LEGEND: &str =
    "– not measured   ~ estimated   < at most: measured while the machine booted, or by CPU time";

/// Say what could be taken, what it would gain, and every reason against the others; each service
/// stands still for a moment
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Services; none: all that run
    #[arg(value_name = "UNIT", value_parser = service_name)]
    units: Vec<String>,
    /// All reasons with what to do about them, and what is never taken
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    store: StoreArgs,
}

pub fn run(args: &Args) -> anyhow::Result<u8> {
    let catalogue = args.store.open().load()?;
    let mut plan = snapshot::plan(&args.units, &catalogue)?;
    let code = if plan.units.iter().all(|row| row.exists) { 0 } else { FAILED };
    sort(&mut plan.units);
    match args.store.json {
        true => say!("{}", serde_json::to_string(&plan)?),
        false => print(&plan, args),
    }
    Ok(code)
}

/// What gains most first; then what is taken when it is named, then the rest.
fn sort(rows: &mut [PlanRow]) {
    let rank = |row: &PlanRow| (!row.by_default, !row.eligible, is_never_taken(row));
    let gain = |row: &PlanRow| row.expected_gain_ms.unwrap_or(f64::MIN);
    rows.sort_by(|a, b| {
        rank(a).cmp(&rank(b)).then(gain(b).total_cmp(&gain(a))).then_with(|| a.unit.cmp(&b.unit))
    });
}

/// A part of the boot itself.
fn is_never_taken(row: &PlanRow) -> bool {
    row.obstacles.iter().any(|obstacle| obstacle.code == HUB)
}

fn print(plan: &Plan, args: &Args) {
    let mut page = Page::new();
    page.say(summary(plan));
    let (taken, others): (Vec<&PlanRow>, Vec<&PlanRow>) = plan.units.iter().partition(|row| row.by_default);
    if !taken.is_empty() {
        page.gap();
        let columns = [
            Column::Text("UNIT"),
            Column::Figure("COLD MS"),
            Column::Figure("RESTORED MS"),
            Column::Figure("GAIN MS"),
            Column::Figure("MB"),
            Column::Rest("NOTE"),
        ];
        page.table(&columns, taken.iter().map(|row| figures(row).map(Cell::new).to_vec()));
        page.gap();
        page.say(LEGEND);
    }
    let is_shown = |row: &&PlanRow| args.verbose || !args.units.is_empty() || !is_never_taken(row);
    let (shown, hidden): (Vec<&PlanRow>, Vec<&PlanRow>) = others.into_iter().partition(is_shown);
    if !shown.is_empty() {
        page.gap();
        let columns = [Column::Text("UNIT"), Column::Text("TAKEN"), Column::Rest("WHY NOT")];
        page.table(&columns, shown.iter().map(|row| reasons(row, args).map(Cell::new).to_vec()));
    }
    if !hidden.is_empty() {
        page.gap();
        page.say(format_args!(
            "{} more are parts of the boot itself and never taken (`fastboot plan -v` lists them).",
            hidden.len()
        ));
    }
    page.show();
}

fn summary(plan: &Plan) -> String {
    let taken = plan.units.iter().filter(|row| row.by_default).count();
    let all = counted(plan.units.len(), "service");
    if taken == 0 {
        return format!(
            "None of {all} would gain by an image; `fastboot snapshot UNIT` takes one all the same."
        );
    }
    let boot = plan.boot_ms.zip(plan.expected_boot_ms).filter(|(cold, restored)| cold - restored >= 1.0);
    let boot = boot.map_or_else(
        || "; no boot would be shorter by that, because others take as long".to_owned(),
        |(cold, restored)| {
            format!(
                "; a boot would be about {} shorter ({} instead of {})",
                Span(cold - restored),
                Span(restored),
                Span(cold)
            )
        },
    );
    let boot = if plan.boot_ms.is_some() { boot } else { String::new() };
    format!("{taken} of {all} would gain by an image, and `fastboot snapshot` takes them{boot}.")
}

fn figures(row: &PlanRow) -> [String; 6] {
    let bounded = |text: String, is_bound: bool| if is_bound { format!("<{text}") } else { text };
    let cold = match row.cold_by {
        Some(ColdBy::CpuTime) => row.cold_cpu_ms.map(|cpu_ms| (cpu_ms, true)),
        by => row.cold_start_ms.map(|cold_ms| (cold_ms, by == Some(ColdBy::Boot))),
    };
    let is_bound = cold.is_some_and(|(_, is_bound)| is_bound);
    let estimated = if row.restore_ms.is_some() { "" } else { "~" };
    let about = |value: Option<f64>| value.map_or_else(dash, |value| format!("{estimated}{value:.0}"));
    let now = row.passing.iter().map(|passing| format!("now: {passing}"));
    let notes: Vec<String> = now.chain(row.notes.iter().cloned()).collect();
    [
        row.unit.clone(),
        bounded(ms(cold.map(|(cold_ms, _)| cold_ms)), is_bound),
        about(row.expected_restore_ms),
        bounded(about(row.expected_gain_ms), is_bound && row.expected_gain_ms.is_some()),
        row.dirty_bytes.map_or_else(dash, mb),
        notes.join("\n"),
    ]
}

fn reasons(row: &PlanRow, args: &Args) -> [String; 3] {
    let taken = if row.eligible { "if named" } else { "no" };
    let lasting: Vec<String> = match (args.verbose, args.units.is_empty()) {
        (true, _) => row
            .obstacles
            .iter()
            .filter(|obstacle| !obstacle.passes)
            .map(|obstacle| match explain(obstacle.code).filter(|_| obstacle.code != HUB) {
                Some(what) => format!("{} ({}): {what}", obstacle.reason, obstacle.code),
                None => format!("{} ({})", obstacle.reason, obstacle.code),
            })
            .collect(),
        (false, true) => shortened(&row.reasons),
        (false, false) => row.reasons.clone(),
    };
    let small = (row.eligible && !row.gains).then(|| {
        let about = |value: Option<f64>| value.map_or_else(dash, |value| format!("{value:.0}"));
        let cold = row.cold_start_ms.filter(|_| row.cold_by != Some(ColdBy::Boot)).or(row.cold_cpu_ms);
        format!(
            "a restore takes about {} ms, a cold start {} ms",
            about(row.expected_restore_ms),
            about(cold)
        )
    });
    let passing = row.passing.iter().map(|passing| format!("now: {passing}"));
    let notes = row.notes.iter().map(|note| format!("note: {note}"));
    let why = lasting.into_iter().chain(row.risk.clone()).chain(small).chain(passing).chain(notes);
    [row.unit.clone(), taken.to_owned(), why.collect::<Vec<_>>().join("\n")]
}

/// Two reasons say enough for a first look.
fn shortened(reasons: &[String]) -> Vec<String> {
    const SHOWN: usize = 2;
    let mut said: Vec<String> = reasons.iter().take(SHOWN).cloned().collect();
    match reasons.len().saturating_sub(SHOWN) {
        0 => {}
        more => said.push(format!("and {} (-v)", counted(more, "more reason"))),
    }
    said
}
