//! timerfd_create(2).

use super::{Found, refused};
use crate::state::{FileKindV1, TimerFdV1};
use crate::sys::proc::FdInfo;

/// Clock, setting and remaining time, from fdinfo.
pub(super) fn collect(info: &FdInfo) -> Found<FileKindV1> {
    let Some(timer) = info.timerfd() else {
        return refused("a timerfd of which this kernel does not tell enough");
    };
    Ok(FileKindV1::TimerFd(TimerFdV1 {
        clock_id: timer.clock_id,
        settime_flags: timer.settime_flags,
        ticks: timer.ticks,
        remaining_ns: timer.remaining_ns,
        interval_ns: timer.interval_ns,
    }))
}
