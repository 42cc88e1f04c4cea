//! Live → state: a file per kernel object kind. Prefers reading from outside; injects system calls only for what has no
//! other way. Knows `state` and `sys`, never `rebuild`.

use crate::error::Result;
use crate::state::TreeV1;

/// Where pages go; implemented by the image writer and by tests.
pub trait PageSink {
    /// Appends whole pages and returns the absolute image offset of the first one.
    ///
    /// # Errors
    /// The store's error (full disk …).
    fn append_pages(&mut self, bytes: &[u8]) -> Result<u64>;
}

#[allow(unused)]
fn placeholder(_: &TreeV1) {}
