//! What the kinds of open file descriptions have in common.

use super::InodeId;
use super::check::{Around, Result};

/// What a kind of description says of itself.
pub(crate) trait FileState {
    /// What people call it.
    fn name(&self) -> &'static str;

    /// The entry of the table of objects behind it; most kinds have none.
    fn inode(&self) -> Option<InodeId> {
        None
    }

    /// Whether what it refers to is there, and what it says can be. How descriptions of a kind go
    /// together is asked for all of them at once, when the whole tree is checked. `flags`: access
    /// mode and status flags of the description.
    fn check(&self, flags: i32, around: &Around<'_>) -> Result<()> {
        let _ = (flags, around);
        Ok(())
    }
}
