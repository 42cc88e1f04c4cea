//! Arguments: each command is one file with its arguments and a `run` that returns the exit code of success.

mod dump;
mod restore;

use clap::{Parser, Subcommand};

/// Checkpoints services and gives them back at the next boot.
#[derive(Debug, Parser)]
#[command(name = "fastboot", version, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Dump(dump::Args),
    Restore(restore::Args),
}

impl Cli {
    /// Runs the chosen command.
    pub fn run(self) -> anyhow::Result<u8> {
        match self.command {
            Command::Dump(args) => dump::run(&args),
            Command::Restore(args) => restore::run(&args),
        }
    }
}
