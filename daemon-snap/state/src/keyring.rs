//! Keyrings of the kernel (keyrings(7)).

use serde::{Deserialize, Serialize};

/// The session keyring that systemd makes for a unit (KeyringMode=, systemd.exec(5)). Keys in it
/// are not carried: the restored unit has a new one as a cold start would.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionKeyringV1 {
    /// Whose it is.
    pub uid: u32,
    pub gid: u32,
    /// The keyring of that user is linked to it (`shared`).
    pub has_user_keyring: bool,
}
