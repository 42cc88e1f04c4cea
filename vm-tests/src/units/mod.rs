//! One unit for each feature of systemd, all on one machine: started cold, taken, restored at the
//! next boot.

mod accept;
mod case;
mod feature;

use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use test_frame::{Body, Need, Report, Test, Together};

use crate::container::{Container, wait_until};
use crate::fastboot::{self, SnapshotReport};
use crate::roots::{Language, Recipe, RootFile, Scratch, compiled};
use crate::site::Lab;
use case::{CASES, Case, DENIAL, DENIED_PORT, Fate, LOW_PORT, LOW_PORTS, MOVED_USER, STORE_FAILS};

const BOUND: Duration = Duration::from_secs(60);
/// Longest until a counter has written its file and the journal its line.
const COUNT_BOUND: Duration = Duration::from_secs(10);
/// What each counts to before it is taken.
const COUNT: u32 = 3;

/// The test beside those of the units.
const PER_CONNECTION: &str = "per-connection";

/// One test for each unit.
pub fn tests() -> Vec<Test> {
    let machine: Rc<dyn Together> = Rc::new(OneMachine);
    let names = CASES.iter().map(|case| case.name).chain([PER_CONNECTION]);
    let test = |name| {
        let run = Body::Together(Rc::clone(&machine));
        Test::new(format!("units/{name}"), &[Need::Root, Need::Container], run)
    };
    names.map(test).collect()
}

/// All of them start, are taken and restored on one machine.
struct OneMachine;

impl Together for OneMachine {
    fn run(&self, names: &[&str], report: &mut Report) -> Result<()> {
        let is_chosen = |case: &&Case| names.contains(&case.test().as_str());
        let cases: Vec<&Case> = CASES.iter().filter(is_chosen).collect();
        let per_connection = format!("units/{PER_CONNECTION}");
        let accepts = names.contains(&per_connection.as_str()).then_some(per_connection);
        live(&cases, accepts.as_deref(), report)
    }
}

/// The life of the machine, with these cases; `accepts` is the name of the test of a service for
/// each connection.
fn live(cases: &[&Case], accepts: Option<&str>, report: &mut Report) -> Result<()> {
    let mut site = Lab::prepare("units", recipe)?.site("units")?;
    for case in cases {
        install(&site.scratch, case)?;
    }
    accept::install(&site.scratch)?;

    let running = site.boot(BOUND)?;
    let taken = if cases.is_empty() { Vec::new() } else { take(&running, cases, report)? };
    running.poweroff()?;
    change(&site.scratch, cases)?;

    let running = site.boot(BOUND)?;
    let status = fastboot::status(&running)?;
    for (case, main_pid) in &taken {
        let checks = report.checks(&case.test());
        match case.fate {
            Fate::Cold(why) => {
                let cold = is_cold(&running, &status, case, why);
                checks.note(format!("{} starts cold and says why", case.name), cold);
            }
            Fate::Restored(feature) => {
                let alive = is_restored(&running, &status, case, *main_pid);
                if checks.note(format!("{} is restored and goes on", case.name), alive) {
                    let holds = feature::check(&running, case, feature, *main_pid);
                    checks.note(format!("{}: {}", case.name, feature.claim()), holds);
                }
            }
            Fate::Refused(_) => {}
        }
    }
    for case in cases.iter().filter(|case| matches!(case.fate, Fate::Refused(_))) {
        let state = running.unit(&case.unit());
        let active = state.and_then(|state| {
            ensure!(state.is_active(), "it is {} ({})", state.active, state.result);
            Ok(())
        });
        report.checks(&case.test()).note(format!("{} starts as without fastboot", case.name), active);
    }
    if let Some(name) = accepts {
        let alone = accept::check(&running, &status);
        report.checks(name).note("a service for each connection is left alone", alone);
    }
    running.poweroff()
}

/// What is another thing at the second boot, for the units that are about it.
fn change(scratch: &Scratch, cases: &[&Case]) -> Result<()> {
    let has = |name: &str| cases.iter().any(|case| case.name == name);
    if has(MOVED_USER) {
        move_user(scratch)?;
    }
    if has(LOW_PORT) {
        std::fs::remove_file(scratch.path(LOW_PORTS)).context("removing the leave for low ports")?;
    }
    if has(DENIED_PORT) {
        let (path, text) = DENIAL;
        scratch.write(path, text, 0o644)?;
    }
    Ok(())
}

/// A root with small services to try things with.
pub(crate) fn recipe() -> Result<Recipe> {
    let text = concat!(
        include_str!("../../../daemon-snap/include/fastboot-hooks.h"),
        include_str!("../../roots/units/subject.c")
    );
    let subject = compiled(Language::C, text)?;
    let pin = compiled(Language::C, include_str!("../../roots/units/pin.c"))?;
    let rust = fastboot::build_example("fastboot-hooks", "hooks_service")?;
    let rust = std::fs::read(&rust).with_context(|| format!("reading {}", rust.display()))?;
    let python = include_str!("../../../daemon-snap/hooks/examples/hooks_service.py");
    let inhibitor = include_str!("../../roots/units/inhibitor.py");
    Ok(Recipe {
        name: "units",
        suite: "trixie",
        packages: vec!["systemd", "systemd-sysv", "dbus", "procps", "passwd", "python3-minimal", "iproute2"],
        from_sid: Vec::new(),
        files: vec![
            RootFile::program("/usr/local/bin/subject", subject),
            RootFile::program("/usr/local/bin/pin", pin),
            RootFile::program("/usr/local/bin/hooks-rust", rust),
            RootFile::program("/usr/local/bin/hooks.py", python.as_bytes()),
            RootFile::program("/usr/local/bin/inhibitor.py", inhibitor.as_bytes()),
        ],
        setup: include_str!("../../roots/units/setup.sh"),
    })
}

/// Gives the state of [`MOVED_USER`] to another user of those that systemd takes for dynamic ones.
fn move_user(scratch: &Scratch) -> Result<()> {
    const OTHER: u32 = 61999;
    let dir = scratch.path(&format!("/var/lib/private/{MOVED_USER}"));
    for path in [dir.join("count"), dir] {
        std::os::unix::fs::chown(&path, Some(OTHER), Some(OTHER))
            .with_context(|| format!("giving away {}", path.display()))?;
    }
    Ok(())
}

fn install(scratch: &Scratch, case: &Case) -> Result<()> {
    scratch.write(&case.unit_file(), &case.text(), 0o644)?;
    for (path, text) in case.files {
        scratch.write(path, text, 0o644)?;
    }
    let link = |dir: &str, name: &str, to: &str| -> Result<()> {
        let dir = scratch.path(&format!("/etc/systemd/system/{dir}"));
        std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        std::os::unix::fs::symlink(to, dir.join(name)).with_context(|| format!("enabling {name}"))
    };
    link("multi-user.target.wants", &case.unit(), &case.unit_file())?;
    if let Some(socket) = case.socket() {
        link("sockets.target.wants", &socket, &format!("/etc/systemd/system/{socket}"))?;
    }
    Ok(())
}

/// Counts with each, takes all; the main PIDs of what was stored.
fn take<'a>(machine: &Container, cases: &[&'a Case], report: &mut Report) -> Result<Vec<(&'a Case, u32)>> {
    let counting: Vec<&str> =
        cases.iter().filter(|case| !matches!(case.fate, Fate::Refused(_))).map(|case| case.name).collect();
    let mut script = String::from("set -e\n");
    for _ in 0..COUNT {
        for name in &counting {
            script += &format!("systemctl kill --kill-whom=main --signal=USR1 {name}.service\n");
        }
        script += "sleep 0.5\n";
    }
    machine_write(machine, "/run/warm-up", &script)?;
    let units: Vec<String> = cases.iter().map(|case| case.unit()).collect();
    let names: Vec<&str> = units.iter().map(String::as_str).collect();
    let snapshot = fastboot::snapshot(machine, &names, &["--warm-up", "sh /run/warm-up"])?;
    let mut taken = Vec::new();
    for case in cases {
        let ended = ended_as_expected(machine, &snapshot, case);
        if let Ok(Some(main_pid)) = ended {
            taken.push((*case, main_pid));
        }
        let sentence = match case.fate {
            Fate::Restored(_) | Fate::Cold(_) => format!("{} is stored", case.name),
            Fate::Refused(_) => format!("{} is refused by name", case.name),
        };
        report.checks(&case.test()).note(sentence, ended.map(drop));
    }
    Ok(taken)
}

fn machine_write(machine: &Container, path: &str, text: &str) -> Result<()> {
    let script = format!("cat > {path} <<'END'\n{text}END\n");
    machine.run(&["sh", "-c", &script])?.success().map(drop)
}

fn ended_as_expected(machine: &Container, report: &SnapshotReport, case: &Case) -> Result<Option<u32>> {
    let unit = report.unit(&case.unit()).context("it is not in the report")?;
    let reasons = unit.reasons.join("; ");
    match case.fate {
        Fate::Restored(_) | Fate::Cold(_) => {
            ensure!(unit.outcome == "stored", "{}: {reasons}", unit.outcome);
            let (count, _) = read_count(machine, case)?;
            ensure!(count == COUNT, "it counted to {count}");
            Ok(Some(machine.unit(&case.unit())?.main_pid))
        }
        Fate::Refused(why) => {
            ensure!(unit.outcome == "refused" && reasons.contains(why), "{}: {reasons}", unit.outcome);
            Ok(None)
        }
    }
}

/// Count and PID that it wrote last.
fn read_count(machine: &Container, case: &Case) -> Result<(u32, u32)> {
    let text = machine.run(&["cat", &case.count_file()])?.success()?;
    let mut words = text.split_whitespace().map(str::parse::<u32>);
    match (words.next(), words.next()) {
        (Some(Ok(count)), Some(Ok(pid))) => Ok((count, pid)),
        _ => anyhow::bail!("{} says {text:?}", case.count_file()),
    }
}

/// Started as ever, and `fastboot status` knows why.
fn is_cold(machine: &Container, status: &fastboot::StatusReport, case: &Case, why: &str) -> Result<()> {
    let said = status.unit(&case.unit()).context("fastboot status does not know it")?;
    let reason = said.reason.as_deref().unwrap_or_default();
    ensure!(said.outcome == "cold" && reason.contains(why), "{}: {reason:?}", said.outcome);
    let state = machine.unit(&case.unit())?;
    ensure!(state.is_active() && state.restarts == 0, "it is {} ({})", state.active, state.result);
    if case.name == STORE_FAILS {
        let names = feature::stored_names(machine, &case.unit())?;
        ensure!(names.len() == 7, "systemd keeps {names:?}");
    }
    Ok(())
}

/// What a line in the journal knows of its sender.
#[derive(Debug, Deserialize)]
struct JournalEntry {
    #[serde(rename = "MESSAGE")]
    message: String,
    #[serde(rename = "_PID")]
    pid: String,
    #[serde(rename = "_SYSTEMD_UNIT")]
    unit: String,
    #[serde(rename = "_SYSTEMD_INVOCATION_ID")]
    invocation: Option<String>,
}

/// Restored with the PID of then; the next count follows; the journal knows whose line it is.
fn is_restored(
    machine: &Container,
    status: &fastboot::StatusReport,
    case: &Case,
    main_pid: u32,
) -> Result<()> {
    let unit = case.unit();
    let said = status.unit(&unit).context("fastboot status does not know it")?;
    ensure!(said.outcome == "restored", "{}: {:?}", said.outcome, said.reason);
    let state = machine.unit(&unit)?;
    ensure!(state.is_active(), "it is {} ({})", state.active, state.result);
    ensure!(state.main_pid == main_pid, "its main PID was {main_pid} and is {}", state.main_pid);
    machine.run(&["systemctl", "kill", "--kill-whom=main", "--signal=USR1", &unit])?.success()?;
    let line = format!("counted {}", COUNT + 1);
    wait_until(&line, COUNT_BOUND, || {
        let (count, pid) = read_count(machine, case)?;
        ensure!(count == COUNT + 1 && pid == main_pid, "it wrote {count} as {pid}");
        let entries = journal(machine, &unit)?;
        let entry =
            entries.iter().find(|entry| entry.message == line).context("its line is not in the journal")?;
        ensure!(entry.pid == main_pid.to_string() && entry.unit == unit, "the journal says {entry:?}");
        ensure!(entry.invocation.as_deref() == Some(state.invocation.as_str()), "the journal says {entry:?}");
        Ok(Some(()))
    })
}

fn journal(machine: &Container, unit: &str) -> Result<Vec<JournalEntry>> {
    let arguments = [
        "journalctl",
        "--boot",
        "--unit",
        unit,
        "--output=json",
        "--no-pager",
        "_TRANSPORT=stdout",
        "+",
        "_TRANSPORT=syslog",
        "+",
        "_TRANSPORT=journal",
    ];
    let text = machine.run(&arguments)?.success()?;
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}
