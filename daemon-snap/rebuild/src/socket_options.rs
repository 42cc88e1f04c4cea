//! Options of sockets of every family.

use image_store::ReasonCode;
use nix::errno::Errno;
use snap_error::{Error, Result};
use snap_state::{FileId, SocketOptionV1};
use snap_sys as sys;
use std::os::fd::AsFd;

/// Sets recorded options in their order.
///
/// # Errors
/// `Stale`: an interface or address that one of them names does not exist.
pub fn set_options<'a>(
    id: FileId,
    fd: &impl AsFd,
    options: impl IntoIterator<Item = &'a SocketOptionV1>,
) -> Result<()> {
    for SocketOptionV1 { level, name, value } in options {
        let what = format!("open file {id} level {level} name {name}");
        sys::rebuild::restore_option(fd.as_fd(), *level, *name, value).map_err(|e| match e {
            Errno::ENODEV | Errno::EADDRNOTAVAIL => Error::stale(
                ReasonCode::AddressMissing,
                format!(
                    "a network interface or address that a socket is tied to does not exist yet ({what})"
                ),
            ),
            e => Error::kernel("setsockopt", what, e),
        })?;
    }
    Ok(())
}
