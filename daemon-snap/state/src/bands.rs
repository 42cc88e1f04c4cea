//! The numbers of processes: which ranges recorded processes have, and which are for the helpers of
//! a restore.
//!
//! Pure arithmetic; moving the kernel's counter into a band is the snapshot's business.

use std::ops::Range;

/// First numbers of the bands. Generations use them in turn, so that a new one never meets the
/// numbers of the one that is kept beside it.
pub const BANDS: [i32; 2] = [1_000_000, 2_000_000];
/// Numbers in a band.
pub const BAND_LEN: i32 = 1_000_000;
/// The largest that Linux allows on 64 bits.
pub const PID_MAX: i32 = 4_194_304;
/// Numbers above the bands, for each band half of them: what a restore needs for a moment must not
/// be recorded of anybody. Threads that several units make under one warm-up stand close together,
/// so a number beside those of a tree may be that of another one.
const ABOVE: i32 = BANDS[BANDS.len() - 1] + BAND_LEN;
const ABOVE_LEN: i32 = (PID_MAX - ABOVE) / BANDS.len() as i32;
/// Numbers below the bands that serve in the same way for processes above them.
const BELOW_LEN: i32 = 400_000;

/// The band of a generation.
pub fn band_of(generation: u64) -> Range<i32> {
    let first = BANDS[(generation % BANDS.len() as u64) as usize];
    first..first + BAND_LEN
}

/// Whether a number lies in one of the bands.
pub fn is_in_a_band(pid: i32) -> bool {
    BANDS.iter().any(|first| (*first..first + BAND_LEN).contains(&pid))
}

/// The number outside the bands that belongs to one in them or above them: far from it, so that it
/// is not the next one that anybody gets. `None` for one below. Two get the same only when they lie
/// more than a third of a band apart.
pub fn outside_bands(pid: i32) -> Option<i32> {
    if pid >= ABOVE {
        return Some(BANDS[0] - BELOW_LEN + pid % BELOW_LEN);
    }
    let band = BANDS.iter().position(|first| (*first..first + BAND_LEN).contains(&pid))?;
    Some(ABOVE + band as i32 * ABOVE_LEN + (pid - BANDS[band]) % ABOVE_LEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_alternate_between_bands() {
        assert_ne!(band_of(1), band_of(2));
        assert_eq!(band_of(1), band_of(3));
        assert!(band_of(1).end <= PID_MAX && band_of(2).end <= PID_MAX);
    }

    #[test]
    fn regression_helpers_have_numbers_that_nobody_is_recorded_with() {
        let ids = [1_000_000, 1_000_001, 1_999_999, 2_000_000, 2_000_782, 2_999_999].map(outside_bands);
        let ids: Vec<i32> = ids.into_iter().flatten().collect();
        assert!(ids.iter().all(|&id| !is_in_a_band(id) && (ABOVE..PID_MAX).contains(&id)), "{ids:?}");
        let mut different = ids.clone();
        different.sort_unstable();
        different.dedup();
        assert_eq!(different.len(), 6, "{ids:?}");
        assert_eq!([300, 999_999].map(outside_bands), [None; 2]);
        let below = [3_000_000, 3_764_154, PID_MAX - 1].map(outside_bands);
        assert!(below.iter().all(|id| id.is_some_and(|id| (600_000..1_000_000).contains(&id))), "{below:?}");
    }
}
