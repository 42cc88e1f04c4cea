//! By which rule something that a service used at its start is compared: one table of places, first
//! match wins.
//!
//! The table in `docs/evidence.md` is this one, and a test compares both. What the administrator
//! says (`DependsOn=`, `IgnoreChanges=`) goes before the table. Pure: nothing is looked at here.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::value;

/// How something is compared, or why it is not. Stored in images: new ones are added at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// A file: owner, mode and content must be the same.
    Content,
    /// A directory that was listed: owner, mode and the names in it must be the same.
    Names,
    /// A symbolic link: it must lead to the same place.
    Link,
    /// `/etc/passwd` and its like: every entry that was there must be there unchanged; others may
    /// come.
    Accounts,
    /// A file of the kernel that programs size themselves by: its value must be the same.
    Value,
    /// A device, socket or FIFO: it must be one of the same kind and number.
    Kind,
    /// Not compared: it is made anew at each boot.
    Volatile,
    /// Not compared: a log.
    Log,
    /// Not compared: a cache that may be emptied at any time.
    Cache,
    /// Not compared: made from a source file, which is compared in its place.
    Compiled,
    /// Not compared: the service itself wrote it at its start.
    Own,
    /// Not compared: a view of the kernel without a stable value.
    KernelView,
    /// Not compared: `IgnoreChanges=` says so.
    Ignored,
    /// Not compared: it was there while the service started, and was gone when the image was taken.
    Gone,
    /// Not compared: a directory of programs, which every package puts files into.
    SearchPath,
    /// Not compared: it is of one machine, in an image that equal ones use; `Identity=` says that
    /// this does not matter.
    Identity,
}

impl Rule {
    /// Stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Rule::Content => "content",
            Rule::Names => "names",
            Rule::Link => "link",
            Rule::Accounts => "accounts",
            Rule::Value => "value",
            Rule::Kind => "kind",
            Rule::Volatile => "volatile",
            Rule::Log => "log",
            Rule::Cache => "cache",
            Rule::Compiled => "compiled",
            Rule::Own => "own",
            Rule::KernelView => "kernel-view",
            Rule::Ignored => "ignored",
            Rule::Gone => "gone",
            Rule::SearchPath => "search-path",
            Rule::Identity => "identity",
        }
    }

    /// Whether a difference makes an image stale.
    pub fn is_compared(self) -> bool {
        matches!(self, Rule::Content | Rule::Names | Rule::Link | Rule::Accounts | Rule::Value | Rule::Kind)
    }
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How it is known that the service used something. Stored in images: new ones are added at the
/// end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The kernel told of it while the start was recorded (fanotify).
    Observed,
    /// The same, of a process that was gone before its control group could be read; its number was
    /// the unit's.
    Numbered,
    /// It was open or mapped when the image was taken.
    Held,
    /// The command line or the environment names it.
    Named,
    /// It follows from something else: a link that leads there, the source of a compiled file.
    Derived,
    /// `DependsOn=` names it.
    Declared,
}

impl Source {
    /// Stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Observed => "observed",
            Source::Numbered => "observed, by process number",
            Source::Held => "held",
            Source::Named => "named on the command line or in the environment",
            Source::Derived => "derived",
            Source::Declared => "DependsOn=",
        }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a row of the table is about.
#[derive(Debug, Clone, Copy)]
enum Pattern {
    /// The path itself.
    Exactly(&'static [&'static str]),
    /// The path or anything below it.
    Below(&'static [&'static str]),
    /// A path with a component of this name.
    Component(&'static str),
    /// What lies below `/run` and is new in each boot: directories, notes of process numbers, locks,
    /// and what the service itself writes.
    Transient,
    /// Files of the kernel with a value.
    Values,
    /// Directories that the unit's own settings name, by purpose.
    OfUnit(Purpose),
    /// What the service itself wrote while it started.
    Written,
    /// Everything else.
    Any,
}

#[derive(Debug, Clone, Copy)]
enum Purpose {
    Runtime,
    Logs,
    Cache,
}

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub struct PlaceRule {
    /// As the documentation has it.
    pub place: &'static str,
    /// For files, and for directories that were listed ([`Rule::Content`] means [`Rule::Names`]
    /// there).
    pub rule: Rule,
    /// Why.
    pub why: &'static str,
    pattern: Pattern,
}

const fn row(place: &'static str, pattern: Pattern, rule: Rule, why: &'static str) -> PlaceRule {
    PlaceRule { place, rule, why, pattern }
}

const RUN_OF_THE_SYSTEM: &[&str] = &[
    "/run/systemd",
    "/run/credentials",
    "/run/udev",
    "/run/user",
    "/run/log",
    "/run/lock",
    "/run/mount",
    "/run/dbus",
    "/run/utmp",
    "/run/blkid",
    "/run/network",
    "/run/NetworkManager",
    "/run/resolvconf",
    "/run/fastboot",
];

/// The table, in the order in which it is asked.
pub const PLACES: &[PlaceRule] = &[
    row(
        "files below `/proc` and `/sys` that have a value (below)",
        Pattern::Values,
        Rule::Value,
        "programs size themselves by them",
    ),
    row(
        "everything else below `/proc` and `/sys`",
        Pattern::Below(&["/proc", "/sys"]),
        Rule::KernelView,
        "it is another one at each boot, or at each look",
    ),
    row("`/dev`", Pattern::Below(&["/dev"]), Rule::Volatile, "what stays open is compared by its number"),
    row(
        "`RuntimeDirectory=`, and what travels in the image",
        Pattern::OfUnit(Purpose::Runtime),
        Rule::Volatile,
        "made anew at each boot",
    ),
    row(
        "`/tmp`, `/var/tmp`",
        Pattern::Below(&["/tmp", "/var/tmp"]),
        Rule::Volatile,
        "made anew at each boot",
    ),
    row(
        "in `/run`: `systemd`, `credentials`, `udev`, `user`, `log`, `lock`, `mount`, `dbus`, `utmp`, `blkid`, `network`, `NetworkManager`, `resolvconf`, `fastboot`",
        Pattern::Below(RUN_OF_THE_SYSTEM),
        Rule::Volatile,
        "what the system keeps of this boot; credentials are compared with the start",
    ),
    row(
        "below `/run`: directories, files that end in `.pid` or `.lock`, and what the service itself wrote or has open for writing",
        Pattern::Transient,
        Rule::Volatile,
        "made anew at each boot",
    ),
    row(
        "other files below `/run`",
        Pattern::Below(&["/run", "/var/run"]),
        Rule::Content,
        "somebody else makes them at each boot, of a configuration that the service does not read itself",
    ),
    row(
        "`/var/lib/fastboot`",
        Pattern::Below(&["/var/lib/fastboot"]),
        Rule::Volatile,
        "fastboot's own: every snapshot changes it, and a program that looked into it meanwhile may count as the unit's",
    ),
    row("`/var/log`", Pattern::Below(&["/var/log"]), Rule::Log, "logs are rotated and emptied"),
    row("`LogsDirectory=`", Pattern::OfUnit(Purpose::Logs), Rule::Log, "logs are rotated and emptied"),
    row(
        "`/etc/passwd`, `/etc/group`, `/etc/shadow`, `/etc/gshadow`",
        Pattern::Exactly(&["/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow"]),
        Rule::Accounts,
        "packages add users that concern nobody else",
    ),
    row(
        "`/etc/ld.so.cache`",
        Pattern::Exactly(&["/etc/ld.so.cache"]),
        Rule::Cache,
        "every package with a library changes it; the libraries that it led to are compared, and what comes before them (above)",
    ),
    row(
        "`__pycache__`",
        Pattern::Component("__pycache__"),
        Rule::Compiled,
        "Python makes it; the source file beside it is compared",
    ),
    row("`/var/cache`", Pattern::Below(&["/var/cache"]), Rule::Cache, "caches may be emptied at any time"),
    row(
        "`CacheDirectory=`",
        Pattern::OfUnit(Purpose::Cache),
        Rule::Cache,
        "caches may be emptied at any time",
    ),
    row(
        "the directories `/usr/bin`, `/usr/sbin`, `/usr/local/bin`, `/usr/local/sbin`",
        Pattern::Exactly(&["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"]),
        Rule::SearchPath,
        "Python lists the directory of its script, and every package puts programs there",
    ),
    row(
        "`/etc`, `/usr`, `/boot`, `/bin`, `/sbin`, `/lib*`",
        Pattern::Below(&["/etc", "/usr", "/boot", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"]),
        Rule::Content,
        "configuration and programs, also where the service writes them itself",
    ),
    row(
        "elsewhere, written by the service while it started",
        Pattern::Written,
        Rule::Own,
        "state that it rewrites at each start",
    ),
    row(
        "everything else: `/srv`, `/opt`, `/home`, `/root`, `/var/lib`, …",
        Pattern::Any,
        Rule::Content,
        "what was read at the start is in its memory",
    ),
];

/// What the table has to know about a unit, as the unit sees paths.
#[derive(Debug, Clone, Default)]
pub struct UnitPlaces {
    /// `RuntimeDirectory=`, private temporary directories and whatever else travels in the image.
    pub runtime: Vec<PathBuf>,
    /// `LogsDirectory=`.
    pub logs: Vec<PathBuf>,
    /// `CacheDirectory=`.
    pub cache: Vec<PathBuf>,
}

impl UnitPlaces {
    /// The rule for a file, or with `is_listed` for a directory that was listed. `is_written`: the
    /// service itself wrote it, or a file right in it, while it started.
    pub fn rule(&self, path: &Path, is_listed: bool, is_written: bool) -> Rule {
        let row = PLACES.iter().find(|row| self.holds(row.pattern, path, is_listed, is_written));
        match row.map_or(Rule::Content, |row| row.rule) {
            Rule::Content if is_listed => Rule::Names,
            rule => rule,
        }
    }

    fn holds(&self, pattern: Pattern, path: &Path, is_listed: bool, is_written: bool) -> bool {
        let below = |roots: &[PathBuf]| roots.iter().any(|root| path.starts_with(root));
        match pattern {
            Pattern::Exactly(paths) => paths.iter().any(|one| path == Path::new(one)),
            Pattern::Below(roots) => roots.iter().any(|root| path.starts_with(root)),
            Pattern::Component(name) => path.components().any(|part| part.as_os_str() == name),
            Pattern::Transient => {
                let is_note = path.extension().is_some_and(|end| end == "pid" || end == "lock");
                is_below_run(path) && (is_listed || is_written || is_note)
            }
            Pattern::Values => value::kind_of(path).is_some(),
            Pattern::OfUnit(Purpose::Runtime) => below(&self.runtime),
            Pattern::OfUnit(Purpose::Logs) => below(&self.logs),
            Pattern::OfUnit(Purpose::Cache) => below(&self.cache),
            Pattern::Written => is_written,
            Pattern::Any => true,
        }
    }
}

/// Whether a path lies where each boot begins with nothing.
pub fn is_below_run(path: &Path) -> bool {
    ["/run", "/var/run"].iter().any(|root| path.starts_with(root))
}

/// The Python source that a compiled file was made from: `a/__pycache__/b.cpython-313.pyc` is of
/// `a/b.py`. Python reads the source only where the compiled file does not fit to its time and
/// length, so nobody sees it being opened.
pub fn source_of_compiled(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?.strip_suffix(".pyc")?;
    let dir = path.parent()?;
    let module = name.split('.').next().filter(|module| !module.is_empty())?;
    (dir.file_name()? == "__pycache__").then(|| dir.with_file_name(format!("{module}.py")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> UnitPlaces {
        UnitPlaces {
            runtime: vec!["/run/app".into(), "/srv/scratch".into()],
            logs: vec!["/srv/logs/app".into()],
            cache: vec!["/srv/cache".into()],
        }
    }

    fn rule(path: &str) -> Rule {
        places().rule(Path::new(path), false, false)
    }

    #[test]
    fn configuration_and_programs_count_by_content_wherever_they_are() {
        for path in [
            "/etc/app.conf",
            "/usr/bin/app",
            "/opt/app/app.jar",
            "/srv/app/app.py",
            "/home/app/.config/app.toml",
            "/var/lib/app/root.key",
            "/var/www/html/index.php",
        ] {
            assert_eq!(rule(path), Rule::Content, "{path}");
        }
        let listed = |path: &str| places().rule(Path::new(path), true, false);
        assert_eq!(listed("/etc/app/conf.d"), Rule::Names);
        assert_eq!(listed("/usr/lib/app/plugins"), Rule::Names);
        assert_eq!(listed("/usr/bin"), Rule::SearchPath, "an unrelated package");
        assert_eq!(rule("/usr/bin/app"), Rule::Content);
    }

    #[test]
    fn what_each_boot_makes_anew_does_not_count() {
        assert_eq!(rule("/run/app/app.pid"), Rule::Volatile);
        assert_eq!(rule("/tmp/x"), Rule::Volatile);
        assert_eq!(rule("/var/lib/fastboot/catalogue.json"), Rule::Volatile);
        assert_eq!(rule("/var/lib/fastbooted/x"), Rule::Content);
        assert_eq!(rule("/srv/scratch/x"), Rule::Volatile);
        assert_eq!(rule("/runner/config"), Rule::Content, "a name that only begins like it");
        assert_eq!(places().rule(Path::new("/run"), true, false), Rule::Volatile);
    }

    #[test]
    fn what_others_make_below_run_counts_and_what_the_service_makes_does_not() {
        let written = |path: &str| places().rule(Path::new(path), false, true);
        assert_eq!(rule("/run/gen.conf"), Rule::Content);
        assert_eq!(rule("/var/run/gen/app.toml"), Rule::Content);
        assert_eq!(written("/run/gen.conf"), Rule::Volatile);
        assert_eq!(rule("/run/other.pid"), Rule::Volatile);
        assert_eq!(rule("/run/systemd/resolve/stub-resolv.conf"), Rule::Volatile);
        assert_eq!(rule("/run/credentials/app.service/key"), Rule::Volatile);
        assert_eq!(places().rule(Path::new("/run/gen"), true, false), Rule::Volatile);
    }

    #[test]
    fn only_places_of_logs_hold_logs() {
        assert_eq!(rule("/var/log/app/access.log"), Rule::Log);
        assert_eq!(rule("/srv/logs/app/a"), Rule::Log);
        assert_eq!(rule("/home/app/store/000003.log"), Rule::Content, "a journal of LevelDB");
        assert_eq!(rule("/srv/app/app.log"), Rule::Content);
    }

    #[test]
    fn what_the_service_wrote_is_its_own_but_for_configuration() {
        let written = |path: &str| places().rule(Path::new(path), false, true);
        assert_eq!(written("/var/lib/app/state.json"), Rule::Own);
        assert_eq!(written("/etc/app/generated.conf"), Rule::Content);
        assert_eq!(written("/var/log/app.log"), Rule::Log);
    }

    #[test]
    fn caches_and_accounts_have_rules_of_their_own() {
        assert_eq!(rule("/etc/ld.so.cache"), Rule::Cache);
        assert_eq!(rule("/var/cache/fontconfig/x"), Rule::Cache);
        assert_eq!(rule("/srv/cache/x"), Rule::Cache);
        assert_eq!(rule("/etc/passwd"), Rule::Accounts);
        assert_eq!(rule("/etc/passwd.d/x"), Rule::Content);
        assert_eq!(rule("/usr/lib/python3/__pycache__/os.cpython-313.pyc"), Rule::Compiled);
    }

    #[test]
    fn the_source_stands_for_what_python_made_of_it() {
        let source = |path: &str| source_of_compiled(Path::new(path));
        assert_eq!(source("/srv/a/__pycache__/b.cpython-313.pyc"), Some("/srv/a/b.py".into()));
        assert_eq!(source("/srv/a/__pycache__/b.cpython-313.opt-1.pyc"), Some("/srv/a/b.py".into()));
        assert_eq!(source("/srv/a/b.pyc"), None);
        assert_eq!(source("/srv/a/__pycache__/b.txt"), None);
    }

    #[test]
    fn every_row_of_the_table_is_in_the_documentation_in_its_order() {
        let doc = include_str!("../../../docs/evidence.md");
        let mut rest = doc;
        for row in PLACES {
            let line = format!("| {} | {} | {} |\n", row.place, row.rule, row.why);
            let at = rest
                .find(&line)
                .unwrap_or_else(|| panic!("not in docs/evidence.md, or not in order: {line}"));
            rest = &rest[at + line.len()..];
        }
        let rows = doc.split("## Places").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
        let count = rows.lines().filter(|line| line.starts_with("| ")).count();
        assert_eq!(count - 1, PLACES.len(), "the documentation has rows that the code does not have");
    }
}
