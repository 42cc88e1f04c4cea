//! Everything that is in a root, so that two moments can be compared.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// What changes by itself or belongs to the package manager's own history, and why it is not looked
/// at.
const NOT_OURS: &[(&str, &str)] = &[
    ("/var/log", "logs"),
    ("/var/lib/dpkg/status-old", "dpkg's copy of the state before its last step"),
    ("/var/lib/dpkg/lock", "an empty file"),
    ("/var/lib/dpkg/lock-frontend", "an empty file"),
    ("/var/lib/dpkg/triggers", "dpkg's queue of work"),
    ("/var/lib/apt", "lists, and what apt found out about them"),
    ("/var/cache/apt", "apt's cache"),
    ("/var/cache/man", "the index of manual pages is written anew"),
    ("/var/cache/debconf", "debconf's copy of its state before its last step"),
    ("/var/lib/systemd", "random seed, timers, credentials: written at each boot"),
    ("/var/tmp", "private directories of running services"),
    ("/tmp", "as it says"),
    ("/run", "gone with each boot"),
];

/// Path in the root, to all that counts of what is there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tree(BTreeMap<PathBuf, String>);

impl Tree {
    /// Read the tree of a root that is not running.
    pub(super) fn read(root: &Path) -> Result<Tree> {
        let mut entries = BTreeMap::new();
        read_dir(root, root, &mut entries)?;
        Ok(Tree(entries))
    }

    /// One line for each path at which `later` is otherwise.
    pub(super) fn differences(&self, later: &Tree) -> Vec<String> {
        let gone = self.0.keys().filter(|path| !later.0.contains_key(*path));
        let gone = gone.map(|path| format!("{} is gone", path.display()));
        let other = later.0.iter().filter_map(|(path, now)| match self.0.get(path) {
            None => Some(format!("{} is new", path.display())),
            Some(before) if before != now => Some(format!("{}: {before} → {now}", path.display())),
            Some(_) => None,
        });
        gone.chain(other).collect()
    }
}

fn read_dir(root: &Path, dir: &Path, entries: &mut BTreeMap<PathBuf, String>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("listing {}", dir.display()))? {
        let path = entry.with_context(|| format!("listing {}", dir.display()))?.path();
        let inside = Path::new("/").join(path.strip_prefix(root).unwrap_or(&path));
        if NOT_OURS.iter().any(|(other, _)| inside == Path::new(other)) {
            continue;
        }
        let described = describe(&path).with_context(|| format!("reading {}", path.display()))?;
        entries.insert(inside, described);
        if fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir()) {
            read_dir(root, &path, entries)?;
        }
    }
    Ok(())
}

/// Type, mode, owner and content. Times are left out: they change with every write of the same.
fn describe(path: &Path) -> std::io::Result<String> {
    let metadata = fs::symlink_metadata(path)?;
    let content = if metadata.is_file() {
        blake3::hash(&fs::read(path)?).to_hex()[..16].to_owned()
    } else if metadata.is_symlink() {
        format!("→ {}", fs::read_link(path)?.display())
    } else {
        format!("device {}", metadata.rdev())
    };
    Ok(format!("{:o} {}:{} {content}", metadata.permissions().mode(), metadata.uid(), metadata.gid()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_difference_is_named_and_exceptions_are_not() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        fs::create_dir_all(path("etc/a")).unwrap();
        fs::create_dir_all(path("var/log")).unwrap();
        fs::write(path("etc/content"), "1").unwrap();
        fs::write(path("etc/mode"), "1").unwrap();
        fs::write(path("etc/gone"), "1").unwrap();
        let before = Tree::read(root.path()).unwrap();
        assert_eq!(before.differences(&Tree::read(root.path()).unwrap()), Vec::<String>::new());
        fs::write(path("etc/content"), "2").unwrap();
        fs::set_permissions(path("etc/mode"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::remove_file(path("etc/gone")).unwrap();
        fs::write(path("etc/a/new"), "1").unwrap();
        fs::write(path("var/log/messages"), "1").unwrap();
        let lines = before.differences(&Tree::read(root.path()).unwrap());
        let paths: Vec<&str> =
            lines.iter().map(|line| line.split([':', ' ']).next().unwrap_or_default()).collect();
        assert_eq!(paths, ["/etc/gone", "/etc/a/new", "/etc/content", "/etc/mode"]);
    }
}
