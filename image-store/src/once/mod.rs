//! Images that are used once: taken when the machine goes down, and good for the boot that follows.
//!
//! ```text
//! /var/lib/fastboot/once/       0700  there as soon as a unit is in this mode
//!   boots                       the boot that is going on, by number     boots.rs
//!   generation.json             replaced by rename: from then on its images count, for one boot
//!   UNIT.img                    0600
//!   UNIT.state                  0600  every file that the unit may write  state.rs
//!   consumed/<image id>         its image has been used
//!   observed/UNIT               0600  what the unit read when its start was observed
//! ```
//!
//! This is apart from the catalogue: what happens at each shutdown must not be able to harm golden
//! images, and a program of before does not know of it. Restoring and taking may not live here.

mod boots;
mod files;
mod state;
mod superblock;

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use boots::BootMark;
pub use state::StateEvidence;
pub use superblock::FileSystemMark;

use crate::catalogue::{CatalogueEntry, MAX_CATALOGUE_LEN, frame, is_inside_store, unframe};
use crate::digest::Digest;
use crate::error::{Error, Part, Result};
use crate::evidence::{EvidenceV2, ReasonCode, StaleReason};
use crate::fault;
use crate::layout::ImageId;
use crate::publish::{publish, sync_dir};
use crate::quarantine::read_bounded;
use crate::store::{Store, create_private_dir, list};
use files::file_name;

/// Format that this build writes and reads.
const FORMAT: u32 = 1;
const DIR: &str = "once";

/// The directory.
#[derive(Clone, Debug)]
pub struct Once {
    dir: PathBuf,
}

/// Units that were taken together, in one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OnceGeneration {
    /// [`FORMAT`].
    format: u32,
    /// When it was published, seconds since 1970.
    pub taken_unix_s: u64,
    /// The boot in which that was. Its images are for the next one.
    pub boot: BootMark,
    /// File systems that its files lie on, as far as they tell how often they were mounted.
    pub file_systems: Vec<FileSystemMark>,
    /// By unit.
    pub images: Vec<OnceImage>,
}

/// One of its images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OnceImage {
    /// As in the catalogue.
    pub entry: CatalogueEntry,
    /// Of the bytes of its state evidence.
    pub state: Digest,
}

impl OnceGeneration {
    /// For the boot after this one.
    pub fn new(
        taken_unix_s: u64,
        boot: BootMark,
        file_systems: Vec<FileSystemMark>,
        images: Vec<OnceImage>,
    ) -> OnceGeneration {
        OnceGeneration { format: FORMAT, taken_unix_s, boot, file_systems, images }
    }

    /// The image with this id.
    pub fn by_image_id(&self, id: ImageId) -> Option<&OnceImage> {
        self.images.iter().find(|image| image.entry.image_id == id)
    }

    /// Whether `now` is the boot that its images are for.
    ///
    /// # Errors
    /// [`ReasonCode::BootBetween`].
    pub fn check_boot(&self, now: &BootMark) -> std::result::Result<(), StaleReason> {
        let refuse = |sentence: String| Err(StaleReason::new(ReasonCode::BootBetween, sentence));
        if now.id == self.boot.id {
            return refuse("it was taken in this very boot, which has not ended".to_owned());
        }
        match now.number.checked_sub(self.boot.number) {
            Some(1) => Ok(()),
            Some(count) if count > 1 => refuse(format!(
                "it was taken for the boot after, and {} more came between",
                if count == 2 { "one".to_owned() } else { (count - 1).to_string() }
            )),
            _ => refuse("the count of boots is behind the one that it was taken in".to_owned()),
        }
    }
}

impl Store {
    /// Images that are used once.
    pub fn once(&self) -> Once {
        Once { dir: self.root().join(DIR) }
    }
}

impl Once {
    /// Whether any unit is, or was, in this mode.
    pub fn is_there(&self) -> bool {
        self.dir.exists()
    }

    fn generation_path(&self) -> PathBuf {
        self.dir.join("generation.json")
    }

    /// Where the image of a unit belongs, and the same relative to the store.
    ///
    /// # Errors
    /// [`Error::Misuse`] for a name that is not a unit name.
    pub fn image_path(&self, unit: &str) -> Result<(PathBuf, String)> {
        let name = format!("{}.img", file_name(&self.dir, unit)?);
        Ok((self.dir.join(&name), format!("{DIR}/{name}")))
    }

    fn state_path(&self, unit: &str) -> Result<PathBuf> {
        Ok(self.dir.join(format!("{}.state", file_name(&self.dir, unit)?)))
    }

    /// The generation that waits for its boot, or was used in this one.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Unsupported`], [`Error::Io`].
    pub fn load(&self) -> Result<Option<OnceGeneration>> {
        let path = self.generation_path();
        let bytes = match read_bounded(&path, MAX_CATALOGUE_LEN) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(&path, "read", error)),
        };
        let damage = |what: String| Error::corrupt(&path, Part::Catalogue, 0, what);
        let body = unframe(&bytes).ok_or_else(|| damage("it is damaged".to_owned()))?;
        let generation: OnceGeneration =
            serde_json::from_slice(body).map_err(|error| damage(error.to_string()))?;
        if generation.format != FORMAT {
            let what = format!("format {} of a generation that is used once", generation.format);
            return Err(Error::Unsupported { path, what });
        }
        match generation.images.iter().find(|image| !is_inside_store(&image.entry.file)) {
            Some(image) => Err(damage(format!("{:?} leads out of the store", image.entry.file))),
            None => Ok(Some(generation)),
        }
    }

    /// Make the directory: from now on boots are counted.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::Io`].
    pub fn create(&self) -> Result<()> {
        create_private_dir(&self.dir)
    }

    /// From here on the generation before is none any more, and nothing of it is left.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn begin(&self) -> Result<()> {
        self.create()?;
        self.withdraw()?;
        for path in list(&self.dir) {
            let is_ours =
                path.extension().is_some_and(|extension| extension == "img" || extension == "state");
            if is_ours || files::is_temporary(&path) {
                files::remove(&path)?;
            }
        }
        // What says that an image was used goes when no image is left: ids are never given out
        // again.
        for path in list(&self.consumed_dir()) {
            files::remove(&path)?;
        }
        Ok(())
    }

    /// Nothing waits for the next boot any more.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn withdraw(&self) -> Result<()> {
        let path = self.generation_path();
        files::remove(&path)?;
        match self.dir.exists() {
            true => sync_dir(&path).map_err(|source| Error::io(&path, "sync directory of", source)),
            false => Ok(()),
        }
    }

    /// Without one unit: its image, its state evidence, and what was observed of it. Returns whether
    /// there was anything.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn forget(&self, unit: &str) -> Result<bool> {
        if !self.is_there() {
            return Ok(false);
        }
        let mut had = false;
        // A generation that cannot be read is none.
        if let Ok(Some(mut generation)) = self.load()
            && generation.images.iter().any(|image| image.entry.unit == unit)
        {
            generation.images.retain(|image| image.entry.unit != unit);
            self.publish(&generation)?;
            had = true;
        }
        for path in [self.image_path(unit)?.0, self.state_path(unit)?, self.observed_path(unit)?] {
            had |= path.exists();
            files::remove(&path)?;
        }
        Ok(had)
    }

    /// Put a generation in force, durably.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::Io`].
    pub fn publish(&self, generation: &OnceGeneration) -> Result<()> {
        let path = self.generation_path();
        let body = serde_json::to_string_pretty(generation)
            .map_err(|error| Error::misuse(&path, format!("it cannot be encoded: {error}")))?;
        publish(&path, &frame(&body), "once")
    }

    /// Write what was seen of a unit's state, durably, and say which bytes those are.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::Io`].
    pub fn write_state(&self, unit: &str, state: &StateEvidence) -> Result<Digest> {
        let path = self.state_path(unit)?;
        let bytes = state.encode(&path)?;
        publish(&path, &bytes, "state")?;
        Ok(Digest::of(&bytes))
    }

    /// What was seen of its state.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for other bytes than those.
    pub fn read_state(&self, unit: &str, digest: Digest) -> Result<StateEvidence> {
        let path = self.state_path(unit)?;
        let bytes = read_bounded(&path, StateEvidence::MAX_LEN).map_err(|e| Error::io(&path, "read", e))?;
        if Digest::of(&bytes) != digest {
            return Err(Error::corrupt(&path, Part::Catalogue, 0, "digest differs"));
        }
        StateEvidence::decode(&bytes, &path)
    }

    fn consumed_dir(&self) -> PathBuf {
        self.dir.join("consumed")
    }

    /// Use up an image: when this returns, the mark is on the disk. Only the first caller ever gets
    /// it.
    ///
    /// # Errors
    /// [`ReasonCode::ImageConsumed`] when it was used up before, and where that cannot be written
    /// down.
    pub fn consume(&self, image: ImageId, boot: &BootMark) -> std::result::Result<(), StaleReason> {
        let path = self.consumed_dir().join(image.to_string());
        let marked = (|| {
            create_private_dir(&self.consumed_dir())?;
            let fail = |step| {
                let path = &path;
                move |source| Error::write(path, step, 0, 0, source)
            };
            fault::point("once.consume").map_err(fail("create"))?;
            let mut mark = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)
                .map_err(fail("create"))?;
            mark.write_all(boot.id.as_bytes()).and_then(|()| mark.sync_all()).map_err(fail("write"))?;
            // Its name, and that of its directory.
            for name in [path.as_path(), &self.consumed_dir()] {
                sync_dir(name).map_err(fail("sync directory of"))?;
            }
            fault::point("once.consumed").map_err(fail("leave"))
        })();
        marked.map_err(|error: Error| match &error {
            Error::Io { source, .. } if source.kind() == io::ErrorKind::AlreadyExists => {
                self.consumed_before()
            }
            error => {
                let sentence = format!("that it is used cannot be written down: {error}");
                StaleReason::new(ReasonCode::ImageConsumed, sentence)
            }
        })
    }

    /// Whether an image may still be used up.
    ///
    /// # Errors
    /// [`ReasonCode::ImageConsumed`].
    pub fn check_unused(&self, image: ImageId) -> std::result::Result<(), StaleReason> {
        let mark = fs::symlink_metadata(self.consumed_dir().join(image.to_string()));
        match mark {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            // Also where nobody can say.
            _ => Err(self.consumed_before()),
        }
    }

    fn consumed_before(&self) -> StaleReason {
        let sentence = "the image may be used once, and a restore from it was begun before";
        StaleReason::new(ReasonCode::ImageConsumed, sentence)
    }

    /// The image has been loaded: nobody needs its memory on the disk any more.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn remove_image(&self, unit: &str) -> Result<()> {
        files::remove(&self.image_path(unit)?.0)
    }

    fn observed_path(&self, unit: &str) -> Result<PathBuf> {
        Ok(self.dir.join("observed").join(file_name(&self.dir, unit)?))
    }

    /// Keep what a unit read when its start was observed.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::Io`].
    pub fn write_observed(&self, unit: &str, evidence: &EvidenceV2) -> Result<()> {
        let path = self.observed_path(unit)?;
        create_private_dir(path.parent().unwrap_or(&self.dir))?;
        publish(&path, &evidence.encode(&path)?, "observed")
    }

    /// What it read; `None` when nobody has looked on.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Io`].
    pub fn observed(&self, unit: &str) -> Result<Option<EvidenceV2>> {
        let path = self.observed_path(unit)?;
        match read_bounded(&path, EvidenceV2::MAX_LEN) {
            Ok(bytes) => EvidenceV2::decode(&bytes, &path).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(&path, "read", error)),
        }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn once(dir: &Path) -> Once {
        let once = Store::open(dir).once();
        once.begin().unwrap();
        once
    }

    fn boot(number: u64) -> BootMark {
        BootMark { number, id: format!("boot-{number}") }
    }

    #[test]
    fn an_image_is_used_up_by_the_first_who_asks_and_stays_so() {
        let dir = tempfile::tempdir().unwrap();
        let once = once(dir.path());
        let image = ImageId::random().unwrap();
        once.check_unused(image).unwrap();
        once.consume(image, &boot(2)).unwrap();
        for refused in [once.consume(image, &boot(2)), once.check_unused(image)] {
            assert_eq!(refused.unwrap_err().code, ReasonCode::ImageConsumed);
        }
        once.check_unused(ImageId::random().unwrap()).unwrap();
    }

    #[test]
    fn what_cannot_be_marked_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let once = once(dir.path());
        let image = ImageId::random().unwrap();
        let _fault = fault::arm("once.consume");
        let reason = once.consume(image, &boot(2)).unwrap_err();
        assert_eq!(reason.code, ReasonCode::ImageConsumed);
        assert!(reason.sentence.contains("cannot be written down"), "{reason}");
    }

    #[test]
    fn a_generation_is_for_the_next_boot_alone() {
        let generation = OnceGeneration::new(0, boot(7), Vec::new(), Vec::new());
        generation.check_boot(&boot(8)).unwrap();
        for (number, words) in
            [(7, "has not ended"), (9, "one more came"), (11, "3 more came"), (6, "behind")]
        {
            let reason = generation.check_boot(&boot(number)).unwrap_err();
            assert_eq!(reason.code, ReasonCode::BootBetween);
            assert!(reason.sentence.contains(words), "{number}: {reason}");
        }
    }

    #[test]
    fn a_generation_reads_back_and_a_damaged_one_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let once = once(dir.path());
        assert_eq!(once.load().unwrap(), None);
        let generation = OnceGeneration::new(5, boot(1), Vec::new(), Vec::new());
        once.publish(&generation).unwrap();
        assert_eq!(once.load().unwrap(), Some(generation));
        let path = once.generation_path();
        let text = fs::read_to_string(&path).unwrap().replace("\"number\": 1", "\"number\": 2");
        fs::write(&path, text).unwrap();
        once.load().unwrap_err();
        once.begin().unwrap();
        assert_eq!(once.load().unwrap(), None);
    }
}
