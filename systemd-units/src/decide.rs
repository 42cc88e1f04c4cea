//! The decision: for which units does the shim go in front of the command?
//!
//! Nothing is written here, and nothing outside `root` is looked at.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use image_store::evidence::{OWN_DROP_IN, is_own_drop_in};
use image_store::unit_text::{self, Assignment};
use image_store::{
    Catalogue, CatalogueEntry, MachineEvidence, ReasonCode, StaleReason, StartBudget, SystemdEvidence,
    UnitEvidence,
};

use crate::drop_in::{self, DropIn};
use crate::record::{Record, UnitRecord};
use crate::search::{NoText, UnitDirs, UnitFiles, under};
use crate::service::Settings;

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
    /// How often userspace has begun anew since the kernel was booted.
    pub soft_reboots: u64,
}

/// Decide for every unit of the catalogue: the first run of a boot.
pub fn decide(inputs: &Inputs<'_>, catalogue: &Catalogue) -> Record {
    let images = catalogue.newest_images();
    let units = images.into_iter().map(|(_, entry)| match decide_unit(inputs, entry) {
        Ok(drop_in) => UnitRecord {
            armed: true,
            reason_code: None,
            reason: None,
            service_type: Some(drop_in.service_type.as_str().to_owned()),
            drop_in: Some(drop_in.text),
            ..record_of(entry)
        },
        Err(reason) => {
            UnitRecord { reason_code: Some(reason.code), reason: Some(reason.sentence), ..record_of(entry) }
        }
    });
    Record::new(units.collect())
}

/// Drop-ins for units whose images a snapshot is trying right now.
pub fn for_trial(inputs: &Inputs<'_>, entries: &[CatalogueEntry]) -> Vec<(String, String)> {
    let armed = entries.iter().filter_map(|entry| {
        let mut drop_in = decide_unit(inputs, entry).ok()?;
        if drop_in.may_store {
            drop_in.text.push_str(drop_in::EMPTY_STORE);
        }
        Some((entry.unit.clone(), drop_in.text))
    });
    armed.collect()
}

/// Later in the same boot: the units of `record` whose drop-in must be written again. A unit whose text has changed
/// loses it; nobody gets one who had none.
pub fn repeat<'r>(root: &Path, dirs: &UnitDirs, record: &'r Record) -> Vec<(&'r str, &'r str)> {
    let armed = record.units.iter().filter(|unit| unit.armed);
    let texts = armed.filter_map(|unit| Some((unit, unit.drop_in.as_deref()?)));
    let unchanged =
        texts.filter(|(unit, _)| current_files(root, dirs, &unit.unit, &unit.unit_evidence).is_ok());
    unchanged.map(|(unit, text)| (unit.unit.as_str(), text)).collect()
}

fn record_of(entry: &CatalogueEntry) -> UnitRecord {
    UnitRecord {
        unit: entry.unit.clone(),
        image_id: entry.image_id,
        armed: false,
        reason_code: None,
        reason: None,
        service_type: None,
        drop_in: None,
        unit_evidence: entry.unit_evidence.clone(),
    }
}

fn decide_unit(inputs: &Inputs<'_>, entry: &CatalogueEntry) -> Result<DropIn, StaleReason> {
    entry.machine.check(inputs.machine)?;
    if let Some(systemd) = &entry.systemd {
        systemd.check(inputs.systemd)?;
    }
    let files = current_files(inputs.root, inputs.dirs, &entry.unit, &entry.unit_evidence)?;
    let mut assignments = Vec::new();
    for path in std::iter::once(&files.fragment).chain(&files.drop_ins) {
        let parsed = read_assignments(inputs.root, path)
            .map_err(|error| unit_changed(format!("{} cannot be read: {error}", path.display())))?;
        check_order(path, &files.drop_ins, &parsed)?;
        assignments.extend(parsed);
    }
    let settings = Settings::from_assignments(assignments);
    let unsupported = |sentence| StaleReason::new(ReasonCode::HostUnsupported, sentence);
    if inputs.soft_reboots > 0 && settings.keeps_store() {
        let sentence =
            "systemd may have kept descriptors for it over the soft reboot (FileDescriptorStorePreserve=)";
        return Err(unsupported(sentence.to_owned()));
    }
    let limit = StartBudget::of(&entry.service, entry.len_bytes)?.limit;
    let drop_in = drop_in::compose(&entry.unit, &settings, inputs.shim, limit).map_err(unsupported)?;
    // Through the shim, a program that is not there would be found out too late for Type=exec.
    if drop_in.program.starts_with('/') && !is_executable(&under(inputs.root, Path::new(&drop_in.program))) {
        return Err(StaleReason::new(
            ReasonCode::FileMissing,
            format!("{} cannot be executed", drop_in.program),
        ));
    }
    Ok(drop_in)
}

/// The unit's files, if they are those of the snapshot.
fn current_files(
    root: &Path,
    dirs: &UnitDirs,
    unit: &str,
    evidence: &UnitEvidence,
) -> Result<UnitFiles, StaleReason> {
    let located =
        dirs.locate(unit).map_err(|error| unit_changed(format!("unit files cannot be listed: {error}")))?;
    let mut files = located.map_err(|why| match why {
        NoText::Missing => unit_changed("the unit file is gone".to_owned()),
        NoText::Masked(path) => unit_changed(format!("the unit is masked by {}", path.display())),
        NoText::AliasOf(other) => unit_changed(format!("the unit is now another name of {other}")),
    })?;
    let known = std::iter::once(&evidence.fragment).chain(&evidence.drop_ins).map(|text| &text.path);
    for path in std::iter::once(&mut files.fragment).chain(&mut files.drop_ins) {
        respell(root, path, known.clone());
    }
    // A file of our name in a stronger directory takes the place of ours.
    if let Some(own) = files.drop_ins.iter().find(|path| is_named(path, OWN_DROP_IN)) {
        return Err(StaleReason::new(
            ReasonCode::Disabled,
            format!("{} replaces our drop-in", own.display()),
        ));
    }
    evidence.check(root, &files.fragment, &files.drop_ins)?;
    Ok(files)
}

/// One file may have two paths (/lib is /usr/lib; a linked unit file): take the one that was recorded.
fn respell<'a>(root: &Path, path: &mut PathBuf, mut known: impl Iterator<Item = &'a PathBuf> + Clone) {
    if known.clone().any(|other| other == path) {
        return;
    }
    let Ok(real) = fs::canonicalize(under(root, path)) else { return };
    let same_name = |other: &&PathBuf| other.file_name() == path.file_name();
    let is_same = |other: &&PathBuf| fs::canonicalize(under(root, other)).is_ok_and(|other| other == real);
    if let Some(other) = known.find(|other| same_name(other) && is_same(other)) {
        *path = other.clone();
    }
}

/// A drop-in that sorts after ours and says what is started has the last word; then ours must not be there at all.
fn check_order(path: &Path, drop_ins: &[PathBuf], assignments: &[Assignment]) -> Result<(), StaleReason> {
    let sorts_later = drop_ins.iter().any(|other| other == path)
        && path.file_name().is_some_and(|name| name.as_encoded_bytes() > OWN_DROP_IN.as_bytes());
    let mut service = assignments.iter().filter(|a| a.section == "Service");
    let decides =
        service.find(|a| ["ExecStart", "ExecStartPre", "NotifyAccess", "Type"].contains(&a.key.as_str()));
    match decides {
        Some(assignment) if sorts_later && !is_own_drop_in(path) => {
            let sentence = format!("{} sets {}= after our drop-in", path.display(), assignment.key);
            Err(StaleReason::new(ReasonCode::Disabled, sentence))
        }
        _ => Ok(()),
    }
}

fn read_assignments(root: &Path, path: &Path) -> io::Result<Vec<Assignment>> {
    Ok(unit_text::parse(&fs::read_to_string(under(root, path))?))
}

fn unit_changed(sentence: String) -> StaleReason {
    StaleReason::new(ReasonCode::UnitChanged, sentence)
}

fn is_named(path: &Path, name: &str) -> bool {
    path.file_name().is_some_and(|file_name| file_name == name)
}

/// Whether there is a regular file that somebody may execute.
pub fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}
