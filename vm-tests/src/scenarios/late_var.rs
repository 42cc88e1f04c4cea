//! A /var of its own: generators run before it is mounted.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use super::service_site::{Expected, SERVICES, ScenarioLab};
use crate::fastboot::{self, STORE_DIR};
use crate::service::Taken;

/// Where the real /var lies. Bound over the directory by systemd itself, as a partition would be
/// mounted.
const REAL: &str = "/srv/real-var";
const FSTAB: &str = "/srv/real-var /var none bind 0 0\n";

pub(super) fn restored(lab: &ScenarioLab) -> Result<()> {
    let mut site = lab.site("late-var")?;
    let (var, real) = (site.machine.scratch.path("/var"), site.machine.scratch.path(REAL));
    fs::rename(&var, &real).context("moving /var")?;
    fs::create_dir(&var).context("making an empty /var")?;
    site.machine.scratch.write("/etc/fstab", FSTAB, 0o644)?;
    let running = site.boot()?;
    let report = fastboot::snapshot(&running, &SERVICES.map(|service| service.unit), &[])?;
    ensure!(report.exit_code == Some(0), "{report:?}");
    let taken = SERVICES.iter().map(|&service| Taken::observe(&running, service));
    let taken: Vec<Taken> = taken.collect::<Result<_>>()?;
    running.poweroff()?;
    ensure!(
        !site.machine.scratch.path(STORE_DIR).exists(),
        "the store is not on the /var that is mounted late"
    );
    let running = site.boot()?;
    site.require(&running, &taken, |_| Expected::Restored)?;
    // The copy follows: without images there is nothing to be found early either.
    running.run(&["fastboot", "remove", "--all"])?.success()?;
    running.poweroff()?;
    let running = site.boot()?;
    let status = fastboot::status(&running)?;
    ensure!(status.units.is_empty() && status.error.is_none(), "{status:?}");
    running.poweroff()
}
