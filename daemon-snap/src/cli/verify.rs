//! `fastboot verify`.

use super::common::{StoreArgs, table, unit_names};
use daemon_snap::encode;
use daemon_snap::state::{TREE_MAX_BYTES, TREE_VERSION};
use daemon_snap::unit::Systemd;
use image_store::{
    CatalogueEntry, CheckDepth, EvidenceV1, MachineEvidence, ReasonCode, SectionKind, StaleReason, Store,
};
use serde::Serialize;
use std::path::Path;

/// Check images as the next boot would; exit code 3 when one of them would start cold
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
    usable: bool,
    reason: Option<StaleReason>,
}

pub fn run(args: &Args) -> anyhow::Result<u8> {
    let store = args.store.open();
    let catalogue = store.load()?;
    let units = match args.units.is_empty() {
        true => catalogue.units().into_iter().map(str::to_owned).collect(),
        false => unit_names(&args.units),
    };
    let machine = MachineEvidence::collect(Path::new("/"))?;
    let mut rows = Vec::new();
    for unit in units {
        let reason = match catalogue.newest(&unit) {
            None => Some(StaleReason::new(ReasonCode::NoImage, format!("there is no image of {unit}"))),
            Some((_, entry)) => check(&store, entry, &machine).err(),
        };
        rows.push(Row { unit, usable: reason.is_none(), reason });
    }
    if args.store.json {
        println!("{}", serde_json::to_string(&serde_json::json!({ "units": rows }))?);
    } else {
        let mut table = table(&["unit", "usable", "why not"]);
        for row in &rows {
            let why = row
                .reason
                .as_ref()
                .map_or_else(String::new, |r| format!("{} ({})", r.sentence, r.code.as_str()));
            table.add_row([row.unit.clone(), if row.usable { "yes".into() } else { "no".into() }, why]);
        }
        println!("{table}");
    }
    Ok(if rows.iter().all(|row| row.usable) { 0 } else { 3 })
}

fn check(store: &Store, entry: &CatalogueEntry, machine: &MachineEvidence) -> Result<(), StaleReason> {
    let stored = |e: image_store::Error| e.to_stale_reason();
    let root = Path::new("/");
    if let Some(record) = store.is_quarantined(entry.image_id).map_err(stored)? {
        return Err(record.to_stale_reason());
    }
    let image = store.open_image(entry).map_err(stored)?;
    let evidence =
        image.section(SectionKind::EVIDENCE, EvidenceV1::VERSION, EvidenceV1::MAX_LEN).map_err(stored)?;
    let evidence = EvidenceV1::decode(&evidence, image.path()).map_err(stored)?;
    // Without a bus the unit's text is compared at the paths of the snapshot; added drop-ins then go unnoticed until boot.
    let now = Systemd::connect().and_then(|systemd| systemd.unit(&entry.unit));
    match now {
        Ok(info) => evidence.check_unit(root, machine, &info.fragment, &info.drop_ins)?,
        Err(_) => {
            let drop_ins: Vec<_> = evidence.unit.drop_ins.iter().map(|text| text.path.clone()).collect();
            evidence.check_unit(root, machine, &evidence.unit.fragment.path, &drop_ins)?;
        }
    }
    evidence.check_identities(root)?;
    evidence.check_files(root, CheckDepth::ContentIfStatDiffers)?;
    image.verify_pages(2).map_err(stored)?;
    let state = image.section(SectionKind::STATE, TREE_VERSION, TREE_MAX_BYTES as u64).map_err(stored)?;
    encode::decode(&state, image.page_area())
        .map(drop)
        .map_err(|e| StaleReason::new(ReasonCode::ImageCorrupt, e.to_string()))
}
