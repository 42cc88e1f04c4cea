//! The Debian package: building it, and that it does what a package must.

mod build;
mod life;
mod tree;

pub use build::build;

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};

use crate::checks::Checks;
use crate::needs::{self, Purpose};

/// Debian suites that the package is for.
const SUITES: [&str; 2] = ["trixie", "bookworm"];

/// Build the package and check it: lintian, then installation, use, removal and purge on each suite.
///
/// # Errors
/// It cannot be built; a root cannot.
pub fn check() -> Result<Checks> {
    needs::install(&[Purpose::Roots, Purpose::Package])?;
    let package = build()?;
    let mut checks = Checks::default();
    checks.note("lintian finds no errors and no warnings", lintian(&package));
    checks.note("a second build is the same, byte for byte", build_again(&package));
    for suite in SUITES {
        life::run(suite, &package, &mut checks)?;
    }
    Ok(checks)
}

fn lintian(package: &Path) -> Result<()> {
    let output = needs::command("lintian")?
        .args(["--allow-root", "--fail-on=error,warning"])
        .arg(package)
        .stdin(Stdio::null())
        .output()
        .context("running lintian")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{}{}", text.trim(), String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

fn build_again(package: &Path) -> Result<()> {
    let read = || std::fs::read(package).with_context(|| format!("reading {}", package.display()));
    let first = read()?;
    build()?;
    ensure!(first == read()?, "the two differ");
    Ok(())
}
