//! Files on file systems that a reboot empties.

use super::RawPath;
use super::check::{Result, check, is_path};
use super::object::ObjectState;
use serde::{Deserialize, Serialize};

/// A file that is made again with its content, under its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolatileFileV1 {
    pub path: RawPath,
}

impl ObjectState for VolatileFileV1 {
    fn check(&self, _: u64) -> Result<()> {
        check(is_path(&self.path.0), "an inode that is not a path")
    }

    fn first_name(&self) -> Option<&RawPath> {
        Some(&self.path)
    }
}
