//! eventfd(2).

use super::kind::FileState;
use serde::{Deserialize, Serialize};

/// `eventfd(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventFdV1 {
    pub count: u64,
    pub semaphore: bool,
}

impl FileState for EventFdV1 {
    fn name(&self) -> &'static str {
        "eventfd"
    }
}
