//! Whether an image may be used: the same questions for the boot, which stops at the first "no",
//! and for `fastboot verify`, which wants them all.
//!
//! What lies in the image is asked once, by [`Opened::open`]. What may change from one moment to
//! the next is asked by [`Opened::check_now`], immediately before the image is used. Pages are
//! compared by whoever loads them, or before by [`Opened::check_content`].

use std::ops::ControlFlow;
use std::path::Path;

use crate::catalogue::CatalogueEntry;
use crate::error::Error;
use crate::evidence::{CheckDepth, Digests, EvidenceV1, EvidenceV2, ReasonCode, StaleReason};
use crate::layout::{MAX_SECTION_RAW_LEN, SectionKind};
use crate::reader::Image;
use crate::store::Store;

/// An image that is what the catalogue says, with its evidence. Sections and pages are compared
/// when they are read.
#[derive(Debug)]
pub struct Opened {
    /// The image.
    pub image: Image,
    /// What must still be true.
    pub evidence: EvidenceV2,
}

/// Where to look.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// `/`, except in tests.
    pub root: &'a Path,
    /// Where the image is from.
    pub store: &'a Store,
    /// Contents that were read before.
    pub digests: &'a Digests,
}

impl Opened {
    /// Open the image of an entry: header, section table, length, evidence.
    ///
    /// # Errors
    /// Why the image cannot be used, whatever the machine looks like.
    pub fn open(store: &Store, entry: &CatalogueEntry) -> Result<Opened, StaleReason> {
        let stored = |error: Error| error.to_stale_reason();
        let corrupt = |image: &Image, what: &str| {
            let sentence = format!("{} {what}", image.path().display());
            Err(StaleReason::new(ReasonCode::ImageCorrupt, sentence))
        };
        let image = store.open_image(entry).map_err(stored)?;
        if image.len_bytes() != entry.len_bytes {
            return corrupt(&image, "has another length than in the catalogue");
        }
        let kind = SectionKind::EVIDENCE;
        if image.sections().iter().any(|one| one.kind == kind && one.version == EvidenceV1::VERSION) {
            let sentence = "the image is of an older version, which did not observe what the service read at its start; \
                            take a snapshot again";
            return Err(StaleReason::new(ReasonCode::ImageUnsupported, sentence));
        }
        let evidence = image.section(kind, EvidenceV2::VERSION, EvidenceV2::MAX_LEN);
        let evidence = EvidenceV2::decode(&evidence.map_err(stored)?, image.path()).map_err(stored)?;
        if evidence.machine != entry.machine || evidence.unit != entry.unit_evidence {
            return corrupt(&image, "is of another snapshot than the catalogue");
        }
        Ok(Opened { image, evidence })
    }

    /// Everything that may have changed since somebody looked last, cheapest first. `found` is told
    /// each reason against the image and says whether to go on.
    pub fn check_now(
        &self,
        place: Place<'_>,
        mut found: impl FnMut(StaleReason) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        match place.store.is_quarantined(self.image.id()) {
            Ok(None) => {}
            Ok(Some(record)) => found(record.to_stale_reason())?,
            Err(error) => found(error.to_stale_reason())?,
        }
        if let Err(reason) = self.evidence.check_identities(place.root) {
            found(reason)?;
        }
        let depth = CheckDepth::ContentIfStatDiffers;
        self.evidence.check_each(place.root, depth, place.digests, &mut found)
    }

    /// The first reason of [`check_now`](Opened::check_now), as an error.
    ///
    /// # Errors
    /// That reason.
    pub fn require_now(&self, place: Place<'_>) -> Result<(), StaleReason> {
        let mut first = None;
        let _ = self.check_now(place, |reason| {
            first = Some(reason);
            ControlFlow::Break(())
        });
        first.map_or(Ok(()), Err)
    }

    /// Compare every byte of the image with its checksum, on so many threads.
    ///
    /// # Errors
    /// The first damage.
    pub fn check_content(&self, threads: usize) -> Result<(), StaleReason> {
        let stored = |error: Error| error.to_stale_reason();
        for section in self.image.sections() {
            self.image.section(section.kind, section.version, MAX_SECTION_RAW_LEN).map_err(stored)?;
        }
        self.image.verify_pages(threads).map_err(stored)
    }
}
