//! Images that have failed: one small file per image, beside the catalogue, so that a boot never
//! rewrites that.

use std::fs;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::evidence::{ReasonCode, StaleReason};
use crate::layout::ImageId;
use crate::publish::{publish, sync_dir};
use crate::reader::require_private;
use crate::store::{Store, create_private_dir};

/// Boots in which an image may fail before it is not tried again.
pub const MAX_FAILED_BOOTS: u32 = 2;
/// Longest record that is read, in bytes.
const MAX_RECORD_LEN: u64 = 64 << 10;

/// What is known about the failures of one image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineRecord {
    /// Why it failed last.
    pub code: ReasonCode,
    /// The same for people.
    pub sentence: String,
    /// Boot in which it failed last.
    pub boot_id: String,
    /// In how many boots it has failed.
    pub count: u32,
    /// Set when one failure was enough.
    pub outright: bool,
}

impl QuarantineRecord {
    /// Whether the image must not be tried again.
    pub fn is_final(&self) -> bool {
        self.outright || self.count >= MAX_FAILED_BOOTS
    }

    /// As a reason to start cold.
    pub fn to_stale_reason(&self) -> StaleReason {
        let sentence = match self.outright {
            true => format!("image is quarantined: {}", self.sentence),
            false => format!("image failed in {} boots, last: {}", self.count, self.sentence),
        };
        StaleReason::new(ReasonCode::ImageQuarantined, sentence)
    }
}

impl Store {
    /// Note that a restore from this image failed in the boot `boot_id`. Several failures in one
    /// boot count once.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::Io`].
    pub fn record_failure(
        &self,
        image: ImageId,
        boot_id: &str,
        reason: &StaleReason,
    ) -> Result<QuarantineRecord> {
        self.write_failure(image, boot_id, reason, false)
    }

    /// Never try this image again.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::Io`].
    pub fn quarantine(
        &self,
        image: ImageId,
        boot_id: &str,
        reason: &StaleReason,
    ) -> Result<QuarantineRecord> {
        self.write_failure(image, boot_id, reason, true)
    }

    fn write_failure(
        &self,
        image: ImageId,
        boot_id: &str,
        reason: &StaleReason,
        outright: bool,
    ) -> Result<QuarantineRecord> {
        let earlier = self.failures(image)?;
        let count = match &earlier {
            Some(earlier) if earlier.boot_id == boot_id => earlier.count,
            Some(earlier) => earlier.count.saturating_add(1),
            None => 1,
        };
        let record = QuarantineRecord {
            code: reason.code,
            sentence: reason.sentence.clone(),
            boot_id: boot_id.to_owned(),
            count,
            outright: outright || earlier.is_some_and(|earlier| earlier.outright),
        };
        let path = self.quarantine_path(image);
        create_private_dir(&self.quarantine_dir())?;
        let bytes = serde_json::to_vec(&record)
            .map_err(|error| Error::misuse(&path, format!("record cannot be encoded: {error}")))?;
        publish(&path, &bytes, "quarantine")?;
        Ok(record)
    }

    /// What is known about failures of this image. A record that cannot be read counts as a final
    /// one: it is there because something failed.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn failures(&self, image: ImageId) -> Result<Option<QuarantineRecord>> {
        let path = self.quarantine_path(image);
        let text = match read_bounded(&path, MAX_RECORD_LEN) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(&path, "read", error)),
        };
        let unreadable = |error: serde_json::Error| QuarantineRecord {
            code: ReasonCode::ImageQuarantined,
            sentence: format!("{} cannot be read: {error}", path.display()),
            boot_id: String::new(),
            count: MAX_FAILED_BOOTS,
            outright: true,
        };
        Ok(Some(serde_json::from_slice(&text).unwrap_or_else(unreadable)))
    }

    /// The record, if the image must not be tried again: it failed in two boots, or once outright.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn is_quarantined(&self, image: ImageId) -> Result<Option<QuarantineRecord>> {
        Ok(self.failures(image)?.filter(QuarantineRecord::is_final))
    }

    /// Forget the failures of an image that has now survived its probation. A final record stays.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn mark_boot_ok(&self, image: ImageId) -> Result<()> {
        match self.failures(image)? {
            Some(record) if !record.is_final() => self.forget_failures(image),
            _ => Ok(()),
        }
    }

    /// Forget all failures of an image, final or not.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn forget_failures(&self, image: ImageId) -> Result<()> {
        let path = self.quarantine_path(image);
        match fs::remove_file(&path) {
            Ok(()) => sync_dir(&path).map_err(|source| Error::io(&path, "sync directory of", source)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Error::io(&path, "remove", error)),
        }
    }

    pub(crate) fn quarantine_dir(&self) -> PathBuf {
        self.root().join("quarantine")
    }

    fn quarantine_path(&self, image: ImageId) -> PathBuf {
        self.quarantine_dir().join(format!("{image}.json"))
    }
}

/// At most `max_len` bytes of a file; what is longer is cut, and then fails to decode. A link is
/// not followed, and the file has to be one that nobody but root and we may write to.
pub(crate) fn read_bounded(path: &std::path::Path, max_len: u64) -> io::Result<Vec<u8>> {
    use std::io::Read as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut bytes = Vec::new();
    // Opening a FIFO would wait for a writer.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    require_private(&file.metadata()?, path).map_err(io::Error::other)?;
    file.take(max_len).read_to_end(&mut bytes)?;
    Ok(bytes)
}
