//! A snapshot that was taken when the machine had been up for longer than it is now.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::service_site::{COUNTER, Expected, ScenarioLab};
use crate::client::get;
use crate::container::{BootOptions, Container, wait_until};
use crate::fastboot;
use crate::service::Taken;

/// Far beyond the uptime of any host that runs tests.
const AHEAD_S: u32 = 100_000_000;
/// From the daemon's start to its timer; the snapshot of one unit and a boot lie between.
const ARM_MS: u32 = 25_000;
/// How late the timer and our look at it may be on a busy machine.
const LATE_MS: i64 = 1500;

/// What the counter says about its clock and its timer.
#[derive(Debug, Deserialize)]
struct Clock {
    now_ms: i64,
    due_ms: i64,
    /// 0 as long as it has not come.
    came_ms: i64,
}

fn clock(running: &Container) -> Result<Clock> {
    let body = running.in_network(|| Ok(get(8082, "/clock")?.body))?;
    serde_json::from_str(&body).with_context(|| format!("the counter says {body:?}"))
}

pub(super) fn continues(lab: &ScenarioLab) -> Result<()> {
    let mut site = lab.site("clock")?;
    site.drop_in(COUNTER.unit, &format!("[Service]\nEnvironment=COUNTER_ARM_MS={ARM_MS}\n"))?;
    let running = site.boot_with(&BootOptions { clock_ahead_s: AHEAD_S, ..BootOptions::default() })?;
    let before = clock(&running)?;
    ensure!(before.now_ms > i64::from(AHEAD_S) * 1000, "the container's clock is not ahead: {before:?}");
    let report = fastboot::snapshot(&running, &[COUNTER.unit], &[])?;
    let unit = report.unit(COUNTER.unit).context("no report of the counter")?;
    ensure!(unit.outcome == "stored", "{}: {}", unit.outcome, unit.reasons.join("; "));
    let taken = [Taken::observe(&running, COUNTER)?];
    let armed = clock(&running)?;
    running.poweroff()?;

    let began = Instant::now();
    let running = site.boot()?;
    let restored = clock(&running)?;
    let since_boot_ms = i64::try_from(began.elapsed().as_millis())?;
    site.require(&running, &taken, |_| Expected::Restored)?;
    ensure!(
        restored.now_ms >= before.now_ms && restored.now_ms <= armed.now_ms + since_boot_ms,
        "the clock was at {} and {} before, and {since_boot_ms} ms later at {}",
        before.now_ms,
        armed.now_ms,
        restored.now_ms
    );
    ensure!(
        restored.due_ms == armed.due_ms,
        "the timer was due at {} and is at {}",
        armed.due_ms,
        restored.due_ms
    );
    let left_ms = restored.due_ms - restored.now_ms;
    ensure!(restored.came_ms == 0 && left_ms > 0, "nothing is left to wait for: {restored:?}");
    let asked = Instant::now();
    let came = wait_until("the timer", Duration::from_secs(60), || {
        Ok(Some(clock(&running)?).filter(|clock| clock.came_ms != 0))
    })?;
    let waited_ms = i64::try_from(asked.elapsed().as_millis())?;
    let late_ms = came.came_ms - came.due_ms;
    ensure!((0..LATE_MS).contains(&late_ms), "by the daemon's clock it came {late_ms} ms late");
    let drift_ms = (waited_ms - left_ms).abs();
    ensure!(drift_ms < LATE_MS, "{left_ms} ms were left, and it came after {waited_ms} ms");
    running.poweroff()?;

    let without = BootOptions {
        nspawn_options: vec!["--drop-capability=CAP_SYS_TIME".to_owned()],
        ..BootOptions::default()
    };
    let running = site.boot_with(&without)?;
    let status = fastboot::status(&running)?;
    let said = status.unit(COUNTER.unit).context("fastboot status does not name the counter")?;
    ensure!(said.reason_code.as_deref() == Some("host-unsupported"), "{said:?}");
    let cold = clock(&running)?;
    ensure!(cold.now_ms < before.now_ms, "without a time namespace its clock is the host's: {cold:?}");
    running.poweroff()
}
