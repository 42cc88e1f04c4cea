//! Interval and POSIX timers: what they are from outside, how much time is left from inside.

use super::inside::{Scratch, call};
use crate::error::Result;
use crate::state::{IntervalTimerV1, Pid, PosixTimerV1};
use crate::sys::inject::Injector;
use crate::sys::proc::{self, PosixTimerText, parse_posix_timers};

const SECOND_NS: u64 = 1_000_000_000;

/// ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF.
pub(super) fn collect_itimers(
    pid: Pid,
    injector: &mut Injector,
    scratch: Scratch,
) -> Result<[IntervalTimerV1; 3]> {
    let mut timers = [IntervalTimerV1::default(); 3];
    for (which, timer) in timers.iter_mut().enumerate() {
        call(pid, injector, "getitimer", libc::SYS_getitimer, [which as u64, scratch.at.0, 0, 0, 0, 0])?;
        // struct itimerval: interval, then value.
        let words = scratch.words::<4>(pid)?;
        *timer = IntervalTimerV1 {
            interval_us: words[0] * 1_000_000 + words[1],
            remaining_us: words[2] * 1_000_000 + words[3],
        };
    }
    Ok(timers)
}

/// Timers of timer_create(2).
pub(super) fn collect_posix_timers(
    pid: Pid,
    injector: &mut Injector,
    scratch: Scratch,
) -> Result<Vec<PosixTimerV1>> {
    let texts = parse_posix_timers(&proc::read(pid, "timers")?)?;
    texts.into_iter().map(|text| posix_timer(pid, text, injector, scratch)).collect()
}

fn posix_timer(
    pid: Pid,
    text: PosixTimerText,
    injector: &mut Injector,
    scratch: Scratch,
) -> Result<PosixTimerV1> {
    let id = text.id as u64;
    call(pid, injector, "timer_gettime", libc::SYS_timer_gettime, [id, scratch.at.0, 0, 0, 0, 0])?;
    // struct itimerspec: interval, then value.
    let words = scratch.words::<4>(pid)?;
    let overrun = call(pid, injector, "timer_getoverrun", libc::SYS_timer_getoverrun, [id, 0, 0, 0, 0, 0])?;
    Ok(PosixTimerV1 {
        id: text.id,
        clock_id: text.clock_id,
        notify: text.notify,
        signal: text.signal,
        sigval: text.sigval,
        target: text.target,
        remaining_ns: words[2] * SECOND_NS + words[3],
        interval_ns: words[0] * SECOND_NS + words[1],
        overrun: overrun as i32,
    })
}
