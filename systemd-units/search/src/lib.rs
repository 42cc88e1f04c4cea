//! Finding a unit's texts the way systemd does: fragment, then drop-ins of all its names, sorted by
//! file name.
//!
//! Generators' own output is not searched: generators run side by side, so what is there at one
//! moment says nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use snap_policy::{TextFile, Unit};

/// Directories of the system manager, strongest first (systemd.unit(5), and `systemd-analyze
/// unit-paths`).
pub const UNIT_DIRS: [&str; 9] = [
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/run/systemd/transient",
    "/etc/systemd/system",
    "/etc/systemd/system.attached",
    "/run/systemd/system",
    "/run/systemd/system.attached",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
];

/// What lies in the unit directories: read once, used for every unit.
#[derive(Debug, Default)]
pub struct UnitDirs {
    root: PathBuf,
    /// Per directory of [`UNIT_DIRS`]: names of files, and targets of symbolic links.
    entries: Vec<BTreeMap<String, Option<PathBuf>>>,
}

/// Where the text of a unit lies, in the order in which it applies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitFiles {
    /// The unit file.
    pub fragment: PathBuf,
    /// Drop-ins by file name.
    pub drop_ins: Vec<PathBuf>,
}

/// Why a unit has no text of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoText {
    /// There is no unit file.
    Missing,
    /// It is masked.
    Masked(PathBuf),
    /// The name has become another name of this unit.
    AliasOf(String),
}

/// A file of a unit that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be read: {source}", path.display())]
pub struct Unreadable {
    /// Its path.
    pub path: PathBuf,
    /// Why not.
    pub source: io::Error,
}

impl UnitFiles {
    /// One file may have two paths (/lib is /usr/lib; a linked unit file): take those that are
    /// known for these files.
    pub fn respell<'a>(&mut self, root: &Path, known: impl Iterator<Item = &'a PathBuf> + Clone) {
        for path in std::iter::once(&mut self.fragment).chain(&mut self.drop_ins) {
            respell(root, path, known.clone());
        }
    }

    /// The unit that these files make.
    ///
    /// # Errors
    /// The first that cannot be read.
    pub fn read(&self, root: &Path, name: &str) -> Result<Unit, Unreadable> {
        let read = |path: &PathBuf| match fs::read(under(root, path)) {
            Ok(bytes) => {
                Ok(TextFile { path: path.clone(), text: String::from_utf8_lossy(&bytes).into_owned() })
            }
            Err(source) => Err(Unreadable { path: path.clone(), source }),
        };
        let drop_ins = self.drop_ins.iter().map(read).collect::<Result<_, _>>()?;
        Ok(Unit::from_text(name, Some(read(&self.fragment)?), drop_ins))
    }
}

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

impl UnitDirs {
    /// List the directories under `root`.
    ///
    /// # Errors
    /// When a directory exists and cannot be listed.
    pub fn read(root: &Path) -> io::Result<UnitDirs> {
        let mut entries = Vec::new();
        for dir in UNIT_DIRS {
            let real = under(root, Path::new(dir));
            let mut names = BTreeMap::new();
            match fs::read_dir(&real) {
                Ok(list) => {
                    for entry in list {
                        let entry = entry?;
                        let Ok(name) = entry.file_name().into_string() else { continue };
                        let is_link = entry.file_type()?.is_symlink();
                        let target = if is_link { Some(fs::read_link(entry.path())?) } else { None };
                        names.insert(name, target);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            entries.push(names);
        }
        Ok(UnitDirs { root: root.to_owned(), entries })
    }

    /// Fragment and drop-ins of `unit`.
    ///
    /// # Errors
    /// In the outer result, a directory that cannot be listed; in the inner one, why there is no
    /// text.
    pub fn locate(&self, unit: &str) -> io::Result<Result<UnitFiles, NoText>> {
        let fragment_name = match self.find(unit) {
            Some(_) => unit.to_owned(),
            None => template_of(unit).unwrap_or_else(|| unit.to_owned()),
        };
        let Some((dir, target)) = self.find(&fragment_name) else { return Ok(Err(NoText::Missing)) };
        let fragment = Path::new(dir).join(&fragment_name);
        if target.is_some_and(|target| target == Path::new("/dev/null")) {
            return Ok(Err(NoText::Masked(fragment)));
        }
        if let Some(other) =
            target.and_then(|target| self.alias_target(dir, target)).filter(|t| *t != fragment_name)
        {
            return Ok(Err(NoText::AliasOf(other)));
        }
        match fs::metadata(under(&self.root, &fragment)) {
            Ok(metadata) if metadata.len() == 0 => return Ok(Err(NoText::Masked(fragment))),
            Ok(_) => {}
            Err(_) => return Ok(Err(NoText::Missing)),
        }
        let drop_ins = self.drop_ins(&self.names(unit, &fragment_name))?;
        Ok(Ok(UnitFiles { fragment, drop_ins }))
    }

    /// The strongest entry of that name.
    fn find(&self, name: &str) -> Option<(&'static str, Option<&Path>)> {
        let mut dirs = UNIT_DIRS.iter().zip(&self.entries);
        dirs.find_map(|(dir, names)| names.get(name).map(|target| (*dir, target.as_deref())))
    }

    /// Unit name that a link in `dir` stands for: only links into the unit directories are other
    /// names.
    fn alias_target(&self, dir: &str, target: &Path) -> Option<String> {
        let absolute = Path::new(dir).join(target);
        let parent = normal(absolute.parent()?);
        let is_unit_dir = UNIT_DIRS.iter().any(|dir| parent == Path::new(dir))
            || parent == Path::new("/lib/systemd/system");
        let name = absolute.file_name()?.to_str()?;
        is_unit_dir.then(|| name.to_owned())
    }

    /// The unit's own name first, then all links that lead to it, by name.
    fn names(&self, unit: &str, fragment_name: &str) -> Vec<String> {
        let mut names = vec![unit.to_owned()];
        let mut seen: BTreeSet<String> = [unit.to_owned(), fragment_name.to_owned()].into();
        loop {
            let mut found = BTreeSet::new();
            for entries in &self.entries {
                for name in entries.keys().filter(|name| !seen.contains(*name)) {
                    let Some((dir, Some(target))) = self.find(name) else { continue };
                    if self.alias_target(dir, target).is_some_and(|other| seen.contains(&other)) {
                        found.insert(name.clone());
                    }
                }
            }
            if found.is_empty() {
                return names;
            }
            // A link of a template gives another name to each of its instances.
            let instance = unit.split_once('@').and_then(|(_, rest)| rest.rsplit_once('.')).map(|(i, _)| i);
            names.extend(found.iter().map(|name| match (instance, name.split_once("@.")) {
                (Some(instance), Some((prefix, suffix))) => format!("{prefix}@{instance}.{suffix}"),
                _ => name.clone(),
            }));
            seen.extend(found);
        }
    }

    fn drop_ins(&self, names: &[String]) -> io::Result<Vec<PathBuf>> {
        let mut by_file_name: BTreeMap<String, PathBuf> = BTreeMap::new();
        let mut take = |dir: &'static str,
                        entries: &BTreeMap<String, Option<PathBuf>>,
                        name: String|
         -> io::Result<()> {
            if !entries.contains_key(&name) {
                return Ok(());
            }
            let path = Path::new(dir).join(name);
            let list = match fs::read_dir(under(&self.root, &path)) {
                Ok(list) => list,
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
                {
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            for entry in list {
                let entry = entry?;
                let Ok(file) = entry.file_name().into_string() else { continue };
                if file.ends_with(".conf") && !file.starts_with('.') && !entry.file_type()?.is_dir() {
                    by_file_name.entry(file).or_insert_with_key(|file| path.join(file));
                }
            }
            Ok(())
        };
        // The first directory that has a file name wins; directories of the type come after all
        // others.
        for name in names {
            for (dir, entries) in UNIT_DIRS.iter().zip(&self.entries) {
                for specific in drop_in_names(name) {
                    take(dir, entries, format!("{specific}.d"))?;
                }
            }
        }
        let suffix =
            names.first().and_then(|name| name.rsplit_once('.')).map_or("service", |(_, suffix)| suffix);
        for (dir, entries) in UNIT_DIRS.iter().zip(&self.entries) {
            take(dir, entries, format!("{suffix}.d"))?;
        }
        Ok(by_file_name.into_values().collect())
    }
}

/// `a@.service` for `a@b.service`.
fn template_of(unit: &str) -> Option<String> {
    let (prefix, rest) = unit.split_once('@')?;
    let (instance, suffix) = rest.rsplit_once('.')?;
    (!instance.is_empty()).then(|| format!("{prefix}@.{suffix}"))
}

/// Names that a unit's drop-in directories may have, strongest first: the unit, what its template
/// has, and what the same name cut after an earlier dash has. In this order on systemd 257; a
/// template is cut to a name without `@`.
fn drop_in_names(unit: &str) -> Vec<String> {
    let mut names = vec![unit.to_owned()];
    if let Some(template) = template_of(unit) {
        names.extend(drop_in_names(&template));
    }
    let (stem, suffix) = unit.rsplit_once('.').unwrap_or((unit, "service"));
    let (prefix, instance) = stem.split_once('@').unwrap_or((stem, ""));
    if let Some(dash) = prefix.trim_end_matches('-').rfind('-') {
        let at = if instance.is_empty() { "" } else { "@" };
        names.extend(drop_in_names(&format!("{}{at}{instance}.{suffix}", &prefix[..=dash])));
    }
    names
}

/// `.` and `..` resolved by text.
fn normal(path: &Path) -> PathBuf {
    let mut result = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => drop(result.pop()),
            std::path::Component::CurDir => {}
            part => result.push(part),
        }
    }
    result
}

/// `path` below `root`.
pub fn under(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// Whether there is a regular file that somebody may execute.
pub fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drop_in_directories_are_named_as_systemd_names_them() {
        assert_eq!(drop_in_names("a.service"), ["a.service"]);
        assert_eq!(drop_in_names("a-b-c.service"), ["a-b-c.service", "a-b-.service", "a-.service"]);
        let expected = ["t-x@i.service", "t-x@.service", "t-.service", "t-@i.service", "t-@.service"];
        assert_eq!(drop_in_names("t-x@i.service"), expected);
        assert_eq!(drop_in_names("-a--b.service"), ["-a--b.service", "-a--.service", "-.service"]);
    }

    #[test]
    fn dots_in_link_targets_are_resolved() {
        assert_eq!(normal(Path::new("/etc/systemd/system/../../../lib/./x")), Path::new("/lib/x"));
    }
}
