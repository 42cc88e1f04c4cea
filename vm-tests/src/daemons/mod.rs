//! `vm-tests daemons`: many services of Debian, in groups that share a machine; what comes of each, and why.
//!
//! The path of a group: build a root with the packages → configuration → a first boot, in which everything is written
//! that a first boot writes → `--runs` cold boots, in the last of which the snapshot is taken → `--runs` boots with
//! images. Every service is asked as its clients would ask it, and what is seen of it after a restore is compared with its
//! cold start: what systemd says, processes and what they may do, listening sockets, and how it stops and starts again. A
//! second image, of what was restored, has to record what the first one did.
//!
//! A new service is a value in a file of `list/`.

mod daemon;
mod facts;
mod group;
mod list;
mod report;
mod site;
mod state;
mod verdict;

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

use crate::needs::{self, Purpose};
use crate::roots::{CACHE_DIR, sweep};
use crate::{container, fastboot, host};

pub use daemon::{Ask, Daemon, Expected, Memory};
pub use list::Group;
use report::Report;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// Write the results here.
    pub json: Option<PathBuf>,
    /// Only the group of this name, or services whose name contains this.
    pub only: Option<String>,
    /// Boots of each kind that are measured.
    pub runs: u32,
    /// Leave the machines' roots for a look.
    pub keep: bool,
}

/// How many services ended as expected.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tally {
    /// As expected, or better.
    pub passed: usize,
    /// Wrong, or not as expected.
    pub failed: usize,
}

/// Run the groups, print the table.
///
/// # Errors
/// A root cannot be built, a machine cannot be booted; `only` names nothing; the results cannot be written.
pub fn run(options: &Options) -> Result<Tally> {
    needs::install(&[Purpose::Roots])?;
    container::end_left_over_machines()?;
    sweep()?;
    let chosen = list::chosen(options.only.as_deref());
    ensure!(!chosen.is_empty(), "no group and no service is named {:?}", options.only);
    let release = fastboot::build().context("building fastboot")?;
    let logs = PathBuf::from(CACHE_DIR).join("logs/daemons");
    std::fs::create_dir_all(&logs).with_context(|| format!("making {}", logs.display()))?;

    let mut report = Report::new(host::describe());
    for group in chosen {
        println!("\n== {} ({} services)", group.name, group.daemons.len());
        let lab = group::Lab { group: &group, release: &release, logs: &logs, options };
        // What goes wrong with one machine is a result: the other groups are still looked at.
        report.add(&group, lab.run().with_context(|| format!("group {}", group.name)));
    }
    println!("\n== Result\n{}", report.table());
    print!("{}", report.reasons());
    println!("{}", report.summary());
    println!("logs: {}", logs.display());
    if let Some(path) = &options.json {
        report.write_json(path)?;
    }
    Ok(report.tally())
}
