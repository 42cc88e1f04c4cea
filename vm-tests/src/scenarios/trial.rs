//! The trial restore of a snapshot: what it keeps, what it drops, and what is left when it fails.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::service_site::{COUNTER, Expected, ScenarioLab};
use crate::client::first_answer;
use crate::container::Container;
use crate::fastboot::{self, SnapshotUnit};
use crate::service::Taken;

const ASK: &str = "/usr/bin/python3 /srv/ask-counter.py";
const ASK_SCRIPT: &str =
    "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:8082/state', timeout=20).read()\n";
const BURN: &str = "[Service]\nEnvironment=COUNTER_BURN_MS=600\n";

fn snapshot(running: &Container, exit_code: i32) -> Result<SnapshotUnit> {
    snapshot_with(running, exit_code, &[])
}

fn snapshot_with(running: &Container, exit_code: i32, more: &[&str]) -> Result<SnapshotUnit> {
    let report = fastboot::snapshot_with_trial(running, &[COUNTER.unit], more)?;
    let unit = report.unit(COUNTER.unit).context("no report of the counter")?.clone();
    ensure!(report.exit_code == Some(exit_code), "the exit code is {:?}: {unit:?}", report.exit_code);
    Ok(unit)
}

/// As it comes it starts in a few milliseconds; made to compute, it takes more than half a second.
pub(super) fn gain_decides(lab: &ScenarioLab) -> Result<()> {
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
    site.require(&running, &[taken], |_| Expected::Restored)?;
    let listed = running.run(&["fastboot", "list", "--json"])?.success()?;
    ensure!(listed.contains("\"gain_ms\":"), "no gain is listed: {listed}");
    running.poweroff()
}

pub(super) fn failure(lab: &ScenarioLab) -> Result<()> {
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

/// It bears the restore itself; only who asks it finds out that it does not bear what a restore
/// does to its memory.
pub(super) fn next_request(lab: &ScenarioLab) -> Result<()> {
    let mut site = lab.site("trial-asks")?;
    site.drop_in(COUNTER.unit, "[Service]\nEnvironment=COUNTER_WIPED=1\n")?;
    let running = site.boot()?;
    let unasked = snapshot_with(&running, 0, &["--keep-slow"])?;
    ensure!(unasked.outcome == "stored", "{unasked:?}");
    running.run(&["fastboot", "remove", COUNTER.unit])?.success()?;

    site.machine.scratch.write("/srv/ask-counter.py", ASK_SCRIPT, 0o644)?;
    let asked = snapshot_with(&running, 1, &["--keep-slow", "--warm-up", ASK])?;
    require_dropped(&running, &asked)?;

    site.drop_in(
        COUNTER.unit,
        &format!("[Service]\nEnvironment=COUNTER_WIPED=1\n[X-Fastboot]\nWarmUp={ASK}\n"),
    )?;
    running.run(&["systemctl", "daemon-reload"])?.success()?;
    require_dropped(&running, &snapshot_with(&running, 1, &["--keep-slow"])?)?;
    running.poweroff()
}

/// The reason names what happened, no image is left, and the service runs.
fn require_dropped(running: &Container, unit: &SnapshotUnit) -> Result<()> {
    ensure!(unit.outcome == "failed", "{unit:?}");
    ensure!(unit.reasons.iter().any(|reason| reason.contains("did not stay")), "{:?}", unit.reasons);
    let left = running.run(&["find", fastboot::STORE_DIR, "-name", "*.img"])?.success()?;
    ensure!(left.is_empty(), "an image that does not bear a request was kept: {left}");
    running.in_network(|| first_answer(Duration::from_secs(30), || COUNTER.ask()))?;
    ensure!(running.unit(COUNTER.unit)?.is_active(), "it does not run");
    Ok(())
}
