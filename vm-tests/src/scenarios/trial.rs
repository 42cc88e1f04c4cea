//! The trial restore of a snapshot: what it keeps, what it drops, and what is left when it fails.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::site::{COUNTER, Expected, Lab, require};
use crate::client::first_answer;
use crate::container::Machine;
use crate::fastboot::{self, SnapshotUnit};
use crate::service::Taken;

const BURN: &str = "[Service]\nEnvironment=COUNTER_BURN_MS=600\n";

fn snapshot(running: &Machine, exit_code: i32) -> Result<SnapshotUnit> {
    let report = fastboot::snapshot_with_trial(running, &[COUNTER.unit], &[])?;
    let unit = report.unit(COUNTER.unit).context("no report of the counter")?.clone();
    ensure!(report.exit_code == Some(exit_code), "the exit code is {:?}: {unit:?}", report.exit_code);
    Ok(unit)
}

/// As it comes it starts in a few milliseconds; made to compute, it takes more than half a second.
pub(super) fn gain_decides(lab: &Lab) -> Result<()> {
    let mut site = lab.site("trial")?;
    let running = site.boot()?;
    let light = snapshot(&running, 0)?;
    ensure!(light.outcome == "pointless", "{light:?}");
    let listed = running.run(&["fastboot", "list", "--json"])?.success()?;
    ensure!(!listed.contains(COUNTER.unit), "an image that gains nothing was kept: {listed}");

    site.drop_in(COUNTER.unit, BURN)?;
    running.run(&["systemctl", "daemon-reload"])?.success()?;
    let heavy = snapshot(&running, 0)?;
    ensure!(heavy.outcome == "stored", "{heavy:?}");
    let (cold, restored) = heavy.cold_start_ms.zip(heavy.restore_ms).context("no figures")?;
    // The clock of what it burns and that of systemd are not read at the same moments.
    ensure!(cold >= 550.0 && restored < cold / 2.0, "cold {cold} ms, restored {restored} ms");
    // What runs now came from the image, and a restart by somebody is a cold start, as ever.
    let taken = Taken::observe(&running, COUNTER)?;
    ensure!(taken.main_pid > 1_000_000, "the restored instance does not run: main PID {}", taken.main_pid);
    COUNTER.drive(&running)?;
    crate::service::restart(&running, &Taken::observe(&running, COUNTER)?)?;
    let shown = running.run(&["systemctl", "show", "--property=ExecStart,DropInPaths", COUNTER.unit])?;
    let shown = shown.success()?;
    ensure!(!shown.contains("fastboot-exec"), "the shim is still in front of it: {shown}");
    running.poweroff()?;

    let running = site.boot()?;
    require(&running, &[taken], |_| Expected::Restored)?;
    let listed = running.run(&["fastboot", "list", "--json"])?.success()?;
    ensure!(listed.contains("\"gain_ms\":"), "no gain is listed: {listed}");
    running.poweroff()
}

pub(super) fn failure(lab: &Lab) -> Result<()> {
    let mut site = lab.site("trial-fails")?;
    site.drop_in(COUNTER.unit, BURN)?;
    site.drop_in("fastboot-initd.service", "[Service]\nEnvironment=FASTBOOT_FAULT=worker.mid:abort\n")?;
    let running = site.boot()?;
    let unit = snapshot(&running, 1)?;
    ensure!(unit.outcome == "failed", "{unit:?}");
    ensure!(unit.reasons.iter().any(|reason| reason.contains("trial restore")), "{:?}", unit.reasons);
    let state = running.unit(COUNTER.unit)?;
    ensure!(state.is_active() && state.restarts == 0, "{state:?}");
    // It counts as started before it has computed what it was told to.
    running.in_network(|| first_answer(Duration::from_secs(30), || COUNTER.ask()))?;
    let left = running.run(&["find", fastboot::STORE_DIR, "-name", "*.img"])?.success()?;
    ensure!(left.is_empty(), "an image that failed was kept: {left}");
    running.poweroff()
}
