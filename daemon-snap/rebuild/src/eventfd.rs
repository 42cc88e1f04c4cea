//! eventfd(2).

use super::kind::{Context, Kind};
use nix::unistd::write;
use snap_error::{Error, Result};
use snap_state::{EventFdV1, FileV1};
use snap_sys as sys;
use std::os::fd::OwnedFd;

impl Kind for EventFdV1 {
    /// With its counter.
    fn make(&self, file: &FileV1, _: &Context<'_>) -> Result<Option<OwnedFd>> {
        let failed = |e| Error::kernel("eventfd", file.id, e);
        let semaphore = if self.semaphore { libc::EFD_SEMAPHORE } else { 0 };
        let flags = libc::EFD_CLOEXEC | libc::EFD_NONBLOCK | semaphore;
        let fd = sys::rebuild::eventfd(0, flags).map_err(failed)?;
        if self.count > 0 {
            write(&fd, &self.count.to_ne_bytes()).map_err(failed)?;
        }
        Ok(Some(fd))
    }
}
