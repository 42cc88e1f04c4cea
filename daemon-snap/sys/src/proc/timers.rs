//! `/proc/PID/timers`.

use super::unreadable;
use snap_error::Result;
use snap_state::Pid;

/// One POSIX timer, without its times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PosixTimerText {
    pub id: i32,
    pub signal: i32,
    pub sigval: u64,
    /// SIGEV_*: SIGEV_SIGNAL 0, SIGEV_NONE 1, SIGEV_THREAD_ID 4.
    pub notify: i32,
    /// The thread for SIGEV_THREAD_ID.
    pub target: Option<Pid>,
    pub clock_id: i32,
}

/// Timers in the kernel's order.
///
/// # Errors
/// When the text is not that of `/proc/PID/timers`.
pub fn parse_posix_timers(text: &[u8]) -> Result<Vec<PosixTimerText>> {
    let text = String::from_utf8_lossy(text);
    let mut lines = text.lines();
    let mut timers = Vec::new();
    while let Some(line) = lines.next() {
        let timer = one(line, &mut lines).ok_or_else(|| unreadable("timers", line))?;
        timers.push(timer);
    }
    Ok(timers)
}

fn one<'a>(id: &str, lines: &mut impl Iterator<Item = &'a str>) -> Option<PosixTimerText> {
    let id = id.strip_prefix("ID: ")?.trim().parse().ok()?;
    let (signal, sigval) = lines.next()?.strip_prefix("signal: ")?.split_once('/')?;
    let (how, whom) = lines.next()?.strip_prefix("notify: ")?.split_once('/')?;
    let (kind, number) = whom.split_once('.')?;
    let clock_id = lines.next()?.strip_prefix("ClockID: ")?.trim().parse().ok()?;
    let how = match how {
        "signal" => 0,
        "none" => 1,
        "thread" => 2,
        _ => return None,
    };
    let to_thread = kind == "tid";
    Some(PosixTimerText {
        id,
        signal: signal.parse().ok()?,
        sigval: u64::from_str_radix(sigval.trim_start_matches("0x"), 16)
            .or_else(|e| {
                // A NULL sival_ptr is written as "(null)".
                if sigval == "(null)" { Ok(0) } else { Err(e) }
            })
            .ok()?,
        notify: how | if to_thread { 4 } else { 0 },
        target: if to_thread { Some(Pid(number.trim().parse().ok()?)) } else { None },
        clock_id,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn posix_timers_are_understood() {
        let text = b"ID: 1\nsignal: 60/00007fff86e452a8\nnotify: signal/tid.2634\nClockID: 0\n\
                     ID: 0\nsignal: 14/0000000000000000\nnotify: signal/pid.2634\nClockID: -6\n";
        let timers = parse_posix_timers(text).unwrap();
        assert_eq!(timers.len(), 2);
        assert_eq!(
            (timers[0].notify, timers[0].target, timers[0].sigval),
            (4, Some(Pid(2634)), 0x7fff_86e4_52a8)
        );
        assert_eq!((timers[1].notify, timers[1].target, timers[1].clock_id), (0, None, -6));
    }
}
