//! `vm-tests`: the demo, the one command that checks everything, and the benches.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use vm_tests::{bare, bench, boots, daemons, demo, needs, package, verify};

/// Boots real systems to show and to check what fastboot does. Needs root and Debian; installs what
/// it needs.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Boot real services cold and restored, prove that they are restored, and compare.
    Demo {
        /// Write the figures to this file.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// Leave the machine's root file system for a look.
        #[arg(long)]
        keep: bool,
        /// One boot instead of three of each kind.
        #[arg(long)]
        quick: bool,
        /// Stop after the cold boots.
        #[arg(long)]
        cold_only: bool,
    },
    /// Snapshot and restore many services of Debian, and say of each what came of it.
    Daemons {
        /// Write the results to this file.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// Only the group of this name, or services whose name contains this.
        #[arg(long, value_name = "NAME")]
        only: Option<String>,
        /// Measured boots of each kind.
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        runs: u32,
        /// Leave the machines' root file systems for a look.
        #[arg(long)]
        keep: bool,
    },
    /// Print the names of all tests, or of those that have FILTER in theirs.
    List {
        /// A test, a family, or a part of names.
        filter: Option<String>,
        /// Also what each needs, and whether it would be skipped here.
        #[arg(long)]
        needs: bool,
    },
    /// Run tests and families of tests by their names.
    Run {
        /// `family/name` or `family`, as `list` has them.
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// Also what takes long of a family.
        #[arg(long)]
        full: bool,
    },
    /// Run all tests of the workspace: format, lints, unit and engine tests, containers, machines.
    Verify {
        /// Also what takes long: more machines, the whole demo.
        #[arg(long)]
        full: bool,
        /// Only the test or the family of this name, or else all whose names contain this.
        #[arg(long, value_name = "NAME")]
        only: Option<String>,
        /// A skip is a failure, as it always is where the environment has CI=true.
        #[arg(long)]
        no_skips: bool,
    },
    /// How long a machine takes until its services answer: cold, restored, and by the alternatives.
    BenchBoot {
        /// On virtual machines; without this and --container, on both.
        #[arg(long)]
        machine: bool,
        /// In containers.
        #[arg(long)]
        container: bool,
        /// Boots of each kind.
        #[arg(long, value_name = "N", default_value_t = 5)]
        runs: u32,
        /// Only this set of services; without, both, but the light one only where machines are
        /// emulated.
        #[arg(long)]
        profile: Option<boots::Profile>,
        /// A package to install in place of this work tree's.
        #[arg(long, value_name = "DEB")]
        package: Option<PathBuf>,
        /// Leave CRIU out: trying it takes two more starts of everything.
        #[arg(long)]
        no_criu: bool,
        /// Write the figures to this file.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Boot one machine cold and restored in turns, and say where the time of each service went.
    CompareBoots {
        /// Boots of each kind.
        #[arg(long, value_name = "N", default_value_t = 3)]
        boots: u32,
        /// A machine that an earlier run has left; its images are used again.
        #[arg(long, value_name = "DIR")]
        machine: Option<PathBuf>,
        /// Leave the machine for a later run.
        #[arg(long)]
        keep: bool,
        /// Binaries of another build in place of this work tree's.
        #[arg(long, value_name = "DIR")]
        release: Option<PathBuf>,
        /// Write the figures to this file.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// The commands of the README from nothing, in a bare Debian 12 and a bare Debian 13. Takes
    /// hours.
    Bare {
        /// Only this release: bookworm or trixie.
        #[arg(long, value_name = "SUITE")]
        suite: Option<String>,
        /// Other commands than the README's; may be given several times.
        #[arg(long = "run", value_name = "COMMAND")]
        commands: Vec<String>,
        /// Write the result to this file.
        #[arg(long, value_name = "FILE")]
        report: Option<PathBuf>,
        /// Leave the roots.
        #[arg(long)]
        keep: bool,
        /// A root that an earlier run has left.
        #[arg(long, value_name = "DIR", requires = "suite")]
        root: Option<PathBuf>,
    },
    /// Install what tests, demo and benchmarks need of this machine; they do it themselves too,
    /// each for itself.
    Install,
    /// Build the Debian package and say where it is.
    Package,
    /// Dump and restore single processes, beside CRIU.
    BenchEngine {
        /// Write the figures to this file.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// Measured rounds, after one warm-up.
        #[arg(long, value_name = "N", default_value_t = 9)]
        rounds: u32,
        /// Only the subjects whose name contains this.
        #[arg(long, value_name = "NAME")]
        only: Option<String>,
        /// Drop the page cache before each restore.
        #[arg(long)]
        cold_cache: bool,
        /// How the runner calls itself inside of new namespaces.
        #[arg(long, value_name = "ROOT", hide = true)]
        inside: Option<PathBuf>,
    },
}

/// The command line without the `--` that `cargo demo -- --json FILE` leaves behind the subcommand:
/// the aliases end in a subcommand, so cargo passes the separator on, and clap would take what
/// follows for positional arguments.
fn without_separator(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    arguments.enumerate().filter(|(at, word)| !(*at == 2 && word == "--")).map(|(_, word)| word).collect()
}

fn main() -> ExitCode {
    let done: Result<bool> = match Arguments::parse_from(without_separator(std::env::args_os())).command {
        Action::Demo { json, keep, quick, cold_only } => {
            demo::run(&demo::Options { json, keep, boots: if quick { 1 } else { 3 }, cold_only })
        }
        Action::Daemons { json, only, runs, keep } => {
            daemons::run(&daemons::Options { json, only, runs, keep }).map(|tally| tally.failed == 0)
        }
        Action::List { filter, needs } => verify::list(filter.as_deref(), needs).map(|()| true),
        Action::Run { names, full } => verify::run_named(&names, full),
        Action::Verify { full, only, no_skips } => verify::verify(&verify::Options { full, only, no_skips }),
        Action::BenchBoot { machine, container, runs, profile, package, no_criu, json } => {
            boots::run(&boots::Options { machine, container, runs, profile, package, no_criu, json })
        }
        Action::CompareBoots { boots, machine, keep, release, json } => {
            demo::compare(&demo::CompareOptions { boots, machine, keep, release, json })
        }
        Action::Bare { suite, commands, report, keep, root } => {
            bare::run(&bare::Options { suite, commands, report, keep, root })
        }
        Action::Install => needs::install_all().map(|()| true).map_err(Into::into),
        Action::Package => package::build().map(|package| {
            println!("{}", package.display());
            true
        }),
        Action::BenchEngine { json, rounds, only, cold_cache, inside } => {
            let options = bench::Options { json, rounds, only, cold_cache };
            inside.map_or_else(|| bench::run(&options), |root| bench::run_inside(&root, &options))
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("vm-tests: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &[&str]) -> Action {
        Arguments::parse_from(without_separator(line.iter().map(OsString::from))).command
    }

    #[test]
    fn options_are_read_with_and_without_a_separator() {
        for line in
            [&["vm-tests", "demo", "--json", "figures"][..], &["vm-tests", "demo", "--", "--json", "figures"]]
        {
            let Action::Demo { json, .. } = parse(line) else { panic!("{line:?} is not the demo") };
            assert_eq!(json.as_deref(), Some("figures".as_ref()));
        }
    }
}
