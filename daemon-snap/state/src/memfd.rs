//! Memory that is a file: memfds, and what is mapped by several without any file.

use super::check::{Result, check};
use super::object::ObjectState;
use serde::{Deserialize, Serialize};

/// `memfd_create(2)`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemfdV1 {
    pub name: Vec<u8>,
    /// MFD_*
    pub flags: u32,
    /// F_SEAL_*
    pub seals: u32,
}

impl ObjectState for MemfdV1 {
    fn check(&self, _: u64) -> Result<()> {
        check(!self.name.contains(&0), "a memfd name with NUL")
    }
}

/// MAP_SHARED | MAP_ANONYMOUS, of which there is nothing to say but its pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedAnonV1;

impl ObjectState for SharedAnonV1 {
    fn check(&self, _: u64) -> Result<()> {
        Ok(())
    }
}
