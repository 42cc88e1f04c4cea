//! The text of the drop-in that puts the shim in front of a service.

use std::time::Duration;

use snap_policy::{Restorable, ServiceType};

use crate::start_pre::StartPre;

/// A drop-in, and what initd needs to know about the unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropIn {
    /// The whole text.
    pub text: String,
    /// How systemd learns that the service has started.
    pub service_type: ServiceType,
    /// systemd may keep descriptors for it.
    pub may_store: bool,
}

/// What the drop-in says beside while an image is tried: the restart for it is to be as a boot,
/// which begins with nothing in the store (since systemd 254).
pub const EMPTY_STORE: &str = "FileDescriptorStorePreserve=no\n";

/// Write the drop-in for a unit. After `limit` the shim starts the original command by itself.
pub fn compose(unit: &Restorable<'_>, shim: &str, limit: Duration) -> DropIn {
    let (settings, service_type, line) = (unit.settings(), unit.service_type(), unit.line());
    // A forking service needs no word from the shim: systemd reads its PID file, or finds the one
    // process that became its child, exactly as after a cold start. Everyone else must be able to
    // send MAINPID=.
    let opens_notify = service_type != ServiceType::Forking && !settings.listens_to_service(service_type);
    // systemd runs ExecStartPost= as soon as it has forked such a service, which is the shim; its
    // $MAINPID would be gone a moment later. So it is made to wait for our word, restored or cold.
    let at_once = matches!(service_type, ServiceType::Simple | ServiceType::Exec);
    let pre = StartPre::of(unit);
    // It also ran what comes before a start, and nobody may take the service for started meanwhile.
    let waits = at_once && (!settings.all("ExecStartPost").is_empty() || !pre.carried.is_empty());
    let limit = format!("--limit-ms {}", limit.as_millis());
    let mut options = vec![limit.as_str()];
    options.extend(opens_notify.then_some("--no-notify"));
    options.extend(waits.then_some("--say-ready"));
    options.extend(pre.carried.iter().map(String::as_str));
    let exec_start = line.with_shim(shim, unit.name(), &options);
    let mut text = format!(
        "# Written by fastboot-generator for this boot.\n\
         [Unit]\n\
         Wants=fastboot-initd.socket\n\
         After=fastboot-initd.socket\n\
         \n\
         [Service]\n\
         ExecStart=\n\
         ExecStart={exec_start}\n"
    );
    if !pre.carried.is_empty() {
        text.push_str("ExecStartPre=\n");
        pre.kept.iter().for_each(|line| text.push_str(&format!("ExecStartPre={line}\n")));
    }
    if opens_notify {
        text.push_str("NotifyAccess=main\n");
    }
    let service_type = if waits { ServiceType::Notify } else { service_type };
    if waits {
        text.push_str("Type=notify\n");
    }
    // Otherwise the journal would name the service after the shim.
    if settings.last("SyslogIdentifier").is_none_or(str::is_empty) {
        let name = line.path.rsplit('/').next().unwrap_or(line.path);
        text.push_str(&format!("SyslogIdentifier={name}\n"));
    }
    let may_store = settings.may_store();
    DropIn { text, service_type, may_store }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::with_restorable;

    fn compose_text(lines: &str) -> String {
        let text = format!("[Service]\n{lines}\n");
        with_restorable(&text, |unit| compose(unit, "/shim", Duration::from_secs(8)).text)
    }

    #[test]
    fn a_simple_service_gets_the_least_notify_access_and_loses_the_socket_again() {
        let text = compose_text("ExecStart=/bin/d");
        assert!(text.ends_with(
            "ExecStart=\nExecStart=/shim --unit a.service --limit-ms 8000 --no-notify -- /bin/d\nNotifyAccess=main\nSyslogIdentifier=d\n"
        ));
    }

    #[test]
    fn a_service_that_notifies_keeps_its_own_notify_access() {
        for lines in ["Type=notify", "Type=notify-reload", "NotifyAccess=all", "WatchdogSec=10"] {
            let text = compose_text(&format!("{lines}\nExecStart=/bin/d"));
            assert!(
                text.ends_with(
                    "ExecStart=/shim --unit a.service --limit-ms 8000 -- /bin/d\nSyslogIdentifier=d\n"
                ),
                "{text}"
            );
        }
    }

    #[test]
    fn a_service_whose_post_command_wants_its_pid_is_waited_for() {
        let text = compose_text("ExecStart=/bin/d\nExecStartPost=/bin/echo $MAINPID");
        assert!(
            text.contains("/shim --unit a.service --limit-ms 8000 --no-notify --say-ready -- /bin/d\n"),
            "{text}"
        );
        assert!(text.contains("NotifyAccess=main\nType=notify\n"), "{text}");
        let text = compose_text("Type=notify\nExecStart=/bin/d\nExecStartPost=/bin/echo $MAINPID");
        assert!(!text.contains("--say-ready") && !text.contains("Type="), "{text}");
    }

    #[test]
    fn what_a_restored_start_does_without_goes_into_the_line_of_the_shim() {
        let lines = "ExecStartPre=+/bin/a\nExecStartPre=-/bin/b 'x y'\nExecStartPre=@/bin/c c $Z\nExecStart=/bin/d\n\
                     [X-Fastboot]\nSkipStartPre=yes";
        let text = compose_text(lines);
        assert!(
            text.contains("--no-notify --say-ready --pre - /bin/b 'x y' --pre-end --pre @ /bin/c c $Z --pre-end -- /bin/d\n\
                           ExecStartPre=\nExecStartPre=+/bin/a\nNotifyAccess=main\nType=notify\n"),
            "{text}"
        );
        assert!(!compose_text(&lines.replace("yes", "no")).contains("Pre"));
    }

    #[test]
    fn a_forking_service_needs_no_notify_access() {
        let text = compose_text("Type=forking\nPIDFile=/run/d.pid\nExecStart=-@/bin/d d -x");
        assert!(
            text.ends_with("ExecStart=-/shim --unit a.service --argv0 --limit-ms 8000 -- /bin/d d -x\nSyslogIdentifier=d\n"),
            "{text}"
        );
    }
}
