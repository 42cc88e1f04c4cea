//! Restored units in daily life.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::service_site::{COUNTER, Expected, NGINX, ScenarioLab};
use crate::container::{Container, wait_until};
use crate::fastboot;
use crate::service;

/// Longest for a soft reboot.
const SOFT_REBOOT_BOUND: Duration = Duration::from_secs(60);

pub(super) fn daemon_reload(lab: &ScenarioLab) -> Result<()> {
    let (mut site, taken) = lab.site_with_images("reload")?;
    let running = site.boot()?;
    let show = |unit: &str| {
        running
            .run(&["systemctl", "show", "--property=ExecStart,NotifyAccess,DropInPaths,Type", unit])?
            .success()
    };
    let before: Vec<String> = taken.iter().map(|taken| show(taken.service.unit)).collect::<Result<_>>()?;
    running.run(&["systemctl", "daemon-reload"])?.success()?;
    site.require(&running, &taken, |_| Expected::Restored)?;
    for (taken, before) in taken.iter().zip(before) {
        let now = show(taken.service.unit)?;
        // The command's own times and exit codes are in the same property.
        let text = |shown: &str| shown.split(" ; start_time").next().unwrap_or_default().to_owned();
        ensure!(text(&now) == text(&before), "{} was {before} and is {now}", taken.service.unit);
    }
    running.poweroff()
}

pub(super) fn restart(lab: &ScenarioLab) -> Result<()> {
    let (mut site, taken) = lab.site_with_images("restart")?;
    let running = site.boot()?;
    site.require(&running, &taken, |_| Expected::Restored)?;
    for taken in &taken {
        service::restart(&running, taken).with_context(|| taken.service.unit.to_owned())?;
    }
    running.poweroff()
}

pub(super) fn crash(lab: &ScenarioLab) -> Result<()> {
    let (mut site, taken) = lab.site_with_images("crash")?;
    let running = site.boot()?;
    site.require(&running, &taken, |_| Expected::Restored)?;
    for taken in &taken {
        service::kill_main(&running, taken).with_context(|| taken.service.unit.to_owned())?;
    }
    running.poweroff()
}

/// Same kernel, same boot id, same /run: for services it is a boot nevertheless.
pub(super) fn soft_reboot(lab: &ScenarioLab) -> Result<()> {
    let (mut site, taken) = lab.site_with_images("soft-reboot")?;
    let running = site.boot()?;
    site.require(&running, &taken, |_| Expected::Restored)?;
    for _ in 0..2 {
        soft_reboot_now(&running, COUNTER.unit)?;
        site.require(&running, &taken, |_| Expected::Restored)?;
        running.run(&["systemctl", "daemon-reload"])?.success()?;
        for taken in &taken {
            service::restart(&running, taken).with_context(|| taken.service.unit.to_owned())?;
        }
    }
    running.poweroff()
}

/// Waits until `unit` has been started again and systemd is done.
fn soft_reboot_now(running: &Container, unit: &str) -> Result<()> {
    let before = running.unit(unit)?.invocation;
    running.run(&["systemctl", "soft-reboot", "--no-block"])?;
    let show = ["systemctl", "show", "--property=ActiveState,InvocationID", unit];
    wait_until("a soft reboot", SOFT_REBOOT_BOUND, || {
        // Who asks while systemd executes itself may never be answered.
        let shown = running.run_for(&show, Duration::from_secs(5))?.success()?;
        Ok((shown.contains("ActiveState=active") && !shown.contains(&before)).then_some(()))
    })
    .with_context(|| running.console_tail())?;
    running.wait_booted(SOFT_REBOOT_BOUND)
}

/// What survives a soft reboot has been started before: its next start is a restart.
pub(super) fn survivor(lab: &ScenarioLab) -> Result<()> {
    let mut site = lab.site("survivor")?;
    site.drop_in(
        COUNTER.unit,
        "[Unit]\nDefaultDependencies=no\nIgnoreOnIsolate=yes\nSurviveFinalKillSignal=yes\n",
    )?;
    let running = site.boot()?;
    let (_, taken) = site.snapshot(&running)?;
    running.poweroff()?;
    let running = site.boot()?;
    site.require(&running, &taken, |_| Expected::Restored)?;
    soft_reboot_now(&running, NGINX.unit)?;
    let counter = taken.iter().find(|taken| taken.service.unit == COUNTER.unit).context("the counter")?;
    let now = running.unit(COUNTER.unit)?;
    ensure!(now.is_active() && now.main_pid == counter.main_pid, "it did not survive: {now:?}");
    service::restart(&running, counter)?;
    let status = fastboot::status(&running)?;
    let code = status.unit(COUNTER.unit).and_then(|said| said.reason_code.as_deref());
    ensure!(code == Some("not-first-start"), "the reason is {code:?}");
    running.poweroff()
}
