//! `fastboot refresh`: what has become stale is taken again.

use super::common::{StoreArgs, short};
use super::page::{Column, Page};
use super::{snapshot, verify};
use comfy_table::Cell;
use daemon_snap::boot::counted;
use daemon_snap::snapshot::preflight;
use image_store::StaleReason;
use serde::Serialize;

/// Take the services again whose images a boot would not use any more, as after an upgrade; no
/// others
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only say which they are and why
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Serialize)]
struct Stale {
    unit: String,
    reasons: Vec<StaleReason>,
}

pub fn run(args: Args) -> anyhow::Result<u8> {
    let store = args.store.open();
    let checked = verify::check_all(&store, &[])?;
    let all = checked.len();
    let names: Vec<String> = checked.iter().filter(|row| !row.usable).map(|row| row.unit.clone()).collect();
    let (_, gone) = preflight(&names, &store.load()?)?;
    gone.iter().for_each(|unit| {
        eprintln!("{unit} is not installed any more; `fastboot remove {}` removes its image", short(unit));
    });
    let stale: Vec<Stale> = checked
        .into_iter()
        .filter(|row| !row.usable && !gone.contains(&row.unit))
        .map(|row| Stale { unit: row.unit, reasons: row.reasons })
        .collect();
    if args.dry_run || stale.is_empty() {
        match args.store.json {
            true => say!("{}", serde_json::json!({ "stale": stale })),
            false => print(&stale, all),
        }
        return Ok(0);
    }
    if !args.store.json {
        stale.iter().for_each(|row| eprintln!("{}: {}", short(&row.unit), sentence(row)));
    }
    snapshot::run(&snapshot::Args::of(stale.into_iter().map(|row| row.unit).collect(), args.store))
}

fn print(stale: &[Stale], all: usize) {
    let mut page = Page::new();
    let images = counted(all, "image");
    match stale.len() {
        0 => page.say(format_args!("A boot would use all of {images}; there is nothing to take again.")),
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
