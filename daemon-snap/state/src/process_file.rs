//! Files below the /proc directory of a process.

use super::RawPath;
use super::check::{Result, check, is_path};
use super::object::ObjectState;
use serde::{Deserialize, Serialize};

/// A file of the process that has it open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessFileV1 {
    pub path: RawPath,
}

impl ObjectState for ProcessFileV1 {
    fn check(&self, _: u64) -> Result<()> {
        check(is_path(&self.path.0), "an inode that is not a path")
    }

    fn has_pages(&self) -> bool {
        false
    }
}
