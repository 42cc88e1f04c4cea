//! What a unit's text says about its start: the settings of `[Service]` after fragment and drop-ins.

use image_store::unit_text::Assignment;

use crate::exec_line::Refusal;
use crate::sandbox::is_true;

/// The assignments of `[Service]`, in the order in which they apply.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    service: Vec<(String, String)>,
    skips_start_pre: bool,
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
    /// Keep what stands in `[Service]`, and the one word of our own section that concerns a start.
    pub fn from_assignments(assignments: impl IntoIterator<Item = Assignment>) -> Settings {
        let mut settings = Settings::default();
        for a in assignments {
            match (a.section.as_str(), a.key.as_str()) {
                ("Service", _) => settings.service.push((a.key, a.value)),
                ("X-Fastboot", "SkipStartPre") => settings.skips_start_pre = is_true(&a.value),
                _ => {}
            }
        }
        settings
    }

    /// `[X-Fastboot] SkipStartPre=`: a restored start does without `ExecStartPre=`.
    pub fn skips_start_pre(&self) -> bool {
        self.skips_start_pre
    }

    /// The assignment that counts, for a setting with one value. Empty means reset.
    pub fn last(&self, key: &str) -> Option<&str> {
        self.service.iter().rev().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    /// All assignments since the last empty one, for a setting that is a list.
    pub fn all(&self, key: &str) -> Vec<String> {
        let mut values = Vec::new();
        for (_, value) in self.service.iter().filter(|(k, _)| k == key) {
            match value.is_empty() {
                true => values.clear(),
                false => values.push(value.clone()),
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
                None => ("", line.as_str()),
            };
            rest.split_ascii_whitespace().map(move |word| format!("{sign}{word}"))
        });
        words.collect()
    }

    /// `Type=`, with systemd's rule for a missing one.
    ///
    /// # Errors
    /// For a type that is not restored.
    pub fn service_type(&self) -> Result<ServiceType, Refusal> {
        let is_dbus = || self.last("BusName").is_some_and(|name| !name.is_empty());
        match self.last("Type").unwrap_or_default() {
            "" if is_dbus() => Ok(ServiceType::Dbus),
            "" | "simple" => Ok(ServiceType::Simple),
            "exec" => Ok(ServiceType::Exec),
            "forking" => Ok(ServiceType::Forking),
            "notify" => Ok(ServiceType::Notify),
            "notify-reload" => Ok(ServiceType::NotifyReload),
            "dbus" => Ok(ServiceType::Dbus),
            "idle" => Ok(ServiceType::Idle),
            other => Err(format!("Type={other} is not restored")),
        }
    }

    /// The one `ExecStart=` line.
    ///
    /// # Errors
    /// For none or several.
    pub fn exec_start(&self) -> Result<String, Refusal> {
        let mut lines = self.all("ExecStart");
        match (lines.pop(), lines.len()) {
            (Some(line), 0) => Ok(line),
            (Some(_), more) => Err(format!("it has {} ExecStart= lines", more + 1)),
            (None, _) => Err("it has no ExecStart=".to_owned()),
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

    /// Whether systemd keeps them over a stop, and so over a soft reboot: `FileDescriptorStorePreserve=yes`.
    pub fn keeps_store(&self) -> bool {
        let preserve = self.last("FileDescriptorStorePreserve").unwrap_or_default();
        self.may_store() && ["yes", "true", "on", "1", "y", "t"].contains(&preserve)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image_store::unit_text::parse;

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
