//! `vm-tests bare`: the commands of the README from nothing, in a bare Debian 12 and a bare Debian
//! 13.
//!
//! The root has Debian's essential packages, a C compiler and git; Rust comes from the host,
//! read-only. Whatever else the commands need they must install themselves, from the sources that
//! the root has. Not a part of `verify`: it runs `verify`, twice, and takes hours.

mod place;
mod report;

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use test_frame::{Need, Test, When};

use crate::needs::{self, Purpose};
use crate::roots::{CACHE_DIR, sweep};
use crate::{container, host};
use place::Place;
use report::{Report, Row};

/// What the README promises to someone who has just cloned, and what they may try before.
const COMMANDS: [&str; 3] = ["cargo build", "cargo verify", "cargo demo"];
/// Debian releases that are supported.
const SUITES: [&str; 2] = ["bookworm", "trixie"];

/// What is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Only in a root of this release.
    pub suite: Option<String>,
    /// Other commands than those of the README, in this order.
    pub commands: Vec<String>,
    /// Write the result to this file, as it stands after each command.
    pub report: Option<PathBuf>,
    /// Leave the roots for a look, or for [`Options::root`].
    pub keep: bool,
    /// A root that an earlier run has left; what was installed and built there is there.
    pub root: Option<PathBuf>,
}

/// Run it; returns whether every command ended well.
///
/// # Errors
/// A root cannot be built; the report cannot be written.
pub fn run(options: &Options) -> Result<bool> {
    needs::install(&[Purpose::Roots])?;
    container::end_left_over_machines()?;
    sweep()?;
    let logs = PathBuf::from(CACHE_DIR).join("logs/bare");
    std::fs::create_dir_all(&logs).with_context(|| format!("making {}", logs.display()))?;
    let commands = match options.commands.is_empty() {
        true => COMMANDS.map(str::to_owned).to_vec(),
        false => options.commands.clone(),
    };
    let mut report = Report::new(host::describe());
    for suite in SUITES.into_iter().filter(|suite| options.suite.as_deref().is_none_or(|only| only == *suite))
    {
        let place = match &options.root {
            Some(root) => Place::again(root),
            None => Place::prepare(suite)?,
        };
        for (number, command) in commands.iter().enumerate() {
            println!("{suite}: {command}");
            let log = logs.join(format!("{suite}-{number}.log"));
            let row = match place.run(command, &log) {
                Ok(ended) => Row::of(suite, command, &ended),
                Err(error) => Row::failed(suite, command, &error),
            };
            println!("  {} ({})", row.outcome, log.display());
            report.rows.push(row);
            if let Some(path) = &options.report {
                std::fs::write(path, report.text()).with_context(|| format!("writing {}", path.display()))?;
            }
        }
        if options.keep || options.root.is_some() {
            println!("{suite}: left in {}", place.keep()?.display());
        }
    }
    print!("\n{}", report.text());
    Ok(report.rows.iter().all(|row| row.passed))
}

/// A test for each release. They run where they are named, for one of them runs all others.
pub fn tests() -> Vec<Test> {
    let test = |suite: &'static str| {
        Test::alone(format!("bare/{suite}"), &[Need::Root, Need::Container], move |_| {
            let suite = Some(suite.to_owned());
            let options = Options { suite, commands: Vec::new(), report: None, keep: false, root: None };
            ensure!(run(&options)?, "a command did not end well");
            Ok(())
        })
        .when(When::Named)
    };
    SUITES.map(test).into()
}
