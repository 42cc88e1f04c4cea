//! Objects without a name.

use serde::{Deserialize, Serialize};

/// Owner and permissions of an object without a name (fstat(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeV1 {
    pub uid: u32,
    pub gid: u32,
    /// Permissions with set-ids.
    pub mode: u32,
}
