//! Commands and threads inside a running container.

use std::fs::File;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sched::{CloneFlags, setns};

use crate::needs;

/// How a command inside the container ended.
#[derive(Debug)]
pub struct Output {
    /// The command, for messages.
    pub command: String,
    /// Exit code; `None` after a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Standard output of a command that ended well.
    ///
    /// # Errors
    /// It did not; the error has what it printed.
    pub fn success(self) -> Result<String> {
        match self.code {
            Some(0) => Ok(self.stdout),
            code => {
                let code = code.map_or_else(|| "a signal".to_owned(), |code| format!("exit code {code}"));
                bail!("`{}` ended with {code}: {}{}", self.command, self.stdout, self.stderr)
            }
        }
    }
}

/// Exit code of timeout(1) when the time was up.
const TIMEOUT_CODE: i32 = 124;

/// Run a command in all namespaces of `leader`. It stays in the runner's cgroup, as a visitor's
/// process.
pub(super) fn run(leader: u32, arguments: &[&str], bound: Duration) -> Result<Output> {
    let command = arguments.join(" ");
    let output = needs::command("timeout")?
        .args(["--kill-after=5", &bound.as_secs().max(1).to_string()])
        .arg(needs::path("nsenter")?)
        .args(["--all", "--target", &leader.to_string(), "--"])
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LANG", "C.UTF-8")
        .env("SYSTEMD_PAGER", "cat")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("running `{command}` in the container"))?;
    if output.status.code() == Some(TIMEOUT_CODE) {
        bail!("`{command}` took longer than {} s", bound.as_secs());
    }
    Ok(Output {
        command,
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Run `work` on a thread of this process that is in the network namespace of `leader`.
pub(super) fn in_network<T: Send>(leader: u32, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let path = format!("/proc/{leader}/ns/net");
    let namespace = File::open(&path).with_context(|| format!("opening {path}"))?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // The namespace is a property of the thread; it ends with it.
            setns(&namespace, CloneFlags::CLONE_NEWNET).context("entering the container's network")?;
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
