//! Restored units in daily life.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::site::{Expected, Lab, require};
use crate::service;

/// Longest for a soft reboot.
const BOUND: Duration = Duration::from_secs(60);

pub(super) fn daemon_reload(lab: &Lab) -> Result<()> {
    let (mut site, taken) = lab.site_with_images("reload")?;
    let running = site.boot()?;
    let show = |unit: &str| {
        running
            .run(&["systemctl", "show", "--property=ExecStart,NotifyAccess,DropInPaths,Type", unit])?
            .success()
    };
    let before: Vec<String> = taken.iter().map(|taken| show(taken.service.unit)).collect::<Result<_>>()?;
    running.run(&["systemctl", "daemon-reload"])?.success()?;
    require(&running, &taken, |_| Expected::Restored)?;
    for (taken, before) in taken.iter().zip(before) {
        let now = show(taken.service.unit)?;
        // The command's own times and exit codes are in the same property.
        let text = |shown: &str| shown.split(" ; start_time").next().unwrap_or_default().to_owned();
        ensure!(text(&now) == text(&before), "{} was {before} and is {now}", taken.service.unit);
    }
    running.poweroff()
}

pub(super) fn restart(lab: &Lab) -> Result<()> {
    let (mut site, taken) = lab.site_with_images("restart")?;
    let running = site.boot()?;
    require(&running, &taken, |_| Expected::Restored)?;
    for taken in &taken {
        service::restart(&running, taken).with_context(|| taken.service.unit.to_owned())?;
    }
    running.poweroff()
}

pub(super) fn crash(lab: &Lab) -> Result<()> {
    let (mut site, taken) = lab.site_with_images("crash")?;
    let running = site.boot()?;
    require(&running, &taken, |_| Expected::Restored)?;
    for taken in &taken {
        service::kill_main(&running, taken).with_context(|| taken.service.unit.to_owned())?;
    }
    running.poweroff()
}

/// /run survives a soft reboot, and with it what was decided and who has asked in this boot of the kernel.
pub(super) fn soft_reboot(lab: &Lab) -> Result<()> {
    let (mut site, taken) = lab.site_with_images("soft-reboot")?;
    let running = site.boot()?;
    require(&running, &taken, |_| Expected::Restored)?;
    let before = running.unit(taken[0].service.unit)?.invocation;
    running.run(&["systemctl", "soft-reboot", "--no-block"])?;
    running.wait_unit(taken[0].service.unit, "started again", BOUND, |now| {
        now.is_active() && now.invocation != before
    })?;
    running.wait_booted(BOUND)?;
    for taken in &taken {
        service::require_cold(&running, taken).with_context(|| taken.service.unit.to_owned())?;
    }
    running.poweroff()
}
