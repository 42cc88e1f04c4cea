//! What the kinds of file system and memory objects have in common.

use super::RawPath;
use super::check::Result;

/// A mapping, as the object behind it looks at it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mapped {
    pub shared: bool,
    pub offset: u64,
    pub len_bytes: u64,
    /// Shared, and from the first page to the last.
    pub whole: bool,
}

/// What a kind of object says of itself.
pub(crate) trait ObjectState {
    /// Whether what it says can be. `len_bytes`: of the object.
    fn check(&self, len_bytes: u64) -> Result<()>;

    /// Whether pages of it may be in the image.
    fn has_pages(&self) -> bool {
        true
    }

    /// Whether it can be mapped like this.
    fn check_mapping(&self, mapped: Mapped) -> Result<()> {
        let _ = mapped;
        Ok(())
    }

    /// Where it is found again, when it does not travel.
    fn found_at(&self) -> Option<&RawPath> {
        None
    }

    /// The name that others may be further names of.
    fn first_name(&self) -> Option<&RawPath> {
        None
    }
}
