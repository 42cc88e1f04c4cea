//! Boots of virtual machines.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::criu;
use super::profile::{Profile, Served};
use super::sample::{Kind, Sample, latest, outcomes};
use crate::container::Output;
use crate::fastboot::{self, STORE_DIR, SnapshotReport, StatusReport};
use crate::host;
use crate::machine::{Accelerator, Boot, Kernel, Machine, Running, Store};
use crate::roots::CACHE_DIR;

/// Longest for all services to answer, by the clock of the guest.
const ANSWER_S: u64 = 500;
const BOUND: Duration = Duration::from_secs(ANSWER_S + 30);
const STATE: &str = "all-up";
const SECTOR: f64 = 512.0;
/// The disk of the root by the number of its partition: which namespace of the drive is called
/// nvme0n1 differs from boot to boot. Not the partition itself, for which the driver counts nothing
/// (multipath).
const COUNTERS: &str = "head -n 1 /proc/stat; cat /sys/dev/block/$(mountpoint -d /)/../stat; \
     systemctl show -p ActiveEnterTimestampMonotonic --value multi-user.target";
/// Units of /proc/stat in a second, on every Linux of x86.
const TICKS: f64 = 100.0;

/// A machine for each kind of boot.
#[derive(Debug)]
pub(super) struct Emulated {
    profile: Profile,
    cold: Machine,
    unusable: Machine,
    restored: Machine,
    loaded: Option<Machine>,
    criu: Option<Machine>,
    /// Their disks stand behind those of the others.
    _bases: [Machine; 2],
    parcel: PathBuf,
    /// What could not be done, one sentence each.
    pub(super) notes: Vec<String>,
}

/// Emulated, the heavy profile is only for those who ask for it.
pub(super) fn profiles(asked: Option<Profile>) -> Result<Vec<Profile>> {
    let accelerator = Accelerator::probe(&Kernel::of(&Profile::Light.recipe()?)?)?;
    println!("guests run on {accelerator}");
    Ok(match (asked, accelerator) {
        (Some(profile), _) => vec![profile],
        (None, Accelerator::Kvm) => vec![Profile::Light, Profile::Heavy],
        (None, Accelerator::Tcg(_)) => vec![Profile::Light],
    })
}

impl Emulated {
    /// Provision one machine, and make one of it for each kind.
    pub(super) fn prepare(profile: Profile, package: &Path, without_criu: bool) -> Result<Emulated> {
        let parcel =
            Path::new(CACHE_DIR).join("machines").join(format!("bench-parcel-{}", std::process::id()));
        std::fs::create_dir_all(&parcel).with_context(|| format!("making {}", parcel.display()))?;
        std::fs::copy(package, parcel.join("fastboot.deb")).context("copying the package")?;
        if !without_criu {
            criu::put_program(&parcel.join("criu"))?;
        }
        let mut notes = Vec::new();
        let mut base = Machine::new("bench-base", &profile.recipe()?, &[], Store::OnRoot, Some(&parcel))?;
        let running = all_up(&mut base, &Boot::default(), profile)?;
        running.poweroff()?;
        println!("  provisioned");

        let mut taken = base.fork("bench-taken")?;
        let running = all_up(&mut taken, &Boot::default(), profile)?;
        running.shell(
            "mkdir -p /run/parcel; mount -o ro LABEL=parcel /run/parcel; dpkg --install /run/parcel/fastboot.deb 2>&1; umount /run/parcel",
        )?;
        let mut command = vec!["fastboot", "snapshot", "--no-trial", "--json"];
        command.extend(profile.units());
        let report: SnapshotReport = fastboot::parse(&running.run_for(&command, BOUND)?.stdout)?;
        for unit in &report.units {
            println!("  {}: {} {}", unit.unit, unit.outcome, unit.reasons.join("; "));
            if unit.outcome != "stored" {
                notes.push(format!("fastboot: {}: {}: {}", unit.unit, unit.outcome, unit.reasons.join("; ")));
            }
        }
        running.poweroff()?;
        let restored = taken.fork("bench-restored")?;
        let mut unusable = taken.fork("bench-unusable")?;
        let running = unusable.boot(&Boot::default())?;
        running.shell(&format!("rm {STORE_DIR}/images/*/*.img"))?;
        running.wait_booted()?;
        running.poweroff()?;

        let mut loaded = base.fork("bench-loaded")?;
        let saved = all_up(&mut loaded, &Boot { savable: true, ..Boot::default() }, profile)
            .and_then(|running| running.save(STATE).and_then(|()| running.power_cut()));
        let loaded = match saved {
            Ok(()) => Some(loaded),
            Err(error) => {
                println!("  QEMU savevm: {error:#}");
                let line = format!("{error:#}");
                notes.push(format!("QEMU savevm: {}", line.lines().last().unwrap_or_default()));
                None
            }
        };
        let criu = match without_criu {
            true => None,
            false => dump_with_criu(&base, profile, &mut notes).unwrap_or_else(|error| {
                notes.push(format!("criu: {error:#}"));
                None
            }),
        };
        for note in &notes {
            println!("  {note}");
        }
        let cold = base.fork("bench-cold")?;
        Ok(Emulated { profile, cold, unusable, restored, loaded, criu, _bases: [base, taken], parcel, notes })
    }

    pub(super) fn title(&self) -> Result<String> {
        let kernel = &self.cold.kernel().release;
        Ok(format!("virtual machines (Debian 13, Linux {kernel}, NVMe, on {})", self.cold.accelerator()?))
    }

    /// One boot; none where that kind cannot be had.
    pub(super) fn boot(&mut self, kind: Kind) -> Result<Option<Sample>> {
        let mut options = Boot::default();
        // CRIU wants files of the length that they had.
        let mut fresh = match &self.criu {
            Some(criu) if kind == Kind::Criu => Some(criu.fork("bench-criu-fresh")?),
            _ => None,
        };
        let machine = match kind {
            Kind::Cold => &mut self.cold,
            Kind::Unusable => &mut self.unusable,
            Kind::Restored => &mut self.restored,
            Kind::Criu => match &mut fresh {
                Some(machine) => machine,
                None => return Ok(None),
            },
            Kind::Loaded => {
                options = Boot { savable: true, load: Some(STATE), ..options };
                match &mut self.loaded {
                    Some(machine) => machine,
                    None => return Ok(None),
                }
            }
        };
        host::drop_page_cache()?;
        let began = Instant::now();
        let running = machine.boot(&options)?;
        let (answers_ms, peak_mb) = first_answers(&running, self.profile)?;
        let switched_on_ms = began.elapsed().as_secs_f64() * 1000.0;
        let units = self.profile.units();
        if kind == Kind::Loaded {
            // Its clock has gone on from where it was saved, and its counters too.
            let answered = latest(&answers_ms).map(|_| switched_on_ms);
            running.power_cut()?;
            return Ok(Some(Sample {
                answers_ms: vec![answered; units.len()],
                all_ms: answered,
                switched_on_ms: answered,
                outcomes: vec![kind.name().to_owned(); units.len()],
                ..Sample::default()
            }));
        }
        running.wait_booted()?;
        let counted = running.shell(COUNTERS)?;
        let (cpu_s, read_mb, multi_user_ms) =
            parse_counted(&counted).with_context(|| format!("no counters in {counted:?}"))?;
        let outcomes = match kind {
            Kind::Cold => vec![kind.name().to_owned(); units.len()],
            Kind::Criu => criu::outcomes(&running, &units)?,
            _ => {
                let status = running.run(&["fastboot", "status", "--json"])?.success()?;
                outcomes(&fastboot::parse::<StatusReport>(&status)?, &units)
            }
        };
        running.poweroff()?;
        let all_ms = latest(&answers_ms);
        Ok(Some(Sample {
            multi_user_ms: Some(multi_user_ms),
            all_ms,
            switched_on_ms: all_ms.map(|_| switched_on_ms),
            answers_ms,
            cpu_s: Some(cpu_s),
            read_mb: Some(read_mb),
            peak_mb: Some(peak_mb),
            outcomes,
        }))
    }
}

impl Drop for Emulated {
    fn drop(&mut self) {
        // What is left is swept up by the next run.
        let _ = std::fs::remove_dir_all(&self.parcel);
    }
}

fn all_up(machine: &mut Machine, options: &Boot, profile: Profile) -> Result<Running> {
    let running = machine.boot(options)?;
    let (answers, _) = first_answers(&running, profile)?;
    for (served, answer) in profile.served().iter().zip(answers) {
        ensure!(
            answer.is_some(),
            "{} does not answer: {}",
            served.unit,
            running.journal(Some(served.unit), 30)
        );
    }
    running.wait_booted()?;
    Ok(running)
}

/// A machine whose services are restored by CRIU, as far as it does that; none where it restores
/// none.
fn dump_with_criu(base: &Machine, profile: Profile, notes: &mut Vec<String>) -> Result<Option<Machine>> {
    let mut machine = base.fork("bench-criu")?;
    let running = all_up(&mut machine, &Boot::default(), profile)?;
    running.shell(&format!(
        "mkdir -p /run/parcel; mount -o ro LABEL=parcel /run/parcel; cp -r /run/parcel/criu {}; umount /run/parcel",
        criu::DIR
    ))?;
    let taken = criu::dump_all(&running, profile, notes)?;
    // Who is stopped writes to files that CRIU wants as they were.
    running.shell("sync")?;
    running.power_cut()?;
    if taken.is_empty() {
        return Ok(None);
    }
    let mut trial = machine.fork("bench-criu-trial")?;
    let running = trial.boot(&Boot::default())?;
    running.wait_booted()?;
    let lost = criu::lost(&running, profile, &taken, notes)?;
    running.power_cut()?;
    drop(trial);
    if lost.len() == taken.len() {
        return Ok(None);
    }
    if !lost.is_empty() {
        // A boot of nothing but the agent: no service may run before its files are as they were.
        let alone = Boot { arguments: vec!["systemd.unit=fastboot-tests-agent.service"], ..Boot::default() };
        let running = machine.boot(&alone)?;
        let drop_ins: Vec<String> = lost.iter().map(|unit| criu::drop_in(unit)).collect();
        running.shell(&format!("rm {}; sync", drop_ins.join(" ")))?;
        running.power_cut()?;
    }
    Ok(Some(machine))
}

impl criu::Guest for Running {
    fn command(&self, words: &[&str], bound: Duration) -> Result<Output> {
        self.run_for(words, bound)
    }

    fn answer(&self, served: &Served, bound: Duration) -> Result<()> {
        let (answers, _) = ask(self, std::slice::from_ref(served), bound.as_secs())?;
        answers.into_iter().flatten().next().map(drop).context("no answer")
    }

    fn set_last_pid(&self, pid: u32) -> Result<()> {
        self.shell(&format!("echo {pid} > /proc/sys/kernel/ns_last_pid")).map(drop)
    }
}

/// By a program in the guest, which is started as soon as its agent answers. Times, and the most
/// memory in MB.
fn first_answers(running: &Running, profile: Profile) -> Result<(Vec<Option<f64>>, f64)> {
    ask(running, profile.served(), ANSWER_S)
}

fn ask(running: &Running, asked: &[Served], bound_s: u64) -> Result<(Vec<Option<f64>>, f64)> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut words = vec!["/usr/local/bin/first-answers".to_owned(), bound_s.to_string()];
    for served in asked {
        words.extend([served.port.to_string(), hex(served.turn.0), hex(served.turn.1)]);
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let said = running.run_for(&words, BOUND)?.success()?;
    let value = |name: &str| -> Option<f64> {
        said.lines().find_map(|line| line.split_once(' ').filter(|(key, _)| *key == name)?.1.parse().ok())
    };
    let answers = asked.iter().map(|served| value(&served.port.to_string())).collect();
    let peak_kib = value("peak").with_context(|| format!("no peak in {said:?}"))?;
    Ok((answers, peak_kib * 1024.0 / 1e6))
}

/// Seconds of processors, megabytes read, and milliseconds to multi-user.target.
fn parse_counted(text: &str) -> Option<(f64, f64, f64)> {
    let mut lines = text.lines();
    let numbers =
        |line: &str| line.split_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<f64>>();
    // user, nice, system, idle, iowait, irq, softirq, steal.
    let ticks = numbers(lines.next()?.strip_prefix("cpu ")?);
    let busy: f64 = [0, 1, 2, 5, 6].iter().map(|&at| ticks.get(at)).sum::<Option<f64>>()?;
    let sectors = *numbers(lines.next()?).get(2)?;
    let reached_us: f64 = lines.next()?.trim().parse().ok()?;
    Some((busy / TICKS, sectors * SECTOR / 1e6, reached_us / 1000.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_is_not_counted() {
        let text = "cpu  100 10 50 9999 999 5 5 0 0 0\n  11 2 2000 4 5 6 7 0 8 9 10\n1500000\n";
        assert_eq!(parse_counted(text), Some((1.7, 1.024, 1500.0)));
        assert_eq!(parse_counted("cpu  1\n"), None);
    }
}
