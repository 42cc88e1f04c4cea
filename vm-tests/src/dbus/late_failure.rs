//! Restores that fail when everything but the name that systemd waits for is there. systemd takes a
//! `Type=dbus` unit for started when its name appears and for ended when that goes: a unit that had
//! its name for a moment would end as if it had been asked to.

use anyhow::{Context as _, Result, ensure};
use test_frame::Checks;

use super::bus_site::SOON;
use crate::container::{Container, wait_until};
use crate::fastboot;
use crate::roots::Scratch;

const PROGRAM: &str = "/usr/local/bin/names.py";
/// The hook of one of them fails where this is.
const BREAK: &str = "/etc/break-the-hook";
const THIEF: &str = "second-thief.service";

struct Late {
    unit: &'static str,
    /// `BusName=`, and those beside it.
    names: &'static str,
    more: &'static str,
    /// In the reason of its cold start.
    word: &'static str,
    why: &'static str,
}

const UNITS: [Late; 3] = [
    Late {
        unit: "bus-second.service",
        names: "com.example.second com.example.second.other",
        more: "",
        word: "com.example.second.other belongs to somebody else",
        why: "its second name is not to be had",
    },
    Late {
        unit: "bus-denied.service",
        names: "com.example.denied com.example.denied.other",
        more: "",
        word: "RequestName",
        why: "its second name is denied",
    },
    Late {
        unit: "bus-hook.service",
        names: "com.example.hook",
        more: "[X-Fastboot]\nAfterRestore=/bin/sh -c 'test ! -e /etc/break-the-hook'\n",
        word: "AfterRestore",
        why: "its hook fails",
    },
];

/// Names of the units.
pub(super) fn units() -> impl Iterator<Item = String> {
    UNITS.iter().map(|late| late.unit.to_owned())
}

fn enable(scratch: &Scratch, unit: &str, text: &str) -> Result<()> {
    scratch.write(&format!("/etc/systemd/system/{unit}"), text, 0o644)?;
    let link = scratch.path(&format!("/etc/systemd/system/multi-user.target.wants/{unit}"));
    std::os::unix::fs::symlink(format!("../{unit}"), &link).with_context(|| format!("enabling {unit}"))
}

/// The program and the units, enabled.
pub(super) fn install(scratch: &Scratch) -> Result<()> {
    scratch.write(PROGRAM, include_str!("../../roots/dbus/names.py"), 0o755)?;
    for Late { unit, names, more, .. } in &UNITS {
        let first = names.split(' ').next().unwrap_or_default();
        let service = format!("[Service]\nType=dbus\nBusName={first}\nExecStart={PROGRAM} {names}\n{more}");
        enable(scratch, unit, &format!("{service}[Install]\nWantedBy=multi-user.target\n"))?;
    }
    Ok(())
}

/// A rule of the policy that denies one of the names.
pub(super) const DENIAL: &str = "<deny own=\"com.example.denied.other\"/>";

/// Whoever has the second name first, and a hook that fails.
pub(super) fn break_all(scratch: &Scratch) -> Result<()> {
    let thief = format!(
        "[Unit]\nBefore=bus-second.service\n[Service]\nExecStart={PROGRAM} com.example.second.other\n\
         ExecStartPost=/bin/sh -c 'until busctl --system status com.example.second.other; do sleep 0.05; done'\n\
         [Install]\nWantedBy=multi-user.target\n"
    );
    enable(scratch, THIEF, &thief)?;
    scratch.write(BREAK, "", 0o644)
}

/// Each is there, started cold, and says why.
pub(super) fn check(bus: &str, machine: &Container, checks: &mut Checks) {
    for Late { unit, word, why, .. } in &UNITS {
        let is_there = wait_until(unit, SOON, || {
            let status = fastboot::status(machine)?;
            let said = status.unit(unit).context("fastboot status does not know it")?;
            let reason = said.reason.as_deref().unwrap_or_default();
            ensure!(said.outcome == "cold" && reason.contains(word), "{}: {reason:?}", said.outcome);
            let show = ["systemctl", "show", "--property=ActiveState,Result,NRestarts", "--value", unit];
            let state = machine.run(&show)?.success()?;
            let words: Vec<&str> = state.split_whitespace().collect();
            ensure!(words.contains(&"active") && words.contains(&"success"), "it is {words:?}");
            Ok(Some(()))
        });
        checks.note(format!("{bus}: {unit} is active, started cold because {why}"), is_there);
    }
}
