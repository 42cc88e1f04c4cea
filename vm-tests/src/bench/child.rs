//! Commands that are timed, and processes that come and go without a handle.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

/// Longest for one run of a tool.
const BOUND: Duration = Duration::from_secs(120);
/// Longest until a killed process is gone.
const END_BOUND: Duration = Duration::from_secs(30);
/// How much of what a tool printed a failure quotes.
const QUOTED_LINES: usize = 6;

/// Wall time in ms from before the process is made until it has ended, with exit code 0. Its output
/// goes to `log`.
///
/// # Errors
/// Another exit code, with the last lines of the output; no end in time.
pub(super) fn timed(command: &mut Command, log: &Path) -> Result<f64> {
    let output = File::create(log).with_context(|| format!("creating {}", log.display()))?;
    let errors = output.try_clone().context("duplicating the log")?;
    command.stdout(output).stderr(errors);
    let (started, watched) = mpsc::channel::<Pid>();
    let watchdog = std::thread::spawn(move || {
        let Ok(pid) = watched.recv() else { return };
        // Disconnected when the command has ended and been reaped, so that no stranger is killed.
        if watched.recv_timeout(BOUND) == Err(RecvTimeoutError::Timeout) {
            let _ = kill(pid, Signal::SIGKILL);
        }
    });
    let begin = Instant::now();
    let mut child = command.spawn().with_context(|| format!("running {command:?}"))?;
    let pid = i32::try_from(child.id())?;
    let _ = started.send(Pid::from_raw(pid));
    let status = child.wait().context("waiting for the tool")?;
    let took = begin.elapsed();
    drop(started);
    let _ = watchdog.join();
    if !status.success() {
        let text = fs::read_to_string(log).unwrap_or_default();
        let why = if took >= BOUND { "no end in time".to_owned() } else { status.to_string() };
        let program = Path::new(command.get_program());
        let name = program.file_name().unwrap_or(command.get_program()).to_string_lossy();
        bail!("{name}: {why}: {}", last_lines(&text));
    }
    Ok(took.as_secs_f64() * 1e3)
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(QUOTED_LINES)..].join("; ")
}

/// Wait until a process that was ended is gone and reaped, by us where it is our child, by PID 1
/// where it is not. So are all of its group: it is a daemon, and its number is theirs.
///
/// # Errors
/// It goes on living.
pub(super) fn wait_until_gone(pid: Pid) -> Result<()> {
    let end = Instant::now() + END_BOUND;
    loop {
        match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
            Err(Errno::ECHILD)
                if kill(pid, None) == Err(Errno::ESRCH) && killpg(pid, None) == Err(Errno::ESRCH) =>
            {
                return reap_children();
            }
            Ok(_) | Err(Errno::ECHILD | Errno::EINTR) => {}
            Err(errno) => return Err(errno).with_context(|| format!("waiting for {pid}")),
        }
        if Instant::now() >= end {
            bail!("process {pid} is still there after {} s", END_BOUND.as_secs());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Kill a process and wait until it is gone. Nothing happens where there is none.
///
/// # Errors
/// It goes on living.
pub(super) fn end(pid: Pid) -> Result<()> {
    match kill(pid, Signal::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => wait_until_gone(pid),
        Err(errno) => Err(errno).with_context(|| format!("killing {pid}")),
    }
}

/// Take the exit status of all children that nobody has waited for.
fn reap_children() -> Result<()> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(nix::sys::wait::WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(()),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("reaping"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::needs;

    #[test]
    fn a_failure_quotes_the_end_of_the_output() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let error =
            timed(&mut needs::shell("echo one; echo two >&2; exit 3", &[]).unwrap(), &log).unwrap_err();
        assert_eq!(error.to_string(), "sh: exit status: 3: one; two");
        assert!(timed(needs::command("sleep").unwrap().arg("0.05"), &log).unwrap() >= 50.0);
    }

    #[test]
    fn only_the_last_lines_are_quoted() {
        let text = (0..20).map(|n| format!("{n}\n\n")).collect::<String>();
        assert_eq!(last_lines(&text), "14; 15; 16; 17; 18; 19");
    }
}
