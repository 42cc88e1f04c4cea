//! `fastboot list`.

use super::common::{StoreArgs, mb, ms};
use super::page::{Column, Page};
use comfy_table::Cell;
use daemon_snap::boot::cold_in_this_boot;
use image_store::evidence::Scope;
use image_store::{CatalogueEntry, Store};
use serde::Serialize;
use std::time::{SystemTime, UNIX_EPOCH};

/// List generations and their images
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Also types and main PIDs
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Serialize)]
struct Listed {
    generations: Vec<Generation>,
}

#[derive(Serialize)]
struct Generation {
    id: u64,
    created_unix_s: u64,
    age_s: u64,
    images: Vec<Image>,
}

#[derive(Serialize)]
struct Image {
    unit: String,
    image_id: String,
    /// The generation that it was taken for, where that is an earlier one: this one has only kept
    /// it.
    carried_from: Option<u64>,
    /// All machines that are equal to the one that made it can use it.
    golden: bool,
    /// When it was taken, seconds since 1970.
    taken_unix_s: Option<u64>,
    service_type: String,
    main_pid: i32,
    image_bytes: u64,
    page_bytes: u64,
    cold_start_ms: Option<f64>,
    cold_cpu_ms: Option<f64>,
    freeze_ms: Option<f64>,
    /// The trial restore of the snapshot, and what it gains over the cold start.
    restore_ms: Option<f64>,
    gain_ms: Option<f64>,
    /// Why it is not tried any more.
    quarantined: Option<String>,
    /// What became of its last use, where that was not good: a failure that leaves it another try,
    /// or a cold start in this boot.
    last_use: Option<String>,
}

pub fn run(args: &Args) -> anyhow::Result<u8> {
    let store = args.store.open();
    let catalogue = store.load()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let mut generations = Vec::new();
    for generation in catalogue.generations.iter().rev() {
        generations.push(Generation {
            id: generation.id,
            created_unix_s: generation.created_unix_s,
            age_s: now.saturating_sub(generation.created_unix_s),
            images: generation.images.iter().map(|entry| image(&store, generation.id, entry)).collect(),
        });
    }
    if args.store.json {
        say!("{}", serde_json::to_string(&Listed { generations })?);
    } else if generations.is_empty() {
        args.store.say_empty();
    } else {
        print(&generations, now, args.verbose);
    }
    Ok(0)
}

fn image(store: &Store, generation: u64, entry: &CatalogueEntry) -> Image {
    let quarantined = match store.is_quarantined(entry.image_id) {
        Ok(record) => record.map(|record| record.to_stale_reason().sentence),
        Err(error) => Some(error.to_string()),
    };
    let service = &entry.service;
    Image {
        unit: entry.unit.clone(),
        image_id: entry.image_id.to_string(),
        carried_from: taken_for(entry).filter(|id| *id != generation),
        golden: entry.machine.scope() == Scope::EqualMachines,
        taken_unix_s: entry.taken_unix_s,
        service_type: service.service_type.clone(),
        main_pid: service.main_pid,
        image_bytes: entry.len_bytes,
        page_bytes: service.page_bytes,
        cold_start_ms: service.cold_start_ms,
        cold_cpu_ms: service.cold_cpu_ms,
        freeze_ms: service.dump_ms,
        restore_ms: service.restore_ms,
        gain_ms: service.gain_ms(),
        last_use: quarantined.is_none().then(|| last_use(store, entry)).flatten(),
        quarantined,
    }
}

/// A trial shows what an image is worth, and only a boot shows whether it fits to a boot.
fn last_use(store: &Store, entry: &CatalogueEntry) -> Option<String> {
    let failed = store.failures(entry.image_id).ok().flatten().map(|record| record.sentence);
    failed.or_else(|| cold_in_this_boot(entry))
}

/// The generation that an image was written for, as its path says.
fn taken_for(entry: &CatalogueEntry) -> Option<u64> {
    entry.file.split('/').nth(1)?.parse().ok()
}

fn print(generations: &[Generation], now_s: u64, verbose: bool) {
    let mut page = Page::new();
    page.say(summary(generations));
    page.gap();
    let mut columns = vec![Column::Figure("GEN"), Column::Figure("AGE"), Column::Text("UNIT")];
    if verbose {
        columns.extend([Column::Text("TYPE"), Column::Figure("PID")]);
    }
    columns.extend([
        Column::Figure("COLD MS"),
        Column::Figure("TRIAL MS"),
        Column::Figure("MB"),
        Column::Rest("NOTE"),
    ]);
    let mut rows = Vec::new();
    for generation in generations {
        for image in &generation.images {
            let age_s = image.taken_unix_s.map_or(generation.age_s, |taken_s| now_s.saturating_sub(taken_s));
            let carried = image.carried_from.map(|id| format!("kept from {id}"));
            let golden = image.golden.then(|| "golden".to_owned());
            let notes = golden
                .into_iter()
                .chain(carried)
                .chain(image.quarantined.clone())
                .chain(image.last_use.clone());
            let mut row = vec![generation.id.to_string(), age(age_s), image.unit.clone()];
            if verbose {
                row.extend([image.service_type.clone(), image.main_pid.to_string()]);
            }
            row.extend([
                ms(image.cold_start_ms),
                ms(image.restore_ms),
                mb(image.image_bytes),
                notes.collect::<Vec<_>>().join("; "),
            ]);
            rows.push(row.into_iter().map(Cell::new).collect());
        }
    }
    page.table(&columns, rows);
    page.show();
}

/// Newest first: boots use the first generation, the one before it is kept for a boot that began
/// while this one was published.
fn summary(generations: &[Generation]) -> String {
    let Some(newest) = generations.first() else { return String::new() };
    let bytes: u64 = newest.images.iter().map(|image| image.image_bytes).sum();
    let kept = newest.images.iter().filter(|image| image.carried_from.is_some()).count();
    let carried = match kept {
        0 => String::new(),
        kept => format!(", {kept} of them kept from before"),
    };
    format!("Boots use generation {}: {} images{carried}, {} MB.", newest.id, newest.images.len(), mb(bytes))
}

/// For people.
pub fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}
