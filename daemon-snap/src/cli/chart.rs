//! `fastboot chart`: this boot as a picture.

use super::common::StoreArgs;
use anyhow::Context as _;
use daemon_snap::boot::boot_id;
use daemon_snap::chart::{Recorded, draw, gather};
use daemon_snap::unit::Systemd;
use fastboot_runtime::disk_use::DiskUse;
use fastboot_runtime::{BootStatus, RunDir};
use nix::sys::utsname::uname;
use nix::time::{ClockId, clock_gettime};
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;

/// Draw this boot: all services, the restored ones with their phases and beside their cold start
///
/// The picture is SVG, which every browser shows. One row is one service, from the moment in which
/// systemd began to start it until it was ready; the frame around a restored one is its cold start
/// as it was measured when the image was taken. Below is what the disks read and wrote.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write the picture to this file, and not to standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    store: StoreArgs,
}

pub fn run(args: &Args) -> anyhow::Result<u8> {
    let is_for_eyes = args.output.is_none() && !args.store.json && std::io::stdout().is_terminal();
    if is_for_eyes {
        anyhow::bail!("a picture is not for a terminal; say where it shall go with --output FILE.svg");
    }
    let boot_id = boot_id()?;
    let run_dir = RunDir::default();
    let status = BootStatus::load(&run_dir, &boot_id)
        .with_context(|| BootStatus::path(&run_dir).display().to_string())?;
    let disk_use =
        DiskUse::load(&run_dir, &boot_id).with_context(|| DiskUse::path(&run_dir).display().to_string())?;
    let systemd = Systemd::connect()?;
    let name = uname().context("asking for the kernel's name")?;
    let words = |text: &std::ffi::OsStr| text.to_string_lossy().into_owned();
    let version = systemd.manager_text("Version")?;
    let machine = format!("{}, Linux {}, systemd {version}", words(name.nodename()), words(name.release()));
    let recorded = Recorded { status, disk_use, catalogue: args.store.open().load()?, machine };
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).context("reading the clock")?;
    let boot = gather(&systemd, &recorded, Duration::from(now).as_micros() as u64)?;
    let text = if args.store.json { serde_json::to_string(&boot)? } else { draw(&boot) };
    match &args.output {
        Some(path) => {
            std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
            say!("{}", boot.sentence());
        }
        None => say!("{}", text.trim_end()),
    }
    Ok(0)
}
