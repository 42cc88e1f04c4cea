//! The snapshot path: `inspect → restart in the band → warm up → settle → freeze → collect → thaw →
//! encode → store → trial → publish`, each phase over all units before the next begins.
//!
//! A unit that is refused or fails in one phase leaves the path there, with its reasons in its row;
//! the others go on. What undoes a phase stands beside it: a frozen tree that is dropped runs on,
//! an image writer that is dropped leaves no file, a generation that is not committed leaves no
//! directory, a band that is left gives new processes ordinary numbers. The rename of the catalogue
//! in the last phase is the only commit.

mod candidate;
mod empty_store;
mod forecast;
pub(crate) mod image;
mod kernel;
pub(crate) mod observe;
mod plan;
mod preflight;
pub(crate) mod trial;
mod witness;

pub use candidate::Candidate;
pub use forecast::ColdBy;
pub use plan::{Plan, PlanRow, plan};
pub use preflight::{Absence, Before, preflight};

use crate::unit::{Band, Interrupt, Patience, Systemd};
use empty_store::EmptyStores;
use image_store::evidence::{Digests, Scope};
use image_store::{CatalogueEntry, MachineEvidence, Store, fault};
use kernel::KernelClaim;
use serde::Serialize;
use snap_bus::BusWatch;
use snap_error::{CodedReason, Error, Kind, Result, ServiceFault, UnitObstacle};
use snap_policy::{Identity, Unit};
use std::cell::Cell;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;

use witness::{Earlier, Witness};

/// What the operator asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Restart each unit in the band first; otherwise the running instance is taken as it is.
    pub restart: bool,
    /// How long each unit is waited for until it is quiet, and whether the operator still wants all
    /// this.
    pub patience: Patience,
    /// Shell command to run once, when all units are up.
    pub warm_up: Option<String>,
    pub trial: TrialPolicy,
    /// Which machines will use the images. Those of [`Scope::EqualMachines`] are restarted and
    /// tried: else nobody has seen what they read, or how they are started.
    pub scope: Scope,
}

impl Options {
    /// Whether each image is used once before it is published. Without a restart there is nothing
    /// to compare with.
    fn is_tried(&self) -> bool {
        self.trial != TrialPolicy::None && self.restart
    }
}

/// What a trial restore decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrialPolicy {
    /// There is none.
    None,
    /// An image that cannot be restored is not kept.
    KeepSlow,
    /// Nor is one that gains nothing.
    KeepWorth,
}

/// A part of the path that has a progress bar of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Inspect,
    Restart,
    WarmUp,
    Settle,
    Image,
    Trial,
    Publish,
}

/// What happens now.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    pub phase: Phase,
    /// Unit or command.
    pub what: &'a str,
    /// From 0.
    pub index: usize,
    /// Steps in this phase.
    pub of: usize,
    /// What has been written in it.
    pub bytes: u64,
}

/// How it ended for one unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Stored,
    /// It can be restored, but not faster than it starts. It runs on.
    Pointless,
    /// It cannot be carried, or not safely. It runs on.
    Refused,
    /// Something went wrong. It runs on, unless it was its restart that failed.
    Failed,
}

/// One unit in the result. What was not reached is `None`.
#[derive(Clone, Debug, Serialize)]
pub struct UnitReport {
    pub unit: String,
    pub outcome: Outcome,
    /// Why it was not stored; all of them.
    pub reasons: Vec<String>,
    /// The same with their codes (`docs/reasons.md`).
    pub obstacles: Vec<CodedReason>,
    /// What its owner should know all the same.
    pub notes: Vec<String>,
    pub image_bytes: Option<u64>,
    pub pages: Option<u64>,
    pub processes: Option<usize>,
    pub threads: Option<usize>,
    /// How long it stood still.
    pub freeze_ms: Option<f64>,
    pub main_pid: Option<i32>,
    pub cold_start_ms: Option<f64>,
    pub cold_cpu_ms: Option<f64>,
    /// The trial restore, and what it gains over the cold start.
    pub restore_ms: Option<f64>,
    pub gain_ms: Option<f64>,
}

impl UnitReport {
    fn ended(unit: &str, error: &Error) -> Self {
        let outcome = Self::outcome_of(error);
        let obstacles = error.reasons();
        Self {
            unit: unit.to_owned(),
            outcome,
            reasons: obstacles.iter().map(|obstacle| obstacle.reason.clone()).collect(),
            obstacles,
            notes: Vec::new(),
            image_bytes: None,
            pages: None,
            processes: None,
            threads: None,
            freeze_ms: None,
            main_pid: None,
            cold_start_ms: None,
            cold_cpu_ms: None,
            restore_ms: None,
            gain_ms: None,
        }
    }

    fn outcome_of(error: &Error) -> Outcome {
        match error.kind() {
            Kind::Unsupported => Outcome::Refused,
            _ => Outcome::Failed,
        }
    }

    /// What else is known of a unit whose image is not kept.
    fn not_kept(self, outcome: Outcome, obstacles: Vec<CodedReason>) -> Self {
        let reasons = obstacles.iter().map(|obstacle| obstacle.reason.clone()).collect();
        Self { outcome, reasons, obstacles, image_bytes: None, ..self }
    }
}

/// The whole result.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// `None`: nothing was published, the catalogue is as it was.
    pub generation: Option<u64>,
    /// The images are for all machines that are equal to this one.
    pub golden: bool,
    /// In the order in which the units were named.
    pub units: Vec<UnitReport>,
    /// Those that were restarted and do not run any more.
    pub down: Vec<String>,
}

/// Takes snapshots of units.
///
/// # Errors
/// Only what concerns all units: no bus, no store, another snapshot at work. What concerns one is
/// in its row.
pub fn snapshot(
    store: &Store,
    names: &[String],
    options: &Options,
    progress: &mut dyn FnMut(Step<'_>),
) -> Result<Report> {
    let _lock = store.lock()?;
    // Permits of a snapshot that was killed count again as soon as somebody holds the lock.
    trial::forget_permits()?;
    let pending = store.begin_generation()?;
    let catalogue = store.load()?;
    let systemd = Systemd::connect()?;
    trial::record_boot_without_images()?;
    EmptyStores::clear()?;
    let machine = MachineEvidence::collect(std::path::Path::new("/"))?;
    if options.scope == Scope::ThisMachine && machine.machine_id.is_empty() {
        return Err(UnitObstacle::NoMachineId.into());
    }
    let mut path = Path {
        rows: Vec::new(),
        interrupt: options.patience.interrupt.clone(),
        written: Rc::default(),
        progress,
    };

    let names: Vec<(String, ())> = names.iter().map(|name| (name.clone(), ())).collect();
    let order: Vec<String> = names.iter().map(|(name, ())| name.clone()).collect();
    let mut units = path.each(Phase::Inspect, names, |name, ()| {
        let mut candidate = Candidate::look(&systemd, name)?;
        candidate.inspect_lasting()?;
        candidate.note_earlier(&catalogue);
        point("snapshot.inspect")?;
        Ok(candidate)
    });
    // Who came up first is likely to be needed by the others, and its restart may restart them too.
    units.sort_by_key(|(_, unit)| unit.properties().active_enter_us);
    units.dedup_by(|(_, a), (_, b)| a.properties().id == b.properties().id);

    // Rules and flags of names can be heard while they are made, not asked for later.
    let watch = BusWatch::start().map(Arc::new).map_err(|error| error.to_stale_reason());
    // New processes are numbered in the band until the last tree is frozen: daemons go on making
    // threads long after they are ready, most of all under the warm-up. What else starts meanwhile
    // gets a high number too, which does no harm.
    let band = match options.restart && !units.is_empty() {
        true => {
            let kept = catalogue.newest_images().into_iter();
            let taken: Vec<i32> = kept.flat_map(|(_, entry)| entry.service.pids.iter().copied()).collect();
            Some(Band::enter(pending.id(), &taken)?)
        }
        false => None,
    };
    let witness = Witness::call(band.as_ref());
    units.iter().for_each(|(_, unit)| witness.watch(&unit.properties().control_group));
    let mut stores = None;
    let mut restarted = Vec::new();
    if let Some(band) = &band {
        let keeping = units
            .iter()
            .map(|(_, unit)| unit.properties())
            .filter(|unit| unit.may_store() && !unit.store_preserved.is_empty());
        let keeping: Vec<&str> = keeping.map(|unit| unit.id.as_str()).collect();
        stores = Some(EmptyStores::begin(&systemd, &keeping)?);
        units = path.each(Phase::Restart, units, |name, mut unit| {
            restarted.push((name.to_owned(), unit.properties().id.clone()));
            unit.restart(&systemd, band, &witness, &options.patience)?;
            band.leave_gap()?;
            point("snapshot.restart")?;
            Ok(unit)
        });
        witness.end_starts()?;
        let of_all = units.iter().flat_map(|(_, unit)| unit.made_by_start().iter().cloned()).collect();
        units = path.each(Phase::Restart, units, |_, mut unit| {
            unit.all_have_started(&of_all)?;
            Ok(unit)
        });
    }
    units = path.warm_up(units, options.warm_up.as_deref());
    units = path.settle(units, &systemd, &options.patience);

    units.iter_mut().for_each(|(_, unit)| unit.record_bus(&watch));
    let digests = Digests::default();
    let context = image::Context {
        systemd: &systemd,
        witness: &witness,
        digests: &digests,
        band: band.as_ref(),
        earlier: Earlier { store, catalogue: &catalogue },
        is_tried: options.is_tried(),
        scope: options.scope,
    };
    let written = Rc::clone(&path.written);
    let images = path.each(Phase::Image, units, |_, unit| {
        let ask = unit.unit().options().warm_up.clone();
        let text = unit.unit().clone();
        let image = image::take(context, &pending, unit)?;
        let image::Image { entry, row, as_taken, kernel } = image;
        written.set(written.get() + entry.len_bytes);
        Ok(Taken { entry, row, ask, as_taken, kernel, text })
    });
    drop(witness);
    if let Some(band) = band {
        band.leave()?;
    }
    // Not before: systemd 257 drops rules of running units (SocketBindDeny=) at every other reload,
    // and nothing of that may get into an image.
    stores.map_or(Ok(()), EmptyStores::end)?;

    let images = path.trial(images, &systemd, options);
    let (entries, stored): (Vec<CatalogueEntry>, Vec<UnitReport>) = images.into_iter().unzip();
    let generation = path.publish(pending, entries, stored);
    let place = |row: &UnitReport| order.iter().position(|name| *name == row.unit).unwrap_or(order.len());
    path.rows.sort_by_key(place);
    let golden = options.scope == Scope::EqualMachines;
    let runs = |id: &str| systemd.active_state(id).is_ok_and(|state| state == "active");
    let down = restarted.into_iter().filter(|(_, id)| !runs(id)).map(|(name, _)| name).collect();
    Ok(Report { generation, golden, units: path.rows, down })
}

/// A fault point of the snapshot path, for tests.
fn point(name: &'static str) -> Result<()> {
    fault::point(name).map_err(|_| ServiceFault::Injected { point: name }.into())
}

/// A unit whose image is on the disk, and not yet in force.
struct Taken {
    entry: CatalogueEntry,
    row: UnitReport,
    /// The unit's own warm-up command.
    ask: Option<String>,
    as_taken: image::AsTaken,
    /// What it has made in the kernel outside of its processes.
    kernel: Option<KernelClaim>,
    text: Unit,
}

/// Rows so far, and who is told what happens.
struct Path<'p> {
    rows: Vec<UnitReport>,
    interrupt: Interrupt,
    /// Bytes of images so far.
    written: Rc<Cell<u64>>,
    progress: &'p mut dyn FnMut(Step<'_>),
}

impl Path<'_> {
    /// One phase over all units; those that do not come through it get their row.
    fn each<T, U>(
        &mut self,
        phase: Phase,
        units: Vec<(String, T)>,
        mut step: impl FnMut(&str, T) -> Result<U>,
    ) -> Vec<(String, U)> {
        let of = units.len();
        let mut through = Vec::with_capacity(of);
        for (index, (name, unit)) in units.into_iter().enumerate() {
            let bytes = self.written.get();
            (self.progress)(Step { phase, what: &name, index, of, bytes });
            match self.interrupt.check().and_then(|()| step(&name, unit)) {
                Ok(unit) => through.push((name, unit)),
                Err(error) => self.rows.push(UnitReport::ended(&name, &error)),
            }
        }
        through
    }

    /// The operator's command once, then what the units themselves ask for.
    fn warm_up(
        &mut self,
        units: Vec<(String, Candidate)>,
        command: Option<&str>,
    ) -> Vec<(String, Candidate)> {
        if let Some(command) = command.filter(|_| !units.is_empty()) {
            (self.progress)(Step { phase: Phase::WarmUp, what: command, index: 0, of: 1, bytes: 0 });
            if let Err(error) = self.interrupt.check().and_then(|()| run_shell(command, None)) {
                self.rows.extend(units.iter().map(|(name, _)| UnitReport::ended(name, &error)));
                return Vec::new();
            }
        }
        let (asking, mut done): (Vec<_>, Vec<_>) =
            units.into_iter().partition(|(_, unit)| unit.unit().options().warm_up.is_some());
        done.extend(self.each(Phase::WarmUp, asking, |name, unit| {
            run_shell(unit.unit().options().warm_up.as_deref().unwrap_or_default(), Some(name))?;
            Ok(unit)
        }));
        done
    }

    /// Waits for all units at the same time.
    fn settle(
        &mut self,
        units: Vec<(String, Candidate)>,
        systemd: &Systemd,
        patience: &Patience,
    ) -> Vec<(String, Candidate)> {
        let of = units.len();
        if let Some((name, _)) = units.first() {
            (self.progress)(Step { phase: Phase::Settle, what: name, index: 0, of, bytes: 0 });
        }
        let waited = std::thread::scope(|scope| {
            let wait = |(name, mut unit): (String, Candidate)| {
                scope.spawn(move || {
                    let settled = unit.refresh(systemd).and_then(|()| {
                        let settled = unit.settle(systemd, patience)?;
                        point("snapshot.settle")?;
                        Ok(settled)
                    });
                    (name, unit, settled)
                })
            };
            let waiting: Vec<_> = units.into_iter().map(wait).collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            waiting.into_iter().map(join).collect::<Vec<_>>()
        });
        let mut through = Vec::with_capacity(of);
        for (name, mut unit, settled) in waited {
            match settled {
                Ok(settled) => {
                    if !settled.quiet {
                        unit.note(format!("still busy after {} s", patience.longest.as_secs()));
                    }
                    through.push((name, unit));
                }
                Err(error) => self.rows.push(UnitReport::ended(&name, &error)),
            }
        }
        through
    }

    /// Uses each image once, as a boot would, and asks what was asked before the images were taken.
    /// Without a restart there is no unit to try it with.
    fn trial(
        &mut self,
        images: Vec<(String, Taken)>,
        systemd: &Systemd,
        options: &Options,
    ) -> Vec<(CatalogueEntry, UnitReport)> {
        let images: Vec<Taken> = images.into_iter().map(|(_, image)| image).collect();
        let untried = |images: Vec<Taken>| images.into_iter().map(|image| (image.entry, image.row)).collect();
        if !options.is_tried() || images.is_empty() {
            return untried(images);
        }
        let of = images.len();
        let entries: Vec<&CatalogueEntry> = images.iter().map(|image| &image.entry).collect();
        let trial = match trial::Trial::begin(systemd, &entries) {
            Ok(trial) => trial,
            Err(error) => {
                self.drop_images(images, "no trial restore could be made", &error);
                return Vec::new();
            }
        };
        let mut kept = Vec::with_capacity(of);
        for (index, mut image) in images.into_iter().enumerate() {
            let entry = &mut image.entry;
            (self.progress)(Step { phase: Phase::Trial, what: &entry.unit, index, of, bytes: 0 });
            let ask = || image.ask.as_deref().map_or(Ok(()), |ask| run_shell(ask, Some(&entry.unit)));
            if let Err(error) = self.interrupt.check() {
                self.rows.push(image.row.not_kept(Outcome::Failed, error.reasons()));
                continue;
            }
            let tried = kernel::around(systemd, &image.text, image.kernel.as_mut(), || {
                trial.restore(entry, &image.as_taken, &options.patience, ask)
            });
            let tried = match tried {
                Ok(tried) => tried,
                Err(error) => {
                    let outcome = UnitReport::outcome_of(&error);
                    self.rows.push(image.row.not_kept(outcome, error.reasons()));
                    continue;
                }
            };
            let restored_ms = tried.restored_ms;
            let mut start = tried.start;
            if options.scope == Scope::EqualMachines && image.text.options().identity != Identity::Refuse {
                start.forget_host_name();
            }
            entry.start = Some(start);
            entry.service.restore_ms = Some(restored_ms);
            image.row.restore_ms = Some(restored_ms);
            image.row.gain_ms = entry.service.cold_start_ms.map(|cold_ms| cold_ms - restored_ms);
            kept.push(image);
        }
        if let Some(command) =
            options.warm_up.as_deref().filter(|_| !kept.is_empty() && !self.interrupt.is_asked())
        {
            (self.progress)(Step { phase: Phase::WarmUp, what: command, index: 0, of: 1, bytes: 0 });
            let asked = run_shell(command, None);
            // Those that have ended over it are named; without any it cannot be told which image is
            // at fault.
            let before = kept.len();
            kept.retain(|image| match trial.stays(&image.entry) {
                Ok(()) => true,
                Err(error) => {
                    self.rows.push(image.row.clone().not_kept(Outcome::Failed, error.reasons()));
                    false
                }
            });
            match asked {
                Err(error) if kept.len() == before => {
                    self.drop_images(kept, "asked again after the trial restores", &error);
                    return Vec::new();
                }
                _ => {}
            }
        }
        if options.trial == TrialPolicy::KeepWorth {
            untried(self.worth(kept))
        } else {
            kept.iter_mut().for_each(|image| {
                let figures = pointless(&image.row).map(|figures| figures.to_string());
                image.row.notes.extend(figures);
            });
            untried(kept)
        }
    }

    fn drop_images(&mut self, images: Vec<Taken>, step: &str, error: &Error) {
        let reason = CodedReason { code: error.code(), reason: format!("{step}: {error}"), passes: false };
        let failed = |image: Taken| image.row.not_kept(Outcome::Failed, vec![reason.clone()]);
        self.rows.extend(images.into_iter().map(failed));
    }

    /// Without those that gain nothing.
    fn worth(&mut self, images: Vec<Taken>) -> Vec<Taken> {
        let mut kept = Vec::with_capacity(images.len());
        for image in images {
            match pointless(&image.row) {
                Some(figures) => {
                    self.rows.push(image.row.not_kept(Outcome::Pointless, vec![(&figures).into()]))
                }
                None => kept.push(image),
            }
        }
        kept
    }

    /// Puts the new images in force, all at once or none.
    fn publish(
        &mut self,
        pending: image_store::PendingGeneration,
        entries: Vec<CatalogueEntry>,
        stored: Vec<UnitReport>,
    ) -> Option<u64> {
        if entries.is_empty() {
            return None;
        }
        (self.progress)(Step { phase: Phase::Publish, what: "catalogue", index: 0, of: 1, bytes: 0 });
        let wanted = self.interrupt.check().and_then(|()| point("snapshot.publish"));
        match wanted.and_then(|()| Ok(pending.commit(entries)?)) {
            Ok(generation) => {
                self.rows.extend(stored);
                Some(generation.id)
            }
            Err(error) => {
                let failed =
                    |row: UnitReport| UnitReport { notes: row.notes, ..UnitReport::ended(&row.unit, &error) };
                self.rows.extend(stored.into_iter().map(failed));
                None
            }
        }
    }
}

/// The figures of an image that gains nothing.
fn pointless(row: &UnitReport) -> Option<UnitObstacle> {
    let (cold_ms, restored_ms) = row.cold_start_ms.zip(row.restore_ms)?;
    let worth = trial::is_worth(cold_ms, restored_ms);
    let whole = |ms: f64| ms.round_ties_even() as u64;
    (!worth).then(|| UnitObstacle::GainsNothing { restored_ms: whole(restored_ms), cold_ms: whole(cold_ms) })
}

/// `sh -c`; what it prints goes to our stderr.
fn run_shell(command: &str, unit: Option<&str>) -> Result<()> {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", command]).stdin(Stdio::null()).stdout(std::io::stderr());
    shell.envs(unit.map(|unit| ("UNIT", unit)));
    let status = shell.status().map_err(|e| Error::io("run warm-up command", command, &e))?;
    if !status.success() {
        return Err(ServiceFault::WarmUpFailed { command: command.to_owned(), status }.into());
    }
    point("snapshot.warm-up")
}
