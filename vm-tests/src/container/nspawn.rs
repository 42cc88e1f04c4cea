//! The command line of systemd-nspawn, and one-off commands in a root.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::cgroup::Cgroup;
use crate::needs;

/// systemd-nspawn on `root` in `cgroup`; the caller adds options and what to run.
///
/// - `--register=no --keep-unit`: works on hosts without systemd as PID 1 too; the cgroup is ours.
/// - no seccomp filter of nspawn's own unless asked for: it forbids what a restore needs (set_tid
///   and others).
/// - a time namespace around it where its clock is to be ahead of the host's.
pub(super) fn command(root: &Path, cgroup: &Cgroup, own_filter: bool, clock_ahead_s: u32) -> Result<Command> {
    let files = cgroup.procs_files();
    let moves = r#"while [ "$1" != -- ]; do echo $$ > "$1" || exit 1; shift; done; shift; exec "$@""#;
    let mut command = needs::shell(moves, &[])?;
    command.arg("sh").args(files).arg("--");
    if clock_ahead_s > 0 {
        let ahead = clock_ahead_s.to_string();
        command.arg(needs::path("unshare")?).args(["--time", "--monotonic", &ahead, "--boottime", &ahead]);
    }
    command
        .arg(needs::path("systemd-nspawn")?)
        .args(["--quiet", "--register=no", "--keep-unit"])
        .args(["--resolv-conf=off", "--timezone=off", "--link-journal=no"])
        .arg("--directory")
        .arg(root)
        .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
        .env("SYSTEMD_SECCOMP", if own_filter { "1" } else { "0" });
    Ok(command)
}

/// Run a shell script in a root that is not booted, with more options for nspawn. Returns what it
/// printed.
///
/// # Errors
/// The script fails, or takes longer than `bound`; what it printed is in the error.
pub fn run_in_root(root: &Path, options: &[&str], script: &str, bound: Duration) -> Result<String> {
    let cgroup = Cgroup::create("setup")?;
    let mut inner = command(root, &cgroup, false, 0)?;
    inner.args(["--pipe", "--as-pid2", "--private-network"]).args(options).args(["/bin/sh", "-s"]);
    // `timeout` is put around it here, because the child has to be waited for anyway.
    let mut command = needs::command("timeout")?;
    command.args(["--kill-after=5", &bound.as_secs().to_string()]);
    command.arg(inner.get_program()).args(inner.get_args());
    for (name, value) in inner.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting systemd-nspawn")?;
    let mut stdin = child.stdin.take().context("no pipe to the script")?;
    stdin.write_all(script.as_bytes()).context("passing the script")?;
    drop(stdin);
    let output = child.wait_with_output().context("waiting for systemd-nspawn")?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{}: {}{}", output.status, stdout, String::from_utf8_lossy(&output.stderr));
    }
    Ok(stdout)
}
