//! From the snapshot on: restored boots, each proved, and that a restart means a fresh start.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::boot::Provisioned;
use super::report::Report;
use super::root::{NGINX_EVIDENCE, WARM_UP, WARM_UP_WANTED};
use super::service::{SERVICES, Service};
use super::state::State;
use super::{heading, note_answers, stale};
use crate::checks::Checks;
use crate::client::first_answer;
use crate::container::{Machine, UnitState};
use crate::fastboot::{self, SnapshotReport, StatusReport};

/// Longest for a unit to come back after a restart or a kill.
const RESTART_BOUND: Duration = Duration::from_secs(60);

/// A service as it was when its image was taken.
#[derive(Debug, Clone)]
pub(super) struct Taken {
    pub(super) service: Service,
    pub(super) main_pid: u32,
    pub(super) state: State,
}

pub(super) fn run(
    machine: &mut Provisioned,
    release: &Path,
    boots: u32,
    checks: &mut Checks,
    report: &mut Report,
) -> Result<()> {
    heading("Snapshot");
    install(machine, release)?;
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

fn install(machine: &Provisioned, release: &Path) -> Result<()> {
    fastboot::install(release, machine.scratch.root())?;
    let (path, text) = NGINX_EVIDENCE;
    let path = machine.scratch.path(path);
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    }
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
}

/// Boot, snapshot, fill the memories when the snapshot asks for it, and switch off.
fn take(machine: &mut Provisioned, checks: &mut Checks, report: &mut Report) -> Result<Vec<Taken>> {
    let (running, times) = machine.boot()?;
    note_answers(checks, "boot with fastboot installed, without images", &times);
    let snapshot = snapshot_while_driving(machine, &running)?;
    report.note_snapshot(&snapshot);
    for service in SERVICES {
        let result = snapshot.unit(service.unit).context("not in the report").and_then(|unit| {
            ensure!(unit.outcome == "stored", "{}: {}", unit.outcome, unit.reasons.join("; "));
            Ok(())
        });
        checks.note(format!("{} is stored", service.unit), result);
    }
    let taken = SERVICES.iter().map(|&service| observe(&running, service)).collect::<Result<Vec<_>>>()?;
    running.poweroff()?;
    Ok(taken)
}

fn observe(running: &Machine, service: Service) -> Result<Taken> {
    let state = service.observe(running).with_context(|| format!("looking at {}", service.unit))?;
    Ok(Taken { service, main_pid: running.unit(service.unit)?.main_pid, state })
}

/// Without fastboot: what fills the memories is seen again, and a restart or a kill is seen as a new life.
pub(super) fn check_instruments(machine: &mut Provisioned, checks: &mut Checks) -> Result<()> {
    heading("Restart and kill");
    let (running, _) = machine.boot()?;
    for service in SERVICES {
        service.drive(&running).with_context(|| format!("filling the memory of {}", service.unit))?;
        let taken = observe(&running, service)?;
        let kept = taken.state.require_kept(&service.observe(&running)?);
        checks.note(format!("{} remembers what it was told", service.unit), kept);
        restart_and_kill(&running, &taken, checks);
    }
    running.poweroff()
}

/// The snapshot restarts the units; its warm-up command then asks for the state that is to be in the images.
fn snapshot_while_driving(machine: &Provisioned, running: &Machine) -> Result<SnapshotReport> {
    let wanted = machine.scratch.path(WARM_UP_WANTED);
    let units: Vec<&str> = SERVICES.iter().map(|service| service.unit).collect();
    std::thread::scope(|scope| {
        let snapshot = scope.spawn(|| fastboot::snapshot(running, &units, &["--warm-up", WARM_UP]));
        let mut driven = Err(anyhow::anyhow!("the snapshot did not run its warm-up command"));
        while !snapshot.is_finished() {
            if wanted.exists() {
                driven = SERVICES.iter().try_for_each(|service| {
                    service.drive(running).with_context(|| format!("filling the memory of {}", service.unit))
                });
                std::fs::remove_file(&wanted).context("ending the warm-up")?;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let report = snapshot.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        driven.map(|()| report)
    })
}

/// Passes when fastboot says so, systemd agrees, and the service knows what it knew.
pub(super) fn require_restored(running: &Machine, status: &StatusReport, taken: &Taken) -> Result<()> {
    let unit = taken.service.unit;
    let said = status.unit(unit).with_context(|| format!("fastboot status does not name {unit}"))?;
    if said.outcome != "restored" {
        bail!("{}: {}", said.outcome, said.reason.as_deref().unwrap_or("no reason given"));
    }
    let now = running.unit(unit)?;
    ensure!(now.is_active(), "systemd says {} ({})", now.active, now.result);
    ensure!(now.main_pid == taken.main_pid, "the main PID was {} and is {}", taken.main_pid, now.main_pid);
    taken.state.require_kept(&taken.service.observe(running)?)
}

/// Passes when the service answers, is active, and knows nothing of what it knew.
pub(super) fn require_cold(running: &Machine, taken: &Taken) -> Result<()> {
    let service = taken.service;
    running.in_network(|| first_answer(RESTART_BOUND, || service.ask()))?;
    let now = running.unit(service.unit)?;
    ensure!(now.is_active(), "systemd says {} ({})", now.active, now.result);
    taken.state.require_gone(&service.observe(running)?)
}

fn restart_and_kill(running: &Machine, taken: &Taken, checks: &mut Checks) {
    let unit = taken.service.unit;
    let restarted = || -> Result<()> {
        let before = running.unit(unit)?;
        running.run(&["systemctl", "restart", unit])?.success()?;
        wait_new_life(running, &before)?;
        require_cold(running, taken)
    };
    checks.note(format!("{unit}: systemctl restart ends in a working cold start"), restarted());

    let killed = || -> Result<()> {
        let before = running.unit(unit)?;
        running.run(&["systemctl", "kill", "--signal=KILL", "--kill-whom=main", unit])?.success()?;
        if !taken.service.comes_back {
            running.wait_unit(unit, "failed", RESTART_BOUND, |now| now.active == "failed")?;
            running.run(&["systemctl", "start", unit])?.success()?;
        }
        wait_new_life(running, &before)?;
        require_cold(running, taken)
    };
    let how = if taken.service.comes_back { "its Restart=" } else { "a start" };
    checks.note(format!("{unit}: a killed main process and {how} end in a working cold start"), killed());
}

fn wait_new_life(running: &Machine, before: &UnitState) -> Result<UnitState> {
    running.wait_unit(&before.name, "active again", RESTART_BOUND, |now| {
        now.is_active() && now.invocation != before.invocation && now.main_pid != before.main_pid
    })
}
