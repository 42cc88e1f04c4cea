//! `fastboot list`.

use super::common::{StoreArgs, mb, ms, table};
use image_store::{CatalogueEntry, Store};
use serde::Serialize;
use std::time::{SystemTime, UNIX_EPOCH};

/// List generations and their images
#[derive(Debug, clap::Args)]
pub struct Args {
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
            images: generation.images.iter().map(|entry| image(&store, entry)).collect(),
        });
    }
    if args.store.json {
        say!("{}", serde_json::to_string(&Listed { generations })?);
    } else if generations.is_empty() {
        args.store.say_empty();
    } else {
        print(generations);
    }
    Ok(0)
}

fn image(store: &Store, entry: &CatalogueEntry) -> Image {
    let quarantined = match store.is_quarantined(entry.image_id) {
        Ok(record) => record.map(|record| record.to_stale_reason().sentence),
        Err(error) => Some(error.to_string()),
    };
    let service = &entry.service;
    Image {
        unit: entry.unit.clone(),
        image_id: entry.image_id.to_string(),
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
    failed.or_else(|| super::status::cold_in_this_boot(entry))
}

fn print(generations: Vec<Generation>) {
    let heading = [
        "generation",
        "age",
        "unit",
        "type",
        "main PID",
        "cold ms",
        "trial ms",
        "CPU ms",
        "image MB",
        "note",
    ];
    let mut table = table(&heading);
    for generation in generations {
        for image in generation.images {
            table.add_row([
                generation.id.to_string(),
                age(generation.age_s),
                image.unit,
                image.service_type,
                image.main_pid.to_string(),
                ms(image.cold_start_ms),
                ms(image.restore_ms),
                ms(image.cold_cpu_ms),
                mb(image.image_bytes),
                image.quarantined.or(image.last_use).unwrap_or_default(),
            ]);
        }
    }
    say!("{table}");
}

fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}
