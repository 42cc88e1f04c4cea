//! What systemd kept for the unit, for whoever puts it back.

use super::desk::Desk;
use image_store::ReasonCode;
use snap_error::{Error, Result};
use snap_state::StoredV1;
use std::os::fd::OwnedFd;

/// A descriptor for systemd's store.
#[derive(Debug)]
pub struct Stored {
    /// `FDNAME=`.
    pub name: String,
    /// Without: `FDPOLL=0`.
    pub polled: bool,
    pub fd: OwnedFd,
}

/// Nothing of it may be lost where there is nobody to put it back.
///
/// # Errors
/// `Stale`: there is no unit, and systemd kept something.
pub fn check_keeper(stored: &[StoredV1], is_unit: bool) -> Result<()> {
    if is_unit || stored.is_empty() {
        return Ok(());
    }
    Err(Error::stale(
        ReasonCode::HostUnsupported,
        "systemd kept descriptors for it, so it can only be restored by its unit",
    ))
}

/// Copies of what was stored, in the order in which systemd listed it: last stored, first listed.
///
/// # Errors
/// A description that nobody made: a defect. Too many descriptors.
pub fn hand_out(desk: &Desk, stored: &[StoredV1]) -> Result<Vec<Stored>> {
    let copy = |stored: &StoredV1| {
        let fd = desk.file(stored.file)?.try_clone_to_owned();
        let fd = fd.map_err(|e| Error::io("dup", format_args!("stored descriptor {}", stored.name), &e))?;
        Ok(Stored { name: stored.name.clone(), polled: stored.polled, fd: desk.raise(fd)? })
    };
    stored.iter().map(copy).collect()
}
