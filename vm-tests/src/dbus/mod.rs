//! Restored services on the bus, under dbus-daemon and under dbus-broker.
//!
//! Services of ours, one for each client library, watch each other in a ring; Debian's own are
//! asked for what they know. What holds before the snapshot must hold after the restored boot:
//! names, rules, counters, what watchers hear.

mod bus;
mod bus_site;
mod failure;
mod late_failure;
mod packaged;
mod silent;
mod subject;
mod watcher;

use anyhow::{Context as _, Result, ensure};
use test_frame::{Checks, Need, Once, Test};

use crate::container::{Container, wait_until};
use crate::fastboot::{self, StatusReport};
use crate::roots::{Recipe, RootFile, Scratch};
use crate::site::Lab;
use bus::Presence;
use bus_site::{BOUND, BusSite, SOON};
use subject::{SUBJECTS, Subject};

const BUSES: [&str; 2] = ["dbus-daemon", "dbus-broker"];

/// One test for each bus.
pub fn tests() -> Vec<Test> {
    let lab = Once::new(|| Lab::prepare("dbus", recipe));
    let test = |bus: &'static str| {
        let lab = lab.clone();
        Test::alone(format!("dbus/{bus}"), &[Need::Root, Need::Container], move |checks| {
            on_bus(bus, lab.get()?, checks).context("before the end of all boots")
        })
    };
    BUSES.into_iter().map(test).collect()
}

fn recipe() -> Result<Recipe> {
    let zbus_count = fastboot::build_program("vm-tests", "zbus-count")?;
    let program = std::fs::read(&zbus_count).with_context(|| format!("reading {}", zbus_count.display()))?;
    let mut packages = vec!["systemd", "systemd-sysv", "dbus", "dbus-broker", "procps", "iproute2"];
    packages.extend(["python3-gi", "python3-dbus", "python3-dbus-next", "libsystemd0"]);
    packages.extend(packaged::PACKAGES);
    Ok(Recipe {
        name: "dbus",
        suite: "trixie",
        packages,
        from_sid: Vec::new(),
        files: files(program)?,
        setup: include_str!("../../roots/dbus/setup.sh"),
    })
}

fn files(zbus_count: Vec<u8>) -> Result<Vec<RootFile>> {
    let mut files = subject::files(zbus_count)?;
    files.push(silent::file());
    Ok(files)
}

fn on_bus(bus: &str, lab: &Lab, checks: &mut Checks) -> Result<()> {
    let mut site = BusSite { bus, machine: lab.site(&format!("bus-{bus}"))? };
    let scratch = &site.machine.scratch;
    subject::install(scratch)?;
    silent::install(scratch)?;
    watcher::install(scratch)?;
    late_failure::install(scratch)?;
    choose_bus(scratch, bus)?;

    let running = site.machine.boot(BOUND)?;
    let is_right =
        running.run(&["systemctl", "show", "--property=Id", "--value", "dbus.service"])?.success()?;
    ensure!(
        is_right.trim().starts_with(bus) || (bus == "dbus-daemon" && is_right.trim() == "dbus.service"),
        "the bus is {is_right}"
    );
    checks.note(
        format!("{bus}: a plain restart is heard as going and coming"),
        subject::check_plain_restarts(&running),
    );
    checks.note(
        format!("{bus}: a plain restart of Debian's services is heard as going and coming"),
        watcher::check_plain_restarts(&running),
    );
    let before = snapshot(bus, &running, checks)?;
    running.poweroff()?;
    watcher::forget(&site.machine.scratch)?;
    for subject in SUBJECTS {
        subject.forget(&site.machine.scratch)?;
    }

    let running = site.machine.boot(BOUND)?;
    let status = fastboot::status(&running)?;
    for taken in &before {
        checks.note(format!("{bus}: {} is on the bus as it was", taken.unit), taken.check(&running, &status));
    }
    for (service, _) in before.iter().filter_map(|taken| taken.answer.as_ref()) {
        let heard = watcher::has_heard(&running, *service);
        checks.note(
            format!("{bus}: a watcher hears the same of {} as at a plain restart", service.unit),
            heard,
        );
    }
    check_subjects(bus, &running, &before, checks);
    checks.note(
        format!("{bus}: a client that does not listen finds everything that was said to it"),
        silent::check(&running, &status),
    );
    checks.note(
        format!("{bus}: systemd-hostnamed comes and goes as without fastboot"),
        packaged::check_short_lived(&running, &status),
    );
    checks.note(
        format!("{bus}: PackageKit, restored, writes to its database"),
        packaged::write_state(&running),
    );
    running.poweroff()?;
    failure::check_late(&mut site, checks)?;
    failure::check_names(&mut site, checks)
}

/// dbus-daemon is Debian's; the alias decides.
fn choose_bus(scratch: &Scratch, bus: &str) -> Result<()> {
    let alias = scratch.path("/etc/systemd/system/dbus.service");
    if alias.symlink_metadata().is_ok() {
        std::fs::remove_file(&alias).context("removing the alias of the bus")?;
    }
    if bus == "dbus-broker" {
        std::os::unix::fs::symlink("/usr/lib/systemd/system/dbus-broker.service", &alias)
            .context("choosing the bus")?;
    }
    Ok(())
}

/// A unit that has an image, and what it was.
struct Taken {
    unit: String,
    presence: Presence,
    /// Only for ours.
    count: Option<(Subject, u64)>,
    /// Only for Debian's.
    answer: Option<(packaged::Packaged, String)>,
}

impl Taken {
    fn check(&self, machine: &Container, status: &StatusReport) -> Result<()> {
        let said = status.unit(&self.unit).context("fastboot status does not know it")?;
        ensure!(said.outcome == "restored", "it is {}: {:?}", said.outcome, said.reason);
        let now = bus::presence(machine, &self.unit)?;
        ensure!(now == self.presence, "it was {:?} and is {now:?}", self.presence);
        if let Some((service, answer)) = &self.answer {
            let now = service.ask(machine)?;
            ensure!(now == *answer, "it answered {answer:?} and answers {now:?}");
        }
        Ok(())
    }
}

/// All, after each of ours has counted to three.
fn snapshot(bus: &str, machine: &Container, checks: &mut Checks) -> Result<Vec<Taken>> {
    let wanted = packaged::SERVICES;
    let units: Vec<String> = SUBJECTS
        .iter()
        .map(|subject| subject.unit())
        .chain(wanted.iter().map(|service| service.unit.to_owned()))
        .chain([silent::UNIT.to_owned(), watcher::UNIT.to_owned()])
        .chain(late_failure::units())
        .collect();
    let names: Vec<&str> = units.iter().map(String::as_str).collect();
    let calls: String = SUBJECTS
        .iter()
        .map(|subject| {
            let call = format!("busctl call {} /com/example/Count com.example.Count Next; ", subject.name());
            call.repeat(3)
        })
        .collect();
    let report = fastboot::snapshot(machine, &names, &["--warm-up", &format!("set -e; {calls}")])?;
    let mut taken = Vec::new();
    for unit in &report.units {
        let ours = SUBJECTS.into_iter().find(|subject| subject.unit() == unit.unit);
        if unit.outcome != "stored" {
            let why = format!("{}: {}", unit.outcome, unit.reasons.join("; "));
            checks.note(format!("{bus}: {} is taken", unit.unit), Err(anyhow::anyhow!(why)));
            continue;
        }
        if unit.unit == silent::UNIT {
            continue;
        }
        let presence = bus::presence(machine, &unit.unit)?;
        ensure!(!presence.names.is_empty(), "{} owns no name", unit.unit);
        let answer = wanted.iter().find(|service| service.unit == unit.unit);
        let answer = answer.map(|service| Ok::<_, anyhow::Error>((*service, service.ask(machine)?)));
        taken.push(Taken {
            unit: unit.unit.clone(),
            presence,
            count: ours.map(|subject| (subject, 3)),
            answer: answer.transpose()?,
        });
    }
    Ok(taken)
}

/// Ours: what they heard of the new boot, that they go on counting, that they can call and be
/// called.
fn check_subjects(bus: &str, machine: &Container, taken: &[Taken], checks: &mut Checks) {
    for (subject, count) in taken.iter().filter_map(|taken| taken.count) {
        let library = subject.library;
        let heard = wait_until("events", SOON, || {
            let mut events = subject.events(machine)?;
            events.retain(|event| !event.starts_with("tick "));
            ensure!(events == subject.expected_events(), "it heard {events:?}");
            Ok(Some(()))
        });
        checks.note(format!("{bus}: the {library} watcher hears the same as at a plain restart"), heard);
        let counted = subject.next(machine).and_then(|now| {
            ensure!(now == count + 1, "it counted {count} and then {now}");
            Ok(())
        });
        checks.note(format!("{bus}: {library} goes on counting"), counted);
    }
    for (subject, count) in taken.iter().filter_map(|taken| taken.count) {
        let asked = subject.ask(machine).and_then(|now| {
            ensure!(now == count + 2, "the other one counted {now} instead of {}", count + 2);
            Ok(())
        });
        checks.note(format!("{bus}: {} calls another service", subject.library), asked);
        let ticks = wait_until("signals", SOON, || {
            let events = subject.events(machine)?;
            let ticks = events.iter().filter(|event| event.starts_with("tick ")).count();
            ensure!(ticks >= 2, "it heard {events:?}");
            Ok(Some(()))
        });
        checks.note(format!("{bus}: {} hears signals", subject.library), ticks);
        if machine.unit("polkit.service").is_ok_and(|unit| unit.is_active()) {
            let authorised = packaged::is_authorised(machine, &subject.name()).and_then(|answer| {
                // Root may; anybody else would have to say a password.
                let wanted = if subject.user.is_none() { "(bba{ss}) true" } else { "(bba{ss}) false true" };
                ensure!(answer.starts_with(wanted), "polkit says {answer:?}");
                Ok(())
            });
            checks.note(format!("{bus}: polkit knows {}", subject.library), authorised);
        }
    }
}
