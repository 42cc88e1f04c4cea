//! Stages that are cargo commands.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::count::Count;
use crate::fastboot::workspace;

pub(super) const CLIPPY: &[&str] =
    &["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"];

/// Longest for all unit and engine tests; a hanging test must not hang CI.
const TEST_BOUND: &str = "2400";
/// Lines of a failed command that are shown.
const TAIL: usize = 150;

/// One command that counts as one.
pub(super) fn passes(arguments: &[&str]) -> Result<Count> {
    let (succeeded, text) = run(arguments)?;
    if succeeded {
        return Ok(Count::passed(1));
    }
    println!("{}", tail(&text));
    Ok(Count::failed(1))
}

/// Unit and engine tests of the whole workspace, optimised but with debug assertions: the shim's tests need a socket of their own,
/// which a shim that is shipped does not listen to.
pub(super) fn tests() -> Result<Count> {
    let (succeeded, text) = run(&["test", "--workspace", "--profile", "verify", "--no-fail-fast"])?;
    let mut count = Count::of_cargo_test(&text);
    if !succeeded {
        println!("{}", tail(&text));
        // A crash or a compiler error fails no test by name.
        count.failed = count.failed.max(1);
    } else if count.passed == 0 {
        bail!("cargo test ran no tests");
    }
    Ok(count)
}

fn run(arguments: &[&str]) -> Result<(bool, String)> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new("timeout")
        .args(["--kill-after=10", TEST_BOUND, &cargo])
        .args(arguments)
        .current_dir(workspace())
        .env("CARGO_TERM_COLOR", "never")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("running cargo {}", arguments.join(" ")))?;
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Ok((output.status.success(), text))
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}
