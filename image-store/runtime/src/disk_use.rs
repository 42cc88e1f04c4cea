//! What the disks did while this boot went on: `disk-use.json`, for `fastboot chart`.
//!
//! ```json
//! {"boot_id": "…", "samples": [{"monotonic_us": 812345, "read_bytes": 1048576, "written_bytes": 0}]}
//! ```

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{RunDir, file};

/// Name of the file.
pub const FILE_NAME: &str = "disk-use.json";
/// Longest file that is read, in bytes.
const MAX_LEN: u64 = 4 << 20;

/// The file. Counters go up from one sample to the next; what they begin with means nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskUse {
    /// As in the status of the boot.
    pub boot_id: String,
    /// In the order of time.
    pub samples: Vec<DiskSample>,
}

/// All disks together at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskSample {
    /// `CLOCK_MONOTONIC`.
    pub monotonic_us: u64,
    /// Read so far, in bytes.
    pub read_bytes: u64,
    /// Written so far, in bytes.
    pub written_bytes: u64,
}

impl DiskUse {
    /// Where it lies.
    pub fn path(run_dir: &RunDir) -> PathBuf {
        run_dir.file(FILE_NAME)
    }

    /// What was recorded in the boot of this id; `None` when nothing was.
    ///
    /// # Errors
    /// When there is a file that cannot be read or understood.
    pub fn load(run_dir: &RunDir, boot_id: &str) -> io::Result<Option<DiskUse>> {
        let recorded: Option<DiskUse> = file::read_json(&DiskUse::path(run_dir), MAX_LEN)?;
        Ok(recorded.filter(|disk_use| disk_use.boot_id == boot_id))
    }

    /// Write it in the place of an earlier one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn store(&self, run_dir: &RunDir) -> io::Result<()> {
        file::replace_json(&DiskUse::path(run_dir), self)
    }
}
