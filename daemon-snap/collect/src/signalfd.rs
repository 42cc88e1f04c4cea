//! signalfd(2).

use crate::blockers::{Found, refused};
use snap_error::obstacle::DescriptorObstacle;
use snap_state::{FileKindV1, SignalFdV1};
use snap_sys::proc::FdInfo;

/// The mask, from fdinfo.
pub(super) fn collect(info: &FdInfo) -> Found<FileKindV1> {
    match info.field("sigmask").and_then(|mask| u64::from_str_radix(mask, 16).ok()) {
        Some(mask) => Ok(FileKindV1::SignalFd(SignalFdV1 { mask })),
        None => refused(DescriptorObstacle::SignalfdUntold),
    }
}
