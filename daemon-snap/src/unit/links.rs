//! Symbolic links that lead to what a unit uses. The kernel tells where a path has led, not over
//! which links.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

/// As many as path_resolution(7) follows.
const MAX_LINKS: usize = 40;
/// Where links count whatever lies beside them.
const CONFIGURATION: &str = "/etc";
/// Links there are made anew at each boot, or are no files at all.
const PASSING: [&str; 8] = ["/proc", "/sys", "/dev", "/run", "/tmp", "/var/run", "/var/tmp", "/var/log"];
/// Levels below `/etc`, and links of it, that are looked at: a bound, not a rule.
const MAX_DEPTH: usize = 16;
const MAX_ENTRIES: usize = 200_000;

/// A path, followed through the view of a unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Followed {
    /// Every link on the way.
    pub links: Vec<PathBuf>,
    /// Where it leads; `None` when that is nothing, or a circle.
    pub end: Option<PathBuf>,
}

/// The file system as a unit sees it. Absolute links begin at its root and not at ours.
#[derive(Debug)]
pub(super) struct View {
    /// Our path to the unit's root.
    root: PathBuf,
    /// What one entry is: looked at once.
    known: std::cell::RefCell<BTreeMap<PathBuf, Entry>>,
}

#[derive(Clone, Debug)]
enum Entry {
    Link(PathBuf),
    Other,
    Missing,
}

impl View {
    pub fn new(root: PathBuf) -> Self {
        Self { root, known: std::cell::RefCell::default() }
    }

    fn real(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    fn entry(&self, path: &Path) -> Entry {
        if let Some(known) = self.known.borrow().get(path) {
            return known.clone();
        }
        let real = self.real(path);
        let entry = match std::fs::symlink_metadata(&real) {
            Ok(metadata) if metadata.is_symlink() => {
                std::fs::read_link(&real).map_or(Entry::Other, Entry::Link)
            }
            Ok(_) => Entry::Other,
            Err(_) => Entry::Missing,
        };
        self.known.borrow_mut().insert(path.to_owned(), entry.clone());
        entry
    }

    /// Follows an absolute path, component by component. Stops where it would enter a place whose
    /// links do not count.
    pub fn follow(&self, path: &Path) -> Followed {
        let mut followed = Followed::default();
        let mut at = PathBuf::from("/");
        let mut ahead: Vec<OsString> = parts(path);
        while let Some(part) = ahead.pop() {
            if part == ".." {
                at.pop();
                continue;
            }
            at.push(part);
            if is_passing(&at) {
                // It leads there, whatever is behind it.
                at.extend(ahead.iter().rev());
                followed.end = Some(at);
                return followed;
            }
            match self.entry(&at) {
                Entry::Other => {}
                Entry::Missing => return followed,
                Entry::Link(target) => {
                    if followed.links.len() >= MAX_LINKS {
                        return followed;
                    }
                    followed.links.push(at.clone());
                    match target.is_absolute() {
                        true => at = PathBuf::from("/"),
                        false => drop(at.pop()),
                    }
                    ahead.extend(parts(&target));
                }
            }
        }
        followed.end = Some(at);
        followed
    }

    /// Links below `/etc`, and in every directory that holds one of `used` or lies above one, that
    /// lead to one of `used` or to a directory above.
    pub fn leading_to(&self, used: &BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
        let root = Path::new("/");
        let above: BTreeSet<&Path> =
            used.iter().flat_map(|path| path.ancestors().skip(1)).filter(|dir| !is_passing(dir)).collect();
        let is_wanted = |end: &Path| end != root && (used.contains(end) || above.contains(end));
        let mut links = BTreeSet::new();
        let mut left = MAX_ENTRIES;
        let mut look = |dir: &Path, into: &mut Vec<PathBuf>| {
            let Ok(entries) = std::fs::read_dir(self.real(dir)) else { return };
            for entry in entries.flatten().take(left) {
                left -= 1;
                let Ok(kind) = entry.file_type() else { continue };
                let path = dir.join(entry.file_name());
                if kind.is_dir() {
                    into.push(path);
                } else if kind.is_symlink() && !is_passing(&path) {
                    let followed = self.follow(&path);
                    if followed.end.as_deref().is_some_and(is_wanted) {
                        links.extend(followed.links);
                    }
                }
            }
        };
        let mut ignored = Vec::new();
        for dir in above.iter().filter(|dir| !dir.starts_with(CONFIGURATION)) {
            look(dir, &mut ignored);
        }
        let mut level = vec![PathBuf::from(CONFIGURATION)];
        for _ in 0..MAX_DEPTH {
            let mut next = Vec::new();
            level.iter().for_each(|dir| look(dir, &mut next));
            level = next;
        }
        links
    }
}

/// Names of a path, the first one last; `..` stays.
fn parts(path: &Path) -> Vec<OsString> {
    let names = path.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    names.map(|part| part.as_os_str().to_owned()).rev().collect()
}

fn is_passing(path: &Path) -> bool {
    PASSING.iter().any(|root| path.starts_with(root))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn view(files: &[&str], links: &[(&str, &str)]) -> (tempfile::TempDir, View) {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| {
            let path = dir.path().join(path.trim_start_matches('/'));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            path
        };
        files.iter().for_each(|file| std::fs::write(at(file), "").unwrap());
        links.iter().for_each(|(link, target)| symlink(target, at(link)).unwrap());
        let view = View::new(dir.path().to_owned());
        (dir, view)
    }

    fn leading_to(view: &View, used: &[&str]) -> Vec<String> {
        let used = used.iter().map(PathBuf::from).collect();
        view.leading_to(&used).into_iter().map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn links_of_the_configuration_and_of_places_above_are_found() {
        let (_dir, view) = view(
            &["/usr/share/zoneinfo/Etc/UTC", "/srv/app/releases/42/main.js", "/usr/bin/vim.basic"],
            &[
                ("/etc/localtime", "/usr/share/zoneinfo/Etc/UTC"),
                ("/etc/alternatives/editor", "/usr/bin/vim.basic"),
                ("/srv/app/current", "releases/42"),
                ("/srv/app/previous", "releases/41"),
                ("/lib", "usr/lib"),
            ],
        );
        let used = ["/usr/share/zoneinfo/Etc/UTC", "/srv/app/releases/42/main.js"];
        assert_eq!(leading_to(&view, &used), ["/etc/localtime", "/srv/app/current"]);
    }

    #[test]
    fn every_link_on_a_way_counts() {
        let (_dir, view) = view(
            &["/opt/v2/app.conf"],
            &[("/etc/app.conf", "app/active"), ("/etc/app/active", "/opt/now/app.conf"), ("/opt/now", "v2")],
        );
        assert_eq!(
            leading_to(&view, &["/opt/v2/app.conf"]),
            ["/etc/app/active", "/etc/app.conf", "/opt/now"]
        );
        let followed = view.follow(Path::new("/etc/../etc/app.conf"));
        assert_eq!(followed.end, Some("/opt/v2/app.conf".into()));
        assert_eq!(followed.links.len(), 3);
    }

    #[test]
    fn a_link_that_leads_into_a_place_of_this_boot_counts_and_the_place_does_not() {
        let (_dir, view) = view(&[], &[("/etc/resolv.conf", "../run/resolve/stub.conf")]);
        assert_eq!(leading_to(&view, &["/run/resolve/stub.conf"]), ["/etc/resolv.conf"]);
    }

    #[test]
    fn circles_and_loose_ends_lead_nowhere() {
        let (_dir, view) = view(&[], &[("/etc/a", "b"), ("/etc/b", "a"), ("/etc/c", "missing")]);
        assert_eq!(view.follow(Path::new("/etc/a")).end, None);
        assert_eq!(view.follow(Path::new("/etc/c")).end, None);
    }
}
