//! When does a server answer first?

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::time::{ClockId, clock_gettime};

/// Pause between two attempts. A refused connection costs about 15 µs, so five probes take 1 % of
/// one CPU or so.
const PAUSE: Duration = Duration::from_millis(1);

/// The first correct answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// When it was complete, CLOCK_MONOTONIC in µs: systemd's own time stamps use the same clock.
    pub at_us: u64,
    /// Attempts that came before.
    pub failed_attempts: u32,
}

/// Repeat `attempt` until it is well, at most for `bound`.
///
/// # Errors
/// Time is up: the last attempt's error.
pub fn first_answer(bound: Duration, mut attempt: impl FnMut() -> Result<()>) -> Result<Answer> {
    let end = Instant::now() + bound;
    let mut failed_attempts = 0;
    loop {
        match attempt() {
            Ok(()) => return Ok(Answer { at_us: now_us()?, failed_attempts }),
            Err(error) if Instant::now() >= end => {
                bail!("no correct answer within {} s: {error:#}", bound.as_secs());
            }
            Err(_) => failed_attempts += 1,
        }
        std::thread::sleep(PAUSE);
    }
}

/// CLOCK_MONOTONIC in µs.
///
/// # Errors
/// None in practice; clock_gettime(2).
pub fn now_us() -> Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    Ok(u64::try_from(now.tv_sec())? * 1_000_000 + u64::try_from(now.tv_nsec())? / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_answer_comes_after_the_failed_attempts() {
        let before = now_us().unwrap();
        let mut left = 3;
        let answer = first_answer(Duration::from_secs(5), || {
            left -= 1;
            if left > 0 { bail!("not yet") } else { Ok(()) }
        });
        let answer = answer.unwrap();
        assert_eq!(answer.failed_attempts, 2);
        assert!(answer.at_us > before);
    }

    #[test]
    fn time_that_is_up_shows_the_last_error() {
        let error = first_answer(Duration::ZERO, || bail!("refused")).unwrap_err();
        assert!(error.to_string().contains("refused"), "{error}");
    }
}
