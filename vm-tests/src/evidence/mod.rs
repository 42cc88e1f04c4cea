//! Nothing stale: services as Debian has them, without a word about fastboot in their units.
//! Whatever they have read and closed at their start makes them start cold when it is edited, with
//! its name; and nothing else does.
//!
//! One machine for all: images are taken; a boot after changes that concern nobody; a boot after
//! the first change of each; a boot after the second, with the first one taken back; a boot with
//! both taken back.

mod case;
mod start;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use test_frame::{Body, Need, Report, Test, Together};

use crate::container::{BootOptions, Container, run_in_root, wait_until};
use crate::fastboot::{self, StatusReport};
use crate::roots::{Recipe, RootFile};
use crate::site::{Lab, Site};
use case::{CASES, Case, Change, How};

const BOOT_BOUND: Duration = Duration::from_secs(180);
const ANSWER_BOUND: Duration = Duration::from_secs(120);
const NOISE_BOUND: Duration = Duration::from_secs(60);

/// What happens to a machine that changes nothing for these services: logs are rotated (old ones
/// moved away, new ones empty), a package of somebody else comes, with its user and its files;
/// directories are touched; the library cache is made anew.
const NOISE: &str = "
set -e
for log in $(find /var/log -type f -name '*.log' -o -type f -path '/var/log/lighttpd/*'); do
    cp -p \"$log\" \"$log.1\"
    rm \"$log\"
    cp -p --attributes-only \"$log.1\" \"$log\"
done
useradd --system unrelated
mkdir -p /etc/unrelated /usr/share/doc/unrelated /opt/unrelated
echo 'unrelated' | tee /etc/unrelated/a.conf /usr/share/doc/unrelated/copyright /opt/unrelated/a > /dev/null
printf '#!/bin/sh\\n' > /usr/bin/unrelated
touch /etc /usr /usr/lib /srv /srv/apps /etc/lighttpd /etc/dnsmasq.d /etc/unbound/unbound.conf.d
touch /etc/lighttpd/lighttpd.conf /srv/apps/server.js
ldconfig
";

/// One test for each service.
pub fn tests() -> Vec<Test> {
    let machine: Rc<dyn Together> = Rc::new(OneMachine);
    let test = |case: &Case| {
        let run = Body::Together(Rc::clone(&machine));
        Test::new(case.test(), &[Need::Root, Need::Container], run)
    };
    CASES.iter().map(test).chain(start::tests()).collect()
}

/// All of them start, are taken, changed and restored on one machine.
struct OneMachine;

impl Together for OneMachine {
    fn run(&self, names: &[&str], report: &mut Report) -> Result<()> {
        let cases: Vec<&Case> = CASES.iter().filter(|case| names.contains(&case.test().as_str())).collect();
        live(&cases, &mut |case, what, result| report.checks(&case.test()).note(what, result))
    }
}

/// Told of each thing that was looked at, and how it came out.
type Note<'a> = dyn FnMut(&Case, &str, Result<()>) -> bool + 'a;

fn live(cases: &[&Case], note: &mut Note<'_>) -> Result<()> {
    let mut site = Lab::prepare("evidence", || Ok(recipe()))?.site("evidence")?;
    // The first boot of a machine writes what no later one does.
    boot(&mut site, cases)?.poweroff()?;
    let running = boot(&mut site, cases)?;
    let taken = take(&running, cases, note)?;
    keep_evidence(&site.log(), &running, &taken)?;
    running.poweroff()?;

    run_in_root(site.scratch.root(), &[], NOISE, NOISE_BOUND).context("changes that concern nobody")?;
    let running = boot(&mut site, cases)?;
    let status = fastboot::status(&running)?;
    for case in &taken {
        note(case, "it is restored after changes that do not concern it", is_restored(&status, case));
    }
    running.poweroff()?;

    for which in [0, 1] {
        let mut undo = Vec::new();
        for case in &taken {
            undo.push(change_path(&site, &case.changes[which])?);
        }
        let running = boot(&mut site, cases)?;
        let status = fastboot::status(&running)?;
        for case in &taken {
            let change = &case.changes[which];
            note(case, &format!("{}, and it starts cold", change.what), is_cold(&status, case, change));
            note(case, "fastboot verify says the same", verifies_as(&running, case, change));
        }
        running.poweroff()?;
        undo.into_iter().try_for_each(Undo::apply)?;
    }

    let running = boot(&mut site, cases)?;
    let status = fastboot::status(&running)?;
    for case in &taken {
        note(case, "it is restored when all is as it was", is_restored(&status, case));
    }
    running.poweroff()
}

fn recipe() -> Recipe {
    let base = ["systemd", "systemd-sysv", "dbus", "procps", "iproute2", "passwd"];
    // One root whatever was chosen: its packages are what takes long.
    let packages = base.into_iter().chain(CASES.iter().flat_map(|case| case.packages).copied());
    let files = CASES.iter().flat_map(|case| case.files);
    Recipe {
        name: "evidence",
        suite: "trixie",
        packages: packages.collect(),
        from_sid: Vec::new(),
        files: files.map(|&(path, text)| RootFile::text(path, text)).collect(),
        setup: include_str!("../../roots/evidence/setup.sh"),
    }
}

/// Boots, and waits until every service answers.
fn boot(site: &mut Site, cases: &[&Case]) -> Result<Container> {
    let machine = site.start(&BootOptions::default())?;
    for case in cases {
        let asked = wait_until(&format!("an answer of {}", case.name), ANSWER_BOUND, || {
            case.ask.ask(&machine).map(Some)
        });
        asked.with_context(|| machine.journal(case.unit, 15))?;
    }
    machine.wait_booted(BOOT_BOUND)?;
    Ok(machine)
}

/// Leaves what each image depends on beside the logs.
fn keep_evidence(log: &Path, machine: &Container, cases: &[&Case]) -> Result<()> {
    for case in cases {
        let shown = machine.run(&["fastboot", "show", case.unit, "--evidence"])?.success()?;
        let path = log.with_extension(format!("{}.evidence", case.name));
        fs::write(&path, shown).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

fn change_path(site: &Site, change: &Change) -> Result<Undo> {
    let path = site.scratch.path(change.path);
    let was = Undo::of(&path)?;
    let done = match change.how {
        How::Append(text) => fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(text.as_bytes())),
        How::Create(text) => fs::write(&path, text),
        How::Turn(to) => fs::remove_file(&path).and_then(|()| symlink(to, &path)),
    };
    done.with_context(|| format!("changing {}", path.display()))?;
    Ok(was)
}

/// What was at a path.
enum Undo {
    Nothing(PathBuf),
    Content(PathBuf, Vec<u8>),
    Link(PathBuf, PathBuf),
}

impl Undo {
    fn of(path: &Path) -> Result<Undo> {
        let owned = path.to_owned();
        match fs::symlink_metadata(path) {
            Err(_) => Ok(Undo::Nothing(owned)),
            Ok(metadata) if metadata.is_symlink() => Ok(Undo::Link(owned, fs::read_link(path)?)),
            Ok(_) => Ok(Undo::Content(owned, fs::read(path)?)),
        }
    }

    fn apply(self) -> Result<()> {
        match self {
            Undo::Nothing(path) => fs::remove_file(path)?,
            Undo::Content(path, content) => fs::write(path, content)?,
            Undo::Link(path, target) => {
                fs::remove_file(&path)?;
                symlink(target, path)?;
            }
        }
        Ok(())
    }
}

/// Takes images of all; those of which there is one.
fn take<'a>(machine: &Container, cases: &[&'a Case], note: &mut Note<'_>) -> Result<Vec<&'a Case>> {
    let units: Vec<&str> = cases.iter().map(|case| case.unit).collect();
    let report = fastboot::snapshot_with_trial(machine, &units, &["--keep-slow"])?;
    let mut taken = Vec::new();
    for case in cases {
        let unit = report.unit(case.unit).with_context(|| format!("no word of {}", case.unit))?;
        let stored = match unit.outcome.as_str() {
            "stored" => Ok(()),
            other => Err(anyhow::anyhow!("{other}: {}", unit.reasons.join("; "))),
        };
        if note(case, "an image is taken without a drop-in", stored) {
            taken.push(*case);
        }
    }
    Ok(taken)
}

fn is_restored(status: &StatusReport, case: &Case) -> Result<()> {
    let said = status.unit(case.unit).context("fastboot status does not know it")?;
    ensure!(
        said.outcome == "restored",
        "{}: {} ({})",
        said.outcome,
        said.reason.as_deref().unwrap_or_default(),
        said.reason_code.as_deref().unwrap_or_default()
    );
    Ok(())
}

fn is_cold(status: &StatusReport, case: &Case, change: &Change) -> Result<()> {
    let said = status.unit(case.unit).context("fastboot status does not know it")?;
    let reason = said.reason.as_deref().unwrap_or_default();
    ensure!(said.outcome == "cold", "it is {}", said.outcome);
    ensure!(reason.contains(change.named), "the reason is {reason:?} and does not name {}", change.named);
    let code = said.reason_code.as_deref().unwrap_or_default();
    ensure!(code.starts_with("file-"), "the code is {code:?}");
    Ok(())
}

fn verifies_as(machine: &Container, case: &Case, change: &Change) -> Result<()> {
    let said = machine.run(&["fastboot", "verify", case.unit])?;
    if said.code != Some(3) {
        bail!("exit code {:?}: {}{}", said.code, said.stdout, said.stderr);
    }
    // A table breaks long lines.
    let text: String = said.stdout.split_whitespace().collect();
    ensure!(text.contains(change.named), "it does not name {}: {}", change.named, said.stdout);
    Ok(())
}
