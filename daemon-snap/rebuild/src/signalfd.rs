//! signalfd(2).

use super::kind::{Context, Kind};
use snap_error::{Error, Result};
use snap_state::{FileV1, SignalFdV1};
use snap_sys as sys;
use std::os::fd::OwnedFd;

impl Kind for SignalFdV1 {
    /// It tells of the signals of whoever adds the watch (signalfd(2), "epoll(7) semantics").
    fn is_watched_by_holder(&self) -> bool {
        true
    }

    fn make(&self, file: &FileV1, _: &Context<'_>) -> Result<Option<OwnedFd>> {
        sys::rebuild::signalfd(self.mask).map(Some).map_err(|e| Error::kernel("signalfd", file.id, e))
    }
}
