//! How a service was started: what systemd had given to its main process when that became the
//! program. An image is one of a start, and is used for a start that is the same.
//!
//! Pure: whoever may look at the process fills it. Values that may be secret are here as digests
//! under a key of the image, so that neither the value nor that two images have the same one shows.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::{fmt, fs, io};

use serde::{Deserialize, Serialize};

use super::file::under_root;
use super::machine::OF_ANY_MACHINE;
use super::reason::{ReasonCode, StaleReason};
use crate::layout::ImageId;

/// Ids that systemd gives to dynamic users and their groups (systemd.exec(5), "DynamicUser="). They
/// may be others at each boot, and whoever restores compares them with what is in the image.
pub const DYNAMIC_IDS: std::ops::RangeInclusive<u32> = 61184..=65519;
const DYNAMIC: &str = "dynamic";
/// Name of [`StartKind::User`] and of its group.
const USER: &str = "user";
const GROUP: &str = "group";
/// What the kernel computes from the memory that there is differs by some pages from boot to boot,
/// and counts within 1/32, as [`super::ValueKind::Memory`] does.
const MEMORY_SHARE: u64 = 32;
/// [`StartKind::Machine`], and where it is read.
const MACHINE: [(&str, &str); 3] = [
    ("memory", "/proc/meminfo"),
    ("processors", "/sys/devices/system/cpu/online"),
    (HOST_NAME, "/proc/sys/kernel/hostname"),
];
const HOST_NAME: &str = "host name";
const BY_MEMORY: [&str; 3] = ["memory", "processes", "pending signals"];

/// Variables that are others in each start, or that say who has asked for it: the recorded start
/// was asked for by an operator.
const NEW_IN_EACH_START: [&str; 12] = [
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "MAINPID",
    "MANAGERPID",
    "MANAGERPIDFDID",
    "NOTIFY_SOCKET",
    "SYSTEMD_EXEC_PID",
    "WATCHDOG_PID",
    "TRIGGER_UNIT",
    "TRIGGER_PATH",
    "TRIGGER_TIMER_MONOTONIC_USEC",
    "TRIGGER_TIMER_REALTIME_USEC",
];
/// Descriptors of socket activation, which are compared one by one; and what a unit was told of
/// another one that failed.
const NEW_PREFIXES: [&str; 2] = ["LISTEN_", "MONITOR_"];

/// What an item is about. They are compared in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StartKind {
    /// User and group.
    User,
    /// A supplementary group, by number; the value is its name.
    Group,
    /// Capabilities, no_new_privs, umask.
    Privilege,
    /// A resource limit, soft and hard.
    Limit,
    /// A credential, by digest.
    Credential,
    /// An environment variable, by digest.
    Environment,
    /// Processors, priority, out-of-memory score.
    Scheduling,
    /// Memory, processors and host name of the machine.
    Machine,
}

/// Everything that is compared of a start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StartEvidence(BTreeMap<StartKind, BTreeMap<String, String>>);

/// Makes digests of what may be secret, in one image.
#[derive(Clone, Copy)]
pub struct StartKey([u8; 32]);

impl fmt::Debug for StartKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StartKey")
    }
}

impl StartKey {
    /// The key of an image.
    pub fn of(image: ImageId) -> StartKey {
        StartKey(blake3::derive_key("fastboot 2026-11-30 values of a recorded start", &image.0))
    }

    fn digest(&self, name: &str, value: &[u8]) -> String {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(name.as_bytes()).update(&[0]).update(value);
        hasher.finalize().to_hex().to_string()
    }
}

impl StartKind {
    /// Stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            StartKind::User => "user",
            StartKind::Group => "group",
            StartKind::Privilege => "privilege",
            StartKind::Limit => "limit",
            StartKind::Credential => "credential",
            StartKind::Environment => "environment",
            StartKind::Scheduling => "scheduling",
            StartKind::Machine => "machine",
        }
    }

    /// Whether values of this kind are digests.
    pub fn is_secret(self) -> bool {
        matches!(self, StartKind::Credential | StartKind::Environment)
    }

    fn code(self, name: &str) -> ReasonCode {
        match self {
            StartKind::User => ReasonCode::IdentityChanged,
            StartKind::Group => ReasonCode::GroupsChanged,
            StartKind::Privilege => ReasonCode::PrivilegesChanged,
            StartKind::Limit => ReasonCode::LimitsChanged,
            StartKind::Credential => ReasonCode::CredentialsChanged,
            StartKind::Environment => ReasonCode::EnvironmentChanged,
            StartKind::Scheduling => ReasonCode::SchedulingChanged,
            StartKind::Machine if name == HOST_NAME => ReasonCode::HostnameChanged,
            StartKind::Machine => ReasonCode::ValueChanged,
        }
    }

    /// The item as a subject of a sentence; `value` where it helps.
    fn subject(self, name: &str, value: &str) -> String {
        match self {
            StartKind::User => format!("the {name} that systemd starts it as"),
            StartKind::Group if value.is_empty() => format!("its supplementary group {name}"),
            StartKind::Group => format!("its supplementary group {name} ({value})"),
            StartKind::Privilege | StartKind::Scheduling => format!("its {name}"),
            StartKind::Limit => format!("its limit of {name}"),
            StartKind::Credential => format!("its credential {name}"),
            StartKind::Environment => format!("its environment variable {name}"),
            StartKind::Machine => format!("the machine's {name}"),
        }
    }
}

impl StartEvidence {
    /// Add an item whose value may be shown.
    pub fn put(&mut self, kind: StartKind, name: impl Into<String>, value: impl Into<String>) {
        debug_assert!(!kind.is_secret());
        self.0.entry(kind).or_default().insert(name.into(), value.into());
    }

    /// Add an item whose value may be secret.
    pub fn put_secret(&mut self, kind: StartKind, name: &str, value: &[u8], key: &StartKey) {
        let digest = key.digest(name, value);
        self.0.entry(kind).or_default().insert(name.to_owned(), digest);
    }

    /// Add an environment variable, unless it is another one in each start.
    pub fn put_variable(&mut self, name: &str, value: &[u8], key: &StartKey) {
        let is_new =
            NEW_IN_EACH_START.contains(&name) || NEW_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        if !is_new {
            self.put_secret(StartKind::Environment, name, value, key);
        }
    }

    /// Add user and group: real, effective, saved and file-system ids.
    pub fn put_ids(&mut self, users: &[u32], groups: &[u32]) {
        for (name, ids) in [(USER, users), (GROUP, groups)] {
            let distinct: BTreeSet<String> = ids.iter().copied().map(id_text).collect();
            let text = match distinct.len() {
                1 => distinct.into_iter().collect::<String>(),
                _ => ids.iter().copied().map(id_text).collect::<Vec<_>>().join(" "),
            };
            self.put(StartKind::User, name, text);
        }
    }

    /// Add a supplementary group with the name that it has, or an empty one.
    pub fn put_group(&mut self, id: u32, name: &str) {
        self.put(StartKind::Group, id_text(id), name);
    }

    /// Add what a program may ask the kernel for without opening anything: sysinfo(2), uname(2).
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn put_machine(&mut self, root: &Path) -> io::Result<()> {
        for (name, path) in MACHINE {
            let path = under_root(root, Path::new(path));
            let named = |error: io::Error| io::Error::other(format!("{}: {error}", path.display()));
            let text = fs::read_to_string(&path).map_err(named)?;
            let value = match name {
                "memory" => {
                    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
                    let total = line.and_then(|line| line.split_ascii_whitespace().next());
                    total.ok_or_else(|| io::Error::other(format!("{} has no total", path.display())))?
                }
                _ => text.trim(),
            };
            self.put(StartKind::Machine, name, value);
        }
        Ok(())
    }

    /// From now on any host name fits: that of an image that equal machines use, of a service to
    /// which it does not matter.
    pub fn forget_host_name(&mut self) {
        self.put(StartKind::Machine, HOST_NAME, OF_ANY_MACHINE);
    }

    /// Compare what the machine itself gives to every start: what can be known before there is one.
    ///
    /// # Errors
    /// The first item that changed.
    pub fn check_machine(&self, now: &StartEvidence) -> Result<(), StaleReason> {
        self.check_kind(StartKind::Machine, now)
    }

    /// All items: kind, name, value.
    pub fn items(&self) -> impl Iterator<Item = (StartKind, &str, &str)> {
        self.0.iter().flat_map(|(kind, items)| {
            items.iter().map(|(name, value)| (*kind, name.as_str(), value.as_str()))
        })
    }

    /// Compare with the start that is under way.
    ///
    /// # Errors
    /// The first item that changed, is gone or is new.
    pub fn check(&self, now: &StartEvidence) -> Result<(), StaleReason> {
        let kinds: BTreeSet<StartKind> = self.0.keys().chain(now.0.keys()).copied().collect();
        kinds.into_iter().try_for_each(|kind| self.check_kind(kind, now))
    }

    fn check_kind(&self, kind: StartKind, now: &StartEvidence) -> Result<(), StaleReason> {
        let none = BTreeMap::new();
        let (was, is) = (self.0.get(&kind).unwrap_or(&none), now.0.get(&kind).unwrap_or(&none));
        let names: BTreeSet<&String> = was.keys().chain(is.keys()).collect();
        names.into_iter().try_for_each(|name| check_item(kind, name, (was.get(name), is.get(name))))
    }

    /// Whether this start gives to an unprivileged service every supplementary group that processes
    /// of its image hold: pairs of user and group. A service that is started as root may give itself
    /// any; what it asks for that is in `/etc/group`, which is compared where it was read.
    ///
    /// # Errors
    /// The first group that is not given, with [`ReasonCode::GroupsChanged`].
    pub fn check_held(&self, held: &[(u32, u32)]) -> Result<(), StaleReason> {
        let of = |kind, name: &str| self.0.get(&kind).and_then(|items| items.get(name));
        let user = of(StartKind::User, USER);
        for &(uid, gid) in held.iter().filter(|(uid, _)| *uid != 0) {
            let gid = id_text(gid);
            let is_given = of(StartKind::Group, &gid).is_some() || of(StartKind::User, GROUP) == Some(&gid);
            if user == Some(&id_text(uid)) && !is_given {
                let sentence = format!(
                    "the group {gid}, which processes of its image hold, is not given to it any more"
                );
                return Err(StaleReason::new(ReasonCode::GroupsChanged, sentence));
            }
        }
        Ok(())
    }
}

/// The number of a user or group; dynamic ones are one.
fn id_text(id: u32) -> String {
    if DYNAMIC_IDS.contains(&id) { DYNAMIC.to_owned() } else { id.to_string() }
}

/// `was` and `is`, where there is one.
fn check_item(
    kind: StartKind,
    name: &str,
    (was, is): (Option<&String>, Option<&String>),
) -> Result<(), StaleReason> {
    let how = match (was, is) {
        (Some(was), Some(is)) if is_same(kind, name, was, is) => return Ok(()),
        (Some(_), Some(_)) if kind.is_secret() => "changed".to_owned(),
        (Some(was), Some(is)) => format!("is {is:?}, was {was:?} at the snapshot"),
        (Some(_), None) => "is gone".to_owned(),
        (None, _) => "is new".to_owned(),
    };
    let subject = kind.subject(name, was.or(is).map_or("", String::as_str));
    Err(StaleReason::new(kind.code(name), format!("{subject} {how}")))
}

fn is_same(kind: StartKind, name: &str, was: &str, is: &str) -> bool {
    // A group is its number: its name only helps people.
    let is_forgotten = kind == StartKind::Machine && name == HOST_NAME && was == OF_ANY_MACHINE;
    if was == is || kind == StartKind::Group || is_forgotten {
        return true;
    }
    let is_near = |(was, is): (&str, &str)| match (was.parse::<u64>(), is.parse::<u64>()) {
        (Ok(was), Ok(is)) => was.abs_diff(is) <= was / MEMORY_SHARE,
        _ => was == is,
    };
    let (was, is) = (was.split(' '), is.split(' '));
    matches!(kind, StartKind::Limit | StartKind::Machine)
        && BY_MEMORY.contains(&name)
        && was.clone().count() == is.clone().count()
        && was.zip(is).all(is_near)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: StartKey = StartKey([7; 32]);

    fn start() -> StartEvidence {
        let mut start = StartEvidence::default();
        start.put_ids(&[33; 4], &[33; 4]);
        start.put_group(29, "audio");
        start.put(StartKind::Privilege, "effective capabilities", "0000000000000000");
        start.put(StartKind::Limit, "open files", "1024 524288");
        start.put(StartKind::Limit, "processes", "64000 64000");
        start.put_secret(StartKind::Credential, "token", b"secret", &KEY);
        start.put_variable("LANG", b"C.UTF-8", &KEY);
        start.put(StartKind::Scheduling, "processors", "0-1");
        start.put(StartKind::Machine, "memory", "8000000");
        start.put(StartKind::Machine, "host name", "alpha");
        start
    }

    /// Code and sentence of what differs after a change of today's start.
    fn verdict(change: impl FnOnce(&mut StartEvidence)) -> Option<(ReasonCode, String)> {
        let mut now = start();
        change(&mut now);
        start().check(&now).err().map(|reason| (reason.code, reason.sentence))
    }

    fn remove(start: &mut StartEvidence, kind: StartKind, name: &str) {
        assert!(start.0.get_mut(&kind).unwrap().remove(name).is_some());
    }

    #[test]
    fn an_equal_start_is_equal() {
        assert_eq!(verdict(|_| ()), None);
    }

    #[test]
    fn a_changed_item_of_each_kind_is_named() {
        let changed = |kind, name: &'static str, value: &'static str| {
            verdict(move |now| now.put(kind, name, value)).unwrap()
        };
        let (code, said) = changed(StartKind::Limit, "open files", "512 512");
        assert_eq!(code, ReasonCode::LimitsChanged);
        assert_eq!(said, "its limit of open files is \"512 512\", was \"1024 524288\" at the snapshot");
        let (code, said) = changed(StartKind::Privilege, "effective capabilities", "0000000000000400");
        assert!(code == ReasonCode::PrivilegesChanged && said.starts_with("its effective capabilities is"));
        let (code, said) = changed(StartKind::Scheduling, "processors", "0");
        assert!(code == ReasonCode::SchedulingChanged && said.starts_with("its processors is \"0\""));
        let (code, said) = changed(StartKind::Machine, "memory", "4000000");
        assert!(code == ReasonCode::ValueChanged && said.starts_with("the machine's memory"), "{said}");
        let (code, said) = changed(StartKind::Machine, "host name", "beta");
        assert_eq!(code, ReasonCode::HostnameChanged);
        assert_eq!(said, "the machine's host name is \"beta\", was \"alpha\" at the snapshot");
        let (code, said) = verdict(|now| now.put_ids(&[34; 4], &[33; 4])).unwrap();
        assert!(code == ReasonCode::IdentityChanged && said.contains("\"34\", was \"33\""), "{said}");
        let (code, said) = verdict(|now| now.put_ids(&[33, 34, 33, 33], &[33; 4])).unwrap();
        assert!(code == ReasonCode::IdentityChanged && said.contains("33 34 33 33"), "{said}");
    }

    #[test]
    fn secrets_are_named_and_not_shown() {
        let (code, said) =
            verdict(|now| now.put_secret(StartKind::Credential, "token", b"other", &KEY)).unwrap();
        assert_eq!((code, said.as_str()), (ReasonCode::CredentialsChanged, "its credential token changed"));
        let (code, said) = verdict(|now| now.put_variable("LANG", b"C", &KEY)).unwrap();
        assert_eq!(code, ReasonCode::EnvironmentChanged);
        assert_eq!(said, "its environment variable LANG changed");
        let text = serde_json::to_string(&start()).unwrap();
        assert!(!text.contains("C.UTF-8") && !text.contains("secret"), "{text}");
        assert_eq!(serde_json::from_str::<StartEvidence>(&text).unwrap(), start());
    }

    #[test]
    fn what_is_gone_and_what_is_new_is_named() {
        let gone = |kind, name: &'static str| verdict(move |now| remove(now, kind, name)).unwrap().1;
        assert_eq!(gone(StartKind::Group, "29"), "its supplementary group 29 (audio) is gone");
        assert_eq!(gone(StartKind::Credential, "token"), "its credential token is gone");
        assert_eq!(gone(StartKind::Environment, "LANG"), "its environment variable LANG is gone");
        assert_eq!(gone(StartKind::Limit, "open files"), "its limit of open files is gone");
        let (code, said) = verdict(|now| now.put_group(27, "sudo")).unwrap();
        assert_eq!(
            (code, said.as_str()),
            (ReasonCode::GroupsChanged, "its supplementary group 27 (sudo) is new")
        );
        let (_, said) = verdict(|now| now.put_variable("DEBUG", b"", &KEY)).unwrap();
        assert_eq!(said, "its environment variable DEBUG is new");
        let (_, said) = verdict(|now| now.put_secret(StartKind::Credential, "key", b"", &KEY)).unwrap();
        assert_eq!(said, "its credential key is new");
        // Where a start of today has nothing of a kind at all.
        let mut now = start();
        now.0.remove(&StartKind::Group);
        assert_eq!(start().check(&now).unwrap_err().code, ReasonCode::GroupsChanged);
    }

    #[test]
    fn a_group_is_its_number_whatever_it_is_called() {
        assert_eq!(verdict(|now| now.put_group(29, "sound")), None);
    }

    #[test]
    fn variables_of_one_start_do_not_count_and_their_like_do() {
        for name in ["INVOCATION_ID", "LISTEN_FDS", "TRIGGER_UNIT", "MONITOR_UNIT", "NOTIFY_SOCKET"] {
            assert_eq!(verdict(|now| now.put_variable(name, b"x", &KEY)), None, "{name}");
        }
        for name in ["WATCHDOG_USEC", "CREDENTIALS_DIRECTORY", "LISTENING", "HOME"] {
            assert!(verdict(|now| now.put_variable(name, b"x", &KEY)).is_some(), "{name}");
        }
    }

    #[test]
    fn what_follows_from_memory_may_differ_by_some_pages() {
        assert_eq!(verdict(|now| now.put(StartKind::Machine, "memory", "7990000")), None);
        assert_eq!(verdict(|now| now.put(StartKind::Limit, "processes", "63990 63990")), None);
        assert!(verdict(|now| now.put(StartKind::Limit, "processes", "63990 unlimited")).is_some());
        assert!(verdict(|now| now.put(StartKind::Limit, "processes", "100 64000")).is_some());
        assert!(verdict(|now| now.put(StartKind::Limit, "open files", "1023 524288")).is_some());
    }

    #[test]
    fn only_the_machine_can_be_asked_before_there_is_a_start() {
        let mut now = StartEvidence::default();
        now.put_machine(Path::new("/")).unwrap();
        let mut was = start();
        let names: Vec<String> = now.items().map(|(_, name, _)| name.to_owned()).collect();
        assert_eq!(names, ["host name", "memory", "processors"]);
        assert!(was.check_machine(&now).is_err(), "this machine has another name");
        was.put_machine(Path::new("/")).unwrap();
        assert_eq!(was.check_machine(&now), Ok(()));
    }

    #[test]
    fn a_host_name_that_was_forgotten_fits_any_and_nothing_else_does() {
        let mut was = start();
        was.forget_host_name();
        let mut now = start();
        now.put(StartKind::Machine, HOST_NAME, "beta");
        assert_eq!(was.check(&now), Ok(()));
        now.put(StartKind::Machine, "memory", "4000000");
        assert_eq!(was.check(&now).unwrap_err().code, ReasonCode::ValueChanged);
        // It is the image that says so, and not a machine of a strange name.
        now.put(StartKind::Machine, "memory", "8000000");
        now.put(StartKind::Machine, HOST_NAME, OF_ANY_MACHINE);
        assert_eq!(start().check(&now).unwrap_err().code, ReasonCode::HostnameChanged);
    }

    #[test]
    fn dynamic_users_are_compared_elsewhere() {
        let dynamic = |id: u32| {
            let mut start = StartEvidence::default();
            start.put_ids(&[id; 4], &[id; 4]);
            start.put_group(id, "");
            start
        };
        assert_eq!(dynamic(61_200).check(&dynamic(61_201)), Ok(()));
        assert!(dynamic(61_200).check(&dynamic(61_000)).is_err());
    }

    #[test]
    fn an_unprivileged_service_holds_only_groups_that_its_start_gives() {
        let now = start();
        assert_eq!(now.check_held(&[(33, 29), (33, 33)]), Ok(()));
        let reason = now.check_held(&[(33, 29), (33, 27)]).unwrap_err();
        assert_eq!(reason.code, ReasonCode::GroupsChanged);
        assert!(reason.sentence.starts_with("the group 27,"), "{reason}");
        // Another user's processes were given their groups by whoever could.
        assert_eq!(now.check_held(&[(0, 27), (100, 27)]), Ok(()));
    }

    #[test]
    fn each_image_has_digests_of_its_own() {
        let other = StartKey::of(ImageId([1; 16]));
        assert_ne!(KEY.digest("A", b"1"), other.digest("A", b"1"));
        assert_ne!(KEY.digest("A", b"1"), KEY.digest("B", b"1"));
        assert_eq!(KEY.digest("A", b"1"), KEY.digest("A", b"1"));
    }
}
