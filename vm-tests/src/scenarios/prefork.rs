//! Memory of a prefork server: what its processes share since their fork they still share after a
//! restore.

use anyhow::{Context as _, Result, ensure};

use super::service_site::ScenarioLab;
use crate::container::Container;
use crate::fastboot;

const UNIT: &str = "prefork.service";
const ASK: &str = "/usr/bin/python3 /srv/prefork/ask-shop.py";
/// What the server loads before it forks.
const COMMON_KIB: u64 = 48 << 10;
/// Master and eight workers.
const PROCESSES: usize = 9;
/// What a restore may add, in percent.
const MOST_PERCENT: u64 = 10;

/// Proportional set sizes of the unit's processes, each in KiB: a page that n processes share
/// counts for one n-th of it.
fn memory(running: &Container) -> Result<Vec<u64>> {
    let text = running.run(&[
        "sh",
        "-c",
        "for pid in $(cat /sys/fs/cgroup/system.slice/prefork.service/cgroup.procs); do \
         grep ^Pss: /proc/$pid/smaps_rollup; done",
    ])?;
    let sizes: Vec<u64> = text
        .success()?
        .lines()
        .map(|line| line.split_whitespace().nth(1)?.parse().ok())
        .collect::<Option<_>>()
        .context("no sizes")?;
    ensure!(sizes.len() == PROCESSES, "{} processes and not {PROCESSES}", sizes.len());
    Ok(sizes)
}

fn ask(running: &Container) -> Result<()> {
    let words: Vec<&str> = ASK.split(' ').collect();
    running.run(&words)?.success().map(drop)
}

pub(super) fn stays_shared(lab: &ScenarioLab) -> Result<()> {
    let mut site = lab.site("prefork")?;
    let running = site.boot()?;
    running.run(&["systemctl", "enable", "--now", UNIT])?.success()?;
    let report = fastboot::snapshot(&running, &[UNIT], &["--warm-up", ASK])?;
    let unit = report.unit(UNIT).context("no report of it")?;
    ensure!(unit.outcome == "stored", "{}: {}", unit.outcome, unit.reasons.join("; "));
    let main_pid = running.unit(UNIT)?.main_pid;
    let before = memory(&running)?;
    let total: u64 = before.iter().sum();
    ensure!(total > COMMON_KIB && total < 3 * COMMON_KIB, "nothing to be seen: {before:?} KiB");
    running.poweroff()?;

    let running = site.boot()?;
    let status = fastboot::status(&running)?;
    let said = status.unit(UNIT).context("fastboot status does not name it")?;
    ensure!(said.outcome == "restored", "{said:?}");
    ensure!(running.unit(UNIT)?.main_pid == main_pid, "another main process");
    let restored = memory(&running)?;
    ask(&running)?;
    let used = memory(&running)?;
    for (when, sizes) in [("restored", &restored), ("after requests", &used)] {
        let now: u64 = sizes.iter().sum();
        ensure!(
            now * 100 <= total * (100 + MOST_PERCENT),
            "{when}: {now} KiB, and {total} KiB before: {sizes:?}, {before:?}"
        );
    }
    println!(
        "        {total} KiB before the snapshot, {} KiB restored, {} KiB after requests to all workers",
        restored.iter().sum::<u64>(),
        used.iter().sum::<u64>()
    );
    running.poweroff()
}
