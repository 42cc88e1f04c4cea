//! The Django application: each worker has a counter of its own, and the kernel chooses who
//! answers.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use super::{Counter, counter};
use crate::container::Container;

pub(super) const PORT: u16 = 8000;
const WORKERS: usize = 3;
/// Counts that no worker reaches by itself.
const COUNTS: [u64; WORKERS] = [1009, 2003, 3001];
/// With the pause, requests that come at once are spread over the workers.
const STATE: &str = "/state?pause_ms=20";
const MAX_ROUNDS: usize = 500;

/// What each worker answers, by PID: several requests at once, until all have been seen.
pub(super) fn workers(machine: &Container) -> Result<BTreeMap<u32, Counter>> {
    let mut seen = BTreeMap::new();
    for _ in 0..MAX_ROUNDS {
        let answers = ask_at_once(machine, &[STATE; WORKERS + 1])?;
        seen.extend(answers.into_iter().map(|answer| (answer.pid, answer)));
        if seen.len() >= WORKERS {
            return Ok(seen);
        }
    }
    bail!("of {WORKERS} workers only {:?} answered", seen.keys())
}

pub(super) fn drive(machine: &Container) -> Result<()> {
    for (worker, to) in workers(machine)?.into_values().zip(COUNTS) {
        if worker.count < to {
            bump(machine, &worker, to)?;
        }
    }
    Ok(())
}

/// One bump at a time until the right worker has taken it, while the others are kept busy.
fn bump(machine: &Container, worker: &Counter, to: u64) -> Result<()> {
    let bump = format!("/bump?pid={}&by={}&pause_ms=20", worker.pid, to - worker.count);
    for _ in 0..MAX_ROUNDS {
        let answers = ask_at_once(machine, &[&bump, STATE, STATE])?;
        if answers.iter().any(|answer| answer.pid == worker.pid && answer.count == to) {
            return Ok(());
        }
    }
    bail!("worker {} did not take a request", worker.pid)
}

fn ask_at_once(machine: &Container, paths: &[&str]) -> Result<Vec<Counter>> {
    std::thread::scope(|scope| {
        let ask = |path: &&str| {
            let path = (*path).to_owned();
            scope.spawn(move || machine.in_network(|| counter(PORT, &path)))
        };
        let threads: Vec<_> = paths.iter().map(ask).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}
