//! `vm-tests units`: one unit for each feature of systemd, all on one machine: started cold, taken, restored at the next boot.

mod accept;
mod case;
mod feature;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::checks::Checks;
use crate::container::{BootOptions, Machine, end_left_over_machines, wait_until};
use crate::fastboot::{self, SnapshotReport};
use crate::needs::{self, Purpose};
use crate::roots::{CACHE_DIR, Language, Recipe, RootFile, Scratch, cached, compiled, sweep};
use crate::service::install_fastboot;
use case::{CASES, Case, DENIAL, DENIED_PORT, Fate, LOW_PORT, LOW_PORTS, MOVED_USER};

const BOUND: Duration = Duration::from_secs(60);
/// Longest until a counter has written its file and the journal its line.
const COUNT_BOUND: Duration = Duration::from_secs(10);
/// What each counts to before it is taken.
const COUNT: u32 = 3;

/// Run all cases, or those whose name has `only` in it.
///
/// # Errors
/// The root or fastboot cannot be built, or the machine does not boot.
pub fn run(only: Option<&str>) -> Result<Checks> {
    needs::install(&[Purpose::Roots])?;
    end_left_over_machines()?;
    sweep()?;
    let cases: Vec<&Case> =
        CASES.iter().filter(|case| only.is_none_or(|only| case.name.contains(only))).collect();
    ensure!(!cases.is_empty(), "no unit has {only:?} in its name");
    let release = fastboot::build().context("building fastboot")?;
    let logs = PathBuf::from(CACHE_DIR).join("logs/units");
    std::fs::create_dir_all(&logs).with_context(|| format!("making {}", logs.display()))?;
    let scratch = Scratch::copy_of(&cached(&recipe()?)?, "units")?;
    install_fastboot(&release, &scratch)?;
    for case in &cases {
        install(&scratch, case)?;
    }
    accept::install(&scratch)?;
    let mut checks = Checks::default();
    let boot = |number: u32| -> Result<Machine> {
        let console = logs.join(format!("boot-{number}.log"));
        let machine = Machine::boot(scratch.root(), "units", &console, &BootOptions::default())?;
        machine.wait_booted(BOUND)?;
        Ok(machine)
    };

    let running = boot(1)?;
    let taken = take(&running, &cases, &mut checks)?;
    running.poweroff()?;
    if cases.iter().any(|case| case.name == MOVED_USER) {
        move_user(&scratch)?;
    }
    if cases.iter().any(|case| case.name == LOW_PORT) {
        std::fs::remove_file(scratch.path(LOW_PORTS)).context("removing the leave for low ports")?;
    }
    if cases.iter().any(|case| case.name == DENIED_PORT) {
        let (path, text) = DENIAL;
        scratch.write(path, text, 0o644)?;
    }

    let running = boot(2)?;
    let status = fastboot::status(&running)?;
    for (case, main_pid) in &taken {
        if let Fate::Cold(why) = case.fate {
            let cold = is_cold(&running, &status, case, why);
            checks.note(format!("{} starts cold and says why", case.name), cold);
            continue;
        }
        let alive = is_restored(&running, &status, case, *main_pid);
        if checks.note(format!("{} is restored and goes on", case.name), alive) {
            checks.note(
                format!("{}: {}", case.name, feature::claim(case)),
                feature::check(&running, case, *main_pid),
            );
        }
    }
    for case in cases.iter().filter(|case| matches!(case.fate, Fate::Refused(_))) {
        let state = running.unit(&case.unit());
        let active = state.and_then(|state| {
            ensure!(state.is_active(), "it is {} ({})", state.active, state.result);
            Ok(())
        });
        checks.note(format!("{} starts as without fastboot", case.name), active);
    }
    checks.note("a service for each connection is left alone", accept::check(&running, &status));
    running.poweroff()?;
    Ok(checks)
}

fn recipe() -> Result<Recipe> {
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
fn take<'a>(machine: &Machine, cases: &[&'a Case], checks: &mut Checks) -> Result<Vec<(&'a Case, u32)>> {
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
    let report = fastboot::snapshot(machine, &names, &["--warm-up", "sh /run/warm-up"])?;
    let mut taken = Vec::new();
    for case in cases {
        let ended = ended_as_expected(machine, &report, case);
        if let Ok(Some(main_pid)) = ended {
            taken.push((*case, main_pid));
        }
        let sentence = match case.fate {
            Fate::Restored | Fate::Cold(_) => format!("{} is stored", case.name),
            Fate::Refused(_) => format!("{} is refused by name", case.name),
        };
        checks.note(sentence, ended.map(drop));
    }
    Ok(taken)
}

fn machine_write(machine: &Machine, path: &str, text: &str) -> Result<()> {
    let script = format!("cat > {path} <<'END'\n{text}END\n");
    machine.run(&["sh", "-c", &script])?.success().map(drop)
}

fn ended_as_expected(machine: &Machine, report: &SnapshotReport, case: &Case) -> Result<Option<u32>> {
    let unit = report.unit(&case.unit()).context("it is not in the report")?;
    let reasons = unit.reasons.join("; ");
    match case.fate {
        Fate::Restored | Fate::Cold(_) => {
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
fn read_count(machine: &Machine, case: &Case) -> Result<(u32, u32)> {
    let text = machine.run(&["cat", &case.count_file()])?.success()?;
    let mut words = text.split_whitespace().map(str::parse::<u32>);
    match (words.next(), words.next()) {
        (Some(Ok(count)), Some(Ok(pid))) => Ok((count, pid)),
        _ => anyhow::bail!("{} says {text:?}", case.count_file()),
    }
}

/// Started as ever, and `fastboot status` knows why.
fn is_cold(machine: &Machine, status: &fastboot::StatusReport, case: &Case, why: &str) -> Result<()> {
    let said = status.unit(&case.unit()).context("fastboot status does not know it")?;
    let reason = said.reason.as_deref().unwrap_or_default();
    ensure!(said.outcome == "cold" && reason.contains(why), "{}: {reason:?}", said.outcome);
    let state = machine.unit(&case.unit())?;
    ensure!(state.is_active() && state.restarts == 0, "it is {} ({})", state.active, state.result);
    if case.name == "store-fails" {
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
fn is_restored(machine: &Machine, status: &fastboot::StatusReport, case: &Case, main_pid: u32) -> Result<()> {
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

fn journal(machine: &Machine, unit: &str) -> Result<Vec<JournalEntry>> {
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
