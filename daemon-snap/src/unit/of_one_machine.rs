//! What a service has of one machine, in an image that equal machines use: it refuses the unit by
//! name, or is not compared where the unit says that it does not matter (`Identity=`).

use super::gathered::Files;
use super::observed::Start;
use super::randomness;
use image_store::evidence::{Gap, PlaceOfOne};
use image_store::{FileEvidence, FileKind, Rule};
use snap_error::UnitObstacle;
use snap_policy::{Identity, Options};
use snap_state::{RawPath, TreeV1};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const HOST_NAME: &str = "/proc/sys/kernel/hostname";

/// Looks at all that was found, and at what was seen of the start.
pub(super) fn inspect(
    files: &mut Files<'_>,
    environment_files: &mut Vec<FileEvidence>,
    start: &Start,
    tree: &TreeV1,
) {
    let compared = files.compared().chain(environment_files.iter());
    let is_file = |file: &&FileEvidence| matches!(file.kind, FileKind::File | FileKind::Symlink);
    let held: Vec<PathBuf> = compared.filter(is_file).map(|file| file.path.clone()).collect();
    let used = used(held.iter().map(PathBuf::as_path).chain(seen(start)));
    let unseen = unseen(start);
    let libraries = randomness::repeated_elsewhere(tree);
    if files.options.identity == Identity::Refuse {
        for (path, what) in used {
            files.refuse(UnitObstacle::ReadsIdentity { path: RawPath::from_path(&path), what });
        }
        unseen.into_iter().for_each(|why| files.refuse(UnitObstacle::IdentityUnseen { why }));
        for library in libraries {
            files.refuse(UnitObstacle::RepeatsRandom { library });
        }
        return;
    }
    let lets = "[X-Fastboot] Identity= lets it";
    for (path, what) in used {
        files.notes.push(format!("has read {} ({what}); {lets}", path.display()));
        environment_files.retain(|file| file.path != path);
        files.forget(&path, Rule::Identity);
    }
    files.forget(Path::new(HOST_NAME), Rule::Identity);
    for library in libraries {
        files.notes.push(format!("uses {library}, whose random numbers every machine may share; {lets}"));
    }
}

/// Whether a unit that says that it makes its identity anew has anybody who would.
pub fn renews(options: &Options, has_channels: bool) -> bool {
    options.identity != Identity::Renewed || has_channels || !options.after_restore.is_empty()
}

/// Paths that are in the table.
fn used<'p>(paths: impl Iterator<Item = &'p Path>) -> BTreeMap<PathBuf, &'static str> {
    paths.filter_map(|path| Some((path.to_owned(), PlaceOfOne::of(path)?.what))).collect()
}

/// Files that the kernel has told of; also those that are not compared.
fn seen(start: &Start) -> Box<dyn Iterator<Item = &Path> + '_> {
    match start {
        Start::Recorded { log, .. } => {
            let files = log.files.iter().filter(|(_, seen)| seen.first.mode & libc::S_IFMT == libc::S_IFREG);
            Box::new(files.map(|(path, _)| path.as_path()))
        }
        Start::Unobserved(_) | Start::Inherited(_) => Box::new(std::iter::empty()),
    }
}

/// Why something may have been read that nobody has seen. `DependsOn=` answers for what counts, and
/// not for that.
fn unseen(start: &Start) -> Vec<String> {
    match start {
        Start::Recorded { log, blind } => {
            log.gaps.iter().chain(blind).filter(|gap| may_hide(gap)).map(Gap::to_string).collect()
        }
        Start::Unobserved(why) => vec![why.to_string()],
        Start::Inherited(_) => vec!["its start was observed for another image".to_owned()],
    }
}

fn may_hide(gap: &Gap) -> bool {
    match gap {
        Gap::Dropped | Gap::Unread { .. } => true,
        Gap::Unwatchable { point, .. } | Gap::Late { point, .. } => PlaceOfOne::may_be_below(point),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use snap_observe::{Seen, Stamp, UnitLog};

    fn start(files: &[(&str, u32)], blind: Vec<Gap>) -> Start {
        let mut log = UnitLog::default();
        for (path, mode) in files {
            let first = Stamp { mode: *mode, ..Stamp::default() };
            log.files.insert(path.into(), Seen { opened: true, first, ..Seen::default() });
        }
        Start::Recorded { log, blind }
    }

    #[test]
    fn files_of_one_machine_are_found_among_what_was_seen() {
        let start = start(
            &[
                ("/etc/machine-id", libc::S_IFREG | 0o444),
                ("/etc/ssl/private/a.key", libc::S_IFREG | 0o600),
                ("/etc/ssl/private/dir", libc::S_IFDIR | 0o700),
                ("/etc/hosts", libc::S_IFREG | 0o644),
            ],
            Vec::new(),
        );
        let found: Vec<&str> = used(seen(&start)).into_values().collect();
        assert_eq!(found, ["the machine id", "a private key"]);
        assert!(unseen(&start).is_empty());
    }

    #[test]
    fn what_nobody_could_see_counts_where_something_of_one_machine_may_lie() {
        let blind = |point: &str| {
            let gap = Gap::Unwatchable { point: point.into(), kind: "fuse".to_owned(), errno: libc::ENODEV };
            unseen(&start(&[], vec![gap])).len()
        };
        assert_eq!((blind("/etc"), blind("/srv/data")), (1, 0));
        let mut log = UnitLog::default();
        log.gaps.insert(Gap::Dropped);
        assert_eq!(unseen(&Start::Recorded { log, blind: Vec::new() }).len(), 1);
    }

    #[test]
    fn who_says_that_it_renews_needs_a_hook() {
        let options = |identity, hooks: &[&str]| Options {
            identity,
            after_restore: hooks.iter().map(|hook| (*hook).to_owned()).collect(),
            ..Options::default()
        };
        assert!(!renews(&options(Identity::Renewed, &[]), false));
        assert!(renews(&options(Identity::Renewed, &[]), true));
        assert!(renews(&options(Identity::Renewed, &["renew"]), false));
        assert!(renews(&options(Identity::None, &[]), false));
    }
}
