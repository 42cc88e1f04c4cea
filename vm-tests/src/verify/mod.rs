//! `vm-tests verify`: everything that must hold, with one command.

mod cargo;
mod count;

use std::time::Instant;

use anyhow::Result;

use crate::checks::Checks;
use crate::needs::{self, Purpose};
use crate::{dbus, demo, package, randomness, reboots, scenarios, units};
use count::Count;

/// What to verify.
#[derive(Debug, Clone)]
pub struct Options {
    /// Also the long stages.
    pub full: bool,
    /// Only stages, or scenarios, whose name contains this.
    pub only: Option<String>,
    /// A skip is a failure.
    pub no_skips: bool,
}

/// A part of the whole.
struct Stage {
    name: &'static str,
    /// Only with `--full`.
    long: bool,
    run: fn(&Options) -> Result<Count>,
}

const STAGES: &[Stage] = &[
    Stage { name: "format", long: false, run: |_| cargo::passes(&["fmt", "--all", "--check"]) },
    Stage { name: "lints", long: false, run: |_| cargo::passes(cargo::CLIPPY) },
    Stage { name: "tests", long: false, run: |_| cargo::tests() },
    Stage { name: SCENARIOS, long: false, run: run_scenarios },
    Stage { name: "units", long: false, run: |_| units::run(None).map(|checks| counted(&checks)) },
    Stage { name: "dbus", long: false, run: |_| dbus::run(None).map(|checks| counted(&checks)) },
    Stage { name: "randomness", long: false, run: |_| randomness::run().map(|checks| counted(&checks)) },
    Stage { name: "package", long: false, run: |_| package::check().map(|checks| counted(&checks)) },
    Stage { name: MACHINES, long: false, run: run_machines },
    Stage { name: "demo", long: true, run: run_demo },
];
const SCENARIOS: &str = "scenarios";
const MACHINES: &str = "machines";

fn run_machines(options: &Options) -> Result<Count> {
    let only = options.only.as_deref().filter(|only| !MACHINES.contains(only));
    reboots::run(only, options.full).map(|checks| counted(&checks))
}

fn run_scenarios(options: &Options) -> Result<Count> {
    // The stage's own name means all of them.
    let only = options.only.as_deref().filter(|only| !SCENARIOS.contains(only));
    let tally = scenarios::run(only)?;
    Ok(Count { passed: tally.passed, failed: tally.failed, skipped: Vec::new() })
}

fn counted(checks: &Checks) -> Count {
    let failed = checks.failures().count();
    Count { passed: checks.all().len() - failed, failed, skipped: Vec::new() }
}

fn run_demo(_: &Options) -> Result<Count> {
    let passed = demo::run(&demo::Options { json: None, keep: false, boots: 3, cold_only: false })?;
    Ok(if passed { Count::passed(1) } else { Count::failed(1) })
}

/// Run the stages; returns whether all is well. The last line is `N passed, N failed, N skipped`.
///
/// # Errors
/// Packages that are needed cannot be installed; `only` names nothing.
pub fn run(options: &Options) -> Result<bool> {
    needs::install(&[Purpose::Roots])?;
    let chosen: Vec<&Stage> = STAGES.iter().filter(|stage| is_chosen(stage, options)).collect();
    anyhow::ensure!(!chosen.is_empty(), "no stage and no scenario has {:?} in its name", options.only);
    let mut total = Count::default();
    let mut lines = Vec::new();
    for stage in chosen {
        println!("\n== {}", stage.name);
        let started = Instant::now();
        let count = (stage.run)(options).unwrap_or_else(|error| {
            println!("  FAIL  {}: {error:#}", stage.name);
            Count::failed(1)
        });
        let line = format!("{:<10} {count} in {:.0} s", stage.name, started.elapsed().as_secs_f64());
        println!("{line}");
        lines.push(line);
        total.add(count);
    }
    println!("\n== Result");
    for line in lines {
        println!("{line}");
    }
    let strict = options.no_skips || std::env::var("CI").is_ok_and(|value| value == "true");
    let unexcused = total.unexcused().count();
    for skip in &total.skipped {
        println!("skipped: {skip}");
    }
    if strict && unexcused > 0 {
        println!("{unexcused} skips that only a missing /dev/kvm would excuse");
    }
    println!("{total}");
    Ok(total.failed == 0 && !(strict && unexcused > 0))
}

fn is_chosen(stage: &Stage, options: &Options) -> bool {
    match &options.only {
        Some(only) => {
            stage.name.contains(only.as_str())
                || (stage.name == SCENARIOS && scenarios::any_named(only))
                || (stage.name == MACHINES && reboots::any_named(only))
        }
        None => options.full || !stage.long,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(full: bool, only: Option<&str>) -> Vec<&'static str> {
        let options = Options { full, only: only.map(str::to_owned), no_skips: false };
        STAGES.iter().filter(|stage| is_chosen(stage, &options)).map(|stage| stage.name).collect()
    }

    #[test]
    fn long_stages_run_when_asked_for() {
        assert_eq!(
            chosen(false, None),
            ["format", "lints", "tests", "scenarios", "units", "dbus", "randomness", "package", "machines"]
        );
        assert_eq!(chosen(true, None).last(), Some(&"demo"));
        assert_eq!(chosen(false, Some("demo")), ["demo"]);
    }

    #[test]
    fn the_name_of_a_scenario_chooses_its_stage() {
        assert_eq!(chosen(false, Some("damaged image")), ["scenarios"]);
        assert!(chosen(false, Some("nothing like it")).is_empty());
    }
}
