//! What was tried to be taken again and was not: a file beside the catalogue, `refresh.json`.
//!
//! An image that is stale stays stale where its service cannot be taken any more, or gains nothing.
//! Without this a timer would restart that service every day for nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::catalogue::{MAX_CATALOGUE_LEN, frame, unframe};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::evidence::{CheckDepth, Digests, FileEvidence, MountTable, ReasonCode, StaleReason, is_below_run};
use crate::layout::ImageId;
use crate::publish::publish;
use crate::quarantine::read_bounded;
use crate::store::Store;

/// Services whose stale images could not be replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshAttempts {
    /// By unit.
    failed: BTreeMap<String, Failed>,
}

/// What was stale, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Failed {
    image_id: ImageId,
    because: Vec<String>,
    /// [`Circumstances`]; records of before have none.
    #[serde(default)]
    circumstances: Option<Digest>,
}

impl Failed {
    fn new(image_id: ImageId, reasons: &[StaleReason], now: Circumstances) -> Failed {
        Failed { image_id, because: reasons.iter().map(words).collect(), circumstances: Some(now.0) }
    }
}

/// What there was in the place of what the image depends on. A sentence is the same after another
/// edit of the same file, and another edit may be what a failed attempt was waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Circumstances(Digest);

impl Circumstances {
    /// Those of now. `files`: what the image depends on, if it can be read; `around`: what else may
    /// decide how an attempt ends.
    pub fn now<'a>(
        root: &Path,
        files: impl Iterator<Item = &'a FileEvidence>,
        around: &str,
    ) -> Circumstances {
        let mounts = MountTable::read(root);
        let digests = Digests::default();
        let mut text = around.to_owned();
        for file in files.filter(|file| mounts.remote(&file.path).is_none()) {
            if file.check_with(root, CheckDepth::ContentIfStatDiffers, &digests).is_err() {
                let is = FileEvidence::collect(root, &file.path, false).ok();
                let is = is.map(|is| (is.kind, is.ino, is.size, is.mtime_ns, is.ctime_ns));
                // What each boot makes anew has other times in each.
                let is = is.filter(|_| !is_below_run(&file.path));
                let _ = writeln!(text, "{} {is:?}", file.path.display());
            }
        }
        Circumstances(Digest::of(text.as_bytes()))
    }
}

/// A reason without what time alone changes in it.
fn words(reason: &StaleReason) -> String {
    match reason.code {
        ReasonCode::ImageTooOld => reason.code.to_string(),
        code => format!("{code}: {}", reason.sentence),
    }
}

impl RefreshAttempts {
    /// Whether this image was to be replaced before, for these very reasons and as things are now.
    pub fn has_failed(
        &self,
        unit: &str,
        image_id: ImageId,
        reasons: &[StaleReason],
        now: Circumstances,
    ) -> bool {
        self.failed.get(unit) == Some(&Failed::new(image_id, reasons, now))
    }

    /// Another try would end in the same way.
    pub fn note_failed(
        &mut self,
        unit: &str,
        image_id: ImageId,
        reasons: &[StaleReason],
        now: Circumstances,
    ) {
        self.failed.insert(unit.to_owned(), Failed::new(image_id, reasons, now));
    }

    /// It was taken.
    pub fn forget(&mut self, unit: &str) {
        self.failed.remove(unit);
    }
}

impl Store {
    pub(crate) fn refresh_path(&self) -> PathBuf {
        self.root().join("refresh.json")
    }

    /// What earlier calls could not take again. A file that is damaged counts as none: the worst
    /// that follows is one try more.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn refresh_attempts(&self) -> Result<RefreshAttempts> {
        let path = self.refresh_path();
        match read_bounded(&path, MAX_CATALOGUE_LEN) {
            Ok(bytes) => {
                Ok(unframe(&bytes).and_then(|body| serde_json::from_slice(body).ok()).unwrap_or_default())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(RefreshAttempts::default()),
            Err(error) => Err(Error::io(&path, "read", error)),
        }
    }

    /// Replaces the record.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::Io`].
    pub fn write_refresh_attempts(&self, attempts: &RefreshAttempts) -> Result<()> {
        let path = self.refresh_path();
        let body = serde_json::to_string_pretty(attempts)
            .map_err(|error| Error::misuse(&path, format!("it cannot be encoded: {error}")))?;
        publish(&path, &frame(&body), "refresh")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(code: ReasonCode, sentence: &str) -> Vec<StaleReason> {
        vec![StaleReason::new(code, sentence)]
    }

    fn none() -> Circumstances {
        Circumstances::now(Path::new("/"), std::iter::empty(), "")
    }

    #[test]
    fn another_edit_of_the_same_file_is_worth_another_try() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.conf");
        std::fs::write(&path, "one").unwrap();
        let file = FileEvidence::collect(Path::new("/"), &path, true).unwrap();
        let now = |around: &str| Circumstances::now(Path::new("/"), std::iter::once(&file), around);
        let (id, reasons) = (ImageId::random().unwrap(), reason(ReasonCode::FileChanged, "it changed"));
        let mut attempts = RefreshAttempts::default();
        std::fs::write(&path, "broken").unwrap();
        attempts.note_failed("a.service", id, &reasons, now("text"));
        assert!(attempts.has_failed("a.service", id, &reasons, now("text")));
        assert!(!attempts.has_failed("a.service", id, &reasons, now("other text")));
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "mended").unwrap();
        assert!(!attempts.has_failed("a.service", id, &reasons, now("text")));
    }

    #[test]
    fn only_the_same_reasons_against_the_same_image_count_as_tried() {
        let (first, second) = (ImageId::random().unwrap(), ImageId::random().unwrap());
        let changed = reason(ReasonCode::FileChanged, "/etc/a changed");
        let mut attempts = RefreshAttempts::default();
        attempts.note_failed("a.service", first, &changed, none());
        assert!(attempts.has_failed("a.service", first, &changed, none()));
        assert!(!attempts.has_failed("a.service", second, &changed, none()));
        assert!(!attempts.has_failed("b.service", first, &changed, none()));
        let other = reason(ReasonCode::FileChanged, "/etc/b changed");
        assert!(!attempts.has_failed("a.service", first, &other, none()));
        attempts.forget("a.service");
        assert!(!attempts.has_failed("a.service", first, &changed, none()));
    }

    #[test]
    fn an_image_that_grows_older_stays_the_same_case() {
        let id = ImageId::random().unwrap();
        let mut attempts = RefreshAttempts::default();
        attempts.note_failed("a.service", id, &reason(ReasonCode::ImageTooOld, "it is 2 days old"), none());
        let later = reason(ReasonCode::ImageTooOld, "it is 3 days old");
        assert!(attempts.has_failed("a.service", id, &later, none()));
    }

    #[test]
    fn the_record_outlives_the_program_and_damage_makes_it_empty() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path());
        assert_eq!(store.refresh_attempts().unwrap(), RefreshAttempts::default());
        let mut attempts = RefreshAttempts::default();
        let changed = reason(ReasonCode::FileChanged, "/etc/a changed");
        attempts.note_failed("a.service", ImageId::random().unwrap(), &changed, none());
        store.write_refresh_attempts(&attempts).unwrap();
        assert_eq!(store.refresh_attempts().unwrap(), attempts);
        let path = store.refresh_path();
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(store.refresh_attempts().unwrap(), RefreshAttempts::default());
    }
}
