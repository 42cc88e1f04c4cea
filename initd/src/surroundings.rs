//! What systemd has given to a unit's main process: read from the shim, which is that process
//! before it becomes the daemon. A daemon changes its environment, limits and groups itself, so it
//! cannot be asked later.
//!
//! Call it for a process that is known to be the shim which systemd has started; it does not trust
//! more than that. Costs some reads of /proc.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use image_store::evidence::{StartEvidence, StartKey, StartKind};

/// Longest text that is read of a file in /proc; the environment may have this length too.
const MAX_LEN: u64 = 8 << 20;
/// systemd takes 1 MiB of credentials together.
const MAX_CREDENTIAL_LEN: u64 = 2 << 20;
const MAX_CREDENTIALS: usize = 4096;
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// Lines of `/proc/PID/status` that count, with the name that people know.
const STATUS: [(&str, StartKind, &str); 10] = [
    ("Umask", StartKind::Privilege, "umask"),
    ("CapInh", StartKind::Privilege, "inheritable capabilities"),
    ("CapPrm", StartKind::Privilege, "permitted capabilities"),
    ("CapEff", StartKind::Privilege, "effective capabilities"),
    ("CapBnd", StartKind::Privilege, "bounding set of capabilities"),
    ("CapAmb", StartKind::Privilege, "ambient capabilities"),
    ("NoNewPrivs", StartKind::Privilege, "no_new_privs"),
    ("Seccomp_filters", StartKind::Privilege, "number of system call filters"),
    ("Cpus_allowed_list", StartKind::Scheduling, "processors"),
    ("Mems_allowed_list", StartKind::Scheduling, "memory nodes"),
];
/// Fields of `/proc/PID/stat`, counted from the one behind the program's name.
const STAT: [(usize, &str); 3] = [(16, "nice value"), (37, "real-time priority"), (38, "scheduling policy")];

/// Of the process `pid`, with digests under `key`.
///
/// # Errors
/// When something cannot be read or understood: then it cannot be compared.
pub fn collect(pid: i32, key: &StartKey) -> io::Result<StartEvidence> {
    let read = |name: &str| read_bounded(&PathBuf::from(format!("/proc/{pid}/{name}")));
    let text = |name: &str| read(name).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let mut start = StartEvidence::default();
    let environment = read("environ")?;
    for (name, value) in variables(&environment) {
        start.put_variable(&name, value, key);
        if name == CREDENTIALS {
            let dir = Path::new(std::ffi::OsStr::from_bytes(value));
            add_credentials(&mut start, pid, dir, key)?;
        }
    }
    add_status(&mut start, &text("status")?, group_names)?;
    add_limits(&mut start, &text("limits")?)?;
    add_stat(&mut start, &text("stat")?)?;
    start.put(StartKind::Scheduling, "out-of-memory score", text("oom_score_adj")?.trim());
    start.put_machine(Path::new("/"))?;
    Ok(start)
}

fn odd(what: &str) -> io::Error {
    io::Error::other(format!("{what} is written in another form than is known"))
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let named = |error: io::Error| io::Error::other(format!("{}: {error}", path.display()));
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(named)?;
    file.take(MAX_LEN + 1).read_to_end(&mut bytes).map_err(named)?;
    match bytes.len() as u64 > MAX_LEN {
        true => Err(io::Error::other(format!("{} is too long", path.display()))),
        false => Ok(bytes),
    }
}

/// Of variables with one name the first counts, as getenv(3) has it.
fn variables(environment: &[u8]) -> Vec<(String, &[u8])> {
    let entries = environment.split(|&byte| byte == 0).filter(|entry| !entry.is_empty());
    let mut seen = std::collections::BTreeSet::new();
    entries
        .filter_map(|entry| {
            let equals = entry.iter().position(|&byte| byte == b'=')?;
            let name = String::from_utf8_lossy(&entry[..equals]).into_owned();
            seen.insert(name.clone()).then_some((name, &entry[equals + 1..]))
        })
        .collect()
}

/// systemd has made the directory for this start. What is no plain file there was made by somebody
/// else and says nothing.
fn add_credentials(start: &mut StartEvidence, pid: i32, dir: &Path, key: &StartKey) -> io::Result<()> {
    let relative = dir.strip_prefix("/").map_err(|_| odd(CREDENTIALS))?;
    let dir = PathBuf::from(format!("/proc/{pid}/root")).join(relative);
    let entries = match fs::read_dir(&dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries.take(MAX_CREDENTIALS) {
        let entry = entry?;
        if !entry.file_type()?.is_file() {
            continue;
        }
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(entry.path())?;
        if !file.metadata()?.is_file() {
            continue;
        }
        let mut content = Vec::new();
        file.take(MAX_CREDENTIAL_LEN).read_to_end(&mut content)?;
        let name = String::from_utf8_lossy(&entry.file_name().into_vec()).into_owned();
        start.put_secret(StartKind::Credential, &name, &content, key);
    }
    Ok(())
}

fn add_status(start: &mut StartEvidence, status: &str, names: impl FnOnce() -> String) -> io::Result<()> {
    let line = |name: &str| {
        let mut lines = status.lines();
        lines.find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
    };
    let ids = |name: &str| -> io::Result<Vec<u32>> {
        let numbers = line(name).unwrap_or_default().split_ascii_whitespace();
        numbers.map(|id| id.parse().map_err(|_| odd("/proc/PID/status"))).collect()
    };
    let (users, groups) = (ids("Uid")?, ids("Gid")?);
    if users.len() != 4 || groups.len() != 4 {
        return Err(odd("/proc/PID/status"));
    }
    start.put_ids(&users, &groups);
    let supplementary = ids("Groups")?;
    let names = if supplementary.is_empty() { String::new() } else { names() };
    for group in supplementary {
        start.put_group(group, name_of(&names, group).unwrap_or_default());
    }
    // A line that this kernel does not have is not there at the next boot either: the kernel is the
    // same.
    for (name, kind, known_as) in STATUS {
        line(name).into_iter().for_each(|value| start.put(kind, known_as, value));
    }
    Ok(())
}

/// The lines have columns of fixed width, because names have blanks in them.
fn add_limits(start: &mut StartEvidence, limits: &str) -> io::Result<()> {
    const NAME: usize = 25;
    let mut count = 0;
    for line in limits.lines().skip(1) {
        let (name, values) = line.split_at_checked(NAME).ok_or_else(|| odd("/proc/PID/limits"))?;
        let name = name.trim().strip_prefix("Max ").ok_or_else(|| odd("/proc/PID/limits"))?;
        let mut values = values.split_ascii_whitespace();
        let (soft, hard) = values.next().zip(values.next()).ok_or_else(|| odd("/proc/PID/limits"))?;
        start.put(StartKind::Limit, name, format!("{soft} {hard}"));
        count += 1;
    }
    if count == 0 { Err(odd("/proc/PID/limits")) } else { Ok(()) }
}

/// The program's name in parentheses may contain anything.
fn add_stat(start: &mut StartEvidence, stat: &str) -> io::Result<()> {
    let (_, behind) = stat.rsplit_once(')').ok_or_else(|| odd("/proc/PID/stat"))?;
    let fields: Vec<&str> = behind.split_ascii_whitespace().collect();
    for (at, name) in STAT {
        let value = fields.get(at).ok_or_else(|| odd("/proc/PID/stat"))?;
        start.put(StartKind::Scheduling, name, *value);
    }
    Ok(())
}

/// For people only, and read only for a service that has groups.
fn group_names() -> String {
    fs::read_to_string("/etc/group").unwrap_or_default()
}

fn name_of(names: &str, id: u32) -> Option<&str> {
    names.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(id)).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use image_store::ImageId;

    fn key() -> StartKey {
        StartKey::of(ImageId([3; 16]))
    }

    #[test]
    fn our_own_start_has_all_kinds_but_credentials() {
        let start = collect(std::process::id() as i32, &key()).unwrap();
        let has = |kind, name: &str| start.items().any(|(of, is, _)| (of, is) == (kind, name));
        assert!(has(StartKind::User, "user") && has(StartKind::User, "group"));
        assert!(has(StartKind::Limit, "open files") && has(StartKind::Limit, "pending signals"));
        assert!(has(StartKind::Privilege, "bounding set of capabilities"));
        assert!(has(StartKind::Scheduling, "processors") && has(StartKind::Scheduling, "scheduling policy"));
        assert!(has(StartKind::Machine, "host name") && has(StartKind::Machine, "memory"));
        assert!(has(StartKind::Environment, "PATH"));
        assert_eq!(start.check(&collect(std::process::id() as i32, &key()).unwrap()), Ok(()));
    }

    #[test]
    fn values_are_those_of_the_process() {
        let mut start = StartEvidence::default();
        let status = "Name:\tx\nUmask:\t0022\nUid:\t33\t33\t33\t33\nGid:\t33\t33\t33\t33\n\
                      Groups:\t29 33 \nCapBnd:\t000001ffffffffff\nNoNewPrivs:\t0\nCpus_allowed_list:\t0-3\n";
        add_status(&mut start, status, || "root:x:0:\naudio:x:29:www\n".to_owned()).unwrap();
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max open files            1024                 524288               files     \n\
                      Max nice priority         0                    0                    \n";
        add_limits(&mut start, limits).unwrap();
        let stat = format!("12 (a) b) S {}", (4..53).map(|n| n.to_string()).collect::<Vec<_>>().join(" "));
        add_stat(&mut start, &stat).unwrap();
        let value = |kind, name: &str| {
            let mut items = start.items();
            items.find(|(of, is, _)| (*of, *is) == (kind, name)).map(|(_, _, value)| value)
        };
        assert_eq!(value(StartKind::User, "user"), Some("33"));
        assert_eq!((value(StartKind::Group, "29"), value(StartKind::Group, "33")), (Some("audio"), Some("")));
        assert_eq!(value(StartKind::Privilege, "umask"), Some("0022"));
        assert_eq!(value(StartKind::Limit, "open files"), Some("1024 524288"));
        assert_eq!(value(StartKind::Limit, "nice priority"), Some("0 0"));
        assert_eq!(value(StartKind::Scheduling, "nice value"), Some("19"), "field 19 of proc_pid_stat(5)");
        assert_eq!(value(StartKind::Scheduling, "scheduling policy"), Some("41"));
    }

    #[test]
    fn a_text_that_is_not_understood_is_an_error() {
        let mut start = StartEvidence::default();
        add_status(&mut start, "Uid:\t33\nGid:\t33\n", String::new).unwrap_err();
        add_limits(&mut start, "").unwrap_err();
        add_limits(&mut start, "Limit\nMax open files\n").unwrap_err();
        add_stat(&mut start, "12 (a) S 1 2").unwrap_err();
    }

    #[test]
    fn the_first_of_two_variables_counts() {
        let environment = b"A=1\0B=x=y\0A=2\0odd\0";
        let expected = [("A".to_owned(), b"1".as_slice()), ("B".to_owned(), b"x=y")];
        assert_eq!(variables(environment), expected);
    }
}
