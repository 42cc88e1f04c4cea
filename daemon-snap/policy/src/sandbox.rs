//! Whether the shim can do its work inside a unit's sandbox.
//!
//! The shim runs as the unit's main process. Where its first system call would kill it, or where it
//! could not even be executed, the unit would fail because of us: such a unit is left alone. Where
//! it merely could not reach the restore daemon, every start would be cold, so it is left alone
//! too.

use crate::judge::Surroundings;
use crate::reason::Reason;
use crate::settings::{Settings, is_true};
use crate::unit::add;

/// System calls of the shim beyond what every program needs to start, with the groups that hold
/// them (`systemd-analyze syscall-filter`, systemd 252 to 257).
const NEEDED_CALLS: [(&str, &[&str]); 13] = [
    ("socket", &["@network-io", "@system-service"]),
    ("socketpair", &["@network-io", "@system-service"]),
    ("connect", &["@network-io", "@system-service"]),
    ("sendmsg", &["@network-io", "@system-service"]),
    ("recvmsg", &["@network-io", "@system-service"]),
    ("shutdown", &["@network-io", "@system-service"]),
    ("setsockopt", &["@network-io", "@system-service"]),
    ("close", &["@basic-io", "@file-system", "@system-service"]),
    ("read", &["@basic-io", "@system-service"]),
    ("write", &["@basic-io", "@system-service"]),
    ("openat", &["@file-system", "@system-service"]),
    ("fcntl", &["@file-system", "@system-service"]),
    ("statx", &["@file-system", "@system-service"]),
];

/// Groups that hold none of [`NEEDED_CALLS`]. A group that is in neither list may hold anything.
const HARMLESS_GROUPS: [&str; 25] = [
    "@aio",
    "@chown",
    "@clock",
    "@cpu-emulation",
    "@debug",
    "@io-event",
    "@ipc",
    "@keyring",
    "@memlock",
    "@module",
    "@mount",
    "@obsolete",
    "@pkey",
    "@privileged",
    "@process",
    "@raw-io",
    "@reboot",
    "@resources",
    "@sandbox",
    "@setuid",
    "@signal",
    "@swap",
    "@sync",
    "@timer",
    "@default",
];

/// Settings that make a root of the unit's own.
const ROOTS: [&str; 2] = ["RootDirectory", "RootImage"];
/// Settings that confine whatever the unit executes, the shim too.
const CONFINING: [&str; 3] = ["AppArmorProfile", "SELinuxContext", "SmackProcessLabel"];
/// Settings that may hide the shim behind something else.
const MOUNTS: [&str; 6] = [
    "InaccessiblePaths",
    "InaccessibleDirectories",
    "TemporaryFileSystem",
    "BindPaths",
    "BindReadOnlyPaths",
    "MountImages",
];

/// Every setting that could keep the shim from being executed, from speaking, or from ending.
pub(crate) fn inspect(settings: &Settings, around: &Surroundings<'_>, reasons: &mut Vec<Reason>) {
    let given = |key: &&'static str| settings.last(key).filter(|value| !value.is_empty()).map(str::to_owned);
    for key in &ROOTS {
        given(key).into_iter().for_each(|value| add(reasons, Reason::OwnRoot { key, value }));
    }
    // Without AppArmor in the kernel systemd passes over the profile.
    for key in CONFINING.iter().filter(|key| around.has_apparmor || **key != "AppArmorProfile") {
        given(key).into_iter().for_each(|value| add(reasons, Reason::Confined { key, value }));
    }
    given(&"PAMName").into_iter().for_each(|name| add(reasons, Reason::PamSession { name }));
    if settings.last("PrivatePIDs").is_some_and(is_true) {
        add(reasons, Reason::OwnPids);
    }
    inspect_exec_paths(settings, around.shim, reasons);
    for key in MOUNTS {
        if let Some(word) = settings.words(key).into_iter().find(|word| covers(key, word, around.shim)) {
            add(reasons, Reason::ShimHidden { key, word, shim: around.shim.to_owned() });
        }
    }
    if !allows_unix_sockets(&settings.words("RestrictAddressFamilies")) {
        add(reasons, Reason::AddressFamilies);
    }
    check_system_calls(&settings.all("SystemCallFilter")).unwrap_or_else(|reason| add(reasons, reason));
}

/// Whether a word of a path list hides `target`: destination after the first `:` for mounts from
/// elsewhere.
fn covers(key: &str, word: &str, target: &str) -> bool {
    let word = word.trim_start_matches(['-', '+']);
    let path = match key {
        "InaccessiblePaths" | "InaccessibleDirectories" => word,
        "TemporaryFileSystem" => word.split(':').next().unwrap_or_default(),
        // Without a destination it is mounted over itself, which changes nothing.
        "BindPaths" | "BindReadOnlyPaths" => match word.split(':').nth(1) {
            Some(destination) => destination,
            None => return false,
        },
        _ => word.split(':').nth(1).unwrap_or("/"),
    };
    let path = path.trim_matches('"').trim_end_matches('/');
    // A specifier or an escape could be anything.
    path.contains(['%', '\\', '"', '\''])
        || target.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'))
        || path == target
}

/// The longest path that holds a file decides whether it may be executed. What the shim needs is
/// itself and the C library beside the service's own.
fn inspect_exec_paths(settings: &Settings, shim: &str, reasons: &mut Vec<Reason>) {
    let (denied, allowed) = (settings.words("NoExecPaths"), settings.words("ExecPaths"));
    for file in [shim, "/usr/lib/x86_64-linux-gnu/libc.so.6"] {
        if longest_holding(&denied, file) > longest_holding(&allowed, file) {
            return add(reasons, Reason::NotExecutable { file: file.to_owned() });
        }
    }
}

/// Length of the longest of these paths that holds `file`, plus one; 0 for none.
fn longest_holding(words: &[String], file: &str) -> usize {
    let lens = words.iter().filter_map(|word| {
        let path = word.trim_start_matches(['-', '+']).trim_matches('"').trim_end_matches('/');
        // /lib and /lib64 have been links to /usr for long.
        let path = if path.starts_with("/lib") { format!("/usr{path}") } else { path.to_owned() };
        let holds = path == file || file.strip_prefix(&path).is_some_and(|rest| rest.starts_with('/'));
        holds.then_some(path.len() + 1)
    });
    lens.max().unwrap_or(0)
}

fn allows_unix_sockets(words: &[String]) -> bool {
    let Some(first) = words.first() else { return true };
    // The first word decides what the list means; later lines may take away again.
    let mut allowed = first.starts_with('~');
    for word in words {
        match word.strip_prefix('~') {
            Some("AF_UNIX") => allowed = false,
            None if word == "none" => return false,
            None if word == "AF_UNIX" => allowed = true,
            _ => {}
        }
    }
    allowed
}

/// Follows systemd's rule: the first line decides whether the list allows or denies, a later line
/// with the other sign takes away.
fn check_system_calls(lines: &[&str]) -> Result<(), Reason> {
    let mut allow_list = None;
    let mut named = [false; NEEDED_CALLS.len()];
    for line in lines {
        let (is_inverted, text) = match line.strip_prefix('~') {
            Some(rest) => (true, rest),
            None => (false, *line),
        };
        let is_allow_list = *allow_list.get_or_insert(!is_inverted);
        let adds = is_inverted != is_allow_list;
        for word in text.split_ascii_whitespace() {
            let name = word.trim_matches('"').split(':').next().unwrap_or_default();
            let is_unknown_group = name.starts_with('@')
                && name != "@known"
                && !HARMLESS_GROUPS.contains(&name)
                && !NEEDED_CALLS.iter().any(|(_, groups)| groups.contains(&name));
            // An unknown group that is denied may hold what we need; one that is allowed gives
            // nothing for sure.
            let denies = adds != is_allow_list;
            if is_unknown_group && denies {
                return Err(Reason::SystemCallGroup { group: name.to_owned() });
            }
            for ((call, groups), named) in NEEDED_CALLS.iter().zip(&mut named) {
                if *call == name || groups.contains(&name) || name == "@known" {
                    *named = adds;
                }
            }
        }
    }
    let Some(is_allow_list) = allow_list else { return Ok(()) };
    match NEEDED_CALLS.iter().zip(named).find(|(_, named)| *named != is_allow_list) {
        Some(((call, _), _)) => Err(Reason::SystemCall { call }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unit_text::parse;

    fn judge(lines: &str) -> Result<(), Vec<Reason>> {
        judge_on(lines, true)
    }

    fn judge_on(lines: &str, has_apparmor: bool) -> Result<(), Vec<Reason>> {
        let settings = Settings::from_assignments(parse(&format!("[Service]\n{lines}\n")));
        let around = Surroundings {
            shim: crate::SHIM,
            own_drop_in: "zzzz-fastboot.conf",
            has_apparmor,
            is_after_soft_reboot: false,
        };
        let mut reasons = Vec::new();
        inspect(&settings, &around, &mut reasons);
        if reasons.is_empty() { Ok(()) } else { Err(reasons) }
    }

    #[test]
    fn a_profile_counts_where_the_kernel_has_apparmor() {
        judge_on("AppArmorProfile=-system_tor", true).unwrap_err();
        judge_on("AppArmorProfile=-system_tor", false).unwrap();
        judge_on("AppArmorProfile=-system_tor\nPAMName=login", false).unwrap_err();
    }

    #[test]
    fn usual_sandboxes_let_the_shim_speak() {
        for lines in [
            "",
            "SystemCallFilter=@system-service",
            "SystemCallFilter=@system-service\nSystemCallFilter=~@privileged @resources",
            "SystemCallFilter=~@clock @mount @swap",
            "SystemCallFilter=@system-service\nSystemCallFilter=",
            "RestrictAddressFamilies=AF_INET AF_UNIX",
            "RestrictAddressFamilies=~AF_PACKET",
            "ProtectSystem=strict\nPrivateUsers=yes\nNoNewPrivileges=yes\nMemoryDenyWriteExecute=yes",
            "NoExecPaths=/\nExecPaths=/usr/bin/redis-server /usr/lib /lib",
            "NoExecPaths=/home /tmp",
            "SystemCallFilter=@system-service\nSystemCallFilter=~ @privileged @resources",
            "BindReadOnlyPaths=/usr /srv:/data\nInaccessiblePaths=-/home\nTemporaryFileSystem=/var:ro",
        ] {
            judge(lines).unwrap();
        }
    }

    #[test]
    fn a_filter_that_would_kill_the_shim_is_found() {
        for lines in [
            "SystemCallFilter=@basic-io @file-system",
            "SystemCallFilter=~@network-io",
            "SystemCallFilter=~connect:EPERM",
            "SystemCallFilter=@system-service\nSystemCallFilter=~socket",
            "SystemCallFilter=~@something-new",
            "SystemCallFilter=@something-new",
        ] {
            judge(lines).unwrap_err();
        }
    }

    #[test]
    fn a_sandbox_without_unix_sockets_or_without_the_shim_is_found() {
        for lines in [
            "RestrictAddressFamilies=AF_INET",
            "RestrictAddressFamilies=none",
            "RestrictAddressFamilies=~AF_UNIX",
            "RootDirectory=/srv/jail",
            "RootImage=/srv/jail.raw",
            "NoExecPaths=/\nExecPaths=/usr/bin/d",
            "NoExecPaths=/ /usr/lib/fastboot\nExecPaths=/usr/lib",
            "InaccessiblePaths=/usr/lib",
            "TemporaryFileSystem=/usr",
            "BindReadOnlyPaths=/srv/usr:/usr",
            "AppArmorProfile=d",
            "PAMName=login",
            "PrivatePIDs=yes",
        ] {
            judge(lines).unwrap_err();
        }
    }
}
