//! `vm-tests daemons`: many services of Debian, in groups that share a machine; what comes of each,
//! and why.
//!
//! The path of a group: build a root with the packages → configuration → a first boot, in which
//! everything is written that a first boot writes → `--runs` cold boots, in the last of which the
//! snapshot is taken → `--runs` boots with images. Every service is asked as its clients would ask
//! it, and what is seen of it after a restore is compared with its cold start: what systemd says,
//! processes and what they may do, listening sockets, and how it stops and starts again. A second
//! image, of what was restored, has to record what the first one did.
//!
//! A new service is a value in a file of `list/`.

mod daemon;
mod facts;
mod group;
mod group_site;
mod list;
mod report;
mod state;
mod verdict;

use std::path::PathBuf;
use std::rc::Rc;

use anyhow::{Context as _, Result, ensure};
use test_frame::{Body, Need, Test, Together, Verdict, When};

use crate::needs::{self, Purpose};
use crate::roots::sweep;
use crate::site::logs;
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
/// A root cannot be built, a machine cannot be booted; `only` names nothing; the results cannot be
/// written.
pub fn run(options: &Options) -> Result<Tally> {
    let chosen = list::chosen(options.only.as_deref());
    ensure!(!chosen.is_empty(), "no group and no service is named {:?}", options.only);
    let release = prepare()?;

    let mut report = Report::new(host::describe());
    for group in chosen {
        println!("\n== {} ({} services)", group.name, group.daemons.len());
        let run = group::GroupRun { group: &group, release: &release, options };
        // What goes wrong with one machine is a result: the other groups are still looked at.
        report.add(&group, run.run().with_context(|| format!("group {}", group.name)));
    }
    println!("\n== Result\n{}", report.table());
    print!("{}", report.reasons());
    println!("{}", report.summary());
    println!("logs: {}", logs("daemons")?.display());
    if let Some(path) = &options.json {
        report.write_json(path)?;
    }
    Ok(report.tally())
}

/// The part of a name that stands for the machine of a group as a whole.
const MACHINE: &str = "nothing_else_fails";

/// A test for each service, `daemons/GROUP/NAME`, and one for what else goes wrong with the machine
/// of a group. They run where they are named: all of them take hours.
pub fn tests() -> Vec<Test> {
    let test = |name: String, machine: &Rc<dyn Together>| {
        let run = Body::Together(Rc::clone(machine));
        Test::new(name, &[Need::Root, Need::Container], run).when(When::Named)
    };
    let of_group = |group: Group| {
        let machine: Rc<dyn Together> = Rc::new(GroupMachine { group: group.clone() });
        let services = group.daemons.iter().map(|daemon| test_of(&group, daemon));
        let names: Vec<String> = services.chain([format!("daemons/{}/{MACHINE}", group.name)]).collect();
        names.into_iter().map(|name| test(name, &machine)).collect::<Vec<_>>()
    };
    list::chosen(None).into_iter().flat_map(of_group).collect()
}

fn test_of(group: &Group, daemon: &Daemon) -> String {
    format!("daemons/{}/{}", group.name, daemon.name.replace(' ', "_"))
}

/// The services of a group share a machine.
struct GroupMachine {
    group: Group,
}

impl Together for GroupMachine {
    fn run(&self, names: &[&str], report: &mut test_frame::Report) -> Result<()> {
        let mut group = self.group.clone();
        group.daemons.retain(|daemon| names.contains(&test_of(&self.group, daemon).as_str()));
        let options = Options { json: None, only: None, runs: 1, keep: false };
        let release = prepare()?;
        let run = group::GroupRun { group: &group, release: &release, options: &options };
        let outcomes = run.run()?;
        for verdict in outcomes.verdicts {
            let Some(daemon) = group.daemons.iter().find(|daemon| daemon.name == verdict.name) else {
                continue;
            };
            let ended = match verdict.as_expected {
                true => Verdict::Passed,
                false => Verdict::Failed(format!("it is {:?}: {}", verdict.outcome, verdict.why.join("; "))),
            };
            report.end(&test_of(&group, daemon), ended);
        }
        let whole = match outcomes.problems.as_slice() {
            [] => Verdict::Passed,
            problems => Verdict::Failed(problems.join("; ")),
        };
        report.end(&format!("daemons/{}/{MACHINE}", group.name), whole);
        Ok(())
    }
}

/// The binaries.
fn prepare() -> Result<PathBuf> {
    needs::install(&[Purpose::Roots])?;
    container::end_left_over_machines()?;
    sweep()?;
    fastboot::build().context("building fastboot")
}
