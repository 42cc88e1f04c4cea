//! Guests that hang: they are ended within a bound, and what they have said is kept.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Error, Result, ensure};
use test_frame::Checks;

use super::steps::Parcel;
use crate::machine::{Boot, Machine, Running, Store};

/// Emulated on a busy host, the kernel's first line may take half of it.
const BOUND: Duration = Duration::from_secs(15);
/// For QEMU's start and end on a busy host.
const SLACK: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(3);

/// The kernel comes up, and then nothing happens any more.
pub(super) fn in_its_boot(parcel: &Parcel, checks: &mut Checks) -> Result<()> {
    let mut machine = parcel.machine("hung", "trixie", &[], Store::OnRoot)?;
    let arguments = vec!["ignore_loglevel", "init=/bin/sleep", "--", "infinity"];
    let asleep = Boot { arguments, bound: Some(BOUND), ..Boot::default() };
    let began = Instant::now();
    let error = machine.boot(&asleep).err().context("it answers")?;
    checks.note(
        "a guest that hangs in its boot is ended within the bound, and its console kept",
        ended(&machine, &error, "hung-boot-1.log", began.elapsed(), BOUND),
    );
    Ok(())
}

/// A guest that was up stops answering. At the end of a life: it does not come back.
pub(super) fn later(machine: &Machine, mut running: Running, log: &str, checks: &mut Checks) -> Result<()> {
    running.shell("echo the last words > /dev/console")?;
    running.set_patience(PATIENCE);
    running.stop_processors()?;
    let began = Instant::now();
    let asked = running.run_for(&["true"], Duration::from_secs(1));
    let (error, waited) = (asked.err().context("it answers")?, began.elapsed());
    drop(running);
    checks.note(
        "a guest that hangs later is ended within the bound, and its console kept",
        ended(machine, &error, log, waited, PATIENCE + Duration::from_secs(1))
            .and_then(|()| said(&error, "the last words")),
    );
    Ok(())
}

/// In time, without a machine that goes on running; the message leads to the console, and has its
/// end.
fn ended(machine: &Machine, error: &Error, log: &str, took: Duration, bound: Duration) -> Result<()> {
    ensure!(took <= bound + SLACK, "it took {} s", took.as_secs());
    ensure!(!machine.is_on(), "the machine is still on");
    let text = format!("{error:#}");
    ensure!(text.contains("answer"), "it is not said what is wrong: {text}");
    let (_, behind) = text.split_once("the console, in ").context("the message does not name the console")?;
    let (path, tail) = behind.split_once(":\n").context("the message does not end the console's name")?;
    ensure!(path.ends_with(log), "the console is in {path}");
    let kept = fs::read(Path::new(path)).with_context(|| format!("reading {path}"))?;
    let kept = String::from_utf8_lossy(&kept);
    let last = kept.lines().last().with_context(|| format!("{path} is empty"))?;
    ensure!(tail.contains(last), "the message lacks the console's last line, {last:?}: {tail}");
    Ok(())
}

fn said(error: &Error, words: &str) -> Result<()> {
    ensure!(format!("{error:#}").contains(words), "the console does not say {words:?}: {error:#}");
    Ok(())
}
