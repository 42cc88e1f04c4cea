//! Evidence of one unit: fingerprints of all that has to be the same at the next boot.
//!
//! Fingerprints are taken where they will be compared: in the root mount namespace. A file that the
//! unit sees elsewhere is looked for there; one that cannot be found could not be checked, and
//! refuses the unit.

use super::UnitProperties;
use super::files::{self, Use};
use super::gathered::{Files, Past};
use super::identity::identities;
use super::kernel_settings;
use super::named;
use super::observed::{self, Start};
use super::text_since::{self, Then};
use super::{of_one_machine, patterns, randomness};
use image_store::evidence::Scope;
use image_store::{EvidenceV2, FileEvidence, MachineEvidence, Source, UnitEvidence};
use snap_error::{Error, Result, UnitObstacle};
use snap_policy::{KernelState, Unit};
use snap_state::{RawPath, TreeV1};
use std::path::{Path, PathBuf};

/// Where systemd looks for a program without a path.
const SEARCH_PATH: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// Its content is loaded into every program, where it is there.
const PRELOAD: &str = "/etc/ld.so.preload";

/// What was found.
#[derive(Clone, Debug)]
pub struct Gathered {
    pub evidence: EvidenceV2,
    /// Why the unit must not be taken after all.
    pub reasons: Vec<UnitObstacle>,
    /// What its owner should know.
    pub notes: Vec<String>,
}

/// Takes all fingerprints.
///
/// # Errors
/// When something cannot be read.
pub fn gather_evidence(
    unit: &UnitProperties,
    text: &Unit,
    tree: &TreeV1,
    past: &Past<'_>,
) -> Result<Gathered> {
    let options = text.options();
    let mut files = Files::new(unit, options, past);
    if past.scope == Scope::ThisMachine {
        files.notes = randomness::notes(tree);
    }
    for held in randomness::held(options, tree) {
        match options.allow_repeated_random {
            true => files.notes.push(format!("{held}: taken, as that says")),
            false => files.refuse(held),
        }
    }
    for pattern in &options.depends_on {
        files.add_pattern(pattern)?;
    }
    files.own_volatile = files::written_volatile(tree);
    let observation = observed::add(&mut files, past.start)?;
    if let Start::Recorded { log, .. } = past.start {
        for path in kernel_settings::written(log, kernel_settings::first_pid(options, unit)) {
            add_setting(&mut files, path);
        }
    }
    for (path, usage) in files::uses(tree, unit) {
        add_use(&mut files, &path, usage)?;
    }
    for path in files::watched(tree, unit, past.volatile_roots) {
        files.add_deep(&path, false, Source::Held)?;
    }
    if let Some(program) = text.settings().exec_start().ok().and_then(program_of) {
        files.add_chain(&program, Source::Named)?;
    }
    for process in &tree.processes {
        for path in named::of_process(process.pid.0) {
            files.add_named(&path)?;
        }
    }
    if !files.is_ignored(Path::new(PRELOAD)) {
        files.add_chain(Path::new(PRELOAD), Source::Derived)?;
    }
    files.add_links()?;
    let mut environment_files = environment_files(unit)?;
    files.check_times(&environment_files);
    if past.scope == Scope::EqualMachines {
        of_one_machine::inspect(&mut files, &mut environment_files, past.start, tree);
    }

    let fragment = unit.fragment.clone().unwrap_or_default();
    let unit_files = UnitEvidence::collect(Path::new("/"), &fragment, &unit.drop_ins)?;
    let then = match past.start {
        Start::Inherited(earlier) => Then::Files(&earlier.unit),
        Start::Recorded { .. } | Start::Unobserved(_) => match past.text {
            Some(text) => Then::Files(text),
            None => Then::Before(files.ready_at_ns()),
        },
    };
    for path in text_since::changed(&unit_files, text, then) {
        files.refuse(UnitObstacle::UnitChangedSinceStart { path: RawPath::from_path(&path) });
    }
    let identities = identities(Path::new("/"), tree);
    let found = files.finish();
    let evidence = EvidenceV2 {
        machine: MachineEvidence::collect(Path::new("/"))?.in_scope(past.scope),
        unit: unit_files,
        observation,
        files: found.files,
        accounts: found.accounts,
        values: found.values,
        left_out: found.left_out,
        environment_files,
        users: identities.users,
        groups: identities.groups,
    };
    Ok(Gathered { evidence, reasons: found.reasons, notes: found.notes })
}

/// A setting of the kernel that the service has written.
fn add_setting(files: &mut Files<'_>, path: &Path) {
    if files.is_ignored(path) {
        return;
    }
    match files.options.kernel_state {
        KernelState::Reload => {
            files.notes.push(format!("writes to {}; [X-Fastboot] KernelState= lets it", path.display()));
        }
        KernelState::Refuse => {
            files.refuse(UnitObstacle::WritesSetting { path: RawPath::from_path(path) });
        }
    }
}

/// A file that the tree has open.
fn add_use(files: &mut Files<'_>, path: &Path, usage: Use) -> Result<()> {
    let shown = path.display();
    match usage {
        _ if path.to_str().is_none() => {
            files.refuse(UnitObstacle::NameNotUtf8 { path: RawPath::from_path(path) });
        }
        Use::Content => files.add_seen_inside(path, Source::Held)?,
        Use::Device if path.exists() => files.add_device(path)?,
        // Made by systemd for the unit alone (PrivateDevices=): the restore compares its number.
        Use::Device => {}
        Use::Log => files.notes.push(format!("appends to {shown}, whose content is not checked at boot")),
        Use::State if files.options.allow_state => {
            files.notes.push(format!("writes to {shown} in place; [X-Fastboot] AllowState= lets it"));
        }
        Use::State if files.is_ignored(path) => {
            files.notes.push(format!("writes to {shown}; [X-Fastboot] IgnoreChanges= lets it"));
        }
        Use::State => files.refuse(files::writes_state(path)),
    }
    Ok(())
}

/// Files that systemd reads for the unit, in the root mount namespace.
fn environment_files(unit: &UnitProperties) -> Result<Vec<FileEvidence>> {
    let mut found = Vec::new();
    for (pattern, _) in &unit.environment_files {
        let (paths, listed) = patterns::expand(pattern).map_err(|e| Error::io("list", pattern, &e))?;
        for dir in listed {
            found.push(FileEvidence::collect(Path::new("/"), &dir, true)?);
        }
        for path in paths {
            // A file that is not there is recorded as such: it may appear.
            found.extend(FileEvidence::collect_chain(Path::new("/"), &path, true)?);
        }
    }
    Ok(found)
}

/// The program of an `ExecStart=` line, as a path.
fn program_of(line: &str) -> Option<PathBuf> {
    let command = line.trim_start_matches(['-', '@', ':', '+', '!']);
    let word = command.split([' ', '\t']).next().filter(|word| !word.is_empty())?;
    if word.starts_with('/') {
        return Some(PathBuf::from(word));
    }
    SEARCH_PATH.iter().map(|dir| Path::new(dir).join(word)).find(|path| path.exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_found_behind_prefixes_and_on_the_search_path() {
        assert_eq!(program_of("-@/usr/bin/d d --x"), Some("/usr/bin/d".into()));
        assert!(program_of("sh -c true").is_some_and(|path| path.ends_with("sh") && path.is_absolute()));
        assert_eq!(program_of("no-such-program-anywhere"), None);
    }
}
