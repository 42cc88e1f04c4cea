//! signalfd(2).

use super::{Found, refused};
use crate::state::FileKindV1;
use crate::sys::proc::FdInfo;

/// The mask, from fdinfo.
pub(super) fn collect(info: &FdInfo) -> Found<FileKindV1> {
    match info.signalfd_mask() {
        Some(mask) => Ok(FileKindV1::SignalFd { mask }),
        None => refused("a signalfd of which this kernel does not tell enough"),
    }
}
