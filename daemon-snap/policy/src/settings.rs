//! What a unit's text says about its start: the settings of `[Service]` after fragment and
//! drop-ins.

use crate::reason::Reason;
use crate::unit_text::Assignment;

/// The assignments of `[Service]`, in the order in which they apply.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    service: Vec<(String, String)>,
}

/// How systemd learns that a service has started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceType {
    /// `Type=simple`, also the default.
    Simple,
    /// `Type=exec`.
    Exec,
    /// `Type=forking`.
    Forking,
    /// `Type=notify`.
    Notify,
    /// `Type=notify-reload` (since systemd 253).
    NotifyReload,
    /// `Type=dbus`.
    Dbus,
    /// `Type=idle`.
    Idle,
}

impl ServiceType {
    const ALL: [ServiceType; 7] =
        [Self::Simple, Self::Exec, Self::Forking, Self::Notify, Self::NotifyReload, Self::Dbus, Self::Idle];

    /// From a unit file or from systemd; `None` for a type that is not restored.
    pub fn parse(text: &str) -> Option<ServiceType> {
        Self::ALL.into_iter().find(|service_type| service_type.as_str() == text)
    }

    /// As in unit files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Exec => "exec",
            Self::Forking => "forking",
            Self::Notify => "notify",
            Self::NotifyReload => "notify-reload",
            Self::Dbus => "dbus",
            Self::Idle => "idle",
        }
    }
}

impl Settings {
    /// Keep what stands in `[Service]`.
    pub fn from_assignments(assignments: impl IntoIterator<Item = Assignment>) -> Settings {
        let service = assignments.into_iter().filter(|a| a.section == "Service");
        Settings { service: service.map(|a| (a.key, a.value)).collect() }
    }

    /// The assignment that counts, for a setting with one value. Empty means reset.
    pub fn last(&self, key: &str) -> Option<&str> {
        self.service.iter().rev().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    /// All assignments since the last empty one, for a setting that is a list.
    pub fn all(&self, key: &str) -> Vec<&str> {
        let mut values = Vec::new();
        for (_, value) in self.service.iter().filter(|(k, _)| k == key) {
            match value.is_empty() {
                true => values.clear(),
                false => values.push(value.as_str()),
            }
        }
        values
    }

    /// The same, cut into words. A line that begins with `~` gives every word one.
    pub fn words(&self, key: &str) -> Vec<String> {
        let lines = self.all(key);
        let words = lines.iter().flat_map(|line| {
            let (sign, rest) = match line.strip_prefix('~') {
                Some(rest) => ("~", rest),
                None => ("", *line),
            };
            rest.split_ascii_whitespace().map(move |word| format!("{sign}{word}"))
        });
        words.collect()
    }

    /// `Type=`, with systemd's rule for a missing one.
    ///
    /// # Errors
    /// For a type that is not restored.
    pub fn service_type(&self) -> Result<ServiceType, Reason> {
        let is_dbus = || self.last("BusName").is_some_and(|name| !name.is_empty());
        match self.last("Type").unwrap_or_default() {
            "" if is_dbus() => Ok(ServiceType::Dbus),
            "" => Ok(ServiceType::Simple),
            other => ServiceType::parse(other).ok_or_else(|| Reason::ServiceType { value: other.to_owned() }),
        }
    }

    /// The one `ExecStart=` line.
    ///
    /// # Errors
    /// For none or several.
    pub fn exec_start(&self) -> Result<&str, Reason> {
        let mut lines = self.all("ExecStart");
        match (lines.pop(), lines.len()) {
            (Some(line), 0) => Ok(line),
            (Some(_), more) => Err(Reason::SeveralExecStarts { count: more + 1 }),
            (None, _) => Err(Reason::NoExecStart),
        }
    }

    /// Whether systemd listens to the service without us: `NotifyAccess=`, and what implies it.
    pub fn listens_to_service(&self, service_type: ServiceType) -> bool {
        let asked = match self.last("NotifyAccess").unwrap_or_default() {
            "" => false,
            value => value != "none" && !matches!(value, "no" | "false" | "off" | "0"),
        };
        asked
            || matches!(service_type, ServiceType::Notify | ServiceType::NotifyReload)
            || self.is_positive("WatchdogSec")
            || self.may_store()
    }

    /// Whether systemd may keep descriptors for it: `FileDescriptorStoreMax=`.
    pub fn may_store(&self) -> bool {
        self.is_positive("FileDescriptorStoreMax")
    }

    fn is_positive(&self, key: &str) -> bool {
        let value = self.last(key).unwrap_or_default();
        value.contains(|c: char| c.is_ascii_digit() && c != '0') || value == "infinity"
    }

    /// Whether systemd keeps them over a stop, and so over a soft reboot:
    /// `FileDescriptorStorePreserve=yes`.
    pub fn keeps_store(&self) -> bool {
        let preserve = self.last("FileDescriptorStorePreserve").unwrap_or_default();
        self.may_store() && is_true(preserve)
    }
}

/// systemd's words for yes and no.
pub(crate) fn boolean(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "yes" | "y" | "true" | "t" | "on" => Some(true),
        "0" | "no" | "n" | "false" | "f" | "off" => Some(false),
        _ => None,
    }
}

pub(crate) fn is_true(value: &str) -> bool {
    boolean(value) == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unit_text::parse;

    fn settings(lines: &str) -> Settings {
        Settings::from_assignments(parse(&format!("[Unit]\nType=x\n[Service]\n{lines}\n")))
    }

    #[test]
    fn an_empty_assignment_resets_a_list() {
        let reset = settings("ExecStart=/bin/a\nExecStart=\nExecStart=/bin/b");
        assert_eq!(reset.exec_start().unwrap(), "/bin/b");
        assert!(settings("ExecStart=/bin/a\nExecStart=/bin/b").exec_start().is_err());
        assert!(settings("ExecStart=/bin/a\nExecStart=").exec_start().is_err());
    }

    #[test]
    fn exec_start_is_verbatim_and_an_empty_one_resets_it() {
        let fragment = parse("[Service]\nType=notify\nExecStart=-/bin/a \\\n  # no\n  one\n");
        let settings = Settings::from_assignments(fragment.clone());
        assert_eq!(settings.exec_start(), Ok("-/bin/a    one"));
        let drop_in = parse("[Service]\nExecStart=\nExecStart = @/bin/b b '%i'\n");
        let settings = Settings::from_assignments([fragment, drop_in].concat());
        assert_eq!(settings.exec_start(), Ok("@/bin/b b '%i'"));
        let other = Settings::from_assignments(parse("[Unit]\nExecStart=/bin/a\n"));
        assert_eq!(other.exec_start(), Err(Reason::NoExecStart));
    }

    #[test]
    fn a_bus_name_makes_the_default_type_dbus() {
        assert_eq!(settings("BusName=a.b").service_type(), Ok(ServiceType::Dbus));
        assert_eq!(settings("BusName=a.b\nType=simple").service_type(), Ok(ServiceType::Simple));
        assert_eq!(settings("").service_type(), Ok(ServiceType::Simple));
        assert!(settings("Type=oneshot").service_type().is_err());
    }

    #[test]
    fn notify_watchdog_and_fd_store_make_systemd_listen() {
        let listens = |lines: &str, service_type| settings(lines).listens_to_service(service_type);
        assert!(!listens("", ServiceType::Simple));
        assert!(!listens("NotifyAccess=none\nWatchdogSec=0", ServiceType::Exec));
        assert!(listens("NotifyAccess=none", ServiceType::Notify));
        assert!(listens("NotifyAccess=all", ServiceType::Simple));
        assert!(listens("WatchdogSec=3min", ServiceType::Simple));
        assert!(listens("FileDescriptorStoreMax=7", ServiceType::Simple));
    }

    #[test]
    fn a_store_is_kept_over_a_stop_only_where_there_may_be_one() {
        let keeps = |lines: &str| settings(lines).keeps_store();
        assert!(keeps("FileDescriptorStoreMax=7\nFileDescriptorStorePreserve=yes"));
        assert!(!keeps("FileDescriptorStoreMax=7\nFileDescriptorStorePreserve=restart"));
        assert!(!keeps("FileDescriptorStoreMax=7") && !keeps("FileDescriptorStorePreserve=yes"));
    }
}
