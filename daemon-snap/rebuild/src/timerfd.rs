//! timerfd_create(2).

use super::kind::{Context, Kind};
use nix::poll::{PollFd, PollFlags, poll};
use nix::time::{ClockId, clock_gettime};
use snap_error::{Error, Result};
use snap_state::{FileId, FileV1, TimerFdV1};
use snap_sys as sys;
use std::os::fd::{AsFd, OwnedFd};

const TFD_TIMER_CANCEL_ON_SET: i32 = 2;

impl Kind for TimerFdV1 {
    fn make(&self, file: &FileV1, _: &Context<'_>) -> Result<Option<OwnedFd>> {
        let now = clock_gettime(ClockId::CLOCK_REALTIME)
            .map_err(|e| Error::kernel("clock_gettime", "realtime", e))?;
        rebuild_timerfd(file.id, self, now.tv_sec() * 1_000_000_000 + now.tv_nsec()).map(Some)
    }
}

/// timerfd_create(2); keeps the remaining time, whatever the clock says today.
fn rebuild_timerfd(id: FileId, timer: &TimerFdV1, realtime_ns: i64) -> Result<OwnedFd> {
    let failed = |e| Error::kernel("timerfd", id, e);
    let fd = sys::rebuild::timerfd(timer.clock_id).map_err(failed)?;
    // One that has expired and not been read stands still, but still has its interval.
    let expired = timer.remaining_ns == 0 && timer.interval_ns != 0;
    if expired {
        sys::rebuild::timerfd_set(fd.as_fd(), 0, 1, timer.interval_ns).map_err(failed)?;
        let mut wait = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
        poll(&mut wait, 1000u16).map_err(failed)?;
    } else if timer.remaining_ns != 0 {
        let can_be_set = matches!(timer.clock_id, libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_ALARM);
        if can_be_set && timer.settime_flags & libc::TFD_TIMER_ABSTIME != 0 {
            // An absolute time goes along with a clock that is set, and only such a timer can be
            // cancelled by that.
            let at = (realtime_ns as u64).saturating_add(timer.remaining_ns);
            let flags = timer.settime_flags & (libc::TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET);
            sys::rebuild::timerfd_set(fd.as_fd(), flags, at, timer.interval_ns).map_err(failed)?;
        } else {
            sys::rebuild::timerfd_set(fd.as_fd(), 0, timer.remaining_ns, timer.interval_ns)
                .map_err(failed)?;
        }
    }
    if timer.ticks != 0 {
        sys::rebuild::timerfd_set_ticks(fd.as_fd(), timer.ticks).map_err(failed)?;
    }
    Ok(fd)
}
