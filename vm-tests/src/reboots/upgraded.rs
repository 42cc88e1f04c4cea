//! systemd is upgraded between snapshot and boot, by its own packages.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use test_frame::Checks;

use super::lives::provision;
use super::steps::{Parcel, all_up, boot, cold, install_from, restored, snapshot, status};
use crate::machine::{Boot, Running, Store};
use crate::roots::downloaded;

const SUITE: &str = "bookworm";
/// Debian's own next systemd for that suite.
const NEWER: &str = "bookworm-backports";
const PACKAGES: [&str; 7] =
    ["systemd", "systemd-sysv", "systemd-dev", "libsystemd0", "libsystemd-shared", "udev", "libudev1"];
/// udev's list of hardware, which its package compiles: emulated, that takes minutes.
const WITHOUT_HWDB: &str = "-o 'DPkg::Options::=--path-exclude=/usr/lib/udev/hwdb.d/*'";
/// Directory on the disk with the packages.
const DIR: &str = "systemd";

pub(super) fn systemd(parcel: &Parcel, checks: &mut Checks) -> Result<()> {
    parcel.add(&downloaded(NEWER, &PACKAGES)?, Path::new(DIR))?;
    let mut machine = parcel.machine("upgraded", SUITE, &[], Store::OnRoot)?;
    let (running, taken) = provision(&mut machine, Store::OnRoot, &Boot::default())?;
    let old = version(&running)?;
    install_from(&running, &format!("{DIR}/*.deb"), WITHOUT_HWDB)?;
    let new = version(&running)?;
    ensure!(old != new, "systemd is still {old}");
    checks.note(format!("systemd goes from {old} to {new}: services run on"), all_up(&running));
    running.poweroff()?;

    let running = boot(&mut machine, &Boot::default())?;
    checks.note("another systemd: all cold, all up", cold(&running, &taken, Some("systemd-changed")));
    checks.note("another systemd: the reason names both versions", names(&running, &old, &new));
    let taken = snapshot(&running)?;
    running.poweroff()?;

    let running = boot(&mut machine, &Boot::default())?;
    checks.note("new images under the new systemd: all restored", restored(&running, &taken, &[]));
    running.poweroff()
}

/// As in brackets in the first line, with Debian's revision.
fn version(running: &Running) -> Result<String> {
    let text = running.shell("systemctl --version")?;
    let version = text.lines().next().and_then(|line| line.split(['(', ')']).nth(1));
    Ok(version.with_context(|| format!("systemctl says {text:?}"))?.to_owned())
}

fn names(running: &Running, old: &str, new: &str) -> Result<()> {
    let expected = format!("systemd is {new}, was {old} at the snapshot");
    for unit in status(running)?.units {
        let reason = unit.reason.unwrap_or_default();
        ensure!(reason == expected, "the reason of {} is {reason:?}, not {expected:?}", unit.unit);
    }
    Ok(())
}
