//! signalfd(2).

use crate::blockers::{Found, refused};
use snap_error::obstacle::DescriptorObstacle;
use snap_state::FileKindV1;
use snap_sys::proc::FdInfo;

/// The mask, from fdinfo.
pub(super) fn collect(info: &FdInfo) -> Found<FileKindV1> {
    match info.signalfd_mask() {
        Some(mask) => Ok(FileKindV1::SignalFd { mask }),
        None => refused(DescriptorObstacle::SignalfdUntold),
    }
}
