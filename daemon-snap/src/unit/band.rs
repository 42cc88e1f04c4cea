//! The band: PIDs of recorded processes lie where no ordinary boot counts to.

use crate::error::{Error, Result};
use crate::sys::procfs_own::OwnProc;

const LAST_PID: &str = "sys/kernel/ns_last_pid";
const PID_MAX: &str = "sys/kernel/pid_max";
/// Largest value that the kernel takes on 64-bit machines (proc_sys_kernel(5)).
const PID_LIMIT: i32 = 4_194_304;
/// First PIDs of even and odd generations.
const BANDS: [i32; 2] = [1_000_000, 2_000_000];
/// Room left between units, so that a unit which forks between restart and snapshot does not meet the next one.
const GAP: i32 = 64;

/// The counter that gives out PIDs, moved into the band and back.
#[derive(Debug)]
pub struct Band {
    proc: OwnProc,
    next: i32,
}

impl Band {
    /// The band of a generation; `taken` are PIDs of images that stay in use.
    ///
    /// # Errors
    /// No privilege to mount proc or to raise `pid_max`.
    pub fn new(generation: u64, taken: impl Iterator<Item = i32>) -> Result<Self> {
        let proc = OwnProc::mount().map_err(|e| Error::kernel("mounting a proc instance", "proc", e))?;
        let max = read(&proc, PID_MAX)?;
        if max < PID_LIMIT {
            proc.write(PID_MAX, &PID_LIMIT.to_string()).map_err(|e| Error::kernel("raising", PID_MAX, e))?;
        }
        let first = BANDS[(generation % 2) as usize];
        let in_band = |pid: &i32| (first..first + 1_000_000).contains(pid);
        let next = taken.filter(in_band).max().map_or(first, |pid| pid + GAP);
        Ok(Self { proc, next })
    }

    /// Runs something that forks, with its PIDs taken from the band; the counter goes back afterwards.
    ///
    /// # Errors
    /// Those of `work`, and when the counter cannot be written.
    pub fn fork_inside<T>(&mut self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let before = read(&self.proc, LAST_PID)?;
        self.set(self.next - 1)?;
        let done = work();
        let after = read(&self.proc, LAST_PID)?;
        self.next = self.next.max(after + GAP);
        self.set(before)?;
        done
    }

    /// PIDs that are not in the band: an ordinary boot may have given them to somebody else.
    pub fn strays(pids: &[i32]) -> Vec<i32> {
        pids.iter().copied().filter(|pid| *pid < BANDS[0]).collect()
    }

    fn set(&self, pid: i32) -> Result<()> {
        self.proc.write(LAST_PID, &pid.to_string()).map_err(|e| Error::kernel("writing", LAST_PID, e))
    }
}

fn read(proc: &OwnProc, path: &str) -> Result<i32> {
    let text = proc.read(path).map_err(|e| Error::kernel("reading", path, e))?;
    let text = String::from_utf8_lossy(&text);
    text.trim()
        .parse()
        .map_err(|_| Error::Internal { step: "reading a PID", message: format!("{path}: {text:?}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pids_of_an_ordinary_boot_are_strays() {
        assert_eq!(Band::strays(&[1_000_005, 812, 2_000_000]), vec![812]);
    }
}
