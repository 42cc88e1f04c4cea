//! What must still be true for an image to be usable.
//!
//! Collected at snapshot time into plain structs, compared at boot. A check answers with a stable code and a
//! sentence that names the file or the fact. Which unit is looked at, and what follows from a "no", is decided by the
//! callers; no D-Bus and no name service here. Paths are looked up under a `root`, `/` except in tests and for
//! images of another root file system.

mod digests;
mod file;
mod identity;
mod machine;
mod reason;
mod systemd;
mod unit;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Part, Result};
use crate::layout::SectionKind;

pub use digests::Digests;
pub use file::{CheckDepth, FileEvidence, FileKind};
pub use identity::{group_id, user_id};
pub use machine::{CpuEvidence, MachineEvidence};
pub use reason::{ReasonCode, StaleReason};
pub use systemd::SystemdEvidence;
pub use unit::{OWN_DROP_IN, TextEvidence, UnitEvidence, is_own_drop_in};

/// Everything that is known to matter for one image. Content of [`SectionKind::EVIDENCE`], version
/// [`EvidenceV1::VERSION`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceV1 {
    /// The machine and its kernel.
    pub machine: MachineEvidence,
    /// The unit's own text.
    pub unit: UnitEvidence,
    /// Executables, mapped and open files, and whatever else the unit depends on.
    pub files: Vec<FileEvidence>,
    /// Files named by `EnvironmentFile=`; [`FileKind::Absent`] for an optional one that was not there.
    pub environment_files: Vec<FileEvidence>,
    /// Users of `/etc/passwd` and the ids that the processes hold for them.
    pub users: Vec<(String, u32)>,
    /// Groups of `/etc/group` likewise.
    pub groups: Vec<(String, u32)>,
}

impl EvidenceV1 {
    /// Section version of this struct.
    pub const VERSION: u16 = 1;
    /// Longest encoded form that is read or written, in bytes.
    pub const MAX_LEN: u64 = 64 << 20;

    /// The bytes of the evidence section.
    ///
    /// # Errors
    /// [`Error::Misuse`] for a path that is not UTF-8, or when the result is longer than [`EvidenceV1::MAX_LEN`].
    pub fn encode(&self, image_path: &Path) -> Result<Vec<u8>> {
        let bytes = postcard::to_stdvec(self)
            .map_err(|error| Error::misuse(image_path, format!("evidence cannot be encoded: {error}")))?;
        if bytes.len() as u64 > Self::MAX_LEN {
            return Err(Error::misuse(image_path, format!("evidence of {} bytes is too long", bytes.len())));
        }
        Ok(bytes)
    }

    /// Read what [`encode`](EvidenceV1::encode) wrote. `image_path` is only for messages.
    ///
    /// # Errors
    /// [`Error::Corrupt`]; bytes left over count as damage.
    pub fn decode(bytes: &[u8], image_path: &Path) -> Result<EvidenceV1> {
        let damage = |what: String| Error::corrupt(image_path, Part::Section(SectionKind::EVIDENCE), 0, what);
        if bytes.len() as u64 > Self::MAX_LEN {
            return Err(damage(format!("evidence of {} bytes is too long", bytes.len())));
        }
        match postcard::take_from_bytes(bytes) {
            Ok((evidence, [])) => Ok(evidence),
            Ok((_, rest)) => Err(damage(format!("{} bytes after the evidence", rest.len()))),
            Err(error) => Err(damage(format!("evidence cannot be decoded: {error}"))),
        }
    }

    /// Compare machine and unit text: what the generator does.
    ///
    /// # Errors
    /// The first thing that changed.
    pub fn check_unit(
        &self,
        root: &Path,
        machine_now: &MachineEvidence,
        fragment_now: &Path,
        drop_ins_now: &[PathBuf],
    ) -> std::result::Result<(), StaleReason> {
        self.machine.check(machine_now)?;
        self.unit.check(root, fragment_now, drop_ins_now)
    }

    /// Compare every file and directory.
    ///
    /// # Errors
    /// The first one that changed.
    pub fn check_files(&self, root: &Path, depth: CheckDepth) -> std::result::Result<(), StaleReason> {
        self.files.iter().chain(&self.environment_files).try_for_each(|file| file.check(root, depth))
    }

    /// Compare the ids of users and groups with `/etc/passwd` and `/etc/group`.
    ///
    /// # Errors
    /// The first one that changed, with [`ReasonCode::IdentityChanged`].
    pub fn check_identities(&self, root: &Path) -> std::result::Result<(), StaleReason> {
        identity::check(root, &self.users, &self.groups)
    }
}
