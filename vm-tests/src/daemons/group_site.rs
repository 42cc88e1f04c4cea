//! The machine of a group: its root, and what is done with all services of one boot.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::daemon::{Ask, Daemon};
use super::list::Group;
use crate::client::{Answer, first_answer};
use crate::container::{BootOptions, Container, run_in_root};
use crate::host;
use crate::roots::{Recipe, cached};
use crate::site::Site;

/// Longest for a service to answer after a boot.
pub(super) const ANSWER_BOUND: Duration = Duration::from_secs(120);
/// Longest for systemd to be done.
const BOOT_BOUND: Duration = Duration::from_secs(180);
/// Longest for all services to stop, or to start.
const STOP_BOUND: Duration = Duration::from_secs(240);
const SETUP_BOUND: Duration = Duration::from_secs(300);
/// Between two attempts of clients that are programs of their own.
const COSTLY_PAUSE: Duration = Duration::from_millis(100);

/// What every machine has.
const BASE: [&str; 5] = ["systemd", "systemd-sysv", "dbus", "procps", "iproute2"];
/// Not wanted in a container, or work that a quiet boot should not meet by chance.
const SETUP: &str = "
systemctl mask --quiet console-getty.service getty@tty1.service apt-daily.timer apt-daily-upgrade.timer \\
    dpkg-db-backup.timer fstrim.timer systemd-tmpfiles-clean.timer systemd-pstore.service e2scrub_all.timer \\
    logrotate.timer man-db.timer
";

/// A root that keeps what happens to it from boot to boot.
#[derive(Debug)]
pub(super) struct GroupSite {
    pub(super) machine: Site,
}

/// A boot, and when its services answered.
#[derive(Debug)]
pub(super) struct Booted {
    pub(super) machine: Container,
    /// In the order of the group: ms from the start of the unit to the first right answer.
    pub(super) answers: Vec<Result<f64>>,
    log: PathBuf,
}

impl GroupSite {
    /// A copy of the group's root with the configuration of its services; those that were not
    /// chosen do not start.
    pub(super) fn new(group: &Group) -> Result<GroupSite> {
        let name = format!("daemons-{}", group.name);
        let machine = Site::new("daemons", &name, &cached(&recipe(group))?)?;
        let scratch = &machine.scratch;
        scratch.write("/etc/hostname", &format!("{name}\n"), 0o644)?;
        scratch.write("/etc/hosts", &format!("127.0.0.1 localhost {name}\n::1 localhost\n"), 0o644)?;
        for daemon in group.all {
            for &(path, content) in daemon.files {
                let mode = if content.starts_with("#!") { 0o755 } else { 0o644 };
                scratch.write(path, content, mode)?;
            }
        }
        run_in_root(scratch.root(), &[], &setup(group), SETUP_BOUND).context("setup")?;
        Ok(GroupSite { machine })
    }

    /// Boot with nothing in the page cache; wait until every service of `daemons` has answered and
    /// systemd is done.
    pub(super) fn boot(&mut self, daemons: &[&Daemon]) -> Result<Booted> {
        let booted = self.boot_and_provision(daemons, &[])?;
        Ok(booted)
    }

    /// The same with scripts that are run inside before anybody asks.
    pub(super) fn boot_and_provision(&mut self, daemons: &[&Daemon], scripts: &[&str]) -> Result<Booted> {
        host::drop_page_cache()?;
        let machine = self.machine.start(&BootOptions::default())?;
        let log = self.machine.log();
        if !scripts.is_empty() {
            machine.wait_booted(BOOT_BOUND)?;
        }
        for script in scripts {
            machine.run_for(&["sh", "-euc", script], SETUP_BOUND)?.success()?;
        }
        let answers = first_answers(&machine, daemons);
        machine.wait_booted(BOOT_BOUND)?;
        let mut times = Vec::new();
        for (daemon, answer) in daemons.iter().zip(answers) {
            times.push(answer.and_then(|answer| {
                let start_us = machine.unit(daemon.unit)?.start_us;
                // With a socket unit a client may have its answer from a service that it started
                // itself.
                let took_us = answer.at_us.checked_sub(start_us).filter(|_| start_us > 0);
                Ok(ms(took_us.with_context(|| format!("{} answered before it was started", daemon.unit))?))
            }));
        }
        Ok(Booted { machine, answers: times, log })
    }
}

impl Booted {
    /// Write a text beside the console log.
    pub(super) fn note(&self, what: &str, text: &str) -> Result<()> {
        let path = self.log.with_extension(what);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    }

    /// Switch off, with the journal kept.
    pub(super) fn poweroff(self) -> Result<()> {
        let journal =
            self.machine.run(&["journalctl", "--boot", "--no-pager", "--output=short-monotonic"])?;
        self.note("journal", &journal.stdout)?;
        self.machine.poweroff()
    }

    /// Stop all units at once; how each of them ended, as `inactive (success)`.
    pub(super) fn stop(&self, daemons: &[&Daemon]) -> Result<Vec<String>> {
        self.systemctl("stop", daemons)?;
        let state = |daemon: &&Daemon| {
            let unit = self.machine.unit(daemon.unit)?;
            Ok(format!("{} ({})", unit.active, unit.result))
        };
        daemons.iter().map(state).collect()
    }

    /// Start all units at once, and ask each of them.
    pub(super) fn start(&self, daemons: &[&Daemon]) -> Result<Vec<Result<()>>> {
        self.systemctl("start", daemons)?;
        Ok(first_answers(&self.machine, daemons).into_iter().map(|answer| answer.map(drop)).collect())
    }

    /// Its failure is one of a unit, which is looked at by itself.
    fn systemctl(&self, verb: &str, daemons: &[&Daemon]) -> Result<()> {
        let mut words = vec!["systemctl", verb];
        words.extend(daemons.iter().map(|daemon| daemon.unit));
        self.machine.run_for(&words, STOP_BOUND).map(drop)
    }

    /// Units that failed, whatever they are.
    pub(super) fn failed_units(&self) -> Result<Vec<String>> {
        let list = ["systemctl", "list-units", "--failed", "--no-legend", "--plain"];
        let text = self.machine.run(&list)?.success()?;
        Ok(text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
    }
}

fn recipe(group: &Group) -> Recipe {
    let mut packages = BASE.to_vec();
    packages.extend(group.all.iter().flat_map(|daemon| daemon.packages));
    packages.sort_unstable();
    packages.dedup();
    Recipe {
        name: group.root,
        suite: "trixie",
        packages,
        from_sid: Vec::new(),
        files: Vec::new(),
        setup: "true",
    }
}

fn setup(group: &Group) -> String {
    let mut script = format!("set -eu\n{SETUP}");
    for daemon in group.all {
        let chosen = group.daemons.iter().any(|chosen| chosen.name == daemon.name);
        let then = match chosen {
            true => format!("systemctl enable --quiet {}", daemon.unit),
            // A unit of ours lies where the mask would.
            false => format!(
                "if test -f /etc/systemd/system/{unit}; then rm /etc/systemd/system/{unit}; fi\nsystemctl mask --quiet {unit}",
                unit = daemon.unit
            ),
        };
        script.push_str(&format!(
            "( set -eu\n{}\n{then}\n) || {{ echo 'setup of {} failed' >&2; exit 1; }}\n",
            daemon.setup, daemon.name
        ));
    }
    script
}

/// One client per service, each on its own thread, from the first moment on.
fn first_answers(machine: &Container, daemons: &[&Daemon]) -> Vec<Result<Answer>> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = daemons
            .iter()
            .map(|daemon| {
                let ask = daemon.ask;
                scope.spawn(move || wait_for(machine, ask, ANSWER_BOUND))
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

/// Ask until the answer is right.
pub(super) fn wait_for(machine: &Container, ask: Ask, bound: Duration) -> Result<Answer> {
    first_answer(bound, || {
        let answer = ask.ask(machine);
        if answer.is_err() && ask.is_costly() {
            std::thread::sleep(COSTLY_PAUSE);
        }
        answer
    })
}

#[expect(clippy::cast_precision_loss, reason = "durations of a boot are far below 2^52 µs")]
fn ms(us: u64) -> f64 {
    us as f64 / 1000.0
}
