//! A machine that is switched on.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::agent::Agent;
use super::qemu::control_socket;
use crate::container::{Output, wait_until};

/// Longest for an ordinary command. Emulated on a busy host, everything takes a hundred times as
/// long as it should.
const COMMAND_BOUND: Duration = Duration::from_secs(120);
/// Longest from switching on to an agent that answers, and from there to the end of the boot.
pub(super) const BOOT_BOUND: Duration = Duration::from_secs(300);
const POWEROFF_BOUND: Duration = Duration::from_secs(180);
/// Lines of the console that go into messages.
const CONSOLE_LINES: usize = 15;

/// A running guest. Its power is cut when it is dropped, and when the runner dies.
#[derive(Debug)]
pub struct Running {
    pub(super) qemu: Child,
    pub(super) agent: Agent,
    pub(super) console: PathBuf,
    pub(super) dir: PathBuf,
}

impl Running {
    /// The kernel's id of this boot.
    pub fn boot_id(&self) -> &str {
        &self.agent.boot_id
    }

    /// Longest for an answer, on top of what its command may take; half a minute where nothing is
    /// said.
    pub fn set_patience(&mut self, patience: Duration) {
        self.agent.patience = patience;
    }

    /// Stop the guest's processors, as if it hung.
    ///
    /// # Errors
    /// QEMU refuses.
    pub fn stop_processors(&self) -> Result<()> {
        self.control(r#""stop""#).map(drop)
    }

    /// Run a command in the guest, for two minutes at most.
    ///
    /// # Errors
    /// The guest does not answer. The command's own failure is in the [`Output`].
    pub fn run(&self, words: &[&str]) -> Result<Output> {
        self.run_for(words, COMMAND_BOUND)
    }

    /// The same with a bound.
    ///
    /// # Errors
    /// As [`run`](Running::run).
    pub fn run_for(&self, words: &[&str], bound: Duration) -> Result<Output> {
        self.agent.run(words, bound).with_context(|| self.console_tail())
    }

    /// Run a shell script in the guest; returns what it printed.
    ///
    /// # Errors
    /// It fails.
    pub fn shell(&self, script: &str) -> Result<String> {
        self.run(&["/bin/sh", "-euc", script])?.success()
    }

    /// Talk to a server at a port of the guest's loopback address, until it closes the connection.
    ///
    /// # Errors
    /// Nobody listens or answers.
    pub fn ask(&self, port: u16, request: &str) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.agent.ask(port, request.as_bytes())?).into_owned())
    }

    /// Wait until systemd has nothing more to start.
    ///
    /// # Errors
    /// It has, after five minutes.
    pub fn wait_booted(&self) -> Result<()> {
        let state = self.run_for(&["systemctl", "is-system-running", "--wait"], BOOT_BOUND)?;
        ensure!(
            matches!(state.stdout.trim(), "running" | "degraded"),
            "the boot ended as {:?} {:?}",
            state.stdout.trim(),
            state.stderr.trim()
        );
        Ok(())
    }

    /// Units that have failed, one a line; empty where all is well.
    ///
    /// # Errors
    /// systemd does not answer.
    pub fn failed_units(&self) -> Result<String> {
        self.run(&["systemctl", "list-units", "--failed", "--no-legend", "--plain"])?.success()
    }

    /// The journal of this boot, of one unit or of all, for messages.
    pub fn journal(&self, unit: Option<&str>, lines: usize) -> String {
        let lines = lines.to_string();
        let mut words = vec!["journalctl", "--boot", "--no-pager", "--output=short-monotonic", "-n", &lines];
        words.extend(unit.iter().flat_map(|unit| ["-u", unit]));
        self.run(&words).map_or_else(|error| format!("no journal: {error:#}"), |output| output.stdout)
    }

    /// Reboot by systemd; returns when the next boot's agent answers.
    ///
    /// # Errors
    /// It does not come back.
    pub fn reboot(&mut self) -> Result<()> {
        self.run(&["systemctl", "reboot"])?.success()?;
        self.greet_next()
    }

    /// Press the reset button: nothing is written out, nobody is told.
    ///
    /// # Errors
    /// It does not come back.
    pub fn reset(&mut self) -> Result<()> {
        self.control(r#""system_reset""#)?;
        self.greet_next()
    }

    /// Save the state of the whole machine, memory and disk, under a name.
    ///
    /// # Errors
    /// QEMU refuses.
    pub fn save(&self, name: &str) -> Result<()> {
        let said = self.control(&format!(
            r#""human-monitor-command", "arguments": {{"command-line": "savevm {name}"}}"#
        ))?;
        ensure!(!said.contains("Error"), "QEMU does not save the machine: {said}");
        Ok(())
    }

    fn greet_next(&mut self) -> Result<()> {
        let answered = self.agent.wait_next_boot(2 * BOOT_BOUND);
        answered.with_context(|| self.console_tail())?;
        Ok(())
    }

    /// Shut down, until QEMU has ended.
    ///
    /// # Errors
    /// It does not end in time; then its power is cut.
    pub fn poweroff(mut self) -> Result<()> {
        self.run(&["systemctl", "poweroff"])?.success()?;
        let ended = wait_until("the end of the machine", POWEROFF_BOUND, || {
            self.qemu.try_wait().context("waiting for QEMU")
        });
        let status = ended.with_context(|| self.console_tail())?;
        ensure!(status.success(), "QEMU ended with {status}");
        Ok(())
    }

    /// Cut the power: what the guest has not flushed is lost.
    ///
    /// # Errors
    /// QEMU cannot be ended.
    pub fn power_cut(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        self.qemu.kill().context("ending QEMU")?;
        self.qemu.wait().context("waiting for QEMU")?;
        Ok(())
    }

    /// One command of QEMU's machine protocol, as its JSON has it behind `execute`. Returns the
    /// answer.
    fn control(&self, command: &str) -> Result<String> {
        let socket = UnixStream::connect(control_socket(&self.dir)).context("connecting to QEMU")?;
        socket.set_read_timeout(Some(BOOT_BOUND)).context("setting a bound")?;
        let mut lines = BufReader::new(socket.try_clone().context("reading from QEMU")?).lines();
        lines.next().context("QEMU says nothing")?.context("reading from QEMU")?;
        let mut answer = String::new();
        for command in [r#""qmp_capabilities""#, command] {
            writeln!(&socket, r#"{{"execute": {command}}}"#).context("telling QEMU")?;
            answer = loop {
                let line = lines.next().context("QEMU closed")?.context("reading from QEMU")?;
                if line.contains("\"return\"") {
                    break line;
                }
                if line.contains("\"error\"") {
                    bail!("QEMU does not do {command}: {line}");
                }
            };
        }
        Ok(answer)
    }

    fn console_tail(&self) -> String {
        console_tail(&self.console)
    }
}

/// The console's last lines, and where all of them are.
pub(super) fn console_tail(console: &std::path::Path) -> String {
    let bytes = std::fs::read(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(CONSOLE_LINES)..].join("\n");
    format!("the console, in {}:\n{tail}\n", console.display())
}

impl Drop for Running {
    fn drop(&mut self) {
        if !matches!(self.qemu.try_wait(), Ok(Some(_)))
            && let Err(error) = self.end()
        {
            eprintln!("{error:#}");
        }
    }
}
