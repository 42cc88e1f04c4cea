//! Images that were taken when the machine went down: for this boot, once, and only if nobody has
//! touched anything that they go with.

use std::io;

use image_store::{BootMark, CatalogueEntry, Once, OnceGeneration, ReasonCode, StaleReason, Store};
use snap_state::bands::{band_of, is_in_a_band};
use snap_sys::procfs_own::OwnProc;

use crate::journal;

/// Numbers that are left between those in use and those that are given out, in a band.
const ROOM: i32 = 100_000;

/// What there is of them in this boot.
#[derive(Debug)]
pub struct OnceImages {
    once: Once,
    generation: Option<OnceGeneration>,
    boot_id: String,
}

impl OnceImages {
    /// Look for them. `boot_id`: [`userspace_id`](crate::boot::userspace_id).
    pub fn load(store: &Store, boot_id: &str) -> OnceImages {
        let once = store.once();
        // One that cannot be read is named by the generator.
        let generation = once.load().unwrap_or_default();
        let images = OnceImages { once, generation, boot_id: boot_id.to_owned() };
        if images.once.is_there()
            && let Err(reason) = images.boot()
        {
            journal::warning(format_args!("{reason}"));
        }
        images
    }

    /// All of them.
    pub fn entries(&self) -> impl Iterator<Item = &CatalogueEntry> {
        self.generation.iter().flat_map(|generation| &generation.images).map(|image| &image.entry)
    }

    fn boot(&self) -> Result<BootMark, StaleReason> {
        let unknown = |error: image_store::Error| {
            let sentence = format!("nobody knows which boot this is: {error}");
            StaleReason::new(ReasonCode::BootBetween, sentence)
        };
        self.once.note_boot(&self.boot_id).map_err(unknown)
    }

    /// Whether an image may be used now; one that is none of these may.
    ///
    /// # Errors
    /// The first reason against it.
    pub fn check(&self, entry: &CatalogueEntry) -> Result<(), StaleReason> {
        let Some((generation, image)) = self.find(entry) else { return Ok(()) };
        self.once.check_unused(entry.image_id)?;
        generation.check_boot(&self.boot()?)?;
        generation.file_systems.iter().try_for_each(image_store::FileSystemMark::check)?;
        let state = self.once.read_state(&entry.unit, image.state);
        state.map_err(|error| error.to_stale_reason())?.check()
    }

    /// Use it up, if it is one of these: from here on it is never used again, whatever becomes of
    /// this restore.
    ///
    /// # Errors
    /// When it was used up before, or that cannot be written down.
    pub fn consume(&self, entry: &CatalogueEntry) -> Result<(), StaleReason> {
        match self.find(entry) {
            Some(_) => self.once.consume(entry.image_id, &self.boot()?),
            None => Ok(()),
        }
    }

    /// The service runs, and its image is of no more use.
    pub fn has_loaded(&self, entry: &CatalogueEntry) {
        if self.find(entry).is_some()
            && let Err(error) = self.once.remove_image(&entry.unit)
        {
            journal::warning(format_args!("{}: {error}; its used image stays on the disk", entry.unit));
        }
    }

    fn find(&self, entry: &CatalogueEntry) -> Option<(&OnceGeneration, &image_store::OnceImage)> {
        let generation = self.generation.as_ref()?;
        Some((generation, generation.by_image_id(entry.image_id)?))
    }
}

/// Count this boot, and have its processes numbered where a later boot finds their numbers free: a
/// unit that starts cold in it can be taken when it ends.
///
/// # Errors
/// The boot cannot be counted.
pub fn note_boot(store: &Store, boot_id: &str) -> io::Result<()> {
    let images = OnceImages::load(store, boot_id);
    let boot = images.boot().map_err(io::Error::other)?;
    let catalogue = store.load().unwrap_or_default();
    let golden = catalogue.newest_images().into_iter().map(|(_, entry)| entry);
    let taken: Vec<i32> =
        golden.chain(images.entries()).flat_map(|entry| entry.service.pids.iter().copied()).collect();
    if let Err(error) = number_from(first_number(boot.number, &taken)) {
        journal::warning(format_args!(
            "processes have ordinary numbers: {error}; units that start cold in this boot are not taken when it ends"
        ));
    }
    Ok(())
}

/// Two boots that follow each other use different bands, and nothing in the band is used again that
/// an image has.
fn first_number(boot: u64, taken: &[i32]) -> i32 {
    let band = band_of(boot);
    let next = taken.iter().filter(|pid| band.contains(pid)).max().map_or(band.start, |pid| pid + 1);
    if next > band.end - ROOM { band.start } else { next }
}

fn number_from(first: i32) -> io::Result<()> {
    let proc = OwnProc::mount()?;
    // Noted for the second time in one boot.
    if is_in_a_band(proc.last_pid()?) {
        return Ok(());
    }
    Ok(proc.set_last_pid((first - 1).into())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boots_that_follow_each_other_number_in_different_bands() {
        assert!(!band_of(4).contains(&first_number(3, &[])));
        let band = band_of(3);
        assert_eq!(first_number(3, &[band.start + 9, band_of(4).start + 99]), band.start + 10);
        assert_eq!(first_number(3, &[band.end - 5]), band.start);
    }
}
