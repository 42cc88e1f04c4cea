//! A client that never reads what the bus says to it, as cupsd: it finds all of it after a restore,
//! and what has happened since behind it.

use anyhow::{Context as _, Result, ensure};

use super::bus;
use super::bus_site::SOON;
use crate::container::{Container, wait_until};
use crate::fastboot::StatusReport;
use crate::roots::{RootFile, Scratch};

pub(super) const UNIT: &str = "bus-silent.service";
const PROGRAM: &str = "/usr/local/bin/silent.py";
const WATCHED: &str = "com.example.gdbus";
const LOG: &str = "/var/log/silent";

pub(super) fn file() -> RootFile {
    RootFile::program(PROGRAM, include_str!("../../roots/dbus/silent.py").as_bytes())
}

/// Its unit, enabled.
pub(super) fn install(scratch: &Scratch) -> Result<()> {
    let text = format!("[Service]\nExecStart={PROGRAM} {WATCHED} {LOG}\n");
    scratch.write(&format!("/etc/systemd/system/{UNIT}"), &text, 0o644)?;
    let link = scratch.path(&format!("/etc/systemd/system/multi-user.target.wants/{UNIT}"));
    std::os::unix::fs::symlink(format!("../{UNIT}"), &link).with_context(|| format!("enabling {UNIT}"))
}

/// In the restored boot: the answers to its two calls and its name from before the snapshot first,
/// the watched name's going and coming last.
pub(super) fn check(machine: &Container, status: &StatusReport) -> Result<()> {
    let said = status.unit(UNIT).context("fastboot status does not know it")?;
    ensure!(said.outcome == "restored", "it is {}: {:?}", said.outcome, said.reason);
    // The watched one may be the last to come.
    let owner = wait_until(WATCHED, SOON, || bus::owner(machine, WATCHED).map(Some))?;
    machine.run(&["systemctl", "kill", "--signal=USR1", UNIT])?.success()?;
    wait_until("what it reads", SOON, || {
        let text = machine.run(&["cat", LOG])?.success()?;
        let lines: Vec<&str> = text.lines().collect();
        let unread = ["reply", "signal :1.", "reply"];
        let begins = lines.iter().zip(unread).filter(|(line, begin)| line.starts_with(begin)).count();
        ensure!(begins == unread.len(), "it read {lines:?}");
        let [.., went, came] = lines.as_slice() else { anyhow::bail!("it read {lines:?}") };
        let is_going = went.starts_with(&format!("signal {WATCHED} :1.")) && went.ends_with(" none");
        let is_coming = *came == format!("signal {WATCHED} none {owner}");
        ensure!(is_going && is_coming, "it read {lines:?}, and the owner is {owner}");
        Ok(Some(()))
    })
}
