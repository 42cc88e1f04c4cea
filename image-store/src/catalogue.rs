//! What the store holds: generations of images, and their text form.
//!
//! Pure values; [`Store`](crate::Store) reads and publishes them. A generation is complete in
//! itself: publishing images of some units copies the entries of all others from the generation
//! before.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{Error, Part, Result};
use crate::evidence::{
    MachineEvidence, ReasonCode, StaleReason, StartEvidence, SystemdEvidence, UnitEvidence,
};
use crate::layout::ImageId;

/// Format that this build writes and reads.
pub const CATALOGUE_FORMAT: u32 = 1;
/// Longest `catalogue.json` that is read, in bytes.
pub const MAX_CATALOGUE_LEN: u64 = 64 << 20;
/// Generations that are kept: the newest and the one before.
pub const KEPT_GENERATIONS: usize = 2;

/// All generations, oldest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Catalogue {
    /// [`CATALOGUE_FORMAT`].
    pub format: u32,
    /// Generations by rising id.
    pub generations: Vec<Generation>,
}

/// A set of images that is used together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Generation {
    /// Rising number, never reused.
    pub id: u64,
    /// When it was published, seconds since 1970.
    pub created_unix_s: u64,
    /// One entry per unit, by name.
    pub images: Vec<CatalogueEntry>,
}

/// One image, with what the generator needs to know so that it need not open it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CatalogueEntry {
    /// Name of the unit, as `redis-server.service`.
    pub unit: String,
    /// Path of the image relative to the store.
    pub file: String,
    /// Length of the image file in bytes.
    pub len_bytes: u64,
    /// Id in the image's header.
    pub image_id: ImageId,
    /// The unit's text at the snapshot.
    pub unit_evidence: UnitEvidence,
    /// The machine at the snapshot.
    pub machine: MachineEvidence,
    /// The systemd that started the service; `None` in catalogues of before it was recorded, and
    /// then nothing is compared.
    #[serde(default)]
    pub systemd: Option<SystemdEvidence>,
    /// What systemd gives to the service's main process at a start: recorded by the trial, which
    /// is one. `None` for images without a trial, and in catalogues of before it was recorded; then
    /// nothing of it is compared.
    #[serde(default)]
    pub start: Option<StartEvidence>,
    /// Users and the supplementary groups that processes of the image hold as such. Compared
    /// whether there was a trial or not.
    #[serde(default)]
    pub held_groups: Vec<(u32, u32)>,
    /// When the image was taken, seconds since 1970; `None` in catalogues of before.
    #[serde(default)]
    pub taken_unix_s: Option<u64>,
    /// How the unit is started and what it was.
    pub service: ServiceRecord,
}

/// The service as systemd had it at the snapshot. A field that may be missing later gets a default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceRecord {
    /// `Type=`.
    pub service_type: String,
    /// What stands after `ExecStart=`, as written, prefixes included.
    pub exec_start_raw: String,
    /// `PIDFile=`.
    pub pid_file: Option<String>,
    /// `BusName=` of a service with `Type=dbus`; `None` in catalogues of before it was recorded
    /// too.
    #[serde(default)]
    pub bus_name: Option<String>,
    /// `NotifyAccess=`.
    pub notify_access: String,
    /// Main process.
    pub main_pid: i32,
    /// All processes and threads whose numbers have to be free.
    pub pids: Vec<i32>,
    /// Pages in the image, in bytes.
    pub page_bytes: u64,
    /// `TimeoutStartSec=` in milliseconds; `None` for infinity, and in catalogues of before it was
    /// recorded.
    #[serde(default)]
    pub timeout_start_ms: Option<u64>,
    /// Measured cold start in milliseconds.
    pub cold_start_ms: Option<f64>,
    /// CPU time of that start in milliseconds.
    pub cold_cpu_ms: Option<f64>,
    /// How long the daemon stood still for the snapshot, in milliseconds.
    pub dump_ms: Option<f64>,
    /// Measured trial restore in milliseconds.
    #[serde(default)]
    pub restore_ms: Option<f64>,
    /// `[X-Fastboot] MaxAge=` in seconds.
    #[serde(default)]
    pub max_age_s: Option<u64>,
    /// What the service said of itself (`STATUS=`).
    #[serde(default)]
    pub status_text: String,
    /// `[X-Fastboot] AfterRestore=`.
    #[serde(default)]
    pub after_restore: Vec<String>,
    /// Where processes of it want to hear of a restore.
    #[serde(default)]
    pub hook_channels: Vec<HookChannel>,
}

/// A socket that a process keeps for us, `fastboot-hooks.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookChannel {
    /// The process.
    pub pid: i32,
    /// Its descriptor.
    pub fd: i32,
}

impl CatalogueEntry {
    /// Whether the image may still be used at this time, seconds since 1970. By a clock that is
    /// behind the snapshot nobody can tell how old it is.
    ///
    /// # Errors
    /// [`ReasonCode::ImageTooOld`].
    pub fn check_age(&self, now_unix_s: u64) -> std::result::Result<(), StaleReason> {
        let limited = self.service.max_age_s.zip(self.taken_unix_s);
        limited.map_or(Ok(()), |(most_s, taken_s)| check_age(most_s, taken_s, now_unix_s))
    }
}

fn check_age(most_s: u64, taken_s: u64, now_s: u64) -> std::result::Result<(), StaleReason> {
    let sentence = match now_s.checked_sub(taken_s) {
        Some(age_s) if age_s <= most_s => return Ok(()),
        Some(age_s) => format!("the image is {age_s} s old, and MaxAge= allows {most_s} s"),
        None => {
            let before_s = taken_s - now_s;
            format!(
                "the clock is {before_s} s before the snapshot, so nobody can tell the age that MaxAge= limits"
            )
        }
    };
    Err(StaleReason::new(ReasonCode::ImageTooOld, sentence))
}

impl ServiceRecord {
    /// What the trial restore gained over the cold start, in milliseconds; `None` unless both were
    /// measured.
    pub fn gain_ms(&self) -> Option<f64> {
        Some(self.cold_start_ms? - self.restore_ms?)
    }
}

impl Default for Catalogue {
    fn default() -> Catalogue {
        Catalogue { format: CATALOGUE_FORMAT, generations: Vec::new() }
    }
}

// The file is one JSON object whose exact text is checked: the digest covers every byte of the
// value of "catalogue".
const TEXT_HEAD: &str = "{\"blake3\":\"";
const TEXT_MIDDLE: &str = "\",\"catalogue\":";
const TEXT_TAIL: &str = "}\n";

impl Catalogue {
    /// Units of which there is an image, by name.
    pub fn units(&self) -> BTreeSet<&str> {
        self.generations
            .iter()
            .flat_map(|generation| &generation.images)
            .map(|image| image.unit.as_str())
            .collect()
    }

    /// The image of `unit` in the newest generation that has one.
    pub fn newest(&self, unit: &str) -> Option<(&Generation, &CatalogueEntry)> {
        let generations = self.generations.iter().rev();
        generations.filter_map(|generation| Some((generation, generation.image(unit)?))).next()
    }

    /// The newest image of every unit, by name.
    pub fn newest_images(&self) -> Vec<(&Generation, &CatalogueEntry)> {
        self.units().into_iter().filter_map(|unit| self.newest(unit)).collect()
    }

    /// The entry with this image id.
    pub fn by_image_id(&self, id: ImageId) -> Option<&CatalogueEntry> {
        self.generations.iter().flat_map(|generation| &generation.images).find(|image| image.image_id == id)
    }

    /// Add a generation: the given images, and everything else carried forward from the newest one.
    pub(crate) fn add_generation(&mut self, id: u64, created_unix_s: u64, new_images: Vec<CatalogueEntry>) {
        let is_new = |unit: &str| new_images.iter().any(|image| image.unit == unit);
        let carried =
            self.newest_images().into_iter().map(|(_, image)| image).filter(|image| !is_new(&image.unit));
        let mut images: Vec<CatalogueEntry> = carried.cloned().collect();
        images.extend(new_images);
        images.sort_by(|a, b| a.unit.cmp(&b.unit));
        self.generations.push(Generation { id, created_unix_s, images });
        let surplus = self.generations.len().saturating_sub(KEPT_GENERATIONS);
        self.generations.drain(..surplus);
    }

    /// Remove a unit from every generation. Returns whether it was there.
    pub(crate) fn remove(&mut self, unit: &str) -> bool {
        let had = self.units().contains(unit);
        for generation in &mut self.generations {
            generation.images.retain(|image| image.unit != unit);
        }
        had
    }

    /// The text of `catalogue.json`.
    ///
    /// # Errors
    /// [`Error::Misuse`] for a path that is not UTF-8.
    pub fn encode(&self, path: &Path) -> Result<Vec<u8>> {
        let body = serde_json::to_string_pretty(self)
            .map_err(|error| Error::misuse(path, format!("catalogue cannot be encoded: {error}")))?;
        Ok(frame(&body))
    }

    /// Read the text of `catalogue.json`. `path` is only for messages.
    ///
    /// # Errors
    /// [`Error::Corrupt`] or [`Error::Unsupported`].
    pub fn decode(bytes: &[u8], path: &Path) -> Result<Catalogue> {
        let damage = |offset: usize, what: String| Error::corrupt(path, Part::Catalogue, offset as u64, what);
        let (digest, body) = split_text(bytes).ok_or_else(|| damage(0, "not a catalogue".to_owned()))?;
        if Digest::of(body).to_string().as_bytes() != digest {
            return Err(damage(TEXT_HEAD.len(), "digest differs".to_owned()));
        }
        #[derive(Deserialize)]
        struct FormatOnly {
            format: u32,
        }
        let at = |error: serde_json::Error| damage(0, error.to_string());
        let FormatOnly { format } = serde_json::from_slice(body).map_err(at)?;
        if format != CATALOGUE_FORMAT {
            return Err(Error::Unsupported {
                path: path.to_owned(),
                what: format!("catalogue format {format}"),
            });
        }
        let catalogue: Catalogue = serde_json::from_slice(body).map_err(at)?;
        let images = || catalogue.generations.iter().flat_map(|generation| &generation.images);
        if let Some(image) = images().find(|image| !is_inside_store(&image.file)) {
            return Err(damage(0, format!("{:?} leads out of the store", image.file)));
        }
        Ok(catalogue)
    }
}

impl Generation {
    /// The image of `unit` in this generation.
    pub fn image(&self, unit: &str) -> Option<&CatalogueEntry> {
        self.images.iter().find(|image| image.unit == unit)
    }
}

/// A value with the digest of its text.
pub(crate) fn frame(body: &str) -> Vec<u8> {
    let digest = Digest::of(body.as_bytes());
    format!("{TEXT_HEAD}{digest}{TEXT_MIDDLE}{body}{TEXT_TAIL}").into_bytes()
}

/// The text of the value, if it is the one that was written.
pub(crate) fn unframe(bytes: &[u8]) -> Option<&[u8]> {
    let (digest, body) = split_text(bytes)?;
    (Digest::of(body).to_string().as_bytes() == digest).then_some(body)
}

/// The digest's text and the bytes that it covers.
fn split_text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = bytes.strip_prefix(TEXT_HEAD.as_bytes())?.strip_suffix(TEXT_TAIL.as_bytes())?;
    let (digest, rest) = rest.split_at_checked(64)?;
    Some((digest, rest.strip_prefix(TEXT_MIDDLE.as_bytes())?))
}

pub(crate) fn is_inside_store(file: &str) -> bool {
    !file.is_empty() && Path::new(file).components().all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_told_by_a_clock_that_is_not_behind() {
        let verdict = |now_s| check_age(60, 1000, now_s).err().map(|reason| (reason.code, reason.sentence));
        assert_eq!((verdict(1000), verdict(1060)), (None, None));
        let (code, said) = verdict(1061).unwrap();
        assert_eq!(
            (code, said.as_str()),
            (ReasonCode::ImageTooOld, "the image is 61 s old, and MaxAge= allows 60 s")
        );
        let (code, said) = verdict(999).unwrap();
        assert!(code == ReasonCode::ImageTooOld && said.starts_with("the clock is 1 s before"), "{said}");
    }
}
