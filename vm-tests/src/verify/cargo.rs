//! Stages that are cargo commands.

use std::process::Stdio;

use anyhow::{Context as _, Result, bail};

use super::count::Count;
use crate::fastboot::workspace;
use crate::needs::{self, Purpose};

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
    needs::install(&[Purpose::Tests])?;
    let (succeeded, text) = run(&["test", "--workspace", "--profile", "verify", "--no-fail-fast"])?;
    let mut count = Count::of_cargo_test(&text);
    if !succeeded {
        let failures = failures(&text);
        println!("{}", if failures.is_empty() { tail(&text) } else { failures });
        // A crash or a compiler error fails no test by name.
        count.failed = count.failed.max(1);
    } else if count.passed == 0 {
        bail!("cargo test ran no tests");
    }
    Ok(count)
}

fn run(arguments: &[&str]) -> Result<(bool, String)> {
    let output = needs::command("timeout")?
        .args(["--kill-after=10", TEST_BOUND])
        .arg(needs::cargo())
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

/// What the test programs say of their failures, wherever it stands; empty where no test has failed.
fn failures(text: &str) -> String {
    let mut said = String::new();
    let mut inside = false;
    for line in text.lines() {
        inside = (inside || line == "failures:") && !line.starts_with("test result:");
        if inside {
            said.push_str(line);
            said.push('\n');
        }
    }
    said
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_found_between_those_who_passed() {
        let text = "running 2 tests\ntest a ... ok\ntest b ... FAILED\n\nfailures:\n\n---- b stdout ----\nit broke\n\nfailures:\n    b\n\n\
                    test result: FAILED. 1 passed; 1 failed\n\nrunning 1 test\ntest c ... ok\n\ntest result: ok. 1 passed\n";
        let said = failures(text);
        assert!(said.contains("---- b stdout ----\nit broke\n") && said.contains("    b\n"), "{said}");
        assert!(!said.contains("test c") && !said.contains("test a"), "{said}");
        assert_eq!(failures("error: could not compile\n"), "");
    }
}
