//! `vm-tests demo`: five real services, cold and restored, on one machine.
//!
//! The path: build a root → provision (a boot in which everything is written that a first boot
//! writes) → cold boots → install fastboot, fill the memories, `fastboot snapshot` → restored
//! boots, each proved → restart and kill → stale images. Nothing about an outcome is assumed:
//! `fastboot status`, the PIDs and what the services answer decide.

mod boot;
mod compare;
mod report;
mod restored;
mod root;
mod stale;

pub use compare::{CompareOptions, compare};
pub(crate) use root::recipe;

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use test_frame::{Checks, Need, Test, When};

use crate::needs::{self, Purpose};
use crate::roots::{CACHE_DIR, Scratch, cached, sweep};
use crate::{container, fastboot, host};
use boot::{BootTimes, Provisioned};
use report::Report;
use root::SERVICES;

/// What the demo is asked to do.
#[derive(Debug, Clone)]
pub struct Options {
    /// Write the figures here.
    pub json: Option<PathBuf>,
    /// Leave the machine's root.
    pub keep: bool,
    /// Measured boots of each kind.
    pub boots: u32,
    /// Stop after the cold boots.
    pub cold_only: bool,
}

/// Run it; returns whether every check passed.
///
/// # Errors
/// The machine cannot be built or booted, or the figures cannot be written.
pub fn run(options: &Options) -> Result<bool> {
    needs::install(&[Purpose::Roots])?;
    container::end_left_over_machines()?;
    sweep()?;
    let release =
        if options.cold_only { PathBuf::new() } else { fastboot::build().context("building fastboot")? };

    heading("Machine");
    let scratch = Scratch::copy_of(&cached(&root::recipe()?)?, "demo")?;
    let logs = PathBuf::from(CACHE_DIR).join("logs/demo");
    std::fs::create_dir_all(&logs).with_context(|| format!("making {}", logs.display()))?;
    let mut machine = Provisioned::new(scratch, logs);
    let mut checks = Checks::default();
    provision(&mut machine)?;

    heading("Cold boots");
    let mut report = Report::new(host::describe());
    for number in 1..=options.boots {
        let (running, times) = machine.boot()?;
        running.poweroff()?;
        note_answers(&mut checks, &format!("cold boot {number}"), &times);
        report.cold.push(times);
    }

    if options.cold_only {
        restored::check_instruments(&mut machine, &mut checks)?;
    } else {
        // What goes wrong from here on is a result: the figures so far are shown with it.
        let done = restored::run(&mut machine, &release, options.boots, &mut checks, &mut report);
        checks.note("the demo came to its end", done);
    }

    heading("Result");
    print!("{}", report.table());
    let failures = report.print_checks(&checks);
    println!("console logs: {}", machine.logs.display());
    if let Some(path) = &options.json {
        report.write_json(path, &checks)?;
    }
    if options.keep {
        println!("root: {}", machine.scratch.keep()?.display());
    }
    Ok(failures == 0)
}

/// The whole demo is one test; it shows its checks itself.
pub fn tests() -> Vec<Test> {
    let run = |_: &mut Checks| {
        let all_passed = run(&Options { json: None, keep: false, boots: 3, cold_only: false })?;
        ensure!(all_passed, "checks of the demo failed");
        Ok(())
    };
    let name = "demo/five_services_come_back_as_they_were";
    vec![Test::alone(name, &[Need::Root, Need::Container], run).when(When::Full)]
}

/// The first boot of a machine writes much that no later one writes: machine id, caches, compiled
/// pages.
fn provision(machine: &mut Provisioned) -> Result<()> {
    let (running, times) = machine.boot()?;
    for (service, time) in SERVICES.iter().zip(times.services) {
        time.with_context(|| running.journal(service.unit, 20))
            .with_context(|| format!("{} does not work in the new machine", service.unit))?;
    }
    running.poweroff()?;
    println!("  {} services, provisioned", SERVICES.len());
    Ok(())
}

/// Every service answered, and when the last one did.
fn note_answers(checks: &mut Checks, boot: &str, times: &BootTimes) {
    let silent: Vec<String> = SERVICES
        .iter()
        .zip(&times.services)
        .filter_map(|(service, time)| Some(format!("{}: {:#}", service.unit, time.as_ref().err()?)))
        .collect();
    let took = times.all.map_or_else(String::new, |ms| format!(" after {ms:.0} ms"));
    let result = if silent.is_empty() { Ok(()) } else { Err(anyhow::anyhow!(silent.join("; "))) };
    checks.note(format!("{boot}: all services answer{took}"), result);
}

fn heading(text: &str) {
    println!("\n== {text}");
}
