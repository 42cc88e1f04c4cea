//! A service that watches all of Debian's: what it hears of each in a restored boot is what it
//! hears at a plain restart.

use anyhow::{Context as _, Result, ensure};

use super::bus_site::SOON;
use super::packaged::{Packaged, SERVICES};
use crate::container::{Container, wait_until};
use crate::roots::Scratch;

pub(super) const UNIT: &str = "bus-watcher.service";
const NAME: &str = "com.example.watcher";
const LOG: &str = "/var/log/com.example.watcher";

/// Its unit, enabled.
pub(super) fn install(scratch: &Scratch) -> Result<()> {
    let names = SERVICES.map(Packaged::name).join(" ");
    let text =
        format!("[Service]\nType=dbus\nBusName={NAME}\nExecStart=/usr/local/bin/gdbus.py {NAME} {names}\n");
    forget(scratch)?;
    scratch.write(&format!("/etc/systemd/system/{UNIT}"), &text, 0o644)?;
    let link = scratch.path(&format!("/etc/systemd/system/multi-user.target.wants/{UNIT}"));
    std::os::unix::fs::symlink(format!("../{UNIT}"), &link).with_context(|| format!("enabling {UNIT}"))
}

/// Begins with an empty log.
pub(super) fn forget(scratch: &Scratch) -> Result<()> {
    scratch.write(LOG, "", 0o666)
}

/// What it must have heard of a service that went and came.
fn expected(service: Packaged) -> [String; 2] {
    [format!("{} had none", service.name()), format!("{} none has", service.name())]
}

/// What it has heard of a service is its going and its coming, and nothing else.
pub(super) fn has_heard(machine: &Container, service: Packaged) -> Result<()> {
    wait_until("what it heard", SOON, || {
        let text = machine.run(&["cat", LOG])?.success()?;
        let own = format!("{} ", service.name());
        let events: Vec<&str> = text.lines().filter(|line| line.starts_with(&own)).collect();
        ensure!(events == expected(service), "it heard {events:?}");
        Ok(Some(()))
    })
}

/// Each of them restarted once: the measure for a restored boot.
pub(super) fn check_plain_restarts(machine: &Container) -> Result<()> {
    for service in SERVICES {
        machine.run(&["truncate", "--size=0", LOG])?.success()?;
        machine.run(&["systemctl", "restart", service.unit])?.success()?;
        has_heard(machine, service).with_context(|| service.unit.to_owned())?;
    }
    Ok(())
}
