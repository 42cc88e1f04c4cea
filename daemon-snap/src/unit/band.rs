//! The band: PIDs that an ordinary boot never reaches, so that a recorded process finds its number
//! free.

use nix::errno::Errno;
use snap_error::{Error, Result};
use snap_state::bands::{PID_MAX, band_of, is_in_a_band};
use snap_sys::procfs_own::{LAST_PID, OwnProc};
use std::ops::Range;

/// Room that has to be left above the highest number in use; else the band is begun anew.
const RESERVE: i32 = 100_000;

/// Numbers between two units.
const GAP: i32 = 256;

/// Where numbering goes on when nobody knows where it was: behind the kernel's own reserve.
const ORDINARY: i32 = 300;

/// New processes are numbered in a band as long as this lives; then numbers go on where they were.
#[derive(Debug)]
pub struct Band {
    proc: OwnProc,
    range: Range<i32>,
    /// Last number before the band was entered.
    low: Option<i32>,
}

impl Band {
    /// Moves the numbering of new processes into the band of `generation`, above everything in
    /// `taken`.
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
        // Whoever left the numbering inside a band before us did not come to its end: start low
        // again afterwards.
        let low = if is_in_a_band(low) { ORDINARY } else { low };
        let band = Self { proc, range, low: Some(low) };
        band.write(first_free(&band.range, taken) - 1)?;
        Ok(band)
    }

    /// Its numbers.
    pub fn range(&self) -> Range<i32> {
        self.range.clone()
    }

    /// Whether a number lies in it.
    pub fn contains(&self, pid: i32) -> bool {
        self.range.contains(&pid)
    }

    /// Leaves numbers free behind those of the unit that has just started. Where threads are
    /// numbered by counter (user namespaces), whoever else forks in that moment of a boot gets one
    /// of the next numbers: it must not be another unit's.
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

/// First number to give out: above all that are taken in the band, or its beginning when little
/// would be left.
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
    fn numbers_go_on_above_those_of_kept_images() {
        let range = 1_000_000..2_000_000;
        assert_eq!(first_free(&range, &[]), 1_000_000);
        assert_eq!(first_free(&range, &[1_000_007, 1_000_003, 2_000_500, 812]), 1_000_008);
        assert_eq!(first_free(&range, &[1_950_000]), 1_000_000);
    }
}
