//! Files that stay where they are: directories, devices, named FIFOs, libraries.

use super::RawPath;
use super::check::{Result, check, is_path};
use super::object::ObjectState;
use serde::{Deserialize, Serialize};

/// A file that is opened by its path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedFileV1 {
    pub path: RawPath,
}

impl ObjectState for NamedFileV1 {
    fn check(&self, _: u64) -> Result<()> {
        check(is_path(&self.path.0), "an inode that is not a path")
    }

    fn has_pages(&self) -> bool {
        false
    }

    fn found_at(&self) -> Option<&RawPath> {
        Some(&self.path)
    }

    fn first_name(&self) -> Option<&RawPath> {
        Some(&self.path)
    }
}

/// A file that has lost the name it was opened by and has another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenamedFileV1 {
    pub was: RawPath,
    pub path: RawPath,
}

impl ObjectState for RenamedFileV1 {
    fn check(&self, _: u64) -> Result<()> {
        check(is_path(&self.was.0) && is_path(&self.path.0), "an inode that is not a path")
    }

    fn has_pages(&self) -> bool {
        false
    }

    fn found_at(&self) -> Option<&RawPath> {
        Some(&self.path)
    }
}
