//! `fastboot list`.

use super::common::{StoreArgs, mb, ms, table};
use std::time::{SystemTime, UNIX_EPOCH};

/// List generations and their images
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    store: StoreArgs,
}

pub fn run(args: &Args) -> anyhow::Result<u8> {
    let catalogue = args.store.open().load()?;
    if args.store.json {
        println!("{}", serde_json::to_string(&catalogue)?);
        return Ok(0);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let mut table = table(&["generation", "age", "unit", "type", "processes", "cold start ms", "image MB"]);
    for generation in catalogue.generations.iter().rev() {
        let hours = now.saturating_sub(generation.created_unix_s) / 3600;
        let age = if hours < 48 { format!("{hours} h") } else { format!("{} d", hours / 24) };
        for entry in &generation.images {
            table.add_row([
                generation.id.to_string(),
                age.clone(),
                entry.unit.clone(),
                entry.service.service_type.clone(),
                entry.service.pids.len().to_string(),
                ms(entry.service.cold_start_ms),
                mb(entry.len_bytes),
            ]);
        }
    }
    println!("{table}");
    Ok(0)
}
