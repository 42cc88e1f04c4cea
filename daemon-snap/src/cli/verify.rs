//! `fastboot verify`: what the next boot would find.

use super::common::{StoreArgs, table, unit_names};
use daemon_snap::encode;
use daemon_snap::state::{TREE_MAX_BYTES, TREE_VERSION};
use daemon_snap::unit::Systemd;
use image_store::{
    CatalogueEntry, CheckDepth, EvidenceV1, Image, MachineEvidence, ReasonCode, SectionKind, StaleReason,
    Store, layout,
};
use serde::Serialize;
use std::path::Path;

const REFUSED: u8 = 3;

/// Check images as the next boot would; exit code 3 when one of the services would start cold
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Services; none: all with an image
    units: Vec<String>,
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Serialize)]
struct Row {
    unit: String,
    generation: Option<u64>,
    /// The next boot would restore it.
    usable: bool,
    /// Everything that stands against it.
    reasons: Vec<StaleReason>,
}

pub fn run(args: &Args) -> anyhow::Result<u8> {
    let store = args.store.open();
    let catalogue = store.load()?;
    let units = match args.units.is_empty() {
        true => catalogue.units().into_iter().map(str::to_owned).collect(),
        false => unit_names(&args.units),
    };
    let now = Now { machine: MachineEvidence::collect(Path::new("/"))?, systemd: Systemd::connect().ok() };
    let mut rows = Vec::new();
    for unit in units {
        let (generation, reasons) = match catalogue.newest(&unit) {
            None => {
                (None, vec![StaleReason::new(ReasonCode::NoImage, format!("there is no image of {unit}"))])
            }
            Some((generation, entry)) => (Some(generation.id), check(&store, entry, &now)),
        };
        rows.push(Row { unit, generation, usable: reasons.is_empty(), reasons });
    }
    let all_usable = rows.iter().all(|row| row.usable);
    if args.store.json {
        println!("{}", serde_json::to_string(&serde_json::json!({ "units": rows }))?);
    } else if rows.is_empty() {
        println!("there are no images");
    } else {
        print(rows);
    }
    Ok(if all_usable { 0 } else { REFUSED })
}

/// What images are compared with.
struct Now {
    machine: MachineEvidence,
    /// Without a bus, unit texts are compared at the paths of the snapshot; a drop-in that was added goes unnoticed.
    systemd: Option<Systemd>,
}

/// Everything against one image: first the image itself, then each piece of its evidence.
fn check(store: &Store, entry: &CatalogueEntry, now: &Now) -> Vec<StaleReason> {
    let mut reasons = Vec::new();
    match store.is_quarantined(entry.image_id) {
        Ok(record) => reasons.extend(record.map(|record| record.to_stale_reason())),
        Err(error) => reasons.push(error.to_stale_reason()),
    }
    let opened = store.open_image(entry).and_then(|image| Ok((evidence_of(&image)?, image)));
    let (evidence, image) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            reasons.push(error.to_stale_reason());
            return reasons;
        }
    };
    let mut note = |result: Result<(), StaleReason>| reasons.extend(result.err());
    note(check_image(&image, entry, &evidence));
    let root = Path::new("/");
    note(evidence.machine.check(&now.machine));
    note(check_unit_text(&evidence, &entry.unit, now));
    note(evidence.check_identities(root));
    for file in evidence.files.iter().chain(&evidence.environment_files) {
        note(file.check(root, CheckDepth::ContentIfStatDiffers));
    }
    reasons
}

fn evidence_of(image: &Image) -> image_store::Result<EvidenceV1> {
    let bytes = image.section(SectionKind::EVIDENCE, EvidenceV1::VERSION, EvidenceV1::MAX_LEN)?;
    EvidenceV1::decode(&bytes, image.path())
}

/// Every byte of the image.
fn check_image(image: &Image, entry: &CatalogueEntry, evidence: &EvidenceV1) -> Result<(), StaleReason> {
    let stored = |error: image_store::Error| error.to_stale_reason();
    let corrupt = |sentence: String| StaleReason::new(ReasonCode::ImageCorrupt, sentence);
    if image.len_bytes() != entry.len_bytes {
        return Err(corrupt(format!("{} has another length than in the catalogue", image.path().display())));
    }
    if evidence.machine != entry.machine || evidence.unit != entry.unit_evidence {
        return Err(corrupt(format!("{} is of another snapshot than the catalogue", image.path().display())));
    }
    for section in image.sections() {
        image.section(section.kind, section.version, layout::MAX_SECTION_RAW_LEN).map_err(stored)?;
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    image.verify_pages(threads).map_err(stored)?;
    let state = image.section(SectionKind::STATE, TREE_VERSION, TREE_MAX_BYTES as u64).map_err(stored)?;
    encode::decode(&state, image.page_area()).map(drop).map_err(|error| corrupt(error.to_string()))
}

fn check_unit_text(evidence: &EvidenceV1, unit: &str, now: &Now) -> Result<(), StaleReason> {
    let loaded = now.systemd.as_ref().and_then(|systemd| systemd.properties(unit).ok());
    let (fragment, drop_ins) = match loaded.and_then(|unit| Some((unit.fragment?, unit.drop_ins))) {
        Some(loaded) => loaded,
        None => {
            let drop_ins = evidence.unit.drop_ins.iter().map(|text| text.path.clone()).collect();
            (evidence.unit.fragment.path.clone(), drop_ins)
        }
    };
    evidence.unit.check(Path::new("/"), &fragment, &drop_ins)
}

fn print(rows: Vec<Row>) {
    let mut table = table(&["unit", "next boot", "reason"]);
    for row in rows {
        let why: Vec<String> =
            row.reasons.iter().map(|reason| format!("{} ({})", reason.sentence, reason.code)).collect();
        let outcome = if row.usable { "restored" } else { "cold" };
        table.add_row([row.unit, outcome.to_owned(), why.join("\n")]);
    }
    println!("{table}");
}
