//! What the generator decided in this boot, as far as initd needs it: `/run/fastboot/generator.json`.
//!
//! The file belongs to the generator (crate `systemd-units`, which nobody else depends on); fields that are not
//! needed here are ignored.

use std::fs;
use std::io::{self, Read as _};
use std::path::Path;

use image_store::{ImageId, ReasonCode};
use serde::Deserialize;

/// Version of the file that is understood.
const VERSION: u32 = 1;
const MAX_LEN: u64 = 64 << 20;

/// The file.
#[derive(Clone, Debug, Deserialize)]
pub struct Decisions {
    version: u32,
    /// How often userspace has begun anew since the kernel was booted.
    #[serde(default)]
    pub soft_reboots: u64,
    /// Whether the reasons of units that are not armed are in the kernel log.
    #[serde(default)]
    pub is_logged: bool,
    /// One per unit with an image.
    pub units: Vec<UnitDecision>,
}

/// The decision about one unit.
#[derive(Clone, Debug, Deserialize)]
pub struct UnitDecision {
    /// Its name.
    pub unit: String,
    /// Its image.
    pub image_id: ImageId,
    /// Whether the shim stands in front of its command.
    pub armed: bool,
    /// Why not.
    pub reason_code: Option<ReasonCode>,
    /// The same for people.
    pub reason: Option<String>,
    /// `Type=`, when armed.
    pub service_type: Option<String>,
}

impl Decisions {
    /// Read the file in `run_dir`.
    ///
    /// # Errors
    /// When it cannot be read or understood; nothing can be restored then.
    pub fn load(run_dir: &Path) -> io::Result<Decisions> {
        let mut bytes = Vec::new();
        fs::File::open(run_dir.join("generator.json"))?.take(MAX_LEN).read_to_end(&mut bytes)?;
        let decisions: Decisions = serde_json::from_slice(&bytes)?;
        match decisions.version {
            VERSION => Ok(decisions),
            other => Err(io::Error::other(format!("generator.json of version {other}"))),
        }
    }
}
