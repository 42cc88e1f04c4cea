//! An initd that is not there, dies or hangs: the shim starts the daemon in the ordinary way.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::service_site::{COUNTER, Expected, REDIS, SERVICES, ScenarioLab, ServiceSite, all_answer};
use crate::container::{BootOptions, wait_until};
use crate::service::{self, Taken};

/// Point in the middle of a restore, as fastboot names it.
const MID_RESTORE: &str = "worker.mid";
const INITD: &str = "fastboot-initd.service";
/// Longest for a boot whose restores hang. fastboot's own deadline per unit is far shorter.
pub(super) const HANGING_BOUND: Duration = Duration::from_secs(60);

pub(super) fn initd_masked(lab: &ScenarioLab) -> Result<()> {
    boot_without_initd(lab, "initd-masked", |site| {
        for unit in ["fastboot-initd.socket", INITD] {
            let path = site.machine.scratch.path(&format!("/etc/systemd/system/{unit}"));
            std::os::unix::fs::symlink("/dev/null", &path).with_context(|| format!("masking {unit}"))?;
        }
        Ok(())
    })
}

pub(super) fn initd_removed(lab: &ScenarioLab) -> Result<()> {
    boot_without_initd(lab, "initd-removed", |site| {
        std::fs::remove_file(site.machine.scratch.path("/usr/lib/fastboot/fastboot-initd"))
            .context("removing fastboot-initd")
    })
}

fn boot_without_initd(
    lab: &ScenarioLab,
    name: &str,
    remove: impl Fn(&ServiceSite) -> Result<()>,
) -> Result<()> {
    let (mut site, taken) = lab.site_with_images(name)?;
    remove(&site)?;
    let running = site.boot()?;
    site.require(&running, &taken, |_| Expected::Cold(&[]))?;
    running.poweroff()
}

pub(super) fn initd_killed(lab: &ScenarioLab) -> Result<()> {
    let (mut site, taken) = lab.site_with_images("initd-killed")?;
    set_fault(&site, &format!("{MID_RESTORE}:sleep=30000"))?;
    let running = site.start(&BootOptions::default())?;
    // Every restore hangs by then or soon. Processes that a worker has made have its name and
    // another parent.
    let find_workers = "pgrep --exact fastboot-worker --parent \"$(pgrep --exact fastboot-zygote)\"";
    wait_until("a worker for each service", HANGING_BOUND, || {
        let workers = running.run(&["/bin/sh", "-c", find_workers])?.stdout;
        let lost = usize::from(site.has_lost_number(&running, REDIS));
        Ok((workers.lines().count() >= SERVICES.len() - lost).then_some(()))
    })
    .with_context(|| running.journal(INITD, 20))?;
    running.run(&["systemctl", "kill", "--signal=KILL", "--kill-whom=main", INITD])?.success()?;
    all_answer(&running, HANGING_BOUND)?;
    running.wait_booted(HANGING_BOUND)?;
    site.require(&running, &taken, |_| Expected::Cold(&["initd-unavailable"]))?;
    require_single_lives(&running, &taken)?;
    // The socket starts initd again, and that one answers later starts at once.
    for taken in &taken {
        service::restart(&running, taken).with_context(|| taken.service.unit.to_owned())?;
    }
    running.wait_active(INITD, HANGING_BOUND)?;
    let journal = running.run(&["journalctl", "--boot", "--no-pager"])?.success()?;
    ensure!(!journal.contains("did not answer in time"), "{}", running.journal(INITD, 20));
    running.poweroff()
}

/// systemd hears from initd that it is ready, what became of the boot, and that it lives. One that
/// no longer does is ended, and what starts after it is answered by another.
pub(super) fn initd_silent(lab: &ScenarioLab) -> Result<()> {
    let (mut site, taken) = lab.site_with_images("initd-silent")?;
    site.drop_in(INITD, "[Service]\nWatchdogSec=3\n")?;
    let running = site.boot()?;
    site.require(&running, &taken, |_| Expected::Restored)?;
    let restored = SERVICES.len() - usize::from(site.has_lost_number(&running, REDIS));
    let status =
        format!("{restored} units restored in this boot, {} started cold", SERVICES.len() - restored);
    wait_until("initd's word about the boot", HANGING_BOUND, || {
        let said =
            running.run(&["systemctl", "show", "--property=StatusText", "--value", INITD])?.success()?;
        Ok((said.trim() == status).then_some(()))
    })?;
    // It lives longer than the watchdog waits, without anybody asking it.
    let initd = running.wait_active(INITD, HANGING_BOUND)?;
    std::thread::sleep(Duration::from_secs(5));
    let later = running.unit(INITD)?;
    ensure!(later.is_active() && later.main_pid == initd.main_pid, "{later:?}, which was {initd:?}");

    running.run(&["systemctl", "kill", "--signal=STOP", "--kill-whom=main", INITD])?.success()?;
    running.wait_unit(INITD, "ended by the watchdog", HANGING_BOUND, |unit| unit.result == "watchdog")?;
    for taken in &taken {
        service::restart(&running, taken).with_context(|| taken.service.unit.to_owned())?;
    }
    let again = running.wait_active(INITD, HANGING_BOUND)?;
    ensure!(again.main_pid != initd.main_pid, "{again:?}");
    running.poweroff()
}

/// Nothing of a half-made restore may be left beside the cold start.
fn require_single_lives(running: &crate::container::Container, taken: &[Taken]) -> Result<()> {
    let all = running.run(&["ps", "-e", "-o", "pid="])?.success()?;
    let all: Vec<u32> = all.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
    for taken in taken {
        let left: Vec<_> = taken.state.processes.iter().filter(|pid| all.contains(pid)).collect();
        ensure!(left.is_empty(), "{}: recorded processes {left:?} are there", taken.service.unit);
    }
    Ok(())
}

/// The tree runs, systemd has not been told, and nobody is left who knows of it.
pub(super) fn all_killed_after_the_go(lab: &ScenarioLab) -> Result<()> {
    let (mut site, taken) = lab.site_with_images("killed-late")?;
    set_fault(&site, "initd.before_answer:sleep=30000")?;
    let running = site.start(&BootOptions::default())?;
    wait_until("restored trees", HANGING_BOUND, || {
        let lost = site.has_lost_number(&running, REDIS);
        let mains = taken.iter().filter(|taken| !(lost && taken.service == REDIS));
        let mains: Vec<String> = mains.map(|taken| taken.main_pid.to_string()).collect();
        let all_run = format!("ps -o pid= -p {} && ! pgrep --exact fastboot-worker", mains.join(","));
        let shown = running.run(&["/bin/sh", "-c", &all_run])?;
        Ok((shown.code == Some(0) && shown.stdout.lines().count() == mains.len()).then_some(()))
    })
    .with_context(|| running.journal(INITD, 20))?;
    // Stopped first: it would clean up as soon as initd is gone.
    let kill = "zygote=$(pgrep --exact fastboot-zygote) && kill -STOP $zygote && \
                systemctl kill --signal=KILL --kill-whom=main fastboot-initd.service && kill -KILL $zygote";
    running.run(&["/bin/sh", "-c", kill])?.success()?;
    all_answer(&running, HANGING_BOUND)?;
    running.wait_booted(HANGING_BOUND)?;
    site.require(&running, &taken, |_| Expected::Cold(&["initd-unavailable"]))?;
    require_single_lives(&running, &taken)?;
    for service in SERVICES {
        let unit = running.unit(service.unit)?;
        ensure!(unit.restarts == 0, "{} was restarted {} times", service.unit, unit.restarts);
    }
    running.poweroff()
}

/// The unit's own limit is shorter than what a hanging restore would be given, and systemd counts
/// all of it.
pub(super) fn short_timeout(lab: &ScenarioLab) -> Result<()> {
    let mut site = lab.site("short-timeout")?;
    site.drop_in(REDIS.unit, "[Service]\nTimeoutStartSec=6\n")?;
    let running = site.boot()?;
    let (_, taken) = site.snapshot(&running)?;
    running.poweroff()?;
    set_fault(&site, &format!("{MID_RESTORE}:sleep=50000"))?;
    let running = site.boot()?;
    site.require(&running, &taken, |_| Expected::Cold(&["deadline"]))?;
    let redis = running.unit(REDIS.unit)?;
    ensure!(redis.is_active() && redis.restarts == 0, "systemd did not wait for its cold start: {redis:?}");
    running.poweroff()
}

pub(super) fn quarantined(lab: &ScenarioLab) -> Result<()> {
    let (mut site, taken) = lab.site_with_images("quarantined")?;
    // Before anything is made: nothing else fails first.
    set_fault(&site, "worker.start:abort")?;
    for _ in 0..2 {
        let running = site.boot()?;
        site.require(&running, &taken, |_| Expected::Cold(&["restore-failed"]))?;
        running.poweroff()?;
    }
    // Nothing would fail any more.
    set_fault(&site, "none")?;
    let running = site.boot()?;
    site.require(&running, &taken, |_| Expected::Cold(&["image-quarantined"]))?;
    running.poweroff()
}

pub(super) fn worker_dies(lab: &ScenarioLab) -> Result<()> {
    with_fault(lab, "worker-dies", &format!("{MID_RESTORE}:abort"), &["restore-failed"])
}

pub(super) fn deadline_passes(lab: &ScenarioLab) -> Result<()> {
    with_fault(lab, "deadline", &format!("{MID_RESTORE}:sleep=50000"), &["deadline"])
}

/// `codes`: why everybody is cold.
fn with_fault(lab: &ScenarioLab, name: &str, fault: &str, codes: &'static [&'static str]) -> Result<()> {
    let (mut site, taken) = lab.site_with_images(name)?;
    set_fault(&site, fault)?;
    let running = site.boot()?;
    site.require(&running, &taken, |_| Expected::Cold(codes))?;
    require_single_lives(&running, &taken)?;
    let counter = running.unit(COUNTER.unit)?;
    ensure!(counter.restarts == 0, "the counter was restarted {} times", counter.restarts);
    running.poweroff()
}

fn set_fault(site: &ServiceSite, fault: &str) -> Result<()> {
    site.drop_in(INITD, &format!("[Service]\nEnvironment=FASTBOOT_FAULT={fault}\n"))
}
