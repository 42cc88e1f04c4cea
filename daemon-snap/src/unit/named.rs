//! Files that a unit's command line and environment name: what is known of them needs no observer.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

/// Variables that say something about this start, or where programs are looked for, and name no
/// configuration.
const SKIPPED: [&str; 13] = [
    "PATH",
    "PWD",
    "OLDPWD",
    "HOME",
    "SHELL",
    "NOTIFY_SOCKET",
    "JOURNAL_STREAM",
    "WATCHDOG_PID",
    "MAINPID",
    "INVOCATION_ID",
    "MEMORY_PRESSURE_WATCH",
    "CREDENTIALS_DIRECTORY",
    "LISTEN_FDNAMES",
];

/// Absolute paths that a process's own command line and environment name, as it sees them. A
/// process that is gone names none.
pub(super) fn of_process(pid: i32) -> BTreeSet<PathBuf> {
    let read = |name: &str| std::fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let cwd = std::fs::read_link(format!("/proc/{pid}/cwd")).ok();
    of_texts(&read("cmdline"), &read("environ"), cwd.as_deref())
}

fn of_texts(command_line: &[u8], environment: &[u8], cwd: Option<&Path>) -> BTreeSet<PathBuf> {
    let mut paths = BTreeSet::new();
    for word in command_line.split(|&byte| byte == 0) {
        paths.extend(in_word(word));
        // A script or configuration beside the working directory.
        let value = word.rsplit(|&byte| byte == b'=').next().unwrap_or(word);
        if let Some(cwd) = cwd.filter(|_| !value.is_empty() && !value.starts_with(b"-")) {
            paths.insert(cwd.join(path(value)));
        }
    }
    for variable in environment.split(|&byte| byte == 0) {
        let mut halves = variable.splitn(2, |&byte| byte == b'=');
        let (name, value) = (halves.next().unwrap_or_default(), halves.next().unwrap_or_default());
        if !SKIPPED.iter().any(|skipped| skipped.as_bytes() == name) {
            value.split(|&byte| byte == b':').for_each(|part| paths.extend(in_word(part)));
        }
    }
    paths
}

/// `/path`, `--option=/path`, `-c/path`.
fn in_word(word: &[u8]) -> Option<PathBuf> {
    let begin = match word.first()? {
        b'/' => 0,
        b'-' => word.iter().position(|&byte| byte == b'/')?,
        _ => word.windows(2).position(|two| two == b"=/")? + 1,
    };
    // A URL is not a path: `unix:///run/x` has its path behind the second slash at the earliest.
    (!word[begin..].starts_with(b"//")).then(|| path(&word[begin..]))
}

fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(command_line: &[u8], environment: &[u8], cwd: Option<&str>) -> Vec<String> {
        let paths = of_texts(command_line, environment, cwd.map(Path::new));
        paths.into_iter().map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn options_scripts_and_jars_are_named() {
        let found = named(b"/usr/bin/d\0-c\0/etc/d.conf\0--key=/etc/d.key\0-f/etc/f.conf\0-x\0", b"", None);
        assert_eq!(found, ["/etc/d.conf", "/etc/d.key", "/etc/f.conf", "/usr/bin/d"]);
        let found = named(b"java\0-jar\0app.jar\0", b"", Some("/srv/app"));
        assert!(found.contains(&"/srv/app/app.jar".to_owned()));
    }

    #[test]
    fn the_environment_names_files_but_for_what_is_new_in_every_start() {
        let found = named(
            b"",
            b"CONF=/etc/a.conf\0PYTHONPATH=/srv/a:/srv/b\0NOTIFY_SOCKET=/run/x\0PATH=/bin\0",
            None,
        );
        assert_eq!(found, ["/etc/a.conf", "/srv/a", "/srv/b"]);
    }

    #[test]
    fn addresses_are_no_paths() {
        assert_eq!(named(b"d\0--bind=http:/\x2fa/b\0x=1\0//net\0", b"", None), Vec::<String>::new());
    }
}
