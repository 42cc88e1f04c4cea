//! One group from its root to its verdicts.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::Options;
use super::daemon::Daemon;
use super::facts::Facts;
use super::group_site::{Booted, GroupSite, wait_for};
use super::list::Group;
use super::state::State;
use super::verdict::{Seen, Verdict};
use crate::fastboot::{self, SnapshotReport, SnapshotUnit, StatusReport};
use crate::service::{install_fastboot, snapshot_while};

/// Longest for an answer of a service that runs.
const SOON: Duration = Duration::from_secs(30);

/// What a group needs.
#[derive(Debug)]
pub(super) struct GroupRun<'a> {
    pub(super) group: &'a Group,
    pub(super) release: &'a Path,
    pub(super) options: &'a Options,
}

/// What came of a group.
#[derive(Debug)]
pub(super) struct Outcomes {
    pub(super) verdicts: Vec<Verdict>,
    /// What went wrong with the machine as a whole.
    pub(super) problems: Vec<String>,
}

/// One service on its way.
#[derive(Debug)]
struct Subject {
    daemon: &'static Daemon,
    seen: Seen,
    /// As a cold start has it.
    cold: Option<Facts>,
    /// At the moment of its image.
    taken: Option<Facts>,
    /// How it stops when fastboot has never been near it.
    stops: String,
    /// It has an image, in which this stands.
    stored: Option<State>,
}

impl Subject {
    fn note(&mut self, what: &str, result: Result<()>) {
        if let Err(error) = result {
            println!("  WRONG {}: {what}: {error:#}", self.daemon.name);
            self.seen.problems.push(format!("{what}: {error:#}"));
        }
    }
}

impl GroupRun<'_> {
    pub(super) fn run(&self) -> Result<Outcomes> {
        let mut site = GroupSite::new(self.group)?;
        let (mut subjects, broken) = self.provision(&mut site)?;
        let mut problems = Vec::new();
        for _ in 1..self.options.runs {
            let booted = site.boot(&daemons(&subjects))?;
            note_cold_times(&mut subjects, &booted);
            booted.poweroff()?;
        }
        install_fastboot(self.release, &site.machine.scratch)?;
        let failed = take(&mut site, &mut subjects)?;
        for number in 1..=self.options.runs {
            let booted = site.boot(&daemons(&subjects))?;
            let status = fastboot::status(&booted.machine)?;
            booted.note("status", &format!("{status:#?}\n"))?;
            look_at_restored(&mut subjects, &booted, &status);
            let new = booted.failed_units()?.into_iter().filter(|unit| !failed.contains(unit));
            problems.extend(new.map(|unit| format!("{unit} failed in a boot with images")));
            if number == self.options.runs {
                take_again(&mut subjects, &booted, &status)?;
                stop_and_start(&mut subjects, &booted)?;
            }
            booted.poweroff()?;
        }
        if self.options.keep {
            println!("root: {}", site.machine.scratch.keep()?.display());
        }
        let verdict = |subject: Subject| Verdict::of(subject.daemon, self.group.name, subject.seen);
        Ok(Outcomes { verdicts: subjects.into_iter().chain(broken).map(verdict).collect(), problems })
    }

    /// The first boot of a machine writes much that no later one writes. The second list is
    /// of those that do not work here: nothing can be learned from them.
    fn provision(&self, site: &mut GroupSite) -> Result<(Vec<Subject>, Vec<Subject>)> {
        let daemons = &self.group.daemons;
        let scripts: Vec<&str> =
            daemons.iter().map(|daemon| daemon.provision).filter(|script| !script.is_empty()).collect();
        let booted = site.boot_and_provision(daemons, &scripts)?;
        let stops = booted.stop(daemons)?;
        let (mut subjects, mut broken) = (Vec::new(), Vec::new());
        for ((daemon, stops), answer) in daemons.iter().zip(stops).zip(&booted.answers) {
            let mut subject =
                Subject { daemon, seen: Seen::default(), cold: None, taken: None, stops, stored: None };
            match answer {
                Ok(_) => subjects.push(subject),
                Err(error) => {
                    let journal = booted.machine.journal(daemon.unit, 15);
                    subject.note("in the new machine", Err(anyhow::anyhow!("{error:#}\n{journal}")));
                    broken.push(subject);
                }
            }
        }
        booted.poweroff()?;
        Ok((subjects, broken))
    }
}

fn daemons(subjects: &[Subject]) -> Vec<&'static Daemon> {
    subjects.iter().map(|subject| subject.daemon).collect()
}

/// Times of a boot without images; a service that does not answer in it is no subject.
fn note_cold_times(subjects: &mut [Subject], booted: &Booted) {
    for (subject, answer) in subjects.iter_mut().zip(&booted.answers) {
        match answer {
            Ok(ms) => subject.seen.cold_ms.push(*ms),
            Err(error) => subject.note("cold boot", Err(anyhow::anyhow!("{error:#}"))),
        }
    }
}

/// The boot in which the images are taken. Returns the units that failed in it without our doing.
fn take(site: &mut GroupSite, subjects: &mut [Subject]) -> Result<Vec<String>> {
    let booted = site.boot(&daemons(subjects))?;
    let machine = &booted.machine;
    note_cold_times(subjects, &booted);
    let failed = booted.failed_units()?;
    for subject in subjects.iter_mut() {
        let result = Facts::of(machine, subject.daemon.unit).map(|facts| subject.cold = Some(facts));
        subject.note("looking at the cold start", result);
        subject.note("cold start", require_forgotten(subject.daemon, &booted));
    }

    let units: Vec<&str> = subjects.iter().map(|subject| subject.daemon.unit).collect();
    let mut told = Vec::new();
    // Once before the images are taken, and once of what was restored from them for trial.
    let report = snapshot_while(&site.machine.scratch, machine, &units, "--keep-slow", || {
        told.push(tell_all(subjects, &booted));
        Ok(())
    })?;
    booted.note("snapshot", &format!("{report:#?}\n"))?;
    for (told, when) in told.into_iter().zip(["restarted for the snapshot", "restored for trial"]) {
        for (subject, told) in subjects.iter_mut().zip(told) {
            // One that does not bear it is refused for that, below.
            if when == "restarted for the snapshot" || is_stored(&report, subject) {
                subject.note(when, told);
            }
        }
    }
    for subject in subjects.iter_mut() {
        let name = subject.daemon.unit;
        match report.unit(name) {
            Some(unit) if unit.outcome == "stored" => {
                subject.seen.image_bytes = unit.image_bytes;
                let recorded = State::of(machine, name).map(|state| subject.stored = Some(state));
                subject.note("reading its image", recorded);
            }
            Some(unit) if unit.outcome == "refused" || is_trial(unit) => {
                subject.seen.refusals.clone_from(&unit.reasons);
            }
            Some(unit) => subject.note("snapshot", Err(anyhow::anyhow!("{}", unit.reasons.join("; ")))),
            None => subject.note("snapshot", Err(anyhow::anyhow!("no word of it"))),
        }
        // Taken or not, it runs on as it did.
        subject.note("after the snapshot", answers(subject.daemon, &booted));
        let result = Facts::of(machine, name).map(|facts| subject.taken = Some(facts));
        subject.note("looking at it after the snapshot", result);
        let stands = stands(subject);
        subject.note("after the snapshot", stands);
    }
    let stops = booted.stop(&daemons(subjects))?;
    note_stops(subjects, "stopped after the snapshot", &stops);
    booted.poweroff()?;
    Ok(failed)
}

fn is_stored(report: &SnapshotReport, subject: &Subject) -> bool {
    report.unit(subject.daemon.unit).is_some_and(|unit| unit.outcome == "stored")
}

/// The image was made and did not work.
fn is_trial(unit: &SnapshotUnit) -> bool {
    unit.outcome == "failed" && unit.reasons.iter().any(|reason| reason.starts_with("trial restore: "))
}

/// All at once: the snapshot's warm-up command does not wait for ever.
fn tell_all(subjects: &[Subject], booted: &Booted) -> Vec<Result<()>> {
    std::thread::scope(|scope| {
        let tell = |subject: &Subject| {
            let daemon = subject.daemon;
            scope.spawn(move || tell(daemon, booted))
        };
        let threads: Vec<_> = subjects.iter().map(tell).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

/// Ask a service, and put into its memory what is to be found there later.
fn tell(daemon: &Daemon, booted: &Booted) -> Result<()> {
    answers(daemon, booted)?;
    match daemon.memory {
        Some(memory) => {
            memory.put.ask(&booted.machine).context("filling its memory")?;
            memory.shows.ask(&booted.machine).context("what was put into its memory")
        }
        None => Ok(()),
    }
}

fn answers(daemon: &Daemon, booted: &Booted) -> Result<()> {
    let answer = wait_for(&booted.machine, daemon.ask, SOON);
    answer.map(drop).with_context(|| booted.machine.journal(daemon.unit, 15))
}

/// A service that was started cold does not know what was put into an earlier one.
fn require_forgotten(daemon: &Daemon, booted: &Booted) -> Result<()> {
    match daemon.memory {
        Some(memory) if memory.shows.ask(&booted.machine).is_ok() => {
            bail!("it knows what only another life of it was told")
        }
        _ => Ok(()),
    }
}

/// After the snapshot the unit stands as it did before.
fn stands(subject: &Subject) -> Result<()> {
    let (Some(cold), Some(taken)) = (&subject.cold, &subject.taken) else { return Ok(()) };
    taken.require_stands_as(cold, taken)
}

/// A boot with images: each service is what `fastboot status` says, and none is worse off than by a
/// cold boot.
fn look_at_restored(subjects: &mut [Subject], booted: &Booted, status: &StatusReport) {
    for (subject, answer) in subjects.iter_mut().zip(&booted.answers) {
        let unit = subject.daemon.unit;
        let said = status.unit(unit);
        let restored = said.is_some_and(|said| said.outcome == "restored");
        match answer {
            Ok(ms) if restored => subject.seen.restored_ms.push(*ms),
            Ok(_) => {}
            Err(error) => {
                let journal = booted.machine.journal(unit, 15);
                subject.note("boot with images", Err(anyhow::anyhow!("{error:#}\n{journal}")));
            }
        }
        match said {
            Some(said) if !restored => subject.seen.cold_reasons.push(format!(
                "{}: {}",
                said.reason_code.as_deref().unwrap_or("no code"),
                said.reason.as_deref().unwrap_or("no reason given")
            )),
            None if subject.stored.is_some() => {
                let why = status.error.as_deref().unwrap_or("fastboot status does not name it");
                subject.note("boot with images", Err(anyhow::anyhow!("{why}")));
            }
            _ => {}
        }
        let proof = prove(subject, booted, restored);
        subject.note(if restored { "restored" } else { "started cold" }, proof);
    }
    // Long enough after the restore for one that dies of it.
    for subject in subjects.iter_mut() {
        subject.note("a while after the boot", answers(subject.daemon, booted));
    }
}

fn prove(subject: &mut Subject, booted: &Booted, restored: bool) -> Result<()> {
    let (Some(cold), Some(taken)) = (&subject.cold, &subject.taken) else { return Ok(()) };
    let now = Facts::of(&booted.machine, subject.daemon.unit)?;
    if restored {
        ensure!(subject.stored.is_some(), "it has no image, and fastboot status says that it is restored");
        taken.require_same_life(&now)?;
        now.require_stands_as(cold, taken)?;
        if let Some(memory) = subject.daemon.memory {
            memory.shows.ask(&booted.machine).context("what was put into its memory is gone")?;
            subject.seen.memory_kept = true;
        }
        Ok(())
    } else {
        now.require_stands_as(cold, taken)?;
        require_forgotten(subject.daemon, booted)
    }
}

/// A second image, of what runs restored, says what the first one said.
fn take_again(subjects: &mut [Subject], booted: &Booted, status: &StatusReport) -> Result<()> {
    let is_restored = |subject: &&mut Subject| {
        status.unit(subject.daemon.unit).is_some_and(|said| said.outcome == "restored")
    };
    let restored: Vec<&mut Subject> = subjects.iter_mut().filter(is_restored).collect();
    if restored.is_empty() {
        return Ok(());
    }
    let units: Vec<&str> = restored.iter().map(|subject| subject.daemon.unit).collect();
    let report = fastboot::snapshot(&booted.machine, &units, &["--no-restart"])?;
    booted.note("snapshot", &format!("{report:#?}\n"))?;
    for subject in restored {
        let same = match report.unit(subject.daemon.unit) {
            Some(unit) if unit.outcome == "stored" => State::of(&booted.machine, subject.daemon.unit)
                .and_then(|second| {
                    subject
                        .stored
                        .as_ref()
                        .map_or(Ok(()), |first| first.require_same(&second, subject.daemon.goes_on))
                }),
            // Which flags a name has on the bus can only be heard while it is asked for.
            Some(unit) if unit.reasons.iter().all(|reason| reason.contains("before it was watched")) => {
                Ok(())
            }
            Some(unit) => Err(anyhow::anyhow!("{}: {}", unit.outcome, unit.reasons.join("; "))),
            None => Err(anyhow::anyhow!("no word of it")),
        };
        subject.note("a second image", same);
    }
    Ok(())
}

/// It stops as a cold-started one does, and the next start is cold and works.
fn stop_and_start(subjects: &mut [Subject], booted: &Booted) -> Result<()> {
    let stops = booted.stop(&daemons(subjects))?;
    note_stops(subjects, "stopped", &stops);
    let answers = booted.start(&daemons(subjects))?;
    for (subject, answer) in subjects.iter_mut().zip(answers) {
        subject.note("stopped and started", answer);
        subject.note("stopped and started", require_forgotten(subject.daemon, booted));
    }
    Ok(())
}

fn note_stops(subjects: &mut [Subject], when: &str, stops: &[String]) {
    for (subject, stop) in subjects.iter_mut().zip(stops) {
        let result = match *stop == subject.stops {
            true => Ok(()),
            false => Err(anyhow::anyhow!("it ended as {stop} and not as {}", subject.stops)),
        };
        subject.note(when, result);
    }
}
