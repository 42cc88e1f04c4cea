//! timerfd_create(2).

use super::description::Description;
use crate::blockers::{Found, failed, refused};
use snap_error::obstacle::DescriptorObstacle;
use snap_state::{FileKindV1, TimerFdV1};
use snap_sys::fdquery;
use snap_sys::proc::FdInfo;
use std::os::fd::BorrowedFd;

/// Clock, setting and remaining time, from fdinfo.
pub(super) fn collect(file: &Description, fd: BorrowedFd<'_>, info: &FdInfo) -> Found<FileKindV1> {
    let unknown = || refused(DescriptorObstacle::TimerfdUntold);
    let Some(mut timer) = info.timerfd() else { return unknown() };
    if timer.remaining_ns == 0 && timer.interval_ns > 0 {
        // It has expired and stands still until somebody looks.
        fdquery::update_timerfd(fd).map_err(failed("timerfd_gettime", file.pid, file.fd))?;
        let Some(updated) = FdInfo::of(file.pid, file.fd)?.timerfd() else { return unknown() };
        timer = updated;
    }
    Ok(FileKindV1::TimerFd(TimerFdV1 {
        clock_id: timer.clock_id,
        settime_flags: timer.settime_flags,
        ticks: timer.ticks,
        remaining_ns: timer.remaining_ns,
        interval_ns: timer.interval_ns,
    }))
}
