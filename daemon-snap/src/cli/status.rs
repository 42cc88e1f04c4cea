//! `fastboot status`.

use super::common::{StoreArgs, ms, table};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Written by fastboot-initd, kept until the end of the boot.
const STATUS_FILE: &str = "/run/fastboot/status.json";

/// Say what became of each service with an image in this boot
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct BootStatus {
    boot_id: String,
    units: Vec<UnitStatus>,
}

#[derive(Debug, Serialize, Deserialize)]
struct UnitStatus {
    unit: String,
    /// `restored` or `cold`.
    outcome: String,
    #[serde(default)]
    reason_code: Option<String>,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    restore_ms: Option<f64>,
    #[serde(default)]
    main_pid: Option<i32>,
    #[serde(flatten)]
    rest: serde_json::Map<String, serde_json::Value>,
}

pub fn run(args: &Args) -> anyhow::Result<u8> {
    let status = read()?;
    let catalogue = args.store.open().load()?;
    let mut units: Vec<UnitStatus> = status.units;
    for unit in catalogue.units() {
        if !units.iter().any(|row| row.unit == unit) {
            units.push(UnitStatus {
                unit: unit.to_owned(),
                outcome: "cold".into(),
                reason_code: Some("no-record".into()),
                reason: Some("fastboot was not asked for it in this boot".into()),
                restore_ms: None,
                main_pid: None,
                rest: serde_json::Map::new(),
            });
        }
    }
    units.sort_by(|a, b| a.unit.cmp(&b.unit));
    if args.store.json {
        println!("{}", serde_json::to_string(&BootStatus { boot_id: status.boot_id, units })?);
        return Ok(0);
    }
    let mut table = table(&["unit", "outcome", "ms", "main PID", "why"]);
    for row in units {
        table.add_row([
            row.unit,
            row.outcome,
            ms(row.restore_ms),
            row.main_pid.map_or_else(|| "–".into(), |pid| pid.to_string()),
            row.reason.unwrap_or_default(),
        ]);
    }
    println!("{table}");
    Ok(0)
}

fn read() -> anyhow::Result<BootStatus> {
    match std::fs::read(Path::new(STATUS_FILE)) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| anyhow::anyhow!("{STATUS_FILE}: {e}")),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(BootStatus::default()),
        Err(e) => Err(anyhow::anyhow!("{STATUS_FILE}: {e}")),
    }
}
