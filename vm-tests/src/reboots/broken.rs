//! Boots at which something is missing that was there at the snapshot: all cold, all up, and no
//! slower for it.

use anyhow::{Context as _, Result, ensure};
use test_frame::Checks;

use super::hung;
use super::lives::provision;
use super::root;
use super::steps::{Parcel, boot, cold, restored};
use super::subject::{SUBJECTS, Subject};
use crate::machine::{Boot, Kernel, Running, Store};

const INITD: &str = "/usr/lib/fastboot/fastboot-initd";
const SHIM: &str = "/usr/lib/fastboot/fastboot-exec";
/// What a start may take longer than without fastboot. The daemon gives up after 800 ms; emulated,
/// the look for the disk comes on top.
const DELAY_MS: u64 = 2000;

pub(super) fn missing(parcel: &Parcel, checks: &mut Checks) -> Result<()> {
    let store = Store::Nvme;
    let other = Kernel::of(&root::recipe("bookworm")?)?;
    let mut machine = parcel.machine("missing", "trixie", std::slice::from_ref(&other), store)?;
    let (running, taken) = provision(&mut machine, store, &Boot::default())?;
    running.poweroff()?;

    let off = Boot { arguments: vec!["fastboot=0"], ..Boot::default() };
    let running = boot(&mut machine, &off)?;
    checks.note(
        "fastboot=0: all cold, all up",
        cold(&running, &taken, None).and_then(|()| untouched(&running)),
    );
    let usual = start_times_ms(&running)?;
    running.poweroff()?;
    // A delay by fastboot concerns every service; that one of them takes longer than last time does
    // not come from it.
    let in_time = |running: &Running| -> Result<()> {
        let now = start_times_ms(running)?;
        let least = now.iter().zip(&usual).map(|(now, usual)| now.saturating_sub(*usual)).min();
        ensure!(least <= Some(DELAY_MS), "starts took {now:?} ms, and {usual:?} ms without fastboot");
        Ok(())
    };

    let pulled = Boot { without_store: true, ..Boot::default() };
    let running = boot(&mut machine, &pulled)?;
    checks.note("the images' disk is missing: all cold, all up", cold(&running, &taken, None));
    checks.note("the images' disk is missing: no delay", waited_in_time(&running).and(in_time(&running)));
    running.poweroff()?;

    ensure!(other != *machine.kernel(), "the kernels are the same");
    let running = boot(&mut machine, &Boot { kernel: Some(other), ..Boot::default() })?;
    checks.note("another kernel: all cold, all up", cold(&running, &taken, Some("kernel-changed")));
    running.poweroff()?;

    let running = boot(&mut machine, &Boot::default())?;
    checks.note("with everything in its place again: all restored", restored(&running, &taken, &[]));
    running.shell(&format!("mv {INITD} {INITD}.away"))?;
    running.poweroff()?;

    let running = boot(&mut machine, &Boot::default())?;
    checks.note("the restore daemon's binary is gone: all cold, all up", cold(&running, &taken, None));
    checks.note("the restore daemon's binary is gone: no delay", in_time(&running));
    running.shell(&format!("mv {INITD}.away {INITD}; mv {SHIM} {SHIM}.away"))?;
    running.poweroff()?;

    let running = boot(&mut machine, &Boot::default())?;
    checks.note("the shim is gone: all cold, all up", cold(&running, &taken, None));
    checks.note("the shim is gone: no delay", in_time(&running));
    hung::later(&machine, running, "missing-boot-7.log", checks)
}

/// As if fastboot were not installed: no drop-in, no daemon.
fn untouched(running: &Running) -> Result<()> {
    let units = SUBJECTS.map(|subject| subject.unit).join(" ");
    let shown = running.shell(&format!("systemctl show -p ExecStart,DropInPaths {units}"))?;
    ensure!(!shown.contains("fastboot-exec"), "{shown}");
    let daemon = running.run(&["systemctl", "is-active", "fastboot-initd.socket"])?.stdout;
    ensure!(daemon.trim() == "inactive", "fastboot-initd.socket is {}", daemon.trim());
    Ok(())
}

/// The daemon has found the store missing, and let nobody wait for long.
fn waited_in_time(running: &Running) -> Result<()> {
    let journal = running.journal(Some("fastboot-initd.service"), 50);
    let waited = journal.lines().find_map(|line| {
        let (_, behind) = line.split_once("after waiting for ")?;
        behind.split_once(" ms")?.0.parse::<u64>().ok()
    });
    let waited = waited.with_context(|| format!("it does not say how long it waited: {journal}"))?;
    ensure!(waited <= DELAY_MS, "services waited for {waited} ms");
    Ok(())
}

/// From the moment systemd began to start a service to when it was active, for each.
fn start_times_ms(running: &Running) -> Result<Vec<u64>> {
    let time_of = |subject: Subject| {
        let show = "systemctl show -p InactiveExitTimestampMonotonic,ActiveEnterTimestampMonotonic";
        let text = running.shell(&format!("{show} {}", subject.unit))?;
        let value = |name: &str| -> Option<u64> {
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
        };
        let began = value("InactiveExitTimestampMonotonic").context("no time of the start")?;
        let active = value("ActiveEnterTimestampMonotonic").context("no time of being active")?;
        Ok(active.saturating_sub(began) / 1000)
    };
    SUBJECTS.into_iter().map(time_of).collect()
}
