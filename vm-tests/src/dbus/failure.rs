//! Buses on which a restored service cannot be what it was: it starts cold, and the reason says
//! why.

use anyhow::{Context as _, Result, ensure};
use test_frame::Checks;

use super::bus_site::{self, BusSite, SOON};
use super::subject::SUBJECTS;
use super::{late_failure, packaged};
use crate::container::{Container, wait_until};
use crate::fastboot;

/// Takes every connection that the user of one subject may have, before that starts.
const HOG: &str = "[Unit]\nBefore=bus-sdbus.service\n[Service]\nUser=busclient\nRuntimeDirectory=hog\n\
                   ExecStart=/usr/local/bin/hog.py\n\
                   ExecStartPost=/bin/sh -c 'until test -e /run/hog/full; do sleep 0.05; done'\n";

/// A bus that comes later than its clients. Connecting to it works from the first moment, because
/// systemd listens; nobody answers before it has started. Within the bound of a restore that is
/// waited for, beyond it the service starts cold and waits by itself.
pub(super) fn check_late(site: &mut BusSite<'_>, checks: &mut Checks) -> Result<()> {
    let file = match site.bus {
        "dbus-broker" => "/usr/lib/systemd/system/dbus-broker.service",
        _ => "/usr/lib/systemd/system/dbus.service",
    };
    let plain = std::fs::read_to_string(site.machine.scratch.path(file))
        .with_context(|| format!("reading {file}"))?;
    for (seconds, outcome, word) in [(1, "restored", ""), (8, "cold", "the bus does not answer")] {
        site.machine.scratch.write(file, &late(&plain, seconds), 0o644)?;
        let machine = site.start()?;
        for subject in SUBJECTS {
            let unit = subject.unit();
            let ended = wait_until(&unit, SOON, || {
                let status = fastboot::status(&machine)?;
                let said = status.unit(&unit).context("fastboot status does not know it")?;
                let reason = said.reason.as_deref().unwrap_or_default();
                ensure!(said.outcome == outcome && reason.contains(word), "{}: {reason:?}", said.outcome);
                Ok(Some(()))
            });
            let sentence = format!("{}: {unit} is {outcome} where the bus is {seconds} s late", site.bus);
            let waits = ended.and_then(|()| is_late(&machine, &unit, seconds));
            checks.note(sentence, waits);
        }
        machine.wait_booted(bus_site::BOUND)?;
        let stale = packaged::check_written_state(&machine);
        checks.note(format!("{}: PackageKit is cold, because its database is newer", site.bus), stale);
        for subject in SUBJECTS {
            let answers = subject.next(&machine).map(drop);
            checks.note(format!("{}: {} answers then", site.bus, subject.unit()), answers);
        }
        machine.poweroff()?;
    }
    site.machine.scratch.write(file, &plain, 0o644)
}

/// The unit of the bus with a pause before its start. dbus-broker's own comes before basic.target,
/// which makes everybody wait for it: here it does not.
fn late(unit: &str, seconds: u32) -> String {
    let early = |line: &&str| !line.starts_with("Before=") && !line.starts_with("DefaultDependencies=");
    let text = unit.lines().filter(early).collect::<Vec<_>>().join("\n");
    text.replace("[Service]", &format!("[Service]\nExecStartPre=/bin/sleep {seconds}")) + "\n"
}

/// The test would show nothing if the service had been started after the bus.
fn is_late(machine: &Container, unit: &str, seconds: u32) -> Result<()> {
    let show = |unit: &str, property: &str| -> Result<u64> {
        let property = format!("--property={property}");
        let text = machine.run(&["systemctl", "show", "--value", &property, unit])?.success()?;
        text.trim().parse().with_context(|| format!("reading {text:?}"))
    };
    wait_until("the bus", SOON, || {
        let started = show(unit, "InactiveExitTimestampMonotonic")?;
        let bus = show("dbus.service", "ActiveEnterTimestampMonotonic")?;
        ensure!(bus > 0, "the bus has not started yet");
        let waited_ms = bus.saturating_sub(started) / 1000;
        ensure!(waited_ms > u64::from(seconds) * 500, "it was started {waited_ms} ms before the bus only");
        Ok(Some(()))
    })
}

/// A name that somebody else has, a policy that denies it, and on dbus-daemon as many connections
/// of the user as it allows: cold, with the reason.
pub(super) fn check_names(site: &mut BusSite<'_>, checks: &mut Checks) -> Result<()> {
    // No BusName=: systemd does not let two units have the same.
    let thief = "[Unit]\nBefore=bus-gdbus.service\n[Service]\n\
                 ExecStart=/usr/local/bin/sdbus-count com.example.gdbus com.example.x\n\
                 ExecStartPost=/bin/sh -c 'until busctl --system status com.example.gdbus; do sleep 0.05; done'\n\
                 [Install]\nWantedBy=multi-user.target\n";
    site.machine.scratch.write("/etc/systemd/system/thief.service", thief, 0o644)?;
    let wants = site.machine.scratch.path("/etc/systemd/system/multi-user.target.wants/thief.service");
    std::os::unix::fs::symlink("../thief.service", &wants).context("enabling the thief")?;
    let policy = include_str!("../../roots/dbus/policy.conf");
    let denied = policy.replace(
        "<allow own_prefix=\"com.example\"/>",
        &format!(
            "<allow own_prefix=\"com.example\"/><deny own=\"com.example.zbus\"/>{}",
            late_failure::DENIAL
        ),
    );
    ensure!(denied != policy, "the policy is another one than this test expects");
    site.machine.scratch.write("/etc/dbus-1/system.d/example.conf", &denied, 0o644)?;

    late_failure::break_all(&site.machine.scratch)?;

    // dbus-broker counts what a user has queued and no connections.
    let counts_connections = site.bus == "dbus-daemon";
    if counts_connections {
        site.machine.scratch.write("/etc/systemd/system/hog.service", HOG, 0o644)?;
        let wants = site.machine.scratch.path("/etc/systemd/system/multi-user.target.wants/hog.service");
        std::os::unix::fs::symlink("../hog.service", &wants).context("enabling the hog")?;
    }

    let machine = site.start()?;
    let mut expected = vec![
        ("bus-gdbus.service", "belongs to somebody else", "its name is not to be had"),
        ("bus-zbus.service", "RequestName", "its name is denied"),
    ];
    if counts_connections {
        expected.push((
            "bus-sdbus.service",
            "LimitsExceeded",
            "its user has all the connections it may have",
        ));
    }
    for (unit, word, why) in expected {
        checks
            .note(format!("{}: {unit} starts cold, because {why}", site.bus), is_cold(&machine, unit, word));
    }
    late_failure::check(site.bus, &machine, checks);
    let sound = wait_until("next", SOON, || {
        let status = fastboot::status(&machine)?;
        let said = status.unit("bus-next.service").context("fastboot status does not know it")?;
        ensure!(said.outcome == "restored", "{said:?}");
        Ok(Some(()))
    });
    checks.note(format!("{}: the others are restored beside them", site.bus), sound);
    machine.poweroff()
}

fn is_cold(machine: &Container, unit: &str, word: &str) -> Result<()> {
    wait_until(unit, SOON, || {
        let status = fastboot::status(machine)?;
        let said = status.unit(unit).context("fastboot status does not know it")?;
        let reason = said.reason.as_deref().unwrap_or_default();
        ensure!(said.outcome == "cold" && reason.contains(word), "{}: {reason:?}", said.outcome);
        Ok(Some(()))
    })
}
