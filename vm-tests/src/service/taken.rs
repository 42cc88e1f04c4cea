//! A service at the moment of its snapshot, and whether what runs later is the same life of it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::{Service, State};
use crate::client::first_answer;
use crate::container::Container;
use crate::fastboot::{self, SnapshotReport, StatusReport};
use crate::roots::Scratch;

/// Longest for a service to answer after a start.
const ANSWER_BOUND: Duration = Duration::from_secs(60);

/// What `fastboot snapshot` is told to run when the services are ready.
const WARM_UP: (&str, &str) =
    ("/usr/local/bin/fastboot-tests-warm-up", include_str!("../../roots/common/warm-up"));
/// The file by which the warm-up command asks; removed when done.
const WARM_UP_WANTED: &str = "/var/lib/fastboot-tests/warm-up.wanted";

/// A service as it was when its image was taken.
#[derive(Debug, Clone)]
pub struct Taken {
    /// Which.
    pub service: Service,
    /// Its main PID, as systemd in the container says.
    pub main_pid: u32,
    /// What it knew.
    pub state: State,
}

impl Taken {
    /// Look at a running service.
    ///
    /// # Errors
    /// It does not answer as it should.
    pub fn observe(running: &Container, service: Service) -> Result<Taken> {
        let state = service.observe(running).with_context(|| format!("looking at {}", service.unit))?;
        Ok(Taken { service, main_pid: running.unit(service.unit)?.main_pid, state })
    }
}

/// Put fastboot and the warm-up command into a root that is not running.
///
/// # Errors
/// A binary is missing; a file cannot be written.
pub fn install_fastboot(release: &Path, scratch: &Scratch) -> Result<()> {
    fastboot::install(release, scratch.root())?;
    scratch.write(WARM_UP.0, WARM_UP.1, 0o755)?;
    let dir = scratch.path(WARM_UP_WANTED);
    let dir = dir.parent().context("a file needs a directory")?;
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))
}

/// `fastboot snapshot` of `services`. It restarts the units in its own band of PIDs; its warm-up
/// command then asks for the state that is to be in the images, and that is put there from outside.
///
/// # Errors
/// The command fails, or a service cannot be driven.
pub fn snapshot_while_driving(
    scratch: &Scratch,
    running: &Container,
    services: &[Service],
) -> Result<SnapshotReport> {
    let units: Vec<&str> = services.iter().map(|service| service.unit).collect();
    let mut driven = false;
    let report = snapshot_while(scratch, running, &units, "--no-trial", || {
        driven = true;
        services.iter().try_for_each(|service| {
            service.drive(running).with_context(|| format!("filling the memory of {}", service.unit))
        })
    })?;
    ensure!(driven, "the snapshot did not run its warm-up command");
    Ok(report)
}

/// The same for any units, with one more argument: `drive` is called when all of them are up, and
/// again when they have been restored for trial; not at all when all are refused before.
///
/// # Errors
/// The command fails, or `drive` does.
pub fn snapshot_while(
    scratch: &Scratch,
    running: &Container,
    units: &[&str],
    more: &str,
    mut drive: impl FnMut() -> Result<()>,
) -> Result<SnapshotReport> {
    let wanted = scratch.path(WARM_UP_WANTED);
    std::thread::scope(|scope| {
        let arguments = ["--warm-up", WARM_UP.0, more];
        let snapshot = scope.spawn(move || fastboot::snapshot_with_trial(running, units, &arguments));
        let mut driven = Ok(());
        while !snapshot.is_finished() {
            if wanted.exists() {
                driven = driven.and_then(|()| drive());
                std::fs::remove_file(&wanted).context("ending the warm-up")?;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let report = snapshot.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        driven.map(|()| report)
    })
}

/// Passes when fastboot says so, systemd agrees, and the service knows what it knew.
///
/// # Errors
/// What does not hold.
pub fn require_restored(running: &Container, status: &StatusReport, taken: &Taken) -> Result<()> {
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
///
/// # Errors
/// What does not hold.
pub fn require_cold(running: &Container, taken: &Taken) -> Result<()> {
    let service = taken.service;
    running
        .in_network(|| first_answer(ANSWER_BOUND, || service.ask()))
        .with_context(|| running.journal(service.unit, 20))?;
    let now = running.unit(service.unit)?;
    ensure!(now.is_active(), "systemd says {} ({})", now.active, now.result);
    taken.state.require_gone(&service.observe(running)?)
}
