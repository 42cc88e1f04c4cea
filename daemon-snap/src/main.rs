//! The `fastboot` command: arguments, logging and exit codes; nothing else.
//!
//! Exit codes of every command: 0 done · 1 failed · 2 usage · 3 refused (something cannot be
//! carried) or stale.

mod cli;

use image_store::ErrorKind;
use nix::errno::Errno;
use nix::unistd::geteuid;
use snap_error::{Error, Kind};
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

const FAILED: u8 = 1;
const REFUSED: u8 = 3;

fn main() -> ExitCode {
    let cli = cli::Cli::from_arguments();
    start_log();
    match cli.run() {
        Ok(code) => ExitCode::from(code),
        Err(e) => ExitCode::from(report(&e)),
    }
}

/// Warnings, or what `FASTBOOT_LOG` asks for.
fn start_log() {
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr);
    match EnvFilter::try_from_env("FASTBOOT_LOG") {
        Ok(filter) => log.with_env_filter(filter).init(),
        Err(_) => log.with_max_level(LevelFilter::WARN).init(),
    }
}

/// Says what went wrong, once, and chooses the exit code.
fn report(error: &anyhow::Error) -> u8 {
    let engine = error.downcast_ref::<Error>();
    match engine {
        // One blocker a line and nothing else.
        Some(Error::Refused(blockers)) => blockers.iter().for_each(|blocker| eprintln!("{blocker}")),
        _ => eprintln!("fastboot: {}", sentence(error)),
    }
    if let Some(remedy) = remedy(error) {
        eprintln!("fastboot: {remedy}");
    }
    let store = error.downcast_ref::<image_store::Error>().map(image_store::Error::kind);
    match (engine.map(Error::kind), store) {
        (Some(Kind::Unsupported | Kind::Stale), _) => REFUSED,
        (_, Some(ErrorKind::Stale | ErrorKind::Unsupported)) => REFUSED,
        _ => FAILED,
    }
}

/// What to do about it, where that is always the same.
fn remedy(error: &anyhow::Error) -> Option<&'static str> {
    let is_denied = |cause: &(dyn std::error::Error + 'static)| {
        let io = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        let errno = match cause.downcast_ref::<Error>() {
            Some(Error::Kernel { errno, .. }) => Some(*errno),
            _ => None,
        };
        io == Some(std::io::ErrorKind::PermissionDenied)
            || matches!(errno, Some(Errno::EPERM | Errno::EACCES))
    };
    if !geteuid().is_root() && error.chain().any(is_denied) {
        return Some("this is for root to do");
    }
    let store = match error.downcast_ref::<Error>() {
        Some(Error::Store(store)) => Some(store),
        _ => error.downcast_ref::<image_store::Error>(),
    };
    match store {
        Some(image_store::Error::Corrupt { part: image_store::Part::Catalogue, .. }) => Some(
            "`fastboot remove --all` sets it aside and removes its images; services start cold until the next snapshot",
        ),
        _ => None,
    }
}

/// The error and its causes, without those that are part of the text already.
fn sentence(error: &anyhow::Error) -> String {
    let causes = error.chain().map(ToString::to_string);
    let joined = causes.reduce(|text, cause| if text.contains(&cause) { text } else { text + ": " + &cause });
    joined.unwrap_or_default()
}
