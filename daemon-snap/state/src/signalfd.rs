//! signalfd(2).

use super::kind::FileState;
use serde::{Deserialize, Serialize};

/// `signalfd(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalFdV1 {
    /// Bit n-1 is signal n.
    pub mask: u64,
}

impl FileState for SignalFdV1 {
    fn name(&self) -> &'static str {
        "signalfd"
    }
}
