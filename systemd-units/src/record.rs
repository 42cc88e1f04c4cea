//! What the generator decided at the first run of a boot: `/run/fastboot/generator.json`.
//!
//! Later runs (every `daemon-reload`) repeat it instead of deciding again, so that nothing changes under a running
//! unit. The restore daemon reads the same file: it answers only for units that are in front of a shim.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use image_store::{ImageId, ReasonCode, UnitEvidence};
use serde::{Deserialize, Serialize};

/// Directory of everything that fastboot keeps for one boot.
pub const RUN_DIR: &str = "/run/fastboot";
/// File name of the record in it.
pub const FILE_NAME: &str = "generator.json";
/// Version that is written and read.
pub const VERSION: u32 = 1;
const MAX_LEN: u64 = 64 << 20;

/// The decisions of one boot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`VERSION`].
    pub version: u32,
    /// How often userspace had begun anew by then ([`count`](crate::soft_reboot::count)).
    #[serde(default)]
    pub soft_reboots: u64,
    /// Why there are no decisions at all: the catalogue could not be read.
    #[serde(default)]
    pub error: Option<String>,
    /// Whether the reasons are in the kernel log. In containers they cannot be; then initd logs them.
    #[serde(default)]
    pub is_logged: bool,
    /// One per unit that had an image, by name.
    pub units: Vec<UnitRecord>,
}

/// The decision about one unit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnitRecord {
    /// Name of the unit.
    pub unit: String,
    /// Image that it may be restored from.
    pub image_id: ImageId,
    /// Whether the shim stands in front of its command.
    pub armed: bool,
    /// Why not.
    pub reason_code: Option<ReasonCode>,
    /// The same for people.
    pub reason: Option<String>,
    /// `Type=`, when armed.
    pub service_type: Option<String>,
    /// Text of the drop-in, when armed.
    pub drop_in: Option<String>,
    /// Text of the unit that this was decided for.
    pub unit_evidence: UnitEvidence,
}

impl Record {
    /// A record of these decisions.
    pub fn new(units: Vec<UnitRecord>) -> Record {
        Record { version: VERSION, soft_reboots: 0, error: None, is_logged: false, units }
    }

    /// Read the record of this boot; `None` when there is none yet.
    ///
    /// # Errors
    /// When there is one that cannot be read or understood. Nothing can be repeated then.
    pub fn load(run_dir: &Path) -> io::Result<Option<Record>> {
        let file = match fs::File::open(run_dir.join(FILE_NAME)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(MAX_LEN).read_to_end(&mut bytes)?;
        let record: Record = serde_json::from_slice(&bytes)?;
        match record.version {
            VERSION => Ok(Some(record)),
            other => Err(io::Error::other(format!("record of version {other}"))),
        }
    }

    /// Write the record; the file appears complete or not at all. The directory becomes 0755: the shims of all users
    /// have to reach the socket in it.
    ///
    /// # Errors
    /// Any; nothing may be put in front of a unit then.
    pub fn store(&self, run_dir: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o755).create(run_dir)?;
        fs::set_permissions(run_dir, Permissions::from_mode(0o755))?;
        let temporary = run_dir.join(format!(".{FILE_NAME}.{}", std::process::id()));
        let write = || -> io::Result<()> {
            let mut options = OpenOptions::new();
            let mut file = options.write(true).create_new(true).mode(0o600).open(&temporary)?;
            file.write_all(&serde_json::to_vec(self)?)?;
            fs::rename(&temporary, run_dir.join(FILE_NAME))
        };
        let written = write();
        if written.is_err() {
            // The first error is the one that matters.
            let _ = fs::remove_file(&temporary);
        }
        written
    }
}
