//! One booted container, from its start to its end.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::cgroup::{self, Cgroup, Usage};
use super::units::{PROPERTIES, UnitState, parse_properties};
use super::{Output, enter, nspawn, wait_until};

/// Longest for an ordinary command inside.
const COMMAND_BOUND: Duration = Duration::from_secs(60);
/// Longest from nspawn's start to a PID 1.
const LEADER_BOUND: Duration = Duration::from_secs(30);
/// Longest for a clean shutdown; systemd's own limit per service is 90 s.
const POWEROFF_BOUND: Duration = Duration::from_secs(100);

/// How a root is booted.
#[derive(Debug, Clone, Default)]
pub struct BootOptions {
    /// Words for PID 1, which take the place of a kernel command line in a container.
    pub arguments: Vec<String>,
    /// Keep the seccomp filter that nspawn puts around a container.
    pub container_filter: bool,
    /// The monotonic clock inside is so many seconds ahead of the host's.
    pub clock_ahead_s: u32,
    /// What it uses up is counted, for [`Container::usage`].
    pub counted: bool,
    /// More options for nspawn, as `--tmpfs=/var/lib/x:size=1M`.
    pub nspawn_options: Vec<String>,
}

/// A running container. Killed when dropped, and when the runner dies.
#[derive(Debug)]
pub struct Container {
    nspawn: Child,
    leader: u32,
    console: PathBuf,
    // Last: ends what nspawn's death has not ended.
    cgroup: Cgroup,
}

impl Container {
    /// Boot `root`; returns as soon as there is a PID 1. The console goes to the file `console`.
    ///
    /// # Errors
    /// nspawn does not start or ends at once; its words are in the error.
    pub fn boot(root: &Path, name: &str, console: &Path, options: &BootOptions) -> Result<Container> {
        let mut cgroup = Cgroup::create(name)?;
        if options.counted {
            cgroup.count_usage()?;
        }
        let log = File::create(console).with_context(|| format!("creating {}", console.display()))?;
        let mut command = nspawn::command(root, &cgroup, options.container_filter, options.clock_ahead_s)?;
        command
            .args([
                "--machine",
                name,
                "--private-network",
                "--capability=CAP_SYS_TIME",
                "--console=read-only",
            ])
            .args(&options.nspawn_options)
            .arg("--boot")
            .args(&options.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("console log")?)
            .stderr(log);
        let nspawn = command.spawn().context("starting systemd-nspawn")?;
        let mut machine = Container { nspawn, leader: 0, console: console.to_owned(), cgroup };
        machine.leader = machine.find_leader().with_context(|| machine.console_tail())?;
        Ok(machine)
    }

    /// PID 1 of the container, by its number out here.
    pub fn leader(&self) -> u32 {
        self.leader
    }

    fn find_leader(&mut self) -> Result<u32> {
        let nspawn = self.nspawn.id();
        let children = format!("/proc/{nspawn}/task/{nspawn}/children");
        let end = std::time::Instant::now() + LEADER_BOUND;
        // Asked more often than `wait_until` would: who measures a boot wants to be there from its
        // start.
        while std::time::Instant::now() < end {
            if let Some(status) = self.nspawn.try_wait().context("waiting for nspawn")? {
                bail!("nspawn ended at once with {status}");
            }
            let pids = fs::read_to_string(&children).unwrap_or_default();
            if let Some(leader) =
                pids.split_whitespace().filter_map(|pid| pid.parse().ok()).find(|&pid| is_init(pid))
            {
                return Ok(leader);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        bail!("no PID 1 within {} s", LEADER_BOUND.as_secs())
    }

    /// What everything inside has used up so far.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn usage(&self) -> Result<Usage> {
        self.cgroup.usage()
    }

    /// Run a command inside, for a minute at most.
    ///
    /// # Errors
    /// It cannot be started or takes too long. Its own failure is in the [`Output`].
    pub fn run(&self, arguments: &[&str]) -> Result<Output> {
        self.run_for(arguments, COMMAND_BOUND)
    }

    /// Run a command inside, for `bound` at most.
    ///
    /// # Errors
    /// As [`run`](Container::run).
    pub fn run_for(&self, arguments: &[&str], bound: Duration) -> Result<Output> {
        enter::run(self.leader, arguments, bound)
    }

    /// Run `work` on a thread inside the container's network.
    ///
    /// # Errors
    /// Those of `work`; the container is gone.
    pub fn in_network<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        enter::in_network(self.leader, work)
    }

    /// What systemd says of a unit.
    ///
    /// # Errors
    /// systemd does not answer (yet).
    pub fn unit(&self, name: &str) -> Result<UnitState> {
        let text = self.run(&["systemctl", "show", "--property", PROPERTIES, name])?.success()?;
        UnitState::parse(&text)
    }

    /// Wait until a unit is active.
    ///
    /// # Errors
    /// It is not within `bound`; its journal is in the error.
    pub fn wait_active(&self, name: &str, bound: Duration) -> Result<UnitState> {
        self.wait_unit(name, "active", bound, UnitState::is_active)
    }

    /// Wait until a unit is as `wanted` says.
    ///
    /// # Errors
    /// It is not within `bound`; its journal is in the error.
    pub fn wait_unit(
        &self,
        name: &str,
        what: &str,
        bound: Duration,
        wanted: impl Fn(&UnitState) -> bool,
    ) -> Result<UnitState> {
        wait_until(
            &format!("{name} {what}"),
            bound,
            || Ok(Some(self.unit(name)?).filter(|unit| wanted(unit))),
        )
        .with_context(|| self.journal(name, 20))
    }

    /// Wait until systemd has nothing more to start.
    ///
    /// # Errors
    /// It has, after `bound`.
    pub fn wait_booted(&self, bound: Duration) -> Result<()> {
        wait_until("the end of the boot", bound, || {
            let state = self.run(&["systemctl", "is-system-running"])?.stdout;
            Ok(matches!(state.trim(), "running" | "degraded").then_some(()))
        })
        .with_context(|| self.console_tail())
    }

    /// PIDs of all processes of a unit, as the container counts them, sorted.
    ///
    /// # Errors
    /// The unit has no cgroup: it does not run.
    pub fn processes(&self, unit: &str) -> Result<Vec<u32>> {
        let group =
            self.run(&["systemctl", "show", "--property=ControlGroup", "--value", unit])?.success()?;
        let file = format!("/sys/fs/cgroup{}/cgroup.procs", group.trim_end());
        let pids = self.run(&["cat", &file])?.success()?;
        let mut pids: Vec<u32> = pids.lines().map(str::parse).collect::<Result<_, _>>().context(file)?;
        pids.sort_unstable();
        Ok(pids)
    }

    /// When PID 1 started, CLOCK_MONOTONIC in µs.
    ///
    /// # Errors
    /// systemd does not answer.
    pub fn boot_start_us(&self) -> Result<u64> {
        let name = "UserspaceTimestampMonotonic";
        let text = self.run(&["systemctl", "show", "--property", name])?.success()?;
        let properties = parse_properties(&text);
        properties.get(name).and_then(|value| value.parse().ok()).with_context(|| format!("no {name}"))
    }

    /// The last lines of a unit's journal, for messages.
    pub fn journal(&self, unit: &str, lines: usize) -> String {
        let lines = lines.to_string();
        match self.run(&[
            "journalctl",
            "--boot",
            "--no-pager",
            "--output=short-monotonic",
            "-n",
            &lines,
            "-u",
            unit,
        ]) {
            Ok(output) => format!("journal of {unit}:\n{}{}", output.stdout, output.stderr),
            Err(error) => format!("no journal of {unit}: {error:#}"),
        }
    }

    /// The last lines of the console, for messages.
    pub fn console_tail(&self) -> String {
        let text = fs::read(&self.console).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let text = text.unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(15)..];
        format!("console ({}):\n{}", self.console.display(), tail.join("\n"))
    }

    /// Wait until it has ended by itself: somebody inside has said that it is to power off, or to
    /// boot again, which nspawn leaves to us.
    ///
    /// # Errors
    /// It does not end in time (it is killed then).
    pub fn wait_end(mut self) -> Result<()> {
        wait_until("the shutdown", POWEROFF_BOUND, || Ok(self.nspawn.try_wait()?))
            .with_context(|| self.console_tail())
            .map(drop)
    }

    /// Shut down as a machine that is switched off: all services are stopped, file systems are
    /// synchronised.
    ///
    /// # Errors
    /// It does not end in time (it is killed then), or nspawn reports a failure.
    pub fn poweroff(mut self) -> Result<()> {
        // The command's own end is not waited for: it may be killed together with everything else.
        self.run(&["systemctl", "poweroff", "--no-block"])?;
        let ended = wait_until("the shutdown", POWEROFF_BOUND, || Ok(self.nspawn.try_wait()?));
        match ended.with_context(|| self.console_tail())? {
            status if status.success() => Ok(()),
            status => bail!("nspawn ended with {status} at shutdown: {}", self.console_tail()),
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if matches!(self.nspawn.try_wait(), Ok(Some(_))) {
            return;
        }
        if let Err(error) = self.cgroup.end() {
            eprintln!("{error:#}");
        }
        // Its end is what counts here, not its status.
        let _ = self.nspawn.wait();
    }
}

/// End containers that runners left which did not end by themselves.
///
/// # Errors
/// The cgroups cannot be read or ended.
pub fn end_left_over_machines() -> Result<()> {
    cgroup::end_left_over()
}

/// Whether a process is PID 1 of a PID namespace below ours, and has become what the root calls
/// init: until then it is nspawn itself, which still has some of the host's namespaces.
fn is_init(pid: u32) -> bool {
    let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    if program.file_name().is_none_or(|name| name == "systemd-nspawn") {
        return false;
    }
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    let numbers: Vec<&str> = numbers.split_whitespace().collect();
    numbers.len() > 1 && numbers.last() == Some(&"1")
}
