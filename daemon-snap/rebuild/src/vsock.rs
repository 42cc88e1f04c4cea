//! Listeners between virtual machine and host.

use super::kind::{Context, Kind};
use image_store::ReasonCode;
use nix::errno::Errno;
use snap_error::{Error, Result};
use snap_state::{FileId, FileV1, VsockSocketV1};
use snap_sys as sys;
use std::os::fd::{AsFd, OwnedFd};

/// The kernel does not tell what listen(2) was given; this is its own upper limit
/// (net.core.somaxconn).
const BACKLOG: u32 = 4096;

impl Kind for VsockSocketV1 {
    fn make(&self, file: &FileV1, _: &Context<'_>) -> Result<Option<OwnedFd>> {
        rebuild_vsock(file.id, self).map(Some)
    }
}

/// Same options and address.
fn rebuild_vsock(id: FileId, socket: &VsockSocketV1) -> Result<OwnedFd> {
    let failed = |step| move |e| Error::kernel(step, format!("open file {id} (vsock)"), e);
    let fd = sys::rebuild::socket(libc::AF_VSOCK, socket.socket_type, 0).map_err(failed("socket"))?;
    super::socket_options::set_options(id, &fd, &socket.options)?;
    if let Some(local) = &socket.local {
        sys::rebuild::bind(fd.as_fd(), local).map_err(|e| match e {
            Errno::EADDRINUSE => Error::stale(ReasonCode::AddressTaken, "a vsock port is in use"),
            e => failed("bind")(e),
        })?;
    }
    if socket.listening {
        sys::rebuild::listen(fd.as_fd(), BACKLOG).map_err(failed("listen"))?;
    }
    Ok(fd)
}
