//! The end of one life of a service and the start of the next.

use std::time::Duration;

use anyhow::Result;

use super::{Taken, require_cold};
use crate::container::{Container, UnitState};

/// Longest for a unit to come back.
const BOUND: Duration = Duration::from_secs(60);

/// `systemctl restart`; passes when it ends in a working cold start.
///
/// # Errors
/// What does not hold.
pub fn restart(running: &Container, taken: &Taken) -> Result<()> {
    let before = running.unit(taken.service.unit)?;
    running.run(&["systemctl", "restart", taken.service.unit])?.success()?;
    wait_new_life(running, &before)?;
    require_cold(running, taken)
}

/// Kill the main process; passes when `Restart=` (or a start, for units without) ends in a working
/// cold start.
///
/// # Errors
/// What does not hold.
pub fn kill_main(running: &Container, taken: &Taken) -> Result<()> {
    let unit = taken.service.unit;
    let before = running.unit(unit)?;
    running.run(&["systemctl", "kill", "--signal=KILL", "--kill-whom=main", unit])?.success()?;
    if !taken.service.comes_back {
        running.wait_unit(unit, "failed", BOUND, |now| now.active == "failed")?;
        running.run(&["systemctl", "start", unit])?.success()?;
    }
    wait_new_life(running, &before)?;
    require_cold(running, taken)
}

fn wait_new_life(running: &Container, before: &UnitState) -> Result<UnitState> {
    running.wait_unit(&before.name, "active again", BOUND, |now| {
        now.is_active() && now.invocation != before.invocation && now.main_pid != before.main_pid
    })
}
