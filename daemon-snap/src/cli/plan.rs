//! `fastboot plan`.

use super::common::{mb, ms, table, unit_names};
use daemon_snap::snapshot;

/// Say what could be taken, every reason against it, and what it would gain; changes nothing
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Services; none: all that run and are not left out by default
    units: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<u8> {
    let units = if args.units.is_empty() { snapshot::default_units()? } else { unit_names(&args.units) };
    let rows = snapshot::plan(&units)?;
    if args.json {
        println!("{}", serde_json::to_string(&serde_json::json!({ "units": rows }))?);
        return Ok(0);
    }
    let mut table =
        table(&["unit", "eligible", "procs/threads", "dirty MB", "start ms", "CPU ms", "why not"]);
    for row in rows {
        table.add_row([
            row.unit,
            if row.eligible { "yes".into() } else { "no".into() },
            format!("{}/{}", row.processes, row.threads),
            mb(row.dirty_bytes),
            ms(row.start_ms),
            ms(row.cpu_ms),
            row.reasons.join("\n"),
        ]);
    }
    println!("{table}");
    Ok(0)
}
