//! From what the kernel saw of a start to evidence.

use super::gathered::Files;
use super::library_dirs;
use image_store::evidence::{Gap, is_below_run, source_of_compiled};
use image_store::{EvidenceV2, FileKind, Observation, Rule, Source};
use snap_error::observation::NotObserved;
use snap_error::{Result, UnitObstacle};
use snap_observe::{Seen, UnitLog};
use snap_state::RawPath;
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// What fanotify does not tell.
const NOT_TOLD: [&str; 2] =
    ["names that were looked for and not found", "files that were only asked for their time or length"];

/// What is known of a unit's start.
#[derive(Clone, Debug)]
pub enum Start {
    /// It was recorded. `blind`: what could not be watched.
    Recorded { log: UnitLog, blind: Vec<Gap> },
    /// It was not, and why.
    Unobserved(NotObserved),
    /// It was recorded for an earlier image, of the same processes; nothing of it has changed
    /// since.
    Inherited(Box<EvidenceV2>),
}

/// Adds what was seen, or refuses a unit of which nothing was seen and that says nothing itself.
///
/// # Errors
/// When something cannot be read.
pub(super) fn add(files: &mut Files<'_>, start: &Start) -> Result<Observation> {
    let (log, blind) = match start {
        Start::Recorded { log, blind } => (log, blind),
        Start::Unobserved(why) => {
            if files.options.depends_on.is_empty() {
                files.refuse(UnitObstacle::StartNotObserved { why: why.clone() });
            }
            return Ok(Observation::None { why: why.to_string() });
        }
        Start::Inherited(earlier) => return inherit(files, earlier),
    };
    for gap in &log.gaps {
        if files.options.depends_on.is_empty() {
            files.refuse(UnitObstacle::StartObservedInPart { gap: gap.clone() });
        }
    }
    let written = Written::of(log);
    files.own_inodes.clone_from(&log.written);
    for (path, seen) in &log.files {
        add_one(files, path, seen, &written)?;
    }
    if log.files.keys().any(|path| library_dirs::is_cache(path)) {
        library_dirs::add(files)?;
    }
    let not_observed = NOT_TOLD.into_iter().map(str::to_owned).chain(blind.iter().map(Gap::to_string));
    let gaps = log.gaps.iter().map(Gap::to_string);
    Ok(Observation::Recorded { not_observed: not_observed.chain(gaps).collect() })
}

/// What was seen then counts as it was then; what is held now is looked at besides.
fn inherit(files: &mut Files<'_>, earlier: &EvidenceV2) -> Result<Observation> {
    for item in &earlier.files {
        files.used.insert(item.file.path.clone());
        files.insert(item.file.clone(), item.source)?;
    }
    for accounts in &earlier.accounts {
        files.add_accounts(&accounts.path)?;
    }
    earlier.values.iter().for_each(|value| files.add_value(&value.path));
    earlier.left_out.iter().for_each(|one| files.leave_out(&one.path, one.rule));
    Ok(earlier.observation.clone())
}

/// What the service itself wrote.
#[derive(Debug)]
struct Written<'a> {
    inodes: &'a BTreeSet<(u64, u64)>,
    paths: BTreeSet<&'a Path>,
    /// Directories right above.
    dirs: BTreeSet<&'a Path>,
}

impl<'a> Written<'a> {
    fn of(log: &'a UnitLog) -> Self {
        let paths: BTreeSet<&Path> =
            log.files.iter().filter(|(_, seen)| seen.written).map(|(path, _)| path.as_path()).collect();
        let dirs = paths.iter().filter_map(|path| path.parent()).collect();
        Self { inodes: &log.written, paths, dirs }
    }

    fn holds(&self, path: &Path, now: Option<(u64, u64)>) -> bool {
        self.paths.contains(path)
            || self.dirs.contains(path)
            || now.is_some_and(|inode| self.inodes.contains(&inode))
    }

    /// Whether the service replaces a file as careful programs do: they write another one beside
    /// it and rename that. The kernel tells of the file that was written under its first name, and
    /// what is there by now may be younger than the log.
    fn replaces(&self, path: &Path, first: (u64, u64), now: Option<(u64, u64)>) -> bool {
        path.parent().is_some_and(|dir| self.dirs.contains(dir)) && now.is_some_and(|now| now != first)
    }
}

fn add_one(files: &mut Files<'_>, told: &Path, seen: &Seen, written: &Written<'_>) -> Result<()> {
    let found = files.mounts.told_as(told, (seen.first.dev, seen.first.ino));
    let path = found.as_deref().unwrap_or(told);
    let kind = seen.first.mode & libc::S_IFMT;
    let is_dir = kind == libc::S_IFDIR;
    // What is opened and closed and is no file holds nothing; what stays open is looked at as it
    // is.
    if (is_dir && !seen.listed) || !(is_dir || kind == libc::S_IFREG) {
        return Ok(());
    }
    if files.is_ignored(path) {
        files.leave_out(path, Rule::Ignored);
        return Ok(());
    }
    let source = if seen.by_number { Source::Numbered } else { Source::Observed };
    let now = files.mounts.inside(path).and_then(|inside| std::fs::symlink_metadata(inside).ok());
    let inode = now.as_ref().map(|now| (now.dev(), now.ino()));
    let first = (seen.first.dev, seen.first.ino);
    let is_own = written.holds(path, inode)
        || files.own_volatile.contains(path)
        || !is_dir && written.replaces(path, first, inode);
    let rule = files.places.rule(path, is_dir, is_own);
    if !matches!(rule, Rule::KernelView | Rule::Value) {
        files.used.insert(path.to_owned());
    }
    match rule {
        Rule::Value => files.add_value(path),
        Rule::Accounts => match files.mounts.outside(path) {
            Some(outside) => files.add_accounts(&outside)?,
            None => files.leave_out(path, Rule::Volatile),
        },
        Rule::Compiled => add_source(files, path, source)?,
        Rule::Content | Rule::Names => add_compared(files, path, &Use { seen, is_own, source })?,
        rule => files.leave_out(&without_process(path), rule),
    }
    Ok(())
}

/// What there is to know about one path that is compared.
struct Use<'a> {
    seen: &'a Seen,
    is_own: bool,
    source: Source,
}

fn add_compared(files: &mut Files<'_>, path: &Path, usage: &Use<'_>) -> Result<()> {
    if path.to_str().is_none() {
        files.refuse(UnitObstacle::NameNotUtf8 { path: RawPath::from_path(path) });
        return Ok(());
    }
    if files.refuses_remote(path) {
        return Ok(());
    }
    let outside = match files.mounts.outside(path) {
        Some(outside) => outside,
        // The service itself has made it and taken it away.
        None if usage.is_own => return left_out(files, path, Rule::Own),
        // On a mount that systemd makes for each start.
        None if is_below_run(path) => return left_out(files, path, Rule::Volatile),
        None if files.mounts.inside(path).is_some_and(|inside| inside.exists()) => {
            files.refuse(UnitObstacle::SeenInsideOnly { path: RawPath::from_path(path) });
            return Ok(());
        }
        None => return left_out(files, path, Rule::Gone),
    };
    if let Some(item) = files.item(&outside) {
        // DependsOn= has it; its time is known to be right.
        tracing::trace!(path = %item.file.path.display(), "seen too");
        return Ok(());
    }
    let evidence = files.look(&outside)?;
    let first = &usage.seen.first;
    let is_same = (evidence.ino, evidence.size, evidence.mtime_ns) == (first.ino, first.size, first.mtime_ns);
    if evidence.kind == FileKind::File && usage.seen.opened && !is_same && !usage.is_own {
        files.refuse(UnitObstacle::ChangedInStart { path: RawPath::from_path(path) });
    }
    files.insert(evidence, usage.source)
}

/// A compiled Python file, for which its source stands. One without source counts itself.
fn add_source(files: &mut Files<'_>, path: &Path, source: Source) -> Result<()> {
    let source_file = source_of_compiled(path);
    let is_there = |path: &PathBuf| files.mounts.inside(path).is_some_and(|inside| inside.exists());
    match source_file.filter(is_there) {
        Some(source_file) => {
            files.leave_out(path, Rule::Compiled);
            files.add_seen_inside(&source_file, Source::Derived)
        }
        None if path.extension().is_some_and(|extension| extension == "pyc") => {
            match files.mounts.outside(path) {
                Some(_) => files.add_seen_inside(path, source),
                // Written under another name first.
                None => left_out(files, path, Rule::Compiled),
            }
        }
        None => left_out(files, path, Rule::Compiled),
    }
}

fn left_out(files: &mut Files<'_>, path: &Path, rule: Rule) -> Result<()> {
    files.leave_out(path, rule);
    Ok(())
}

/// `/proc/PID/…` in place of numbers that say nothing.
fn without_process(path: &Path) -> PathBuf {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let Ok(below) = path.strip_prefix("/proc") else { return path.to_owned() };
    match below.components().next().and_then(|part| part.as_os_str().to_str()) {
        Some(number) if is_number(number) => PathBuf::from("/proc/PID"),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_of_processes_are_one_line() {
        assert_eq!(without_process(Path::new("/proc/812/maps")), Path::new("/proc/PID"));
        assert_eq!(without_process(Path::new("/proc/uptime")), Path::new("/proc/uptime"));
        assert_eq!(without_process(Path::new("/srv/1")), Path::new("/srv/1"));
    }

    #[test]
    fn what_was_written_is_known_by_path_by_inode_and_by_its_directory() {
        let mut log = UnitLog::default();
        let seen = Seen { written: true, ..Seen::default() };
        log.files.insert("/var/lib/a/state.tmp".into(), seen);
        log.files.insert("/var/lib/a/read".into(), Seen::default());
        log.written.insert((1, 7));
        let written = Written::of(&log);
        assert!(written.holds(Path::new("/var/lib/a/state.tmp"), None));
        assert!(written.holds(Path::new("/var/lib/a/state"), Some((1, 7))), "renamed from state.tmp");
        assert!(written.holds(Path::new("/var/lib/a"), Some((1, 2))));
        assert!(!written.holds(Path::new("/var/lib/a/read"), Some((1, 8))));
        let state = Path::new("/var/lib/a/state");
        assert!(written.replaces(state, (1, 7), Some((1, 9))), "renamed after the log was read");
        assert!(!written.replaces(state, (1, 7), Some((1, 7))) && !written.replaces(state, (1, 7), None));
        assert!(
            !written.replaces(Path::new("/var/lib/b/read"), (1, 7), Some((1, 9))),
            "no file of its own there"
        );
    }
}
