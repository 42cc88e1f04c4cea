//! `vm-tests verify`, `run` and `list`: all tests of the workspace, or some, by their names.

use anyhow::Result;
use nix::unistd::geteuid;
use test_frame::{Need, Test, run};

use crate::needs::{self, Purpose};
use crate::registry::registry;

/// What to verify.
#[derive(Debug, Clone)]
pub struct Options {
    /// Also what takes long.
    pub full: bool,
    /// Only the test of this name, those below it, or else all that have this in their names.
    pub only: Option<String>,
    /// A skip is a failure.
    pub no_skips: bool,
}

/// Run everything; returns whether all is well. The last line is `N passed, N failed, N skipped`.
///
/// # Errors
/// Packages that are needed cannot be installed; `only` names nothing.
pub fn verify(options: &Options) -> Result<bool> {
    let registry = registry()?;
    let tests = match &options.only {
        Some(word) => registry.with_word(word, options.full)?,
        None => registry.usual(options.full)?,
    };
    run_all(&tests, options.no_skips)
}

/// The same for tests and families that are named exactly.
///
/// # Errors
/// As [`verify`].
pub fn run_named(names: &[String], full: bool) -> Result<bool> {
    run_all(&registry()?.named(names, full)?, false)
}

fn run_all(tests: &[Test], no_skips: bool) -> Result<bool> {
    // Nobody else may install anything, and then finds in the skips what is missing.
    if geteuid().is_root() {
        let wants = |need: &Need| tests.iter().any(|test| test.needs.contains(need));
        if wants(&Need::Container) {
            needs::install(&[Purpose::Roots])?;
        }
        if wants(&Need::Machine) {
            needs::install_for_machines()?;
        }
    }
    let mut options = run::Options::from_environment();
    options.no_skips |= no_skips;
    Ok(run::run(tests, options))
}

/// Print the names of all tests, or of those that have `filter` in theirs, each on a line; with
/// `needs` also what it needs.
///
/// # Errors
/// `filter` names nothing; the test programs cannot be built.
pub fn list(filter: Option<&str>, needs: bool) -> Result<()> {
    let registry = registry()?;
    let tests = match filter {
        Some(word) => registry.with_word(word, true)?,
        None => registry.all()?,
    };
    for test in tests {
        println!("{}{}", test.name, if needs { about(&test) } else { String::new() });
    }
    Ok(())
}

fn about(test: &Test) -> String {
    let mut words: Vec<String> = test.needs.iter().map(|need| format!("needs {need}")).collect();
    match test.when {
        test_frame::When::Always => {}
        test_frame::When::Full => words.push("only with --full".to_owned()),
        test_frame::When::Named => words.push("only when named".to_owned()),
    }
    words.extend(test.may_lose_number.map(|unit| format!("may_lose_number: {unit}")));
    words.extend(test.missing().map(|missing| format!("is skipped here: {}", missing.reason)));
    if words.is_empty() { String::new() } else { format!("  ({})", words.join("; ")) }
}
