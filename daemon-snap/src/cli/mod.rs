//! Arguments: each command is one file with its arguments and a `run` that returns the exit code.

#[macro_use]
mod common;
mod ask;
mod bars;
mod chart;
mod doctor;
mod dump;
mod enable;
mod explain;
mod history;
mod interrupt;
mod list;
mod page;
mod plan;
mod reboot;
mod refresh;
mod remove;
mod restore;
mod show;
mod snapshot;
mod status;
mod verify;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

/// Start services from checkpoints instead of from scratch
///
/// After provisioning, `fastboot snapshot` takes running systemd services (memory, threads,
/// descriptors, sockets) into images. At the next boot each daemon is put back where it was, inside
/// the cgroup, sandbox and namespaces that systemd made for it. Whatever is stale, damaged or not
/// understood starts cold, as if fastboot were not installed, and `fastboot status` says why.
#[derive(Debug, Parser)]
#[command(name = "fastboot", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Snapshot(snapshot::Args),
    Plan(plan::Args),
    Refresh(refresh::Args),
    Status(status::Args),
    Chart(chart::Args),
    History(history::Args),
    List(list::Args),
    Show(show::Args),
    Verify(verify::Args),
    Remove(remove::Args),
    Enable(enable::Args),
    Disable(enable::DisableArgs),
    Reboot(reboot::RebootArgs),
    Poweroff(reboot::PoweroffArgs),
    TakeAtShutdown(reboot::ShutdownArgs),
    Doctor(doctor::Args),
    Dump(dump::Args),
    Restore(restore::Args),
}

/// The commands of a moment alone: describing all of them to the parser takes a tenth of the time
/// that a small restore takes.
#[derive(Debug, Parser)]
#[command(name = "fastboot", version, disable_help_subcommand = true)]
struct Plumbing {
    #[command(subcommand)]
    command: PlumbingCommand,
}

#[derive(Debug, Subcommand)]
enum PlumbingCommand {
    Dump(dump::Args),
    Restore(restore::Args),
}

impl Cli {
    /// Reads the arguments of this program; ends it where they are wrong.
    pub fn from_arguments() -> Self {
        let first = std::env::args_os().nth(1).unwrap_or_default();
        if first != "dump" && first != "restore" {
            let matches = Self::command().term_width(usize::from(page::columns())).get_matches();
            return Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        }
        let command = match Plumbing::parse().command {
            PlumbingCommand::Dump(args) => Command::Dump(args),
            PlumbingCommand::Restore(args) => Command::Restore(args),
        };
        Self { command }
    }

    /// Runs the chosen command.
    pub fn run(self) -> anyhow::Result<u8> {
        match self.command {
            Command::Snapshot(args) => snapshot::run(&args),
            Command::Plan(args) => plan::run(&args),
            Command::Refresh(args) => refresh::run(args),
            Command::Status(args) => status::run(&args),
            Command::Chart(args) => chart::run(&args),
            Command::History(args) => history::run(&args),
            Command::List(args) => list::run(&args),
            Command::Show(args) => show::run(&args),
            Command::Verify(args) => verify::run(&args),
            Command::Remove(args) => remove::run(&args),
            Command::Enable(args) => enable::run(&args),
            Command::Disable(args) => enable::run_disable(&args),
            Command::Reboot(args) => reboot::run_reboot(&args),
            Command::Poweroff(args) => reboot::run_poweroff(&args),
            Command::TakeAtShutdown(args) => reboot::run_at_shutdown(&args),
            Command::Doctor(args) => doctor::run(&args),
            Command::Dump(args) => dump::run(&args),
            Command::Restore(args) => restore::run(&args),
        }
    }
}
