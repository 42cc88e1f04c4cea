//! `fastboot enable` and `fastboot disable`.

use super::common::{StoreArgs, require_root};
use clap::ValueEnum;
use daemon_snap::fast_restart;
use daemon_snap::unit::full_name;
use std::time::Duration;

const REFUSED: u8 = 3;

/// How a service is to be restarted with the machine.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Mode {
    /// Taken whenever the machine goes down, and going on at the boot that follows, once
    FastRestart,
}

/// Put services into fast-restart mode; each is restarted once, to observe what it reads
///
/// For services whose files move with their memory, as databases: `fastboot reboot` and `fastboot
/// poweroff` take them as they are, and they go on at the boot that follows. If that is not possible
/// they start as after a crash. Run it again after a change of what the service reads at its start.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct Args {
    /// Services
    #[arg(required = true)]
    units: Vec<String>,
    /// Only one so far
    #[arg(long, value_enum, default_value = "fast-restart")]
    mode: Mode,
    /// Longest wait until a service is quiet, in seconds
    #[arg(long, value_name = "S", default_value_t = 30)]
    settle: u64,
    #[command(flatten)]
    store: StoreArgs,
}

/// Take services out of fast-restart mode; what was taken of them is removed
#[derive(Debug, clap::Args)]
#[command(name = "disable", arg_required_else_help = true)]
pub struct DisableArgs {
    /// Services
    #[arg(required = true)]
    units: Vec<String>,
    #[command(flatten)]
    store: StoreArgs,
}

pub fn run(args: &Args) -> anyhow::Result<u8> {
    require_root("cannot change how services are restarted")?;
    let Mode::FastRestart = args.mode;
    let store = args.store.open();
    let (mut enabled, mut refused) = (Vec::new(), Vec::new());
    for unit in args.units.iter().map(|name| full_name(name)) {
        if !args.store.json {
            eprintln!("{unit}: it is restarted once, to observe what it reads at its start");
        }
        match fast_restart::enable(&store, &unit, Duration::from_secs(args.settle)) {
            Ok(files) => enabled.push((unit, files)),
            Err(error) => refused.push((unit, error.reasons())),
        }
    }
    if args.store.json {
        let enabled: Vec<&String> = enabled.iter().map(|(unit, _)| unit).collect();
        say!("{}", serde_json::json!({ "enabled": enabled, "refused": refused }));
    } else {
        for (unit, files) in &enabled {
            say!(
                "{unit}: taken at each `fastboot reboot`; {files} files that it has read are compared before"
            );
        }
        for (unit, reasons) in &refused {
            reasons.iter().for_each(|reason| eprintln!("{unit}: {}", reason.reason));
        }
    }
    Ok(if refused.is_empty() { 0 } else { REFUSED })
}

pub fn run_disable(args: &DisableArgs) -> anyhow::Result<u8> {
    require_root("cannot change how services are restarted")?;
    let store = args.store.open();
    let (mut disabled, mut missing) = (Vec::new(), Vec::new());
    for unit in args.units.iter().map(|name| full_name(name)) {
        if fast_restart::disable(&store, &unit)? { disabled.push(unit) } else { missing.push(unit) }
    }
    if args.store.json {
        say!("{}", serde_json::json!({ "disabled": disabled, "missing": missing }));
    } else {
        disabled.iter().for_each(|unit| say!("{unit}: stops and starts with the machine as ever"));
        missing.iter().for_each(|unit| eprintln!("fastboot: {unit} is not in fast-restart mode"));
    }
    Ok(u8::from(!missing.is_empty()))
}
