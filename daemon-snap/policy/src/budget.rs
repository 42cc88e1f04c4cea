//! How long a start from an image may take before the cold start has to begin.
//!
//! Computed by the generator, which tells the shim, and by the restore daemon from the same entry.
//! Pure.

use std::time::Duration;

use crate::reason::Reason;

/// Base of what a restore may take on a busy machine; alone it takes some ten milliseconds.
const BASE: Duration = Duration::from_secs(5);
/// What a slow disk delivers, in bytes a second.
const SLOW_DISK: u64 = 32 << 20;
/// No image is worth more waiting than this.
const LONGEST: Duration = Duration::from_secs(60);
/// Longest for the removal of what a failed attempt leaves.
const CLEANING: Duration = Duration::from_secs(3);
/// What systemd and a loaded machine may need beside the daemon's own start.
const SLACK: Duration = Duration::from_millis(500);
/// With less than this there is no point in trying.
const SHORTEST: Duration = Duration::from_millis(400);

/// Two moments, counted from the shim's question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartBudget {
    /// The tree has to run; else the restore daemon gives up.
    pub deadline: Duration,
    /// The shim starts the original command, whether it has had an answer or not.
    pub limit: Duration,
}

/// How long a service may take to start, and takes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StartTimes {
    /// `TimeoutStartSec=` in milliseconds; `None` for infinity.
    pub timeout_ms: Option<u64>,
    /// Measured cold start in milliseconds.
    pub cold_ms: Option<f64>,
}

impl StartBudget {
    /// For a service and its image of `len_bytes`.
    ///
    /// # Errors
    /// Its `TimeoutStartSec=` leaves no time for a restore that fails and a cold start after it.
    pub fn of(times: StartTimes, len_bytes: u64) -> Result<StartBudget, Reason> {
        let reading = Duration::from_millis(len_bytes.saturating_mul(1000) / SLOW_DISK);
        let wanted = (BASE + reading).min(LONGEST);
        let limit = match times.timeout_ms.map(Duration::from_millis) {
            None => wanted + CLEANING,
            Some(timeout) => {
                let room = timeout.saturating_sub(cold_start(times.cold_ms, timeout) + SLACK);
                room.min(wanted + CLEANING)
            }
        };
        let deadline = wanted.min(limit - CLEANING.min(limit / 4));
        if limit < SHORTEST {
            return Err(Reason::StartTimeout);
        }
        Ok(StartBudget { deadline, limit })
    }
}

/// What has to be left for the cold start: half as much again as was measured, for that was on an
/// idle machine.
fn cold_start(cold_ms: Option<f64>, timeout: Duration) -> Duration {
    let measured = cold_ms.filter(|ms| ms.is_finite() && *ms >= 0.0);
    measured.map_or(timeout / 2, |ms| Duration::from_secs_f64((ms * 1.5 / 1e3).min(86_400.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(timeout_ms: Option<u64>, cold_ms: Option<f64>, len_bytes: u64) -> Option<StartBudget> {
        StartBudget::of(StartTimes { timeout_ms, cold_ms }, len_bytes).ok()
    }

    #[test]
    fn a_large_image_gets_more_time_but_not_for_ever() {
        let light = budget(Some(90_000), Some(100.0), 1 << 20).unwrap();
        let heavy = budget(Some(90_000), Some(4000.0), 1 << 30).unwrap();
        assert_eq!(light.deadline.as_secs(), 5);
        assert_eq!(heavy.deadline.as_secs(), 37);
        assert_eq!(budget(None, None, 1 << 40).unwrap().deadline, LONGEST);
    }

    #[test]
    fn the_cold_start_still_fits_into_the_unit_s_own_timeout() {
        let tight = budget(Some(8000), Some(3000.0), 1 << 30).unwrap();
        assert_eq!(tight.limit, Duration::from_millis(3000));
        assert_eq!(tight.deadline, Duration::from_millis(2250));
        let unknown = budget(Some(4000), None, 1 << 20).unwrap();
        assert_eq!(unknown.limit, Duration::from_millis(1500));
    }

    /// `fastboot plan` asks before there is an image.
    #[test]
    fn whether_there_is_room_does_not_depend_on_the_length_of_the_image() {
        for timeout_ms in [300, 800, 900, 1000, 2000, 5000, 90_000] {
            for cold_ms in [None, Some(0.0), Some(250.0), Some(3000.0)] {
                let has_room = |len_bytes| budget(Some(timeout_ms), cold_ms, len_bytes).is_some();
                let rooms = [0, 1 << 20, 1 << 30, 1 << 40].map(has_room);
                assert!(rooms.iter().all(|room| *room == rooms[0]), "{timeout_ms} {cold_ms:?}: {rooms:?}");
            }
        }
    }

    #[test]
    fn a_timeout_without_room_for_both_means_no_restore() {
        assert_eq!(budget(Some(5000), Some(3000.0), 1 << 20), None);
        assert_eq!(budget(Some(1000), None, 1 << 20), None);
        assert_eq!(budget(Some(0), Some(0.0), 1 << 20), None);
    }
}
