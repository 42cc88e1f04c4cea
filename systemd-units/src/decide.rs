//! The decision: for which units does the shim go in front of the command?
//!
//! Nothing is written here, and nothing outside `root` is looked at.

use std::path::Path;

use fastboot_runtime::{GeneratorRecord, NamedReason, UnitDecision, UnitStatus, stale_reason};
use image_store::evidence::OWN_DROP_IN;
use image_store::{
    Catalogue, CatalogueEntry, MachineEvidence, OnceGeneration, ReasonCode, StaleReason, SystemdEvidence,
    UnitEvidence,
};
use snap_policy::{Mode, Reason, StartBudget, StartTimes, Surroundings, judge};

use crate::drop_in::{self, DropIn};
use crate::search::{NoText, UnitDirs, UnitFiles, is_executable, under};

/// Everything that a decision rests on.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// `/`, except in tests.
    pub root: &'a Path,
    /// What is in the unit directories.
    pub dirs: &'a UnitDirs,
    /// The machine as it is now.
    pub machine: &'a MachineEvidence,
    /// The systemd that runs now, where it can be looked at.
    pub systemd: Option<&'a SystemdEvidence>,
    /// Path of the shim.
    pub shim: &'a str,
    /// The kernel has AppArmor.
    pub has_apparmor: bool,
    /// How often userspace has begun anew since the kernel was booted.
    pub soft_reboots: u64,
}

/// Why a unit is left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftAlone {
    /// As a reason against its image.
    pub reason: StaleReason,
    /// What the judge has against the unit itself; empty where it is something else.
    pub obstacles: Vec<NamedReason>,
}

impl From<StaleReason> for LeftAlone {
    fn from(reason: StaleReason) -> LeftAlone {
        LeftAlone { reason, obstacles: Vec::new() }
    }
}

impl From<Vec<Reason>> for LeftAlone {
    fn from(reasons: Vec<Reason>) -> LeftAlone {
        let none = || StaleReason::new(ReasonCode::HostUnsupported, "it cannot be restored");
        let reason = stale_reason(&reasons).unwrap_or_else(none);
        LeftAlone { reason, obstacles: reasons.iter().map(NamedReason::from).collect() }
    }
}

/// Decide for every unit of the catalogue: the first run of a boot.
pub fn decide(inputs: &Inputs<'_>, catalogue: &Catalogue) -> GeneratorRecord {
    let images = catalogue.newest_images();
    let units = images.into_iter().map(|(_, entry)| of_unit(entry, decide_unit(inputs, entry, Mode::Golden)));
    GeneratorRecord::new(units.collect())
}

/// Decide for every unit that was taken when the machine went down. Its golden image, if there is
/// one, is not used in the place of that.
pub fn decide_once(inputs: &Inputs<'_>, generation: &OnceGeneration, record: &mut GeneratorRecord) {
    for image in &generation.images {
        let entry = &image.entry;
        record.units.retain(|unit| unit.unit != entry.unit);
        record.units.push(of_unit(entry, decide_unit(inputs, entry, Mode::FastRestart)));
    }
    record.units.sort_by(|a, b| a.unit.cmp(&b.unit));
}

fn of_unit(entry: &CatalogueEntry, decided: Result<DropIn, LeftAlone>) -> UnitDecision {
    match decided {
        Ok(drop_in) => UnitDecision {
            armed: true,
            service_type: Some(drop_in.service_type.as_str().to_owned()),
            drop_in: Some(drop_in.text),
            ..decision_on(entry)
        },
        Err(LeftAlone { reason, obstacles }) => UnitDecision {
            reason_code: Some(reason.code),
            reason: Some(reason.sentence),
            obstacles,
            ..decision_on(entry)
        },
    }
}

/// Units whose images a snapshot is trying right now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OnTrial {
    /// Texts of drop-ins, by unit.
    pub drop_ins: Vec<(String, String)>,
    /// Units that are left alone, in the place of the restore daemon's word: it will not be asked.
    pub left_alone: Vec<UnitStatus>,
}

/// Decide for units whose images a snapshot is trying right now.
pub fn for_trial(inputs: &Inputs<'_>, entries: &[CatalogueEntry]) -> OnTrial {
    let mut on_trial = OnTrial::default();
    for entry in entries {
        match decide_unit(inputs, entry, Mode::Golden) {
            Ok(mut drop_in) => {
                if drop_in.may_store {
                    drop_in.text.push_str(drop_in::EMPTY_STORE);
                }
                on_trial.drop_ins.push((entry.unit.clone(), drop_in.text));
            }
            Err(LeftAlone { reason, .. }) => {
                let cold = UnitStatus::cold(&entry.unit, reason.code, &reason.sentence);
                on_trial.left_alone.push(UnitStatus { image_id: Some(entry.image_id), ..cold });
            }
        }
    }
    on_trial
}

/// Later in the same boot: the units of `record` whose drop-in must be written again. A unit whose
/// text has changed loses it, and the record says why; nobody gets one who had none.
pub fn repeat<'r>(root: &Path, dirs: &UnitDirs, record: &'r mut GeneratorRecord) -> Vec<(&'r str, &'r str)> {
    for unit in record.units.iter_mut().filter(|unit| unit.armed) {
        let files = current_files(root, dirs, &unit.unit, &unit.unit_evidence);
        unit.withheld = files.err().map(|left_alone| left_alone.reason);
    }
    let armed = record.units.iter().filter(|unit| unit.armed && unit.withheld.is_none());
    armed.filter_map(|unit| Some((unit.unit.as_str(), unit.drop_in.as_deref()?))).collect()
}

fn decision_on(entry: &CatalogueEntry) -> UnitDecision {
    UnitDecision {
        unit: entry.unit.clone(),
        image_id: entry.image_id,
        armed: false,
        reason_code: None,
        reason: None,
        obstacles: Vec::new(),
        withheld: None,
        service_type: None,
        drop_in: None,
        unit_evidence: entry.unit_evidence.clone(),
    }
}

/// `mode`: that of the image.
fn decide_unit(inputs: &Inputs<'_>, entry: &CatalogueEntry, mode: Mode) -> Result<DropIn, LeftAlone> {
    entry.machine.check(inputs.machine)?;
    if let Some(systemd) = &entry.systemd {
        systemd.check(inputs.systemd)?;
    }
    let files = locate_files(inputs.root, inputs.dirs, &entry.unit, &entry.unit_evidence)?;
    let unit = files.read(inputs.root, &entry.unit).map_err(|error| unit_changed(error.to_string()))?;
    if unit.options().mode != mode {
        let sentence = match mode {
            Mode::Golden => "the unit has Mode=fast-restart, so its golden image is not used",
            Mode::FastRestart => "the unit has not got Mode=fast-restart any more",
        };
        return Err(StaleReason::new(ReasonCode::FastRestart, sentence).into());
    }
    // Later: who puts a unit into another mode changes its text, and that says less.
    entry.unit_evidence.check(inputs.root, &files.fragment, &files.drop_ins)?;
    let around = Surroundings {
        shim: inputs.shim,
        own_drop_in: OWN_DROP_IN,
        has_apparmor: inputs.has_apparmor,
        is_after_soft_reboot: inputs.soft_reboots > 0,
    };
    let times =
        StartTimes { timeout_ms: entry.service.timeout_start_ms, cold_ms: entry.service.cold_start_ms };
    // Both are asked, so that the record has everything.
    let (unit, limit) = match (judge(&unit, &around), StartBudget::of(times, entry.len_bytes)) {
        (Ok(unit), Ok(budget)) => (unit, budget.limit),
        (judged, budget) => {
            let reasons = judged.err().unwrap_or_default().into_iter().chain(budget.err());
            return Err(reasons.collect::<Vec<_>>().into());
        }
    };
    let program = unit.line().path;
    // Through the shim, a program that is not there would be found out too late for Type=exec.
    if program.starts_with('/') && !is_executable(&under(inputs.root, Path::new(program))) {
        return Err(vec![Reason::ProgramMissing { program: program.to_owned() }].into());
    }
    Ok(drop_in::compose(&unit, inputs.shim, limit))
}

/// The unit's files, if they are those of the snapshot.
fn current_files(
    root: &Path,
    dirs: &UnitDirs,
    unit: &str,
    evidence: &UnitEvidence,
) -> Result<UnitFiles, LeftAlone> {
    let files = locate_files(root, dirs, unit, evidence)?;
    evidence.check(root, &files.fragment, &files.drop_ins)?;
    Ok(files)
}

/// The unit's files, with paths spelt as at the snapshot.
fn locate_files(
    root: &Path,
    dirs: &UnitDirs,
    unit: &str,
    evidence: &UnitEvidence,
) -> Result<UnitFiles, LeftAlone> {
    let located =
        dirs.locate(unit).map_err(|error| unit_changed(format!("unit files cannot be listed: {error}")))?;
    let mut files = located.map_err(|why| match why {
        NoText::Missing => unit_changed("the unit file is gone".to_owned()),
        NoText::Masked(path) => unit_changed(format!("the unit is masked by {}", path.display())),
        NoText::AliasOf(other) => unit_changed(format!("the unit is now another name of {other}")),
    })?;
    let known = std::iter::once(&evidence.fragment).chain(&evidence.drop_ins).map(|text| &text.path);
    files.respell(root, known);
    // A file of our name in a stronger directory takes the place of ours.
    if let Some(own) = files.drop_ins.iter().find(|path| is_named(path, OWN_DROP_IN)) {
        return Err(vec![Reason::SwitchedOff { path: own.clone() }].into());
    }
    Ok(files)
}

fn unit_changed(sentence: String) -> StaleReason {
    StaleReason::new(ReasonCode::UnitChanged, sentence)
}

fn is_named(path: &Path, name: &str) -> bool {
    path.file_name().is_some_and(|file_name| file_name == name)
}
