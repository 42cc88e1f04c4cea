//! What systemd keeps open for the unit, beside its processes.

use super::FileId;
use super::check::{Around, Result, check};
use serde::{Deserialize, Serialize};

/// Most descriptors that are put back: they travel in one message, and the kernel takes 253.
pub const MAX_STORED: usize = 250;
/// Longest that their names may be together, for the same reason.
pub const MAX_STORED_NAME_BYTES: usize = 16 << 10;

/// A descriptor in systemd's store (`FDSTORE=1`, sd_pid_notify_with_fds(3)). The processes may have
/// it too, or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredV1 {
    /// `FDNAME=`; several may have the same.
    pub name: String,
    pub file: FileId,
    /// systemd waits for it to hang up, and drops it then. Otherwise `FDPOLL=0`, or nothing that
    /// can be waited for.
    pub polled: bool,
}

/// What systemd takes for a name: it becomes a part of `LISTEN_FDNAMES`.
pub fn is_stored_name(name: &str) -> bool {
    name.len() <= 255 && name.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b':')
}

/// Whether all that systemd keeps can be put back.
pub(crate) fn check_stored(stored: &[StoredV1], around: &Around<'_>) -> Result<()> {
    let names: usize = stored.iter().map(|one| one.name.len()).sum();
    check(stored.len() <= MAX_STORED && names <= MAX_STORED_NAME_BYTES, "too many stored descriptors")?;
    let sound = |one: &StoredV1| around.has_file(one.file) && is_stored_name(&one.name);
    check(stored.iter().all(sound), "an odd stored descriptor")
}
