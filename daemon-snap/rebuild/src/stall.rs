//! Finding out that the processes under construction get no further, and which of them waits for
//! what.

use crate::tape::{OP_BYTES, step_at};
use snap_error::{RestoreFault, Result};
use snap_state::{Addr, Pid};
use snap_sys::procfs_own::OwnProc;
use snap_sys::ptrace::{self, Wait};
use snap_sys::vmread;
use std::time::{Duration, Instant};

/// How often is looked at most.
const LOOK_AROUND: Duration = Duration::from_millis(40);
/// How long nothing may change.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a thread may take to come to the stop in which it is looked at.
const LONGEST_STOP: Duration = Duration::from_millis(100);

/// Sees whether processes get on: whether one of them computes, reads from a disk, or waits in
/// another system call than before.
#[derive(Debug)]
pub struct Stall {
    of_everyone: bool,
    seen: String,
    since: Instant,
    looked: Instant,
}

impl Stall {
    /// Whoever has been made counts: a helper may be what is waited for.
    pub fn of_everyone() -> Self {
        let now = Instant::now();
        Self { of_everyone: true, seen: String::new(), since: now, looked: now }
    }

    /// Only those count that are waited for: the others are what they were, and do what they did.
    pub fn of_pending() -> Self {
        Self { of_everyone: false, ..Self::of_everyone() }
    }

    /// Looks once more, where the last time is long enough ago; to be called while nothing is heard.
    /// `pending` are those that are waited for.
    ///
    /// # Errors
    /// Nothing has changed for two seconds.
    pub fn look(&mut self, proc: &OwnProc, pending: &[Pid]) -> Result<()> {
        if self.looked.elapsed() < LOOK_AROUND {
            return Ok(());
        }
        self.looked = Instant::now();
        let watched = match self.of_everyone {
            true => descendants(proc, nix::unistd::gettid().as_raw()),
            false => pending.to_vec(),
        };
        let mut now = String::new();
        let sleeping = watched.iter().all(|pid| note(proc, *pid, &mut now));
        if !sleeping || now != self.seen {
            (self.seen, self.since) = (now, Instant::now());
            return Ok(());
        }
        if self.since.elapsed() < PATIENCE {
            return Ok(());
        }
        const MOST: usize = 4;
        let waits: Vec<String> = pending.iter().take(MOST).map(|pid| describe(proc, *pid)).collect();
        Err(RestoreFault::Stalled { waits: waits.join("; ") }.into())
    }
}

/// All processes that the worker and those below it have made.
fn descendants(proc: &OwnProc, own: i32) -> Vec<Pid> {
    let mut found: Vec<Pid> = children(proc, &format!("self/task/{own}/children"));
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        for tid in threads(proc, pid) {
            found.extend(children(proc, &format!("{pid}/task/{tid}/children")));
        }
        next += 1;
    }
    found
}

fn children(proc: &OwnProc, path: &str) -> Vec<Pid> {
    let text = proc.read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    text.split_ascii_whitespace().filter_map(|word| word.parse().ok()).map(Pid).collect()
}

fn threads(proc: &OwnProc, pid: Pid) -> Vec<i32> {
    proc.list(&format!("{pid}/task")).unwrap_or_default()
}

/// Adds where each thread of a process is; `false` when one of them is doing something.
fn note(proc: &OwnProc, pid: Pid, to: &mut String) -> bool {
    threads(proc, pid).into_iter().all(|tid| {
        let state = state_of(proc, pid, tid);
        let call = proc.read(&format!("{pid}/task/{tid}/syscall")).unwrap_or_default();
        to.push_str(&format!("{tid} {state} {}", String::from_utf8_lossy(&call)));
        // Runnable, or waiting for a disk.
        !matches!(state, 'R' | 'D')
    })
}

/// As the field of /proc/PID/stat; `-` when there is no such thread.
fn state_of(proc: &OwnProc, pid: Pid, tid: i32) -> char {
    let stat = proc.read(&format!("{pid}/task/{tid}/stat")).unwrap_or_default();
    let stat = String::from_utf8_lossy(&stat).into_owned();
    let behind_name = stat.rsplit_once(')').map(|(_, rest)| rest.trim_start().chars().next());
    behind_name.flatten().unwrap_or('-')
}

fn describe(proc: &OwnProc, pid: Pid) -> String {
    let call = proc.read(&format!("{pid}/syscall")).unwrap_or_default();
    let call = String::from_utf8_lossy(&call).into_owned();
    let number = call.split_ascii_whitespace().next().and_then(|word| word.parse::<i64>().ok());
    match (state_of(proc, pid, pid.0), number) {
        ('-', _) => format!("process {pid} has not been made"),
        ('T', _) => format!("process {pid} has been stopped by somebody, {}", step_of(proc, pid)),
        ('t', _) => format!("process {pid} is being traced by somebody"),
        ('Z', _) => format!("process {pid} has ended"),
        (_, Some(number)) => format!("process {pid} is in system call {number}, {}", step_of(proc, pid)),
        (state, None) => format!("process {pid} is in state {state}, {}", step_of(proc, pid)),
    }
}

/// The step of its tape that a process is at: that of a thread which does not wait for the others.
fn step_of(proc: &OwnProc, pid: Pid) -> &'static str {
    const MOST: usize = 16;
    let steps = threads(proc, pid).into_iter().take(MOST).filter_map(|tid| step_of_thread(Pid(tid)));
    let mut steps: Vec<&'static str> = steps.collect();
    steps.sort_by_key(|step| step.contains("threads"));
    steps.first().copied().unwrap_or("before its memory is rebuilt")
}

/// By the register in which the interpreter keeps its place. The thread is about to be ended: it
/// stays traced.
fn step_of_thread(tid: Pid) -> Option<&'static str> {
    // Traced already where the process is being stopped at its place.
    let _ = ptrace::seize(tid, 0);
    let _ = ptrace::interrupt(tid);
    let deadline = Instant::now() + LONGEST_STOP;
    while matches!(ptrace::wait(tid, false).ok()?, Wait::Running) {
        if Instant::now() > deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let regs = ptrace::regs(tid).ok()??;
    let row = vmread::read(tid, Addr(regs.rbx), OP_BYTES as usize).ok()?;
    step_at(&row, regs.orig_rax as i64)
}
