//! Evidence as images had it until starts were observed. Read, but not used any more: such an image
//! does not know what its service read and closed.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{FileEvidence, MachineEvidence, UnitEvidence, decode, encode};
use crate::error::Result;

/// What was known to matter for one image, in version 1 of the section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceV1 {
    /// The machine and its kernel.
    pub machine: MachineEvidence,
    /// The unit's own text.
    pub unit: UnitEvidence,
    /// Executables, mapped and open files, and whatever else the unit depends on.
    pub files: Vec<FileEvidence>,
    /// Files named by `EnvironmentFile=`; absent for an optional one that was not there.
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
    pub const MAX_LEN: u64 = super::MAX_LEN;

    /// The bytes of the evidence section.
    ///
    /// # Errors
    /// As [`EvidenceV2::encode`](super::EvidenceV2::encode).
    pub fn encode(&self, image_path: &Path) -> Result<Vec<u8>> {
        encode(self, image_path)
    }

    /// Read what [`encode`](EvidenceV1::encode) wrote. `image_path` is only for messages.
    ///
    /// # Errors
    /// As [`EvidenceV2::decode`](super::EvidenceV2::decode).
    pub fn decode(bytes: &[u8], image_path: &Path) -> Result<EvidenceV1> {
        decode(bytes, image_path)
    }
}
