//! eventfd(2).

use super::{Found, refused};
use crate::state::FileKindV1;
use crate::sys::proc::FdInfo;

/// The counter, from fdinfo.
pub(super) fn collect(info: &FdInfo) -> Found<FileKindV1> {
    match (info.eventfd_count(), info.eventfd_semaphore()) {
        (Some(count), Some(semaphore)) => Ok(FileKindV1::EventFd { count, semaphore }),
        _ => refused("an eventfd of which this kernel does not tell enough (eventfd-semaphore, Linux 6.5)"),
    }
}
