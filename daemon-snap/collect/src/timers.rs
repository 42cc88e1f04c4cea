//! Interval and POSIX timers: what they are from outside, how much time is left from inside.

use super::injected::{Scratch, call};
use snap_error::obstacle::ProcessObstacle;
use snap_error::{Blocker, Error, Part, Result};
use snap_state::{IntervalTimerV1, Pid, PosixTimerV1};
use snap_sys::inject::Injector;
use snap_sys::proc::{self, PosixTimerText, parse_posix_timers};

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
    tids: &[Pid],
    injector: &mut Injector,
    scratch: Scratch,
) -> Result<Vec<PosixTimerV1>> {
    let texts = parse_posix_timers(&proc::read(pid, "timers")?)?;
    let blockers: Vec<Blocker> = texts
        .iter()
        .filter_map(|text| lost_clock(pid, text, tids))
        .map(|obstacle| Blocker::new(pid, Part::Process, obstacle))
        .collect();
    if !blockers.is_empty() {
        return Err(Error::Refused(blockers));
    }
    let is_alive = |text: &PosixTimerText| text.target.is_none_or(|target| tids.contains(&target));
    texts
        .into_iter()
        .map(|text| {
            let silent = !is_alive(&text);
            let mut timer = posix_timer(pid, text, injector, scratch)?;
            if silent {
                // Its thread has ended: it runs, and nobody hears of it.
                (timer.notify, timer.target) = (libc::SIGEV_NONE, None);
            }
            Ok(timer)
        })
        .collect()
}

/// Why a timer cannot be made again on its CPU clock: a negative number, the low three bits say
/// which clock, the others whose, inverted (clock_getcpuclockid(3)). 0 is the process, or the
/// thread, that made the timer.
fn lost_clock(pid: Pid, text: &PosixTimerText, tids: &[Pid]) -> Option<ProcessObstacle> {
    const OF_THREAD: i32 = 4;
    let (clock_id, timer) = (text.clock_id, text.id);
    if clock_id >= 0 {
        return None;
    }
    let whose = Pid(!(clock_id >> 3));
    match (whose, clock_id & OF_THREAD != 0) {
        (Pid(0), true) if tids.len() > 1 => Some(ProcessObstacle::TimerOfMaker { timer }),
        (Pid(0), _) => None,
        (tid, true) if tids.contains(&tid) => None,
        (thread, true) => Some(ProcessObstacle::TimerOfOtherThread { thread, timer }),
        (other, false) if other == pid => None,
        (process, false) => Some(ProcessObstacle::TimerOfOtherProcess { process, timer }),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_clocks_are_known_by_whose_they_are() {
        let clock = |whose: i32, kind: i32| !whose << 3 | kind;
        let lost = |clock_id, tids: &[i32]| {
            let tids: Vec<Pid> = tids.iter().copied().map(Pid).collect();
            let text = PosixTimerText { clock_id, ..PosixTimerText::default() };
            lost_clock(Pid(100), &text, &tids).is_some()
        };
        assert!(!lost(libc::CLOCK_MONOTONIC, &[100, 101]));
        assert!(!lost(-6, &[100, 101]) && !lost(-2, &[100]) && lost(-2, &[100, 101]));
        assert!(!lost(clock(101, 6), &[100, 101]) && lost(clock(102, 6), &[100, 101]));
        assert!(!lost(clock(100, 2), &[100]) && lost(clock(99, 2), &[100]));
    }
}
