//! Boots of containers, with nothing in the page cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::criu;
use super::profile::{Profile, Served};
use super::sample::{Kind, Sample, latest, outcomes};
use crate::client::{first_answer, talk};
use crate::container::{BootOptions, Container, Output, run_in_root};
use crate::fastboot::{self, STORE_DIR};
use crate::host;
use crate::needs;
use crate::roots::{CACHE_DIR, Scratch, cached};

/// Longest for a service to answer, and for systemd to be done.
const BOUND: Duration = Duration::from_secs(300);
const INSTALL_BOUND: Duration = Duration::from_secs(120);

/// A root for each kind of boot.
#[derive(Debug)]
pub(super) struct Contained {
    profile: Profile,
    cold: Scratch,
    unusable: Scratch,
    restored: Scratch,
    criu: Option<Scratch>,
    logs: PathBuf,
    /// What could not be done, one sentence each.
    pub(super) notes: Vec<String>,
}

impl Contained {
    /// Provision one root, make three of it, and take images in two.
    pub(super) fn prepare(profile: Profile, package: &Path, without_criu: bool) -> Result<Contained> {
        let logs = Path::new(CACHE_DIR).join("logs/bench-boot");
        fs::create_dir_all(&logs).with_context(|| format!("making {}", logs.display()))?;
        let log = |name: &str| logs.join(format!("{}-{name}.log", profile.name()));
        let restored = Scratch::copy_of(&cached(&profile.recipe()?)?, "boot-restored")?;
        // The first boot writes much that no later one writes.
        all_up(profile, &restored, &log("provision"))?.poweroff()?;
        let cold = Scratch::copy_of(restored.root(), "boot-cold")?;
        let criu = Scratch::copy_of(restored.root(), "boot-criu")?;

        let mut notes = Vec::new();
        install(&restored, package)?;
        let machine = all_up(profile, &restored, &log("snapshot"))?;
        let report = fastboot::snapshot(&machine, &profile.units(), &[])?;
        for unit in &report.units {
            let megabytes =
                unit.image_bytes.map_or_else(String::new, |bytes| format!(", {} MB", bytes / 1_000_000));
            println!("  {}: {}{megabytes} {}", unit.unit, unit.outcome, unit.reasons.join("; "));
            if unit.outcome != "stored" {
                notes.push(format!("fastboot: {}: {}: {}", unit.unit, unit.outcome, unit.reasons.join("; ")));
            }
        }
        machine.poweroff()?;
        let unusable = Scratch::copy_of(restored.root(), "boot-unusable")?;
        let images = unusable.path(STORE_DIR).join("images");
        let mut gone = 0;
        for generation in fs::read_dir(&images).with_context(|| format!("listing {}", images.display()))? {
            for image in
                fs::read_dir(generation.context("listing images")?.path()).context("listing images")?
            {
                fs::remove_file(image.context("listing images")?.path()).context("removing an image")?;
                gone += 1;
            }
        }
        ensure!(gone > 0, "there are no images to take away");

        let mut tries = || -> Result<bool> {
            if without_criu {
                return Ok(false);
            }
            criu::put_program(&criu.path(criu::DIR))?;
            let machine = all_up(profile, &criu, &log("criu-dump"))?;
            let taken = criu::dump_all(&machine, profile, &mut notes)?;
            // Who is stopped writes to files that CRIU wants as they were.
            drop(machine);
            if taken.is_empty() {
                return Ok(false);
            }
            let lost = try_criu(profile, &criu, &log("criu-trial"), &taken, &mut notes)?;
            Ok(lost < taken.len())
        };
        let tried = tries();
        let criu = match tried {
            Ok(true) => Some(criu),
            Ok(false) => None,
            Err(error) => {
                notes.push(format!("criu: {error:#}"));
                None
            }
        };
        for note in &notes {
            println!("  {note}");
        }
        Ok(Contained { profile, cold, unusable, restored, criu, logs, notes })
    }

    /// One boot; none where that kind cannot be had.
    pub(super) fn boot(&mut self, kind: Kind, number: u32) -> Result<Option<Sample>> {
        // CRIU wants files of the length that they had.
        let fresh = match &self.criu {
            Some(criu) if kind == Kind::Criu => Some(Scratch::copy_of(criu.root(), "boot-criu-fresh")?),
            _ => None,
        };
        let scratch = match kind {
            Kind::Cold => &self.cold,
            Kind::Unusable => &self.unusable,
            Kind::Restored => &self.restored,
            Kind::Criu => match &fresh {
                Some(scratch) => scratch,
                None => return Ok(None),
            },
            Kind::Loaded => return Ok(None),
        };
        host::drop_page_cache()?;
        let log = self.logs.join(format!("{}-{kind:?}-{number}.log", self.profile.name()));
        let options = BootOptions { counted: true, ..BootOptions::default() };
        let machine = Container::boot(scratch.root(), "bench-boot", &log, &options)?;
        let answers_us = first_answers(&machine, self.profile.served());
        machine.wait_booted(BOUND)?;
        let usage = machine.usage()?;
        let read_mb = cached_mb(scratch.root())?;
        let start_us = machine.boot_start_us()?;
        let since_start = |us: u64| us.checked_sub(start_us).map(ms);
        let answers_ms: Vec<Option<f64>> = answers_us.into_iter().map(|us| since_start(us?)).collect();
        let reached =
            ["systemctl", "show", "-p", "ActiveEnterTimestampMonotonic", "--value", "multi-user.target"];
        let reached: u64 = machine.run(&reached)?.success()?.trim().parse().context("multi-user.target")?;
        let units = self.profile.units();
        let outcomes = match kind {
            Kind::Unusable | Kind::Restored => outcomes(&fastboot::status(&machine)?, &units),
            Kind::Criu => criu::outcomes(&machine, &units)?,
            _ => vec![kind.name().to_owned(); units.len()],
        };
        machine.poweroff()?;
        Ok(Some(Sample {
            multi_user_ms: since_start(reached),
            all_ms: latest(&answers_ms),
            answers_ms,
            switched_on_ms: None,
            cpu_s: Some(ms(usage.cpu_us) / 1000.0),
            read_mb: Some(read_mb),
            peak_mb: usage.peak_bytes.map(ms).map(|thousands| thousands / 1000.0),
            outcomes,
        }))
    }
}

/// Boot a copy once; what is not restored then is left cold. Returns how many.
fn try_criu(
    profile: Profile,
    criu: &Scratch,
    log: &Path,
    taken: &[&'static str],
    notes: &mut Vec<String>,
) -> Result<usize> {
    let copy = Scratch::copy_of(criu.root(), "boot-criu-trial")?;
    let machine = Container::boot(copy.root(), "bench-boot", log, &BootOptions::default())?;
    machine.wait_booted(BOUND)?;
    let lost = criu::lost(&machine, profile, taken, notes)?;
    for unit in &lost {
        fs::remove_file(criu.path(&criu::drop_in(unit)))
            .with_context(|| format!("removing the drop-in of {unit}"))?;
    }
    Ok(lost.len())
}

impl criu::Guest for Container {
    fn command(&self, words: &[&str], bound: Duration) -> Result<Output> {
        self.run_for(words, bound)
    }

    fn answer(&self, served: &Served, bound: Duration) -> Result<()> {
        let (port, turn) = (served.port, served.turn);
        self.in_network(|| first_answer(bound, || talk(port, &[turn]))).map(drop)
    }

    /// From outside: /proc/sys is read-only in a container.
    fn set_last_pid(&self, pid: u32) -> Result<()> {
        let status = needs::command("nsenter")?
            .args(["--pid", "--target", &self.leader().to_string(), "--", "sh", "-c"])
            .arg(format!("echo {pid} > /proc/sys/kernel/ns_last_pid"))
            .status()
            .context("running nsenter")?;
        ensure!(status.success(), "the counter of PIDs cannot be set");
        Ok(())
    }
}

/// As an administrator would, with dpkg.
fn install(scratch: &Scratch, package: &Path) -> Result<()> {
    let dir = package.parent().context("the package is in a directory")?;
    let name = package.file_name().context("the package has a name")?;
    let bind = format!("--bind-ro={}:/run/parcel", dir.display());
    let script = format!("dpkg --install /run/parcel/{} 2>&1", name.to_string_lossy());
    run_in_root(scratch.root(), &[&bind], &script, INSTALL_BOUND).context("installing the package").map(drop)
}

/// Boot, and wait until all services answer.
fn all_up(profile: Profile, scratch: &Scratch, log: &Path) -> Result<Container> {
    let machine = Container::boot(scratch.root(), "bench-boot", log, &BootOptions::default())?;
    let answers = first_answers(&machine, profile.served());
    for (served, answer) in profile.served().iter().zip(answers) {
        answer
            .with_context(|| machine.journal(served.unit, 30))
            .with_context(|| format!("{} does not answer", served.unit))?;
    }
    machine.wait_booted(BOUND)?;
    Ok(machine)
}

/// One client per service, each on its own thread, from the first moment on. CLOCK_MONOTONIC in µs.
fn first_answers(machine: &Container, served: &[Served]) -> Vec<Option<u64>> {
    let client = |served: &Served| {
        let (port, turn) = (served.port, served.turn);
        machine.in_network(|| first_answer(BOUND, || talk(port, &[turn])))
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = served.iter().map(|served| scope.spawn(move || client(served))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .map(|answer| Some(answer.ok()?.at_us))
            .collect()
    })
}

/// What of the files of a root is in the page cache. Before the boot nothing was: so much was read,
/// with what was read ahead. The disk's own counters would have everybody's reading.
fn cached_mb(root: &Path) -> Result<f64> {
    let script = r#"find "$0" -xdev -type f -size +0 -print0 |
        xargs -0 fincore --bytes --noheadings --raw --output RES 2> /dev/null | awk '{ sum += $1 } END { print sum }'"#;
    let output = needs::shell(script, &["find", "xargs", "fincore", "awk"])?
        .arg(root)
        .output()
        .context("running fincore")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let bytes: f64 = text.trim().parse().with_context(|| format!("fincore printed {text:?}"))?;
    Ok(bytes / 1e6)
}

/// A thousandth.
#[expect(clippy::cast_precision_loss, reason = "durations and lengths of a boot are far below 2^52")]
fn ms(us: u64) -> f64 {
    us as f64 / 1000.0
}
