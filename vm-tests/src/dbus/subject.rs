//! Services of ours, one for each client library. Each counts calls in its memory and watches the
//! next one's name.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};

use super::bus;
use crate::container::{Container, wait_until};
use crate::roots::{Language, RootFile, Scratch, compiled};

/// One of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject {
    /// Client library; also the unit's name.
    pub library: &'static str,
    program: &'static str,
    /// Other than root.
    pub user: Option<&'static str>,
}

pub(super) const SUBJECTS: [Subject; 5] = [
    Subject { library: "gdbus", program: "/usr/local/bin/gdbus.py", user: None },
    Subject { library: "libdbus", program: "/usr/local/bin/libdbus.py", user: None },
    Subject { library: "sdbus", program: "/usr/local/bin/sdbus-count", user: Some("busclient") },
    Subject { library: "zbus", program: "/usr/local/bin/zbus-count", user: None },
    Subject { library: "next", program: "/usr/local/bin/next.py", user: None },
];

const PATH: &str = "/com/example/Count";
const INTERFACE: &str = "com.example.Count";

impl Subject {
    pub(super) fn unit(self) -> String {
        format!("bus-{}.service", self.library)
    }

    pub(super) fn name(self) -> String {
        format!("com.example.{}", self.library)
    }

    /// Whom it watches.
    fn watched(self) -> Subject {
        let own = SUBJECTS.iter().position(|other| other.library == self.library).unwrap_or(0);
        SUBJECTS[(own + 1) % SUBJECTS.len()]
    }

    fn unit_text(self) -> String {
        let (name, watched) = (self.name(), self.watched().name());
        let mut text = format!("[Service]\nType=dbus\nBusName={name}\n");
        if let Some(user) = self.user {
            let _ = writeln!(text, "User={user}");
        }
        let _ = writeln!(text, "ExecStart={} {name} {watched}", self.program);
        text + "[Install]\nWantedBy=multi-user.target\n"
    }

    /// Counts once more; the new count.
    pub(super) fn next(self, machine: &Container) -> Result<u64> {
        bus::call(machine, &self.name(), PATH, INTERFACE, &["Next"])
    }

    /// Lets it call the one that it watches; that one's new count.
    pub(super) fn ask(self, machine: &Container) -> Result<u64> {
        bus::call(machine, &self.name(), PATH, INTERFACE, &["Ask", "s", &self.watched().name()])
    }

    fn log(self) -> String {
        format!("/var/log/{}", self.name())
    }

    /// What it wrote down about the owner of the watched name, or about signals.
    pub(super) fn events(self, machine: &Container) -> Result<Vec<String>> {
        let text = machine.run(&["cat", &self.log()])?.success()?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Begins with an empty log.
    pub(super) fn forget(self, scratch: &Scratch) -> Result<()> {
        scratch.write(&self.log(), "", 0o666)
    }

    /// The same while the machine runs.
    pub(super) fn forget_running(self, machine: &Container) -> Result<()> {
        machine.run(&["truncate", "--size=0", &self.log()])?.success().map(drop)
    }

    /// What it must have heard when the watched service went and came.
    pub(super) fn expected_events(self) -> [String; 2] {
        let name = self.watched().name();
        [format!("{name} had none"), format!("{name} none has")]
    }
}

/// All of them restarted, one after the other: what each watcher hears then is the measure for a
/// restored boot.
pub(super) fn check_plain_restarts(machine: &Container) -> Result<()> {
    for subject in SUBJECTS {
        subject.forget_running(machine)?;
    }
    for subject in SUBJECTS {
        machine.run(&["systemctl", "restart", &subject.watched().unit()])?.success()?;
        subject.forget_running(machine)?;
        machine.run(&["systemctl", "restart", &subject.watched().unit()])?.success()?;
        wait_until("the events of a restart", super::bus_site::SOON, || {
            let mut events = subject.events(machine)?;
            // The end of the first restart may be written down after the log was emptied.
            if events.len() == 3 && events[0] == subject.expected_events()[1] {
                events.remove(0);
            }
            ensure!(events == subject.expected_events(), "{} heard {events:?}", subject.library);
            Ok(Some(()))
        })?;
    }
    Ok(())
}

/// Programs and policy. `zbus_count`: the built program.
pub(super) fn files(zbus_count: Vec<u8>) -> Result<Vec<RootFile>> {
    let sdbus = compiled(Language::SdBus, include_str!("../../roots/dbus/sdbus.c"))
        .context("compiling the sd-bus subject")?;
    let script = |path: &'static str, text: &'static str| RootFile::program(path, text.as_bytes());
    Ok(vec![
        script("/usr/local/bin/gdbus.py", include_str!("../../roots/dbus/gdbus.py")),
        script("/usr/local/bin/libdbus.py", include_str!("../../roots/dbus/libdbus.py")),
        script("/usr/local/bin/hog.py", include_str!("../../roots/dbus/hog.py")),
        script("/usr/local/bin/next.py", include_str!("../../roots/dbus/next.py")),
        RootFile::program("/usr/local/bin/sdbus-count", sdbus),
        RootFile::program("/usr/local/bin/zbus-count", zbus_count),
        RootFile::text("/etc/dbus-1/system.d/example.conf", include_str!("../../roots/dbus/policy.conf")),
    ])
}

/// Units, enabled.
pub(super) fn install(scratch: &Scratch) -> Result<()> {
    for subject in SUBJECTS {
        let unit = subject.unit();
        subject.forget(scratch)?;
        scratch.write(&format!("/etc/systemd/system/{unit}"), &subject.unit_text(), 0o644)?;
        let link = scratch.path(&format!("/etc/systemd/system/multi-user.target.wants/{unit}"));
        std::os::unix::fs::symlink(format!("../{unit}"), &link)
            .with_context(|| format!("enabling {unit}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_is_watched_by_one() {
        let mut watched: Vec<&str> = SUBJECTS.iter().map(|subject| subject.watched().library).collect();
        watched.sort_unstable();
        let mut all: Vec<&str> = SUBJECTS.iter().map(|subject| subject.library).collect();
        all.sort_unstable();
        assert_eq!(watched, all);
        assert!(SUBJECTS.iter().all(|subject| subject.watched().library != subject.library));
    }
}
