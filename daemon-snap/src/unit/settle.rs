//! Waiting until a unit has nothing left to do.

use crate::error::{Error, Result};
use std::path::Path;
use std::time::{Duration, Instant};

/// Length of one look.
const SAMPLE: Duration = Duration::from_millis(150);
/// Looks in a row that have to be quiet.
const QUIET_SAMPLES: u32 = 4;
/// Share of one CPU that still counts as quiet.
const QUIET_SHARE: f64 = 0.02;

/// CPU time that a control group has used, milliseconds (cgroup v2 `cpu.stat`).
///
/// # Errors
/// The group is gone.
pub fn cpu_ms(cgroup: &Path) -> Result<f64> {
    let path = cgroup.join("cpu.stat");
    let text = std::fs::read_to_string(&path).map_err(|e| Error::io("reading", path.display(), &e))?;
    let usage = text.lines().find_map(|line| line.strip_prefix("usage_usec ")?.trim().parse::<f64>().ok());
    usage.map(|us| us / 1e3).ok_or_else(|| Error::Internal {
        step: "reading CPU time",
        message: format!("{} has no usage_usec", path.display()),
    })
}

/// Waits until the group is quiet, at most `limit`. Returns whether it became quiet.
///
/// # Errors
/// The group is gone.
pub fn settle(cgroup: &Path, limit: Duration) -> Result<bool> {
    let deadline = Instant::now() + limit;
    let mut quiet = 0;
    let mut last = (Instant::now(), cpu_ms(cgroup)?);
    while quiet < QUIET_SAMPLES {
        if Instant::now() > deadline {
            return Ok(false);
        }
        std::thread::sleep(SAMPLE);
        let now = (Instant::now(), cpu_ms(cgroup)?);
        let share = (now.1 - last.1) / (now.0 - last.0).as_secs_f64() / 1e3;
        quiet = if share < QUIET_SHARE { quiet + 1 } else { 0 };
        last = now;
    }
    Ok(true)
}
