//! Fingerprints on their way into the evidence: what was found so far, and how each kind of path is
//! added.

use super::UnitProperties;
use super::links::View;
use super::mounts::Mounts;
use super::observed::Start;
use super::{files, patterns};
use image_store::evidence::{
    AccountsEvidence, Digests, LeftOut, Scope, UnitPlaces, ValueEvidence, is_below_run,
};
use image_store::{FileEvidence, FileItem, FileKind, Rule, Source, UnitEvidence};
use snap_error::{Error, Result, ServiceFault, UnitObstacle};
use snap_policy::Options;
use snap_state::{Pid, RawPath};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Most files that a unit may depend on.
const MAX_DEPENDENCIES: usize = 50_000;
/// Most paths that are listed without being compared: to know them helps people, and nobody else.
const MAX_LEFT_OUT: usize = 2_000;

/// How the unit came to be what it is.
#[derive(Clone, Debug)]
pub struct Past<'a> {
    /// Directories whose content does not outlive a reboot.
    pub volatile_roots: &'a [PathBuf],
    /// When it had read what it reads at its start; a file that changed later may not be what is in
    /// its memory.
    pub ready_at: SystemTime,
    /// What was seen of that.
    pub start: &'a Start,
    /// Its files before it was restarted; `None` where it was not.
    pub text: Option<&'a UnitEvidence>,
    /// What was read for other units.
    pub digests: &'a Digests,
    /// Which machines will use the image.
    pub scope: Scope,
}

/// What has been found.
#[derive(Debug)]
pub(super) struct Files<'a> {
    pub options: &'a Options,
    pub places: UnitPlaces,
    pub mounts: Mounts,
    pub reasons: Vec<UnitObstacle>,
    pub notes: Vec<String>,
    /// Paths as the unit sees them, compared or not: links that lead to them count.
    pub used: BTreeSet<PathBuf>,
    /// Device and inode of what the service itself was seen to write, under whatever name.
    pub own_inodes: BTreeSet<(u64, u64)>,
    /// Files on volatile file systems that it has open for writing.
    pub own_volatile: BTreeSet<PathBuf>,
    digests: &'a Digests,
    ready_at_ns: i64,
    view: Option<View>,
    found: BTreeMap<PathBuf, FileItem>,
    accounts: BTreeMap<PathBuf, AccountsEvidence>,
    values: BTreeMap<PathBuf, ValueEvidence>,
    left_out: BTreeMap<PathBuf, Rule>,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Found {
    pub files: Vec<FileItem>,
    pub accounts: Vec<AccountsEvidence>,
    pub values: Vec<ValueEvidence>,
    pub left_out: Vec<LeftOut>,
    pub reasons: Vec<UnitObstacle>,
    pub notes: Vec<String>,
}

impl<'a> Files<'a> {
    pub fn new(unit: &UnitProperties, options: &'a Options, past: &Past<'a>) -> Self {
        let below = |parent: &str, names: &[String]| {
            names.iter().map(|name| Path::new(parent).join(name)).collect::<Vec<_>>()
        };
        let mounts = Mounts::of(Pid(unit.main_pid));
        Self {
            options,
            places: UnitPlaces {
                runtime: past.volatile_roots.to_vec(),
                logs: below("/var/log", &unit.logs_directories),
                cache: below("/var/cache", &unit.cache_directories),
            },
            view: mounts.inside(Path::new("/")).map(View::new),
            mounts,
            reasons: Vec::new(),
            notes: Vec::new(),
            used: BTreeSet::new(),
            own_inodes: BTreeSet::new(),
            own_volatile: BTreeSet::new(),
            digests: past.digests,
            ready_at_ns: past.ready_at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64),
            found: BTreeMap::new(),
            accounts: BTreeMap::new(),
            values: BTreeMap::new(),
            left_out: BTreeMap::new(),
        }
    }

    /// When it had read what it reads at its start, in the clock of file times.
    pub fn ready_at_ns(&self) -> i64 {
        self.ready_at_ns
    }

    pub fn is_ignored(&self, path: &Path) -> bool {
        self.options.ignore_changes.iter().any(|pattern| patterns::covers(pattern, path))
    }

    pub fn refuse(&mut self, reason: UnitObstacle) {
        if !self.reasons.contains(&reason) {
            self.reasons.push(reason);
        }
    }

    /// Something that is used and not compared.
    pub fn leave_out(&mut self, path: &Path, rule: Rule) {
        if self.left_out.len() < MAX_LEFT_OUT && path.to_str().is_some() {
            self.left_out.entry(path.to_owned()).or_insert(rule);
        }
    }

    pub fn add_value(&mut self, path: &Path) {
        match ValueEvidence::collect(Path::new("/"), path) {
            Some(value) => drop(self.values.insert(path.to_owned(), value)),
            None => self.leave_out(path, Rule::KernelView),
        }
    }

    /// A file of accounts, at our path.
    pub fn add_accounts(&mut self, path: &Path) -> Result<()> {
        self.accounts.insert(path.to_owned(), AccountsEvidence::collect(Path::new("/"), path)?);
        Ok(())
    }

    pub fn add_device(&mut self, path: &Path) -> Result<()> {
        let evidence = FileEvidence::collect(Path::new("/"), path, false)?;
        self.found.insert(path.to_owned(), FileItem::new(evidence, Source::Held));
        Ok(())
    }

    /// Files that are compared so far.
    pub fn compared(&self) -> impl Iterator<Item = &FileEvidence> {
        self.found.values().map(|item| &item.file)
    }

    /// A path of ours that is not compared after all, by this rule.
    pub fn forget(&mut self, path: &Path, rule: Rule) {
        let was_file = self.found.remove(path).is_some();
        if self.values.remove(path).is_some() || was_file {
            self.leave_out(path, rule);
        }
    }

    /// What is compared at our path already.
    pub fn item(&self, path: &Path) -> Option<&FileItem> {
        self.found.get(path)
    }

    /// A file at the path that the unit has for it.
    pub fn add_seen_inside(&mut self, path: &Path, source: Source) -> Result<()> {
        if self.is_ignored(path) {
            self.leave_out(path, Rule::Ignored);
            return Ok(());
        }
        self.used.insert(path.to_owned());
        if self.refuses_remote(path) {
            return Ok(());
        }
        match self.mounts.outside(path) {
            Some(outside) => self.add(&outside, source),
            None => {
                self.refuse(UnitObstacle::SeenInsideOnly { path: RawPath::from_path(path) });
                Ok(())
            }
        }
    }

    /// Whether the unit's path lies where a comparison may not come back; it is refused then.
    pub fn refuses_remote(&mut self, path: &Path) -> bool {
        let Some(kind) = self.mounts.remote(path).map(str::to_owned) else { return false };
        self.refuse(UnitObstacle::OnRemote { path: RawPath::from_path(path), kind });
        true
    }

    /// One path of ours as it is. Content counts.
    pub fn add(&mut self, path: &Path, source: Source) -> Result<()> {
        if self.is_ignored(path) || self.is_found(path, source) {
            return Ok(());
        }
        let evidence = self.look(path)?;
        self.check_times(std::slice::from_ref(&evidence));
        self.insert(evidence, source)
    }

    /// A path of ours with its content.
    pub fn look(&self, path: &Path) -> Result<FileEvidence> {
        Ok(FileEvidence::collect_with(Path::new("/"), path, Some(self.digests))?)
    }

    /// The same, when it is known by other means that it is what the unit has read.
    pub fn insert(&mut self, evidence: FileEvidence, source: Source) -> Result<()> {
        if self.found.len() >= MAX_DEPENDENCIES {
            let path = RawPath::from_path(&evidence.path);
            return Err(ServiceFault::TooManyDependencies { path, most: MAX_DEPENDENCIES }.into());
        }
        if !self.is_found(&evidence.path, source) {
            self.found.insert(evidence.path.clone(), FileItem::new(evidence, source));
        }
        Ok(())
    }

    /// Whether a path is there already. That it is held says more than that it was seen: a boot
    /// reads it ahead.
    fn is_found(&mut self, path: &Path, source: Source) -> bool {
        let Some(item) = self.found.get_mut(path) else { return false };
        if source == Source::Held {
            item.source = source;
        }
        true
    }

    /// A path of ours, and as long as it is a link what it leads to.
    pub fn add_chain(&mut self, path: &Path, source: Source) -> Result<Option<FileKind>> {
        if self.is_ignored(path) {
            return Ok(None);
        }
        let mut chain = FileEvidence::collect_chain(Path::new("/"), path, true)?;
        // /etc/mtab leads to ../proc/self/mounts.
        chain.retain(|evidence| !files::is_of_kernel(&evidence.path));
        self.check_times(&chain);
        let kind = chain.last().map(|end| end.kind);
        for evidence in chain {
            self.insert(evidence, source)?;
        }
        Ok(kind)
    }

    /// A path of the command line or the environment, as the unit sees it: links on it, and its
    /// content if it is a file that the table of places compares.
    pub fn add_named(&mut self, path: &Path) -> Result<()> {
        let Some(view) = &self.view else { return Ok(()) };
        let followed = view.follow(path);
        let Some(end) = followed.end.filter(|end| end.to_str().is_some()) else { return Ok(()) };
        if self.mounts.remote(&end).is_some() {
            self.refuses_remote(&end);
            return Ok(());
        }
        let now = self.mounts.inside(&end).and_then(|inside| std::fs::symlink_metadata(inside).ok());
        // Below /run only what it was seen to read counts: most names there are of what it makes.
        let is_file = now.as_ref().is_some_and(std::fs::Metadata::is_file) && !is_below_run(&end);
        // A file that was written beside it and renamed was seen under its first name.
        let is_own = now.is_some_and(|now| self.own_inodes.contains(&(now.dev(), now.ino())));
        let is_written = is_own || self.left_out.get(&end) == Some(&Rule::Own);
        if is_file && self.places.rule(&end, false, is_written) == Rule::Content {
            self.add_seen_inside(&end, Source::Named)?;
        }
        for link in followed.links {
            self.add_link(&link, Source::Named)?;
        }
        Ok(())
    }

    /// Links that lead to anything that was added so far.
    pub fn add_links(&mut self) -> Result<()> {
        let links = self.view.as_ref().map(|view| view.leading_to(&self.used)).unwrap_or_default();
        for link in links {
            self.add_link(&link, Source::Derived)?;
        }
        Ok(())
    }

    fn add_link(&mut self, path: &Path, source: Source) -> Result<()> {
        if path.to_str().is_none() || self.is_ignored(path) || self.mounts.remote(path).is_some() {
            return Ok(());
        }
        let Some(outside) = self.mounts.outside(path) else { return Ok(()) };
        let evidence = self.look(&outside)?;
        match evidence.kind {
            FileKind::Symlink => self.insert(evidence, source),
            _ => Ok(()),
        }
    }

    pub fn add_pattern(&mut self, pattern: &str) -> Result<()> {
        let (paths, listed) = patterns::expand(pattern).map_err(|e| Error::io("list", pattern, &e))?;
        // A name that appears later would match too.
        for dir in listed {
            self.add(&dir, Source::Declared)?;
        }
        for path in paths {
            self.add_deep(&path, true, Source::Declared)?;
        }
        Ok(())
    }

    /// A path; of a directory also the files in it, and with `all_below` everything below.
    pub fn add_deep(&mut self, path: &Path, all_below: bool, source: Source) -> Result<()> {
        if self.add_chain(path, source)? != Some(FileKind::Dir) {
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
                self.refuse(UnitObstacle::DependencyNotUtf8 { path: RawPath::from_path(&below) });
            } else if is_dir && all_below {
                self.add_deep(&below, true, source)?;
            } else if !is_dir {
                self.add_chain(&below, source)?;
            }
        }
        Ok(())
    }

    pub fn check_times(&mut self, found: &[FileEvidence]) {
        for file in found.iter().filter(|file| file.kind == FileKind::File) {
            if file.mtime_ns.max(file.ctime_ns) > self.ready_at_ns {
                self.refuse(UnitObstacle::ChangedSinceStart { path: RawPath::from_path(&file.path) });
            }
        }
    }

    pub fn finish(self) -> Found {
        let Self { found, accounts, values, mut left_out, reasons, notes, .. } = self;
        left_out.retain(|path, _| !found.contains_key(path));
        Found {
            files: found.into_values().collect(),
            accounts: accounts.into_values().collect(),
            values: values.into_values().collect(),
            left_out: left_out.into_iter().map(|(path, rule)| LeftOut { path, rule }).collect(),
            reasons,
            notes,
        }
    }
}
