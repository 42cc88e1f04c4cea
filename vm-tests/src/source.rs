//! Tests of the source text: its format, what the compiler and clippy say of it, and the examples
//! in its documentation.

use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use test_frame::Test;

use crate::fastboot::workspace;
use crate::needs;

/// Longest for one of them.
const BOUND_S: &str = "2400";
const TESTS: &[(&str, &[&str])] = &[
    ("is_formatted", &["fmt", "--all", "--check"]),
    ("has_no_lints", &["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]),
    ("has_examples_that_work", &["test", "--workspace", "--doc", "--quiet", "--profile", "verify"]),
];

/// One test for each.
pub fn tests() -> Vec<Test> {
    let test = |(name, arguments): &'static (&str, &[&str])| {
        Test::alone(format!("source/{name}"), &[], |_| cargo(arguments))
    };
    TESTS.iter().map(test).collect()
}

fn cargo(arguments: &[&str]) -> Result<()> {
    let output = needs::command("timeout")?
        .args(["--kill-after=10", BOUND_S])
        .arg(needs::cargo())
        .args(arguments)
        .current_dir(workspace())
        .env("CARGO_TERM_COLOR", "never")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("running cargo {}", arguments.join(" ")))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    ensure!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    Ok(())
}
