//! What services make in the kernel outside of their processes: refused by name, or made again.
//!
//! One machine for all: each is taken, the machine is booted again, and what was restored is
//! complete.

mod case;

use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use test_frame::{Body, Need, Report, Test, Together};

use crate::container::Container;
use crate::fastboot::{self, SnapshotUnit, StatusReport};
use crate::roots::{Recipe, Scratch};
use crate::site::Lab;
use case::{CASES, Case, Fate};

const BOUND: Duration = Duration::from_secs(60);

/// One test for each unit.
pub fn tests() -> Vec<Test> {
    let machine: Rc<dyn Together> = Rc::new(OneMachine);
    let test = |case: &Case| {
        let run = Body::Together(Rc::clone(&machine));
        Test::new(case.test(), &[Need::Root, Need::Container], run)
    };
    CASES.iter().map(test).collect()
}

/// All of them start, are taken and restored on one machine.
struct OneMachine;

impl Together for OneMachine {
    fn run(&self, names: &[&str], report: &mut Report) -> Result<()> {
        let cases: Vec<&Case> = CASES.iter().filter(|case| names.contains(&case.test().as_str())).collect();
        live(&cases, report)
    }
}

fn recipe() -> Recipe {
    Recipe {
        name: "kernel-state",
        suite: "trixie",
        packages: vec!["systemd", "systemd-sysv", "dbus", "procps", "iproute2", "nftables"],
        from_sid: Vec::new(),
        files: Vec::new(),
        setup: include_str!("../../roots/kernel-state/setup.sh"),
    }
}

fn live(cases: &[&Case], report: &mut Report) -> Result<()> {
    let mut site = Lab::prepare("kernel-state", || Ok(recipe()))?.site("kernel-state")?;
    for case in cases {
        install(&site.scratch, case)?;
    }
    let running = site.boot(BOUND)?;
    let before: Vec<(&Case, String)> = cases
        .iter()
        .filter_map(|case| match case.fate {
            Fate::Restored(look) => Some(print(&running, look).map(|text| (*case, text))),
            Fate::Refused(..) => None,
        })
        .collect::<Result<_>>()?;
    take(&running, cases, report)?;
    running.poweroff()?;

    let running = site.boot(BOUND)?;
    let status = fastboot::status(&running)?;
    for (case, text) in &before {
        let restored = is_restored(&running, &status, case, text);
        report.checks(&case.test()).note("it is restored, with what it has made", restored);
    }
    for case in cases.iter().filter(|case| matches!(case.fate, Fate::Refused(..))) {
        let alone = is_left_alone(&running, &status, case);
        report.checks(&case.test()).note("it starts as without fastboot", alone);
    }
    running.poweroff()
}

fn install(scratch: &Scratch, case: &Case) -> Result<()> {
    let file = format!("/etc/systemd/system/{}", case.unit());
    scratch.write(&file, &format!("[Service]\n{}\n", case.service), 0o644)?;
    let dir = scratch.path("/etc/systemd/system/multi-user.target.wants");
    std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    std::os::unix::fs::symlink(&file, dir.join(case.unit()))
        .with_context(|| format!("enabling {}", case.name))
}

fn print(machine: &Container, script: &str) -> Result<String> {
    machine.run(&["sh", "-c", script])?.success()
}

/// With a trial restore of each.
fn take(machine: &Container, cases: &[&Case], report: &mut Report) -> Result<()> {
    let units: Vec<String> = cases.iter().map(|case| case.unit()).collect();
    let names: Vec<&str> = units.iter().map(String::as_str).collect();
    let snapshot = fastboot::snapshot_with_trial(machine, &names, &["--keep-slow"])?;
    for case in cases {
        let unit = snapshot.unit(&case.unit()).context("it is not in the report")?;
        let (what, ended) = match case.fate {
            Fate::Restored(_) => ("it is taken", is_stored(unit)),
            Fate::Refused(code, objects) => ("it is refused by name", is_refused(unit, code, objects)),
        };
        report.checks(&case.test()).note(what, ended);
        let runs = machine.unit(&case.unit()).and_then(|state| {
            ensure!(state.is_active(), "it is {} ({})", state.active, state.result);
            Ok(())
        });
        report.checks(&case.test()).note("it runs on", runs);
    }
    Ok(())
}

fn is_stored(unit: &SnapshotUnit) -> Result<()> {
    ensure!(unit.outcome == "stored", "{}: {}", unit.outcome, unit.reasons.join("; "));
    Ok(())
}

fn is_refused(unit: &SnapshotUnit, code: &str, objects: &[&str]) -> Result<()> {
    let reasons = unit.reasons.join("; ");
    ensure!(unit.outcome == "refused", "{}: {reasons}", unit.outcome);
    ensure!(unit.obstacles.iter().any(|obstacle| obstacle.code == code), "{:?}", unit.obstacles);
    let missing: Vec<&&str> = objects.iter().filter(|object| !reasons.contains(**object)).collect();
    ensure!(missing.is_empty(), "{missing:?} is not in {reasons:?}");
    Ok(())
}

fn is_restored(machine: &Container, status: &StatusReport, case: &Case, before: &str) -> Result<()> {
    let said = status.unit(&case.unit()).context("fastboot status does not know it")?;
    ensure!(said.outcome == "restored", "{}: {:?}", said.outcome, said.reason);
    let Fate::Restored(look) = case.fate else { return Ok(()) };
    let now = print(machine, look)?;
    ensure!(now == before, "it was {before:?} and is {now:?}");
    Ok(())
}

fn is_left_alone(machine: &Container, status: &StatusReport, case: &Case) -> Result<()> {
    ensure!(status.unit(&case.unit()).is_none(), "fastboot has something to do with it");
    let state = machine.unit(&case.unit())?;
    ensure!(state.is_active(), "it is {} ({})", state.active, state.result);
    Ok(())
}
