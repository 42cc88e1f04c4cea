//! The tutorial, followed word for word: docs/tutorial.md says the commands and what they print.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::container::Container;
use crate::fastboot::workspace;
use crate::roots::{Recipe, cached};
use crate::site::{Site, logs};

const DOCUMENT: &str = "docs/tutorial.md";
/// Where the reader has the package.
const PACKAGE_DIR: &str = "/root";
const PACKAGE: &str = "/root/fastboot-services_0.1.0_amd64.deb";
/// In the place of anything.
const ANYTHING: char = '…';
const BOOT_BOUND: Duration = Duration::from_secs(60);
const COMMAND_BOUND: Duration = Duration::from_secs(300);
/// A command of the document.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    /// From 1.
    line: usize,
    command: String,
    /// What it prints, in this order.
    printed: Vec<String>,
}

/// Follows it. What was done and printed is kept beside the logs of the family, as a page.
///
/// # Errors
/// A command fails, or prints something else.
pub(super) fn run(package: &Path) -> Result<()> {
    let path = workspace().join(DOCUMENT);
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let steps = steps(&text)?;
    ensure!(steps.len() >= 10, "{DOCUMENT} has only {} commands", steps.len());
    let mut site = Site::new("package", "tutorial", &cached(&recipe())?)?;
    fs::copy(package, site.scratch.path(PACKAGE))
        .with_context(|| format!("copying {}", package.display()))?;
    // What a first boot writes is no part of it.
    site.boot(BOOT_BOUND)?.poweroff()?;
    let mut transcript = String::from(HEAD);
    let followed = follow(&steps, &mut site, &mut transcript);
    transcript.push_str("```\n");
    let kept = logs("package")?.join("transcript.md");
    fs::write(&kept, transcript).with_context(|| format!("writing {}", kept.display()))?;
    followed
}

const HEAD: &str = "# What the tutorial prints\n\n\
    Everything that a new user sees who follows [tutorial.md](tutorial.md) in a Debian 13 container.\n\
    Made by `cargo run -p vm-tests -- run package/the_tutorial_is_followed_word_for_word`, which leaves\n\
    it in `transcript.md` among its logs.\n\n```console\n";

fn follow(steps: &[Step], site: &mut Site, transcript: &mut String) -> Result<()> {
    let mut running = site.boot(BOOT_BOUND)?;
    for step in steps {
        let Step { line, command, printed } = step;
        let _ = writeln!(transcript, "# {command}");
        if command == "reboot" {
            running.poweroff()?;
            running = site.boot(BOOT_BOUND)?;
            continue;
        }
        let said = shell(&running, command).with_context(|| format!("{DOCUMENT}:{line}: {command}"))?;
        // What a terminal would show in the end of a line that is written again and again.
        for line in said.lines() {
            let shown = line.rsplit('\r').find(|part| !part.is_empty()).unwrap_or_default();
            let _ = writeln!(transcript, "{shown}");
        }
        let mut rest = said.lines();
        for wanted in printed {
            ensure!(
                rest.any(|line| fits(line, wanted)),
                "{DOCUMENT}:{line}: `{command}` does not print `{wanted}` (any more):\n{said}"
            );
        }
    }
    running.poweroff()
}

/// A command of the document, in the directory where the package lies; its whole output.
fn shell(running: &Container, command: &str) -> Result<String> {
    let script = format!("cd {PACKAGE_DIR} && exec 2>&1; {command}");
    let environment = ["env", "DEBIAN_FRONTEND=noninteractive", "COLUMNS=100"];
    let arguments = [&environment[..], &["bash", "-c", &script]].concat();
    let output = running.run_for(&arguments, COMMAND_BOUND)?;
    ensure!(output.code == Some(0), "exit code {:?}:\n{}", output.code, output.stdout);
    Ok(output.stdout)
}

/// Whether a line is what the document says.
fn fits(line: &str, wanted: &str) -> bool {
    let parts: Vec<&str> = wanted.split(ANYTHING).collect();
    let (Some(first), Some(last)) = (parts.first(), parts.last()) else { return false };
    if parts.len() == 1 {
        return line.trim_end() == wanted;
    }
    let Some(mut rest) = line.strip_prefix(first).and_then(|rest| rest.strip_suffix(last)) else {
        return false;
    };
    parts[1..parts.len() - 1].iter().all(|part| match rest.split_once(part) {
        Some((_, after)) => {
            rest = after;
            true
        }
        None => false,
    })
}

fn steps(document: &str) -> Result<Vec<Step>> {
    let mut steps: Vec<Step> = Vec::new();
    let mut is_console = false;
    for (index, text) in document.lines().enumerate() {
        let line = index + 1;
        if text.starts_with("```") {
            is_console = !is_console && text == "```console";
        } else if is_console && let Some(command) = text.strip_prefix("# ") {
            steps.push(Step { line, command: command.to_owned(), printed: Vec::new() });
        } else if is_console {
            match steps.last_mut() {
                Some(step) => step.printed.push(text.to_owned()),
                None => bail!("{DOCUMENT}:{line}: output of no command"),
            }
        }
    }
    Ok(steps)
}

/// What the document installs has come with the root, since a test has no network: the commands are
/// the same, and find that there is nothing to do.
fn recipe() -> Recipe {
    Recipe {
        name: "tutorial",
        suite: "trixie",
        packages: vec!["systemd", "systemd-sysv", "dbus", "procps", "curl", "radicale"],
        from_sid: Vec::new(),
        files: Vec::new(),
        setup: include_str!("../../roots/tutorial/setup.sh"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_what_they_print_are_found_in_blocks_of_a_console() {
        let text = "# Title\n```sh\n# not this\n```\n```console\n# a b\n…c\nd\n# reboot\n```\n# nor this\n";
        let step = |line, command: &str, printed: &[&str]| Step {
            line,
            command: command.to_owned(),
            printed: printed.iter().map(|&text| text.to_owned()).collect(),
        };
        assert_eq!(steps(text).unwrap(), [step(6, "a b", &["…c", "d"]), step(9, "reboot", &[])]);
        assert!(steps("```console\nno command\n```\n").is_err());
    }

    #[test]
    fn an_ellipsis_stands_for_anything_and_nothing_else_does() {
        assert!(fits("radicale.service  restored 12 ms", "…radicale.service…restored…"));
        assert!(!fits("radicale.service  cold", "…radicale.service…restored…"));
        assert!(!fits("restored radicale.service", "…radicale.service…restored…"));
        assert!(fits("active", "active") && !fits("inactive", "active"));
        assert!(fits("a b", "a…") && !fits("b a", "a…") && !fits("ab", "ab…b"));
    }
}
