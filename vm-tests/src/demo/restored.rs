//! From the snapshot on: restored boots, each proved, and that a restart means a fresh start.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use test_frame::Checks;

use super::boot::Provisioned;
use super::report::Report;
use super::root::SERVICES;
use super::{heading, note_answers, stale};
use crate::container::Container;
use crate::fastboot;
use crate::service::{self, Taken, install_fastboot, require_restored, snapshot_while_driving};

pub(super) fn run(
    machine: &mut Provisioned,
    release: &Path,
    boots: u32,
    checks: &mut Checks,
    report: &mut Report,
) -> Result<()> {
    heading("Snapshot");
    install_fastboot(release, &machine.scratch)?;
    let taken = take(machine, checks, report)?;

    heading("Restored boots");
    for number in 1..=boots {
        let (running, times) = machine.boot()?;
        let title = format!("restored boot {number}");
        note_answers(checks, &title, &times);
        let status = fastboot::status(&running)?;
        for (index, taken) in taken.iter().enumerate() {
            let unit = taken.service.unit;
            let proof = require_restored(&running, &status, taken);
            report.observe(unit, times.services[index].as_ref().ok().copied(), &proof, &status);
            checks.note(format!("{title}: {unit} continues where it was"), proof);
        }
        report.restored_boots.extend(times.all);
        if number == boots {
            checks.note("fastboot chart draws the boot", draw(machine, &running));
            heading("Restart and kill");
            for taken in &taken {
                restart_and_kill(&running, taken, checks);
            }
        }
        running.poweroff()?;
    }

    heading("Stale images");
    stale::run(machine, &taken, checks)
}

/// Beside the logs, for a look at the boot that the figures are about.
fn draw(machine: &Provisioned, running: &Container) -> Result<()> {
    const CHART: &str = "/root/boot-chart.svg";
    running.wait_booted(Duration::from_secs(60))?;
    running.run(&["fastboot", "chart", "--output", CHART])?.success()?;
    let kept = machine.logs.join("boot-chart.svg");
    std::fs::copy(machine.scratch.path(CHART), &kept).with_context(|| format!("copying {CHART}"))?;
    println!("boot chart: {}", kept.display());
    Ok(())
}

/// Boot, snapshot, fill the memories when the snapshot asks for it, and switch off.
fn take(machine: &mut Provisioned, checks: &mut Checks, report: &mut Report) -> Result<Vec<Taken>> {
    let (running, times) = machine.boot()?;
    note_answers(checks, "boot with fastboot installed, without images", &times);
    let snapshot = snapshot_while_driving(&machine.scratch, &running, &SERVICES)?;
    report.note_snapshot(&snapshot);
    for service in SERVICES {
        let result = snapshot.unit(service.unit).context("not in the report").and_then(|unit| {
            ensure!(unit.outcome == "stored", "{}: {}", unit.outcome, unit.reasons.join("; "));
            Ok(())
        });
        checks.note(format!("{} is stored", service.unit), result);
    }
    let taken =
        SERVICES.iter().map(|&service| Taken::observe(&running, service)).collect::<Result<Vec<_>>>()?;
    running.poweroff()?;
    Ok(taken)
}

/// Without fastboot: what fills the memories is seen again, and a restart or a kill is seen as a
/// new life.
pub(super) fn check_instruments(machine: &mut Provisioned, checks: &mut Checks) -> Result<()> {
    heading("Restart and kill");
    let (running, _) = machine.boot()?;
    for service in SERVICES {
        service.drive(&running).with_context(|| format!("filling the memory of {}", service.unit))?;
        let taken = Taken::observe(&running, service)?;
        let kept = taken.state.require_kept(&service.observe(&running)?);
        checks.note(format!("{} remembers what it was told", service.unit), kept);
        restart_and_kill(&running, &taken, checks);
    }
    running.poweroff()
}

fn restart_and_kill(running: &Container, taken: &Taken, checks: &mut Checks) {
    let unit = taken.service.unit;
    let name = format!("{unit}: systemctl restart ends in a working cold start");
    checks.note(name, service::restart(running, taken));
    let how = if taken.service.comes_back { "its Restart=" } else { "a start" };
    let name = format!("{unit}: a killed main process and {how} end in a working cold start");
    checks.note(name, service::kill_main(running, taken));
}
