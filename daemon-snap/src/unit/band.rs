//! The band: PIDs that an ordinary boot never reaches, so that a recorded process finds its number free.

use crate::error::{Error, Result};
use crate::sys::procfs_own::{LAST_PID, OwnProc};
use nix::errno::Errno;
use std::ops::Range;

/// First numbers of the bands. Generations use them in turn, so that a new one never meets the numbers of the one
/// that is kept beside it.
pub const BANDS: [i32; 2] = [1_000_000, 2_000_000];
/// Numbers in a band.
pub const BAND_LEN: i32 = 1_000_000;
/// The largest that Linux allows on 64 bits.
const PID_MAX: i32 = 4_194_304;
/// Numbers above the bands, for each band half of them: what a restore needs for a moment must not be recorded of anybody. Threads that
/// several units make under one warm-up stand close together, so a number beside those of a tree may be that of another one.
const ABOVE: i32 = BANDS[BANDS.len() - 1] + BAND_LEN;
const ABOVE_LEN: i32 = (PID_MAX - ABOVE) / BANDS.len() as i32;
/// Numbers below the bands that serve in the same way for processes above them.
const BELOW_LEN: i32 = 400_000;
/// Room that has to be left above the highest number in use; else the band is begun anew.
const RESERVE: i32 = 100_000;

/// Numbers between two units.
const GAP: i32 = 256;

/// Where numbering goes on when nobody knows where it was: behind the kernel's own reserve.
const ORDINARY: i32 = 300;

/// The band of a generation.
pub fn band_of(generation: u64) -> Range<i32> {
    let first = BANDS[(generation % BANDS.len() as u64) as usize];
    first..first + BAND_LEN
}

/// Whether a number lies in one of the bands.
pub fn is_in_a_band(pid: i32) -> bool {
    BANDS.iter().any(|first| (*first..first + BAND_LEN).contains(&pid))
}

/// The number outside the bands that belongs to one in them or above them: far from it, so that it is not the next one that
/// anybody gets. `None` for one below. Two get the same only when they lie more than a third of a band apart.
pub fn outside_bands(pid: i32) -> Option<i32> {
    if pid >= ABOVE {
        return Some(BANDS[0] - BELOW_LEN + pid % BELOW_LEN);
    }
    let band = BANDS.iter().position(|first| (*first..first + BAND_LEN).contains(&pid))?;
    Some(ABOVE + band as i32 * ABOVE_LEN + (pid - BANDS[band]) % ABOVE_LEN)
}

/// New processes are numbered in a band as long as this lives; then numbers go on where they were.
#[derive(Debug)]
pub struct Band {
    proc: OwnProc,
    range: Range<i32>,
    /// Last number before the band was entered.
    low: Option<i32>,
}

impl Band {
    /// Moves the numbering of new processes into the band of `generation`, above everything in `taken`.
    ///
    /// # Errors
    /// Without CAP_SYS_ADMIN.
    pub fn enter(generation: u64, taken: &[i32]) -> Result<Self> {
        let fail = |step| move |errno| Error::kernel(step, "proc", errno);
        // /proc/sys is read-only in containers; an instance of our own is not.
        let proc = OwnProc::mount().map_err(fail("mount proc"))?;
        raise_pid_max(&proc).map_err(fail("raise kernel.pid_max"))?;
        let low = proc.last_pid().map_err(fail("read ns_last_pid"))?;
        let range = band_of(generation);
        // Whoever left the numbering inside a band before us did not come to its end: start low again afterwards.
        let low = if is_in_a_band(low) { ORDINARY } else { low };
        let band = Self { proc, range, low: Some(low) };
        band.write(first_free(&band.range, taken) - 1)?;
        Ok(band)
    }

    /// Whether a number lies in it.
    pub fn contains(&self, pid: i32) -> bool {
        self.range.contains(&pid)
    }

    /// Leaves numbers free behind those of the unit that has just started. Where threads are numbered by counter (user
    /// namespaces), whoever else forks in that moment of a boot gets one of the next numbers: it must not be another
    /// unit's.
    ///
    /// # Errors
    /// When the numbers cannot be read or written.
    pub fn leave_gap(&self) -> Result<()> {
        let last = self.proc.last_pid().map_err(|errno| Error::kernel("read", LAST_PID, errno))?;
        if !self.contains(last) || !self.contains(last + GAP) {
            return Ok(());
        }
        self.write(last + GAP)
    }

    /// Gives new processes ordinary numbers again.
    ///
    /// # Errors
    /// When the number cannot be written.
    pub fn leave(mut self) -> Result<()> {
        match self.low.take() {
            Some(low) => self.write(low),
            None => Ok(()),
        }
    }

    fn write(&self, last: i32) -> Result<()> {
        let written = self.proc.set_last_pid(last.into());
        written.map_err(|errno| Error::kernel("write", LAST_PID, errno))
    }
}

impl Drop for Band {
    fn drop(&mut self) {
        if let Some(low) = self.low.take()
            && let Err(error) = self.write(low)
        {
            tracing::debug!(%error, "new processes go on being numbered in the band");
        }
    }
}

/// First number to give out: above all that are taken in the band, or its beginning when little would be left.
fn first_free(range: &Range<i32>, taken: &[i32]) -> i32 {
    let highest = taken.iter().copied().filter(|pid| range.contains(pid)).max();
    let next = highest.map_or(range.start, |pid| pid + 1);
    if next > range.end - RESERVE { range.start } else { next }
}

fn raise_pid_max(proc: &OwnProc) -> std::result::Result<(), Errno> {
    const PID_MAX_FILE: &str = "sys/kernel/pid_max";
    if proc.number(PID_MAX_FILE)? < PID_MAX {
        proc.write(PID_MAX_FILE, &PID_MAX.to_string())?;
    }
    Ok(())
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

    #[test]
    fn numbers_go_on_above_those_of_kept_images() {
        let range = 1_000_000..2_000_000;
        assert_eq!(first_free(&range, &[]), 1_000_000);
        assert_eq!(first_free(&range, &[1_000_007, 1_000_003, 2_000_500, 812]), 1_000_008);
        assert_eq!(first_free(&range, &[1_950_000]), 1_000_000);
    }
}
