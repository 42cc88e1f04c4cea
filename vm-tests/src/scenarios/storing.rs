//! Snapshots that cannot be stored, and units that cannot be carried.

use anyhow::{Context as _, Result, ensure};

use super::service_site::{Expected, SERVICES, ScenarioLab};
use crate::container::BootOptions;
use crate::fastboot::{self, STORE_DIR};
use crate::service::{Taken, snapshot_while_driving};

/// Installed, and nothing more: the machine boots as without fastboot, with and without a filter
/// around it.
pub(super) fn no_images(lab: &ScenarioLab) -> Result<()> {
    let mut site = lab.site("no-images")?;
    for container_filter in [false, true] {
        let arguments = vec![format!("fastboot={}", u8::from(!container_filter))];
        let options = BootOptions {
            container_filter,
            arguments,
            nspawn_options: vec![small_store()],
            ..BootOptions::default()
        };
        let running = site.boot_with(&options)?;
        let failed =
            running.run(&["systemctl", "list-units", "--failed", "--no-legend", "--plain"])?.success()?;
        ensure!(failed.is_empty(), "failed units: {failed}");
        running.poweroff()?;
    }
    Ok(())
}

/// A file system for the store that holds less than the smallest image.
fn small_store() -> String {
    format!("--tmpfs={STORE_DIR}:size=32k,mode=0700")
}

pub(super) fn full_disk(lab: &ScenarioLab) -> Result<()> {
    let mut site = lab.site("full-disk")?;
    let running =
        site.boot_with(&BootOptions { nspawn_options: vec![small_store()], ..BootOptions::default() })?;
    let report = snapshot_while_driving(&site.machine.scratch, &running, &SERVICES)?;
    ensure!(report.exit_code == Some(1), "the exit code is {:?} and not 1", report.exit_code);
    for unit in &report.units {
        ensure!(unit.outcome == "failed", "{}: {}", unit.unit, unit.outcome);
        let says_why = unit.reasons.iter().any(|reason| reason.contains("No space left"));
        ensure!(says_why, "{}: no reason names the full disk: {:?}", unit.unit, unit.reasons);
    }
    // They run on with what they knew when they were frozen.
    for service in SERVICES {
        let now = Taken::observe(&running, service)?;
        ensure!(running.unit(service.unit)?.is_active(), "{} is not active", service.unit);
        service.drive(&running).with_context(|| service.unit.to_owned())?;
        now.state.require_kept(&service.observe(&running)?).with_context(|| service.unit.to_owned())?;
    }
    let left = running.run(&["find", STORE_DIR, "-name", "*.img"])?.success()?;
    ensure!(left.is_empty(), "parts of images are left: {left}");
    running.poweroff()
}

/// In a container whose filter forbids looking into processes, every unit is refused and runs on.
pub(super) fn container_filter(lab: &ScenarioLab) -> Result<()> {
    let mut site = lab.site("filter")?;
    let running = site.boot_with(&BootOptions { container_filter: true, ..BootOptions::default() })?;
    let before = SERVICES.iter().map(|&service| Taken::observe(&running, service));
    let before = before.collect::<Result<Vec<_>>>()?;
    let report = fastboot::snapshot(&running, &SERVICES.map(|service| service.unit), &["--no-restart"])?;
    ensure!(report.exit_code == Some(3), "the exit code is {:?} and not 3", report.exit_code);
    for unit in &report.units {
        ensure!(unit.outcome == "refused", "{} was {}: {:?}", unit.unit, unit.outcome, unit.reasons);
        let named = unit.reasons.iter().any(|reason| reason.contains("seccomp filter"));
        ensure!(named, "{}: no reason names the seccomp filter: {:?}", unit.unit, unit.reasons);
    }
    for before in &before {
        let now = before.service.observe(&running)?;
        before.state.require_kept(&now).context("after the refusal").context(before.service.unit)?;
    }
    running.poweroff()
}

pub(super) fn images_under_filter(lab: &ScenarioLab) -> Result<()> {
    let (mut site, taken) = lab.site_with_images("under-filter")?;
    let running = site.boot_with(&BootOptions { container_filter: true, ..BootOptions::default() })?;
    site.require(&running, &taken, |_| Expected::Restored)?;
    running.poweroff()
}
