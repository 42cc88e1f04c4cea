//! `[X-Fastboot] SkipStartPre=`: which `ExecStartPre=` lines the shim runs, and only before a cold
//! start.
//!
//! It runs them where systemd has put it: with the user, the sandbox and the prefixes of
//! `ExecStart=`. A line that systemd would treat otherwise stays where it is, and so do all before
//! it, because their order counts.

use snap_policy::{ExecLine, Restorable, ServiceType};

/// The lines, divided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StartPre {
    /// Run by systemd before every start; as written.
    pub kept: Vec<String>,
    /// Options for the shim, one per line.
    pub carried: Vec<String>,
}

impl StartPre {
    /// Divide the lines of a unit.
    pub fn of(unit: &Restorable<'_>) -> StartPre {
        let (settings, main) = (unit.settings(), unit.line());
        let kept: Vec<String> = settings.all("ExecStartPre").into_iter().map(str::to_owned).collect();
        // With these they would be allowed to speak to systemd, which the shim cannot give away.
        let may_notify = matches!(settings.last("NotifyAccess"), Some("all" | "exec"));
        // A failure would not fail the unit; and what is put off until the boot is idle must not
        // hold it up before.
        let differs = main.prefixes.contains(['-', '+', '!']) || unit.service_type() == ServiceType::Idle;
        if !unit.options().skip_start_pre || may_notify || differs {
            return StartPre { kept, carried: Vec::new() };
        }
        let mut carried: Vec<String> = kept.iter().rev().map_while(|line| option_for(line, main)).collect();
        carried.reverse();
        StartPre { kept: kept[..kept.len() - carried.len()].to_vec(), carried }
    }
}

/// `None`: systemd has to run it.
fn option_for(line: &str, main: &ExecLine<'_>) -> Option<String> {
    let parsed = ExecLine::parse(line).ok()?;
    // `:` holds for the whole line of the shim.
    let is_same = parsed.prefixes.contains(':') == main.prefixes.contains(':');
    let is_plain = parsed.prefixes.chars().all(|prefix| matches!(prefix, '-' | ':'));
    if !is_same || !is_plain || parsed.command.contains("--pre-end") {
        return None;
    }
    let ignores = if parsed.prefixes.contains('-') { "-" } else { "" };
    let argv0 = if parsed.has_argv0 { "@" } else { "" };
    let flags = if ignores.is_empty() && argv0.is_empty() { "." } else { "" };
    Some(format!("--pre {ignores}{argv0}{flags} {} --pre-end", parsed.command))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::with_restorable;

    fn divided(lines: &str, main: &str) -> (usize, Vec<String>) {
        let text =
            format!("[Service]\nType=exec\nExecStart={main}\n{lines}\n[X-Fastboot]\nSkipStartPre=yes\n");
        let pre = with_restorable(&text, StartPre::of);
        (pre.kept.len(), pre.carried)
    }

    #[test]
    fn everything_after_the_last_line_that_differs_is_carried() {
        let lines = "ExecStartPre=/bin/a\nExecStartPre=!/bin/b\nExecStartPre=/bin/c x\nExecStartPre=-/bin/d";
        assert_eq!(
            divided(lines, "/bin/m"),
            (2, vec!["--pre . /bin/c x --pre-end".to_owned(), "--pre - /bin/d --pre-end".to_owned()])
        );
    }

    #[test]
    fn where_the_context_differs_nothing_is_carried() {
        for main in ["-/bin/m", "+/bin/m", "!!/bin/m", ":/bin/m"] {
            assert_eq!(divided("ExecStartPre=/bin/a", main), (1, Vec::new()), "{main}");
        }
        assert_eq!(divided("NotifyAccess=all\nExecStartPre=/bin/a", "/bin/m"), (1, Vec::new()));
        assert_eq!(divided("ExecStartPre=:/bin/a", ":/bin/m").0, 0);
    }
}
