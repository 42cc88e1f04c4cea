//! What must still be true for an image to be usable.
//!
//! Collected at snapshot time into plain structs, compared at boot. A check answers with a stable
//! code and a sentence that names the file or the fact. Which unit is looked at, and what follows
//! from a "no", is decided by the callers; no D-Bus and no name service here. Paths are looked up
//! under a `root`, `/` except in tests and for images of another root file system.

mod accounts;
mod digests;
mod file;
mod gap;
mod identity;
mod machine;
mod mounts;
mod of_one_machine;
mod reason;
mod rule;
mod start;
mod systemd;
mod unit;
mod v1;
mod v2;
mod value;

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Part, Result};
use crate::layout::SectionKind;

pub use accounts::AccountsEvidence;
pub use digests::Digests;
pub use file::{CheckDepth, FileEvidence, FileKind};
pub use gap::Gap;
pub use identity::{group_id, user_id};
pub use machine::{CpuEvidence, MachineEvidence, Scope};
pub use mounts::MountTable;
pub use of_one_machine::{OF_ONE_MACHINE, PlaceOfOne};
pub use reason::{ReasonCode, StaleReason};
pub use rule::{PLACES, PlaceRule, Rule, Source, UnitPlaces, is_below_run, source_of_compiled};
pub use start::{DYNAMIC_IDS, StartEvidence, StartKey, StartKind};
pub use systemd::SystemdEvidence;
pub use unit::{OWN_DROP_IN, TextEvidence, UnitEvidence, is_own_drop_in};
pub use v1::EvidenceV1;
pub use v2::{EvidenceV2, FileItem, LeftOut, Observation};
pub use value::{ValueEvidence, ValueKind};

/// Longest encoded form that is read or written, in bytes.
const MAX_LEN: u64 = 64 << 20;

fn encode(evidence: &impl Serialize, image_path: &Path) -> Result<Vec<u8>> {
    let bytes = postcard::to_stdvec(evidence)
        .map_err(|error| Error::misuse(image_path, format!("evidence cannot be encoded: {error}")))?;
    if bytes.len() as u64 > MAX_LEN {
        return Err(Error::misuse(image_path, format!("evidence of {} bytes is too long", bytes.len())));
    }
    Ok(bytes)
}

fn decode<T: DeserializeOwned>(bytes: &[u8], image_path: &Path) -> Result<T> {
    let damage = |what: String| Error::corrupt(image_path, Part::Section(SectionKind::EVIDENCE), 0, what);
    if bytes.len() as u64 > MAX_LEN {
        return Err(damage(format!("evidence of {} bytes is too long", bytes.len())));
    }
    match postcard::take_from_bytes(bytes) {
        Ok((evidence, [])) => Ok(evidence),
        Ok((_, rest)) => Err(damage(format!("{} bytes after the evidence", rest.len()))),
        Err(error) => Err(damage(format!("evidence cannot be decoded: {error}"))),
    }
}
