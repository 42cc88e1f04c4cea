//! `fastboot plan`.

use super::common::{StoreArgs, mb, ms, table, unit_names};
use daemon_snap::snapshot::{self, PlanRow};

const FAILED: u8 = 1;

/// Say what could be taken, every reason against it, and what it would gain; each service stands
/// still for a moment
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Services; none: all that run
    units: Vec<String>,
    #[command(flatten)]
    store: StoreArgs,
}

pub fn run(args: &Args) -> anyhow::Result<u8> {
    let catalogue = args.store.open().load()?;
    let mut rows = snapshot::plan(&unit_names(&args.units), &catalogue)?;
    let code = if rows.iter().all(|row| row.exists) { 0 } else { FAILED };
    if args.store.json {
        say!("{}", serde_json::to_string(&serde_json::json!({ "units": rows }))?);
        return Ok(code);
    }
    let rank = |row: &PlanRow| (!row.by_default, !row.eligible);
    rows.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.unit.cmp(&b.unit)));
    let mut table =
        table(&["unit", "taken", "procs/threads", "dirty MB", "cold ms", "trial ms", "CPU ms", "why not"]);
    for row in rows {
        let taken = match (row.eligible, row.by_default) {
            (true, true) => "yes",
            (true, false) => "if named",
            (false, _) => "no",
        };
        let seen = row.threads > 0;
        let why = row
            .reasons
            .into_iter()
            .chain(row.risk)
            .chain(row.passing.into_iter().map(|p| format!("now: {p}")))
            .chain(row.notes.into_iter().map(|note| format!("note: {note}")));
        table.add_row([
            row.unit,
            taken.to_owned(),
            if seen { format!("{}/{}", row.processes, row.threads) } else { "–".into() },
            if seen { mb(row.dirty_bytes) } else { "–".into() },
            ms(row.cold_start_ms),
            ms(row.restore_ms),
            ms(row.cold_cpu_ms),
            why.collect::<Vec<_>>().join("\n"),
        ]);
    }
    say!("{table}");
    Ok(code)
}
