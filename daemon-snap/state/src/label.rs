//! Security labels of AppArmor.

use super::RawPath;
use serde::{Deserialize, Serialize};

/// Longest name of a profile that is carried.
pub const MAX_PROFILE_BYTES: usize = 1024;

/// Whether a name is one that a profile can have.
pub(crate) fn is_profile(name: &str) -> bool {
    (1..=MAX_PROFILE_BYTES).contains(&name.len()) && !name.contains('\0')
}

/// What a cold start would be confined to, on a machine with AppArmor. Policy that came, went or
/// was switched since then says otherwise, and the image is stale.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfinementV1 {
    /// What systemd executes.
    pub program: RawPath,
    /// Its label when it is executed from outside of every profile: `unconfined`, `NAME (enforce)`.
    pub label: String,
}
