//! Which images may be used: everything that can be known before a unit asks.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

use image_store::{
    CatalogueEntry, CheckDepth, EvidenceV1, Image, ReasonCode, SectionKind, StaleReason, Store, layout,
};

/// An image that may be used, open; or why not.
pub type Verdict = Result<std::sync::Arc<Image>, StaleReason>;

#[derive(Debug)]
enum Progress {
    Queued,
    Running,
    Done(Verdict),
}

/// Verdicts as they come in. A unit that asks waits for its own only.
#[derive(Debug)]
pub struct Verdicts {
    progress: Mutex<HashMap<String, Progress>>,
    changed: Condvar,
}

impl Verdicts {
    /// All of these wait to be looked at.
    pub fn new<'a>(units: impl IntoIterator<Item = &'a str>) -> Verdicts {
        let progress = units.into_iter().map(|unit| (unit.to_owned(), Progress::Queued)).collect();
        Verdicts { progress: Mutex::new(progress), changed: Condvar::new() }
    }

    /// Look at an image unless somebody else does or did.
    pub fn run(&self, unit: &str, look: impl FnOnce() -> Verdict) {
        {
            let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
            match progress.get_mut(unit) {
                Some(state @ Progress::Queued) => *state = Progress::Running,
                _ => return,
            }
        }
        let internal =
            || StaleReason::new(ReasonCode::ImageUnreadable, "validation failed by an internal error");
        let verdict =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(look)).unwrap_or_else(|_| Err(internal()));
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.insert(unit.to_owned(), Progress::Done(verdict));
        self.changed.notify_all();
    }

    /// Whether nobody has looked at it yet.
    pub fn is_queued(&self, unit: &str) -> bool {
        let progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(progress.get(unit), Some(Progress::Queued))
    }

    /// The verdict, taken out: an image is used once. Waits until `deadline`.
    pub fn take(&self, unit: &str, deadline: Instant) -> Verdict {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match progress.get(unit) {
                None => return Err(StaleReason::new(ReasonCode::NoImage, "there is no image of it")),
                Some(Progress::Done(_)) => break,
                Some(_) => {}
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(StaleReason::new(ReasonCode::Deadline, "image was not checked in time"));
            }
            let waited = self.changed.wait_timeout(progress, left);
            progress = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        match progress.remove(unit) {
            Some(Progress::Done(verdict)) => verdict,
            _ => Err(StaleReason::new(ReasonCode::NoImage, "there is no image of it")),
        }
    }
}

/// Check one image from its quarantine record to its last page, cheapest first. Reading the pages is also what brings
/// them into the page cache.
pub fn validate(root: &Path, store: &Store, entry: &CatalogueEntry) -> Verdict {
    let stored = |error: image_store::Error| error.to_stale_reason();
    if let Some(record) = store.is_quarantined(entry.image_id).map_err(stored)? {
        return Err(record.to_stale_reason());
    }
    let image = store.open_image(entry).map_err(stored)?;
    if image.len_bytes() != entry.len_bytes {
        let sentence = format!("{} has another length than in the catalogue", image.path().display());
        return Err(StaleReason::new(ReasonCode::ImageCorrupt, sentence));
    }
    let evidence =
        image.section(SectionKind::EVIDENCE, EvidenceV1::VERSION, EvidenceV1::MAX_LEN).map_err(stored)?;
    let evidence = EvidenceV1::decode(&evidence, image.path()).map_err(stored)?;
    if evidence.machine != entry.machine || evidence.unit != entry.unit_evidence {
        let sentence = format!("{} is of another snapshot than the catalogue", image.path().display());
        return Err(StaleReason::new(ReasonCode::ImageCorrupt, sentence));
    }
    evidence.check_identities(root)?;
    // Ahead of the comparison of files, so that the device is busy meanwhile. A failure only makes it slower.
    let _ = image.readahead();
    evidence.check_files(root, CheckDepth::ContentIfStatDiffers)?;
    for section in image.sections() {
        image.section(section.kind, section.version, layout::MAX_SECTION_RAW_LEN).map_err(stored)?;
    }
    image.verify_pages(1).map_err(stored)?;
    if let Some(pid) = entry.service.pids.iter().find(|pid| is_taken(**pid)) {
        return Err(StaleReason::new(ReasonCode::PidTaken, format!("process id {pid} is in use")));
    }
    Ok(std::sync::Arc::new(image))
}

/// Whether a process or thread has this number; /proc lists only processes, but finds both.
pub fn is_taken(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn stale(sentence: &str) -> Verdict {
        Err(StaleReason::new(ReasonCode::FileChanged, sentence))
    }

    #[test]
    fn a_unit_waits_only_for_its_own_verdict_and_not_for_ever() {
        let verdicts = Verdicts::new(["slow", "quick"]);
        verdicts.run("quick", || stale("quick changed"));
        let soon = || Instant::now() + Duration::from_millis(20);
        assert_eq!(verdicts.take("quick", soon()).unwrap_err().sentence, "quick changed");
        assert_eq!(verdicts.take("slow", soon()).unwrap_err().code, ReasonCode::Deadline);
        assert_eq!(verdicts.take("other", soon()).unwrap_err().code, ReasonCode::NoImage);
    }

    #[test]
    fn an_image_is_looked_at_once_and_a_panic_is_a_verdict() {
        let verdicts = Verdicts::new(["a"]);
        verdicts.run("a", || panic!("broken"));
        verdicts.run("a", || stale("second"));
        assert_eq!(verdicts.take("a", Instant::now()).unwrap_err().code, ReasonCode::ImageUnreadable);
    }
}
