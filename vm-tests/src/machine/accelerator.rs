//! What runs the guest's instructions: KVM where a stock kernel really boots on it, emulation
//! elsewhere.

use std::fmt;
use std::path::Path;
use std::process::Stdio;
use std::sync::OnceLock;

use anyhow::{Context as _, Result};

use super::disk::Kernel;
use crate::needs;

/// Longest for a kernel to come as far as looking for its root; on KVM that takes a second or two.
const PROBE_SECONDS: &str = "20";
/// What a kernel without a root says at the end of its own start.
const CAME_UP: &str = "Unable to mount root fs";

/// How guests are run on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accelerator {
    /// The host's processor.
    Kvm,
    /// Emulation, and why.
    Tcg(String),
}

impl Accelerator {
    /// Found out once per run, by booting: a /dev/kvm that opens may still be unable to run a
    /// kernel.
    ///
    /// # Errors
    /// QEMU cannot be started.
    pub fn probe(kernel: &Kernel) -> Result<Accelerator> {
        static FOUND: OnceLock<Accelerator> = OnceLock::new();
        if let Some(found) = FOUND.get() {
            return Ok(found.clone());
        }
        let found = probe(kernel)?;
        Ok(FOUND.get_or_init(|| found).clone())
    }

    /// QEMU's options for it. 5-level paging makes every emulated page walk longer.
    pub(super) fn options(&self) -> &'static [&'static str] {
        match self {
            Accelerator::Kvm => &["-accel", "kvm", "-cpu", "host"],
            Accelerator::Tcg(_) => &["-accel", "tcg,thread=multi,tb-size=256", "-cpu", "max,la57=off"],
        }
    }
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Accelerator::Kvm => write!(f, "KVM"),
            Accelerator::Tcg(why) => write!(f, "TCG (emulated: {why})"),
        }
    }
}

fn probe(kernel: &Kernel) -> Result<Accelerator> {
    if !Path::new("/dev/kvm").exists() {
        return Ok(Accelerator::Tcg("no /dev/kvm".to_owned()));
    }
    let output = needs::command("timeout")?
        .args(["--kill-after=1", PROBE_SECONDS])
        .arg(needs::path("qemu-system-x86_64")?)
        .args(["-nodefaults", "-no-user-config", "-display", "none"])
        .args(["-machine", "q35", "-smp", "1", "-m", "512M", "-no-reboot", "-serial", "stdio"])
        .args(Accelerator::Kvm.options())
        .arg("-kernel")
        .arg(&kernel.path)
        .args(["-append", "console=ttyS0 panic=-1"])
        .stdin(Stdio::null())
        .output()
        .context("starting QEMU to try KVM")?;
    Ok(judge(&String::from_utf8_lossy(&output.stdout), &String::from_utf8_lossy(&output.stderr)))
}

fn judge(console: &str, errors: &str) -> Accelerator {
    if console.contains(CAME_UP) {
        return Accelerator::Kvm;
    }
    let said = errors.lines().find(|line| !line.trim().is_empty()).map(str::trim);
    let why = said.map_or_else(
        || format!("no kernel within {PROBE_SECONDS} s"),
        |line| line.replace("qemu-system-x86_64: ", ""),
    );
    Accelerator::Tcg(format!("/dev/kvm does not run Debian's kernel: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_kernel_that_came_up_speaks_for_kvm() {
        assert_eq!(judge("VFS: Unable to mount root fs on unknown-block(0,0)\n", ""), Accelerator::Kvm);
        let refused =
            judge("", "qemu-system-x86_64: error: failed to set MSR 0x10a\nassertion\n").to_string();
        assert!(refused.contains("TCG") && refused.ends_with("failed to set MSR 0x10a)"), "{refused}");
        assert!(judge("Booting", "").to_string().contains("no kernel within"));
    }
}
