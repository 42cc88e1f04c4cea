//! `fastboot reboot`, `fastboot poweroff`, and what `fastboot-restart.service` does at a plain
//! shutdown.

use super::common::{mb, require_root};
use super::interrupt::{Again, Signals};
use anyhow::{Context as _, bail};
use daemon_snap::fast_restart::{self, GoingDown, Row, Taken, Waiting};
use daemon_snap::unit::{Interrupt, Systemd};
use fastboot_runtime::open_store;
use image_store::{DEFAULT_ROOT, Store};
use std::process::Command;
use std::time::Duration;

const INTERRUPTED: u8 = 1;

/// Restart the machine; services in fast-restart mode go on where they were
///
/// They are frozen together, taken, and ended without their stop commands. Whoever cannot be taken
/// is named and stops as ever. Until they are ended, Ctrl-C leaves everything running.
#[derive(Debug, clap::Args)]
pub struct RebootArgs {
    /// Start the next kernel by kexec, as `systemctl kexec`
    #[arg(long)]
    kexec: bool,
    #[command(flatten)]
    down: DownArgs,
}

/// Switch the machine off; services in fast-restart mode go on at the next boot
///
/// As `fastboot reboot`. Another boot in between, of whatever system, has them start cold.
#[derive(Debug, clap::Args)]
pub struct PoweroffArgs {
    #[command(flatten)]
    down: DownArgs,
}

#[derive(Debug, clap::Args)]
struct DownArgs {
    /// No service is begun to be taken after so many seconds
    #[arg(long, value_name = "S", default_value_t = 30)]
    limit: u64,
    /// Only say what would become of each service
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Take services in fast-restart mode while the machine goes down (fastboot-restart.service)
#[derive(Debug, clap::Args)]
#[command(name = "take-at-shutdown", hide = true)]
pub struct ShutdownArgs {
    /// No service is begun to be taken after so many seconds
    #[arg(long, value_name = "S", default_value_t = 30)]
    limit: u64,
}

pub fn run_reboot(args: &RebootArgs) -> anyhow::Result<u8> {
    go_down(if args.kexec { "kexec" } else { "reboot" }, &args.down)
}

pub fn run_poweroff(args: &PoweroffArgs) -> anyhow::Result<u8> {
    go_down("poweroff", &args.down)
}

fn go_down(verb: &str, args: &DownArgs) -> anyhow::Result<u8> {
    require_root("cannot take services")?;
    let interrupt = Signals::hold(Again::Waits)?.begin();
    let (systemd, store) = (Systemd::connect()?, open_store(DEFAULT_ROOT));
    if let Some(blocker) = systemd.shutdown_inhibitors().into_iter().next() {
        bail!("the machine is kept from going down by {blocker}");
    }
    let (waiting, stopping) = fast_restart::look(&systemd, &store)?;
    if args.dry_run {
        print(args.json, &waiting, &stopping)?;
        return Ok(0);
    }
    stopping.iter().for_each(say_row);
    let names: Vec<String> = waiting.iter().map(|one| one.name().to_owned()).collect();
    let going_down = match waiting.is_empty() {
        true => None,
        false => match take(&systemd, &store, (waiting, args.limit), &interrupt)? {
            Some(going_down) => Some(going_down),
            None => {
                eprintln!("fastboot: interrupted; everything runs on");
                return Ok(INTERRUPTED);
            }
        },
    };
    let status = Command::new("systemctl").arg(verb).status();
    match status {
        Ok(status) if status.success() => Ok(0),
        status => {
            if let Some(mut going_down) = going_down {
                going_down.take_back();
                drop(going_down);
                store.once().withdraw()?;
                for name in &names {
                    systemd.start(name).with_context(|| format!("starting {name} again"))?;
                }
            }
            let how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
            let again =
                if names.is_empty() { "" } else { "; services that had been taken were started again" };
            bail!("systemctl {verb} failed ({how}){again}");
        }
    }
}

/// `None`: interrupted.
fn take<'a>(
    systemd: &'a Systemd,
    store: &Store,
    (waiting, limit_s): (Vec<Waiting>, u64),
    interrupt: &Interrupt,
) -> anyhow::Result<Option<GoingDown<'a>>> {
    let limit = Duration::from_secs(limit_s);
    match fast_restart::take(systemd, store, (waiting, limit), &|| interrupt.is_asked())? {
        Taken::Interrupted => Ok(None),
        Taken::Done { rows, going_down } => {
            rows.iter().for_each(say_row);
            Ok(Some(going_down))
        }
    }
}

pub fn run_at_shutdown(args: &ShutdownArgs) -> anyhow::Result<u8> {
    if fast_restart::is_going_down() {
        return Ok(0);
    }
    let signals = Signals::hold(Again::Waits)?;
    let (systemd, store) = (Systemd::connect()?, open_store(DEFAULT_ROOT));
    // Somebody may only have stopped the unit.
    if !systemd.goes_down()? {
        return Ok(0);
    }
    let interrupt = signals.begin();
    let (waiting, stopping) = fast_restart::look(&systemd, &store)?;
    stopping.iter().for_each(say_row);
    if !waiting.is_empty() {
        take(&systemd, &store, (waiting, args.limit), &interrupt)?;
    }
    Ok(0)
}

fn print(is_json: bool, waiting: &[Waiting], stopping: &[Row]) -> anyhow::Result<()> {
    if is_json {
        let names: Vec<&str> = waiting.iter().map(Waiting::name).collect();
        say!("{}", serde_json::to_string(&serde_json::json!({ "taken": names, "stopped": stopping }))?);
        return Ok(());
    }
    waiting.iter().for_each(|one| say!("{}: would be taken", one.name()));
    stopping.iter().for_each(say_row);
    if waiting.is_empty() && stopping.is_empty() {
        say!("no running service is in fast-restart mode");
    }
    Ok(())
}

fn say_row(row: &Row) {
    let unit = &row.unit;
    if row.taken {
        let (bytes, ms) = (row.image_bytes.unwrap_or_default(), row.frozen_ms.unwrap_or_default());
        say!("{unit}: taken ({} MB, {ms:.0} ms); it goes on at the next boot", mb(bytes));
    } else {
        let reasons: Vec<&str> = row.obstacles.iter().map(|obstacle| obstacle.reason.as_str()).collect();
        say!("{unit}: stops as ever: {}", reasons.join("; "));
    }
}
