//! Evidence of one unit: fingerprints of all that has to be the same at the next boot.
//!
//! Fingerprints are taken where they will be compared: in the root mount namespace. A file that the unit sees elsewhere is
//! looked for there; one that cannot be found could not be checked, and refuses the unit.

use super::UnitProperties;
use super::files::{self, Use};
use super::identity::identities;
use super::mounts::Mounts;
use super::{patterns, randomness};
use image_store::{EvidenceV1, FileEvidence, FileKind, MachineEvidence, UnitEvidence};
use snap_error::{Error, Result, ServiceFault, UnitObstacle};
use snap_policy::{Options, Unit};
use snap_state::{Pid, RawPath, TreeV1};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Most files that `DependsOn=` may lead to.
const MAX_DEPENDENCIES: usize = 50_000;
/// Where systemd looks for a program without a path.
const SEARCH_PATH: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// What was found.
#[derive(Clone, Debug)]
pub struct Gathered {
    pub evidence: EvidenceV1,
    /// Why the unit must not be taken after all.
    pub reasons: Vec<UnitObstacle>,
    /// What its owner should know.
    pub notes: Vec<String>,
}

/// Takes all fingerprints. `ready_at`: when the unit had read what it reads at its start; a file that changed later may
/// not be what is in its memory.
///
/// # Errors
/// When something cannot be read.
pub fn gather_evidence(
    unit: &UnitProperties,
    text: &Unit,
    tree: &TreeV1,
    volatile_roots: &[PathBuf],
    ready_at: SystemTime,
) -> Result<Gathered> {
    let mut files = Files {
        mounts: Mounts::of(Pid(unit.main_pid)),
        options: text.options(),
        ready_at_ns: ready_at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64),
        found: BTreeMap::new(),
        reasons: Vec::new(),
        notes: randomness::notes(tree),
    };
    for (path, usage) in files::uses(tree, unit) {
        files.add_use(&path, usage)?;
    }
    for path in files::watched(tree, unit, volatile_roots) {
        files.add_deep(&path, false)?;
    }
    if let Some(program) = text.settings().exec_start().ok().and_then(program_of) {
        files.add_chain(&program)?;
    }
    for pattern in &text.options().depends_on {
        files.add_pattern(pattern)?;
    }
    let environment_files = environment_files(unit)?;
    files.check_times(&environment_files);

    let fragment = unit.fragment.clone().unwrap_or_default();
    let identities = identities(Path::new("/"), tree);
    let Files { found, reasons, notes, .. } = files;
    let evidence = EvidenceV1 {
        machine: MachineEvidence::collect(Path::new("/"))?,
        unit: UnitEvidence::collect(Path::new("/"), &fragment, &unit.drop_ins)?,
        files: found.into_values().collect(),
        environment_files,
        users: identities.users,
        groups: identities.groups,
    };
    Ok(Gathered { evidence, reasons, notes })
}

struct Files<'a> {
    mounts: Mounts,
    options: &'a Options,
    ready_at_ns: i64,
    found: BTreeMap<PathBuf, FileEvidence>,
    reasons: Vec<UnitObstacle>,
    notes: Vec<String>,
}

impl Files<'_> {
    fn add_use(&mut self, path: &Path, usage: Use) -> Result<()> {
        let shown = path.display();
        match usage {
            _ if path.to_str().is_none() => {
                self.reasons.push(UnitObstacle::NameNotUtf8 { path: RawPath::from_path(path) });
            }
            Use::Content => self.add_seen_inside(path)?,
            Use::Device if path.exists() => {
                let evidence = FileEvidence::collect(Path::new("/"), path, false)?;
                self.found.insert(path.to_owned(), evidence);
            }
            // Made by systemd for the unit alone (PrivateDevices=): the restore compares its number.
            Use::Device => {}
            Use::Log => self.notes.push(format!("appends to {shown}, whose content is not checked at boot")),
            Use::State if self.options.allow_state => {
                self.notes.push(format!("writes to {shown} in place; [X-Fastboot] AllowState= lets it"));
            }
            Use::State => self.reasons.push(files::writes_state(path)),
        }
        Ok(())
    }

    /// A file that the tree has open or mapped.
    fn add_seen_inside(&mut self, path: &Path) -> Result<()> {
        match self.mounts.outside(path) {
            Some(outside) => self.add(&outside),
            None => {
                self.reasons.push(UnitObstacle::SeenInsideOnly { path: RawPath::from_path(path) });
                Ok(())
            }
        }
    }

    /// One path as it is. Content counts.
    fn add(&mut self, path: &Path) -> Result<()> {
        if self.is_ignored(path) || self.found.contains_key(path) {
            return Ok(());
        }
        let evidence = FileEvidence::collect(Path::new("/"), path, true)?;
        self.check_times(std::slice::from_ref(&evidence));
        self.found.insert(path.to_owned(), evidence);
        Ok(())
    }

    /// A path, and as long as it is a link what it leads to.
    fn add_chain(&mut self, path: &Path) -> Result<Option<FileKind>> {
        if self.is_ignored(path) {
            return Ok(None);
        }
        let mut chain = FileEvidence::collect_chain(Path::new("/"), path, true)?;
        // /etc/mtab leads to ../proc/self/mounts.
        chain.retain(|evidence| !files::is_of_kernel(&evidence.path));
        self.check_times(&chain);
        let kind = chain.last().map(|end| end.kind);
        self.found.extend(chain.into_iter().map(|evidence| (evidence.path.clone(), evidence)));
        Ok(kind)
    }

    fn add_pattern(&mut self, pattern: &str) -> Result<()> {
        let (paths, listed) = patterns::expand(pattern).map_err(|e| Error::io("list", pattern, &e))?;
        // A name that appears later would match too.
        for dir in listed {
            self.add(&dir)?;
        }
        for path in paths {
            self.add_deep(&path, true)?;
        }
        Ok(())
    }

    /// A path; of a directory also the files in it, and with `all_below` everything below.
    fn add_deep(&mut self, path: &Path, all_below: bool) -> Result<()> {
        if self.add_chain(path)? != Some(FileKind::Dir) {
            return Ok(());
        }
        let fail = |e: std::io::Error| Error::io("list", path.display(), &e);
        let mut entries =
            std::fs::read_dir(path).map_err(fail)?.collect::<std::io::Result<Vec<_>>>().map_err(fail)?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let below = entry.path();
            let is_dir = entry.file_type().map_err(fail)?.is_dir();
            if below.to_str().is_none() {
                self.reasons.push(UnitObstacle::DependencyNotUtf8 { path: RawPath::from_path(&below) });
            } else if is_dir && all_below {
                self.add_deep(&below, true)?;
            } else if !is_dir {
                self.add_chain(&below)?;
            }
            if self.found.len() > MAX_DEPENDENCIES {
                let path = RawPath::from_path(path);
                return Err(ServiceFault::TooManyDependencies { path, most: MAX_DEPENDENCIES }.into());
            }
        }
        Ok(())
    }

    fn is_ignored(&self, path: &Path) -> bool {
        self.options.ignore_changes.iter().any(|pattern| patterns::covers(pattern, path))
    }

    fn check_times(&mut self, found: &[FileEvidence]) {
        for file in found.iter().filter(|file| file.kind == FileKind::File) {
            if file.mtime_ns.max(file.ctime_ns) > self.ready_at_ns {
                let path = RawPath::from_path(&file.path);
                let reason = UnitObstacle::ChangedSinceStart { path };
                if !self.reasons.contains(&reason) {
                    self.reasons.push(reason);
                }
            }
        }
    }
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
