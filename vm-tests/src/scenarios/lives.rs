//! Restored units in daily life.

use anyhow::{Context as _, Result, ensure};

use super::site::{Expected, Lab, require};
use crate::service;

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
