//! Whether a unit's files say what they said when its processes were started. systemd keeps nothing
//! of what it had started them by, and after `daemon-reload` it knows the new text only.

use image_store::UnitEvidence;
use image_store::evidence::{TextEvidence, is_own_drop_in};
use snap_policy::Unit;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// What is known of the files when the unit was started.
#[derive(Clone, Copy, Debug)]
pub(super) enum Then<'a> {
    /// They were these.
    Files(&'a UnitEvidence),
    /// Nothing but that it was before this time, in nanoseconds since 1970.
    Before(i64),
}

/// Files of the unit that have changed, come or gone since. New drop-ins that say nothing to systemd
/// do not count: who is told that a unit needs `DependsOn=` writes one.
pub(super) fn changed(now: &UnitEvidence, text: &Unit, then: Then<'_>) -> Vec<PathBuf> {
    let counts = |file: &&TextEvidence| !text.concerns_no_start(&file.path);
    let path = |file: &TextEvidence| file.path.clone();
    match then {
        Then::Files(then) => {
            let was = |file: &TextEvidence| files_of(then).find(|was| was.path == file.path);
            let is_new = |file: &&TextEvidence| match was(file) {
                Some(was) => was.digest != file.digest,
                None => counts(file),
            };
            let is_gone = |was: &&TextEvidence| files_of(now).all(|file| file.path != was.path);
            files_of(now).filter(is_new).chain(files_of(then).filter(is_gone)).map(path).collect()
        }
        Then::Before(time_ns) => {
            let is_later = |file: &&TextEvidence| last_change_ns(&file.path) > time_ns;
            let mut found: Vec<PathBuf> = files_of(now).filter(counts).filter(is_later).map(path).collect();
            let mut dirs: Vec<&Path> = now.drop_ins.iter().filter_map(|file| file.path.parent()).collect();
            dirs.dedup();
            found.extend(dirs.into_iter().filter(|dir| has_lost_a_file(dir, time_ns)).map(Path::to_owned));
            found
        }
    }
}

fn files_of(unit: &UnitEvidence) -> impl Iterator<Item = &TextEvidence> {
    std::iter::once(&unit.fragment).chain(&unit.drop_ins).filter(|file| !is_own_drop_in(&file.path))
}

/// 0 where there is nothing.
fn last_change_ns(path: &Path) -> i64 {
    let of = |s: i64, ns: i64| s.saturating_mul(1_000_000_000).saturating_add(ns);
    std::fs::metadata(path)
        .map_or(0, |is| of(is.mtime(), is.mtime_nsec()).max(of(is.ctime(), is.ctime_nsec())))
}

/// Whether a directory changed after this time, and after every file that is in it: one that comes
/// is as young as the change that it makes.
fn has_lost_a_file(dir: &Path, time_ns: i64) -> bool {
    let changed_ns = last_change_ns(dir);
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    changed_ns > time_ns && entries.map(|entry| last_change_ns(&entry.path())).all(|ns| ns < changed_ns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use snap_policy::TextFile;
    use std::fs;

    const FRAGMENT: &str = "[Service]\nExecStart=/usr/bin/app\n";

    struct Files {
        dir: tempfile::TempDir,
    }

    impl Files {
        fn new() -> Self {
            let files = Self { dir: tempfile::tempdir().unwrap() };
            fs::create_dir(files.path("app.service.d")).unwrap();
            fs::write(files.path("app.service"), FRAGMENT).unwrap();
            files
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn drop_in(&self, name: &str, text: &str) -> PathBuf {
            let path = self.path("app.service.d").join(name);
            fs::write(&path, text).unwrap();
            path
        }

        fn read(&self) -> (UnitEvidence, Unit) {
            let entries = fs::read_dir(self.path("app.service.d")).unwrap();
            let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
            paths.sort();
            let fragment = self.path("app.service");
            let evidence = UnitEvidence::collect(Path::new("/"), &fragment, &paths).unwrap();
            let text =
                |path: &PathBuf| TextFile { path: path.clone(), text: fs::read_to_string(path).unwrap() };
            let unit =
                Unit::from_text("app.service", Some(text(&fragment)), paths.iter().map(text).collect());
            (evidence, unit)
        }

        fn changed_since(&self, then: Then<'_>) -> Vec<PathBuf> {
            let (now, text) = self.read();
            changed(&now, &text, then)
        }

        /// A moment after everything so far.
        fn now_ns(&self) -> i64 {
            std::thread::sleep(std::time::Duration::from_millis(20));
            fs::write(self.path("clock"), "").unwrap();
            let now_ns = last_change_ns(&self.path("clock"));
            std::thread::sleep(std::time::Duration::from_millis(20));
            now_ns
        }
    }

    #[test]
    fn text_that_systemd_has_read_again_is_not_what_the_processes_were_started_by() {
        let files = Files::new();
        let kept = files.drop_in("kept.conf", "[Service]\nUser=app\n");
        let (then, _) = files.read();
        let time_ns = files.now_ns();
        let nothing = [Vec::<PathBuf>::new(), Vec::new()];
        let both = || [files.changed_since(Then::Files(&then)), files.changed_since(Then::Before(time_ns))];
        assert_eq!(both(), nothing.clone());

        files.drop_in("ours.conf", "# for us\n[X-Fastboot]\nDependsOn=/etc/app\n");
        assert_eq!(both(), nothing.clone(), "systemd takes nothing from it");
        let added = files.drop_in("added.conf", "[X-Fastboot]\n[Service]\nEnvironment=TZ=UTC\n");
        assert_eq!(both(), [vec![added.clone()], vec![added.clone()]]);
        fs::remove_file(added).unwrap();
        files.drop_in("kept.conf", "[Service]\nUser=other\n");
        assert_eq!(both(), [vec![kept.clone()], vec![kept.clone()]]);
        let fragment = files.path("app.service");
        fs::write(&fragment, "[Service]\nExecStart=/usr/bin/other\n").unwrap();
        assert_eq!(both(), [vec![fragment.clone(), kept.clone()], vec![fragment, kept]]);
    }

    #[test]
    fn a_drop_in_that_is_gone_counts_too() {
        let files = Files::new();
        let gone = files.drop_in("gone.conf", "[Service]\nUser=app\n");
        files.drop_in("kept.conf", "[Service]\nGroup=app\n");
        let (then, _) = files.read();
        let time_ns = files.now_ns();
        fs::remove_file(&gone).unwrap();
        assert_eq!(files.changed_since(Then::Files(&then)), [gone]);
        assert_eq!(files.changed_since(Then::Before(time_ns)), [files.path("app.service.d")]);
    }
}
