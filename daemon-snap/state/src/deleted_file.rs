//! Files that somebody has although they have no name any more.

use super::RawPath;
use super::check::{Result, check, is_path};
use super::object::ObjectState;
use serde::{Deserialize, Serialize};

/// A nameless file, and the name that it had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletedFileV1 {
    pub path: RawPath,
}

impl ObjectState for DeletedFileV1 {
    fn check(&self, _: u64) -> Result<()> {
        check(is_path(&self.path.0), "an inode that is not a path")
    }
}
