//! Observing a start without keeping an image: for a unit that is taken when the machine goes down,
//! what it reads at its start has to be known before.

use super::Candidate;
use super::empty_store::EmptyStores;
use super::image;
use super::trial;
use super::witness::{Earlier, Witness};
use crate::unit::{Band, Interrupt, Patience, Systemd};
use image_store::evidence::{Digests, Scope};
use image_store::{EvidenceV2, Opened, Store};
use snap_bus::BusWatch;
use snap_error::{Error, Result};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Restarts a unit once under the recorder, and says what it has read. An image of it is made on the
/// way, which shows that one can be taken, and is not kept.
///
/// # Errors
/// Everything that stands against taking the unit; what goes wrong with its restart.
pub(crate) fn observe(store: &Store, name: &str, settle: Duration) -> Result<EvidenceV2> {
    let _lock = store.lock()?;
    // Dropped, it leaves nothing.
    let pending = store.begin_generation()?;
    let catalogue = store.load()?;
    let systemd = Systemd::connect()?;
    trial::record_boot_without_images()?;
    EmptyStores::clear()?;
    let (mut unit, _) = Candidate::look_moving(&systemd, name)?;
    unit.inspect_lasting()?;

    let watch = BusWatch::start().map(Arc::new).map_err(|error| error.to_stale_reason());
    let once = store.once().load()?;
    let golden = catalogue.newest_images().into_iter().map(|(_, entry)| entry);
    let of_shutdown = once.iter().flat_map(|generation| &generation.images).map(|image| &image.entry);
    let taken: Vec<i32> =
        golden.chain(of_shutdown).flat_map(|entry| entry.service.pids.iter().copied()).collect();
    let band = Band::enter(pending.id(), &taken)?;
    let witness = Witness::call(Some(&band));
    witness.watch(&unit.properties().control_group);
    let properties = unit.properties();
    let keeps = properties.may_store() && !properties.store_preserved.is_empty();
    let keeping: Vec<&str> = keeps.then_some(properties.id.as_str()).into_iter().collect();
    let stores = EmptyStores::begin(&systemd, &keeping)?;
    let patience = Patience { longest: settle, interrupt: Interrupt::default() };
    unit.restart(&systemd, &band, &witness, &patience)?;
    witness.end_starts()?;
    unit.all_have_started(&BTreeSet::from_iter(unit.made_by_start().iter().cloned()))?;
    unit.refresh(&systemd)?;
    unit.settle(&systemd, &patience)?;
    unit.record_bus(&watch);
    let digests = Digests::default();
    let context = image::Context {
        systemd: &systemd,
        witness: &witness,
        digests: &digests,
        band: Some(&band),
        earlier: Earlier { store, catalogue: &catalogue },
        is_tried: false,
        scope: Scope::ThisMachine,
    };
    let image = image::take(context, &pending, unit);
    drop(witness);
    band.leave()?;
    stores.end()?;
    Ok(Opened::open(store, &image?.entry).map_err(Error::Stale)?.evidence)
}
