//! A service that systemd starts for each connection (Accept=yes) is nobody's business here.

use anyhow::{Context as _, Result, ensure};

use crate::container::Container;
use crate::fastboot::StatusReport;
use crate::roots::Scratch;

const SOCKET: &str = "[Socket]\nListenStream=127.0.0.1:7140\nAccept=yes\n";
const SERVICE: &str = "[Service]\nExecStart=/bin/echo hello\nStandardOutput=socket\n";

/// Its socket, enabled.
pub(super) fn install(scratch: &Scratch) -> Result<()> {
    scratch.write("/etc/systemd/system/per-connection.socket", SOCKET, 0o644)?;
    scratch.write("/etc/systemd/system/per-connection@.service", SERVICE, 0o644)?;
    let dir = scratch.path("/etc/systemd/system/sockets.target.wants");
    std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    std::os::unix::fs::symlink("../per-connection.socket", dir.join("per-connection.socket"))
        .context("enabling the socket")
}

/// Two clients are served, and fastboot knows nothing of it.
pub(super) fn check(machine: &Container, status: &StatusReport) -> Result<()> {
    let script = "import socket\nfor _ in range(2):\n s = socket.create_connection(('127.0.0.1', 7140))\n print(s.recv(9).decode().strip())\n";
    let got = machine.run(&["python3", "-c", script])?.success()?;
    ensure!(got.trim() == "hello\nhello", "clients got {got:?}");
    let text = machine.run(&["systemctl", "cat", "per-connection@.service"])?.success()?;
    ensure!(!text.contains("fastboot"), "fastboot has changed its unit: {text}");
    let known = status.units.iter().find(|unit| unit.unit.starts_with("per-connection"));
    ensure!(known.is_none(), "fastboot has something to do with it");
    Ok(())
}
