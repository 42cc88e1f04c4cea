//! Processes that a signal has stopped (SIGSTOP, SIGTSTP …).
//!
//! Such a process has to come to rest at its recorded registers without having executed an
//! instruction of its own, and with signals in its queues that would end it if it did. The tape
//! alone cannot do that: what it does last is `rt_sigreturn`, and a signal sent before would stop
//! it inside the tape. So the worker traces these processes from the go to the end of
//! `rt_sigreturn` and has them stopped there. Their parents have not got the go yet, and take away
//! what they are told of this stop.

use super::stall::Stall;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::write;
use snap_error::{Error, RestoreFault, Result};
use snap_state::{Pid, ProcessV1};
use snap_sys::proc;
use snap_sys::procfs_own::OwnProc;
use snap_sys::ptrace::{self, Wait};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_micros(50);

/// Gives the go to the processes that were stopped and stops them, children before parents. `go`
/// has a pipe for each process.
///
/// # Errors
/// ptrace(2) is forbidden; a process ended; the deadline.
pub fn rebuild_stopped(
    proc: &OwnProc,
    processes: &[ProcessV1],
    go: &[OwnedFd],
    deadline: Instant,
) -> Result<()> {
    for (process, go) in processes.iter().zip(go).rev().filter(|(process, _)| process.stopped) {
        Steered { proc, process, deadline }.stop_in_place(go)?;
    }
    Ok(())
}

struct Steered<'a> {
    proc: &'a OwnProc,
    process: &'a ProcessV1,
    deadline: Instant,
}

impl Steered<'_> {
    fn stop_in_place(&self, go: &OwnedFd) -> Result<()> {
        let tids: Vec<Pid> = self.process.threads.iter().map(|thread| thread.tid).collect();
        for &tid in &tids {
            ptrace::seize(tid, ptrace::TRACE_SYSGOOD).map_err(self.failed("tracing"))?;
            ptrace::interrupt(tid).map_err(self.failed("interrupting"))?;
        }
        for &tid in &tids {
            self.expect(tid, |wait| wait == Wait::Interrupted)?;
            ptrace::resume_to_syscall(tid).map_err(self.failed("resuming"))?;
        }
        write(go, &[1]).map_err(self.failed("releasing"))?;
        self.run_to_sigreturn(&tids)?;
        // The thread that has installed the filters may still be on its way out, and would stop
        // there.
        let mut stall = Stall::of_everyone();
        while proc::threads(self.process.pid)?.len() > tids.len() {
            self.pause(&mut stall)?;
        }
        for &tid in &tids {
            ptrace::set_sigmask(tid, u64::MAX).map_err(self.failed("blocking signals of"))?;
        }
        kill(nix::unistd::Pid::from_raw(self.process.pid.0), Signal::SIGSTOP)
            .map_err(self.failed("stopping"))?;
        // The first one takes the signal, which stops the others before they return to their
        // program.
        let mut stopping = tids.iter();
        if let Some(&leader) = stopping.next() {
            ptrace::resume(leader, 0).map_err(self.failed("resuming"))?;
            self.expect(leader, |wait| wait == Wait::Signal(libc::SIGSTOP))?;
            ptrace::resume(leader, libc::SIGSTOP).map_err(self.failed("stopping"))?;
            self.expect(leader, |wait| wait == Wait::GroupStop)?;
        }
        for &tid in stopping {
            ptrace::resume(tid, 0).map_err(self.failed("resuming"))?;
            self.expect(tid, |wait| wait == Wait::GroupStop)?;
        }
        for thread in &self.process.threads {
            ptrace::set_sigmask(thread.tid, thread.sigmask).map_err(self.failed("setting signal mask of"))?;
            // Back into the stop: whatever waits in the queues is looked at only when SIGCONT
            // comes.
            ptrace::detach(thread.tid).map_err(self.failed("letting go of"))?;
        }
        Ok(())
    }

    /// Runs all threads until each has executed its `rt_sigreturn` and nothing after it.
    fn run_to_sigreturn(&self, tids: &[Pid]) -> Result<()> {
        let mut stall = Stall::of_everyone();
        let mut under_way: Vec<(Pid, bool)> = tids.iter().map(|&tid| (tid, false)).collect();
        while !under_way.is_empty() {
            let before = under_way.len();
            let mut failure = None;
            under_way.retain_mut(|(tid, entered)| {
                let mut step = || -> Result<bool> {
                    match ptrace::wait(*tid, false).map_err(self.failed("waiting for"))? {
                        Wait::Running => return Ok(true),
                        Wait::Exited => return Err(self.gone()),
                        Wait::Syscall if *entered => return Ok(false),
                        Wait::Syscall => {
                            let regs = ptrace::regs(*tid).map_err(self.failed("reading registers of"))?;
                            *entered =
                                regs.is_some_and(|regs| regs.orig_rax as i64 == libc::SYS_rt_sigreturn);
                        }
                        // Everything is blocked but SIGSTOP, which would come from outside and be
                        // one too many.
                        Wait::Signal(_) | Wait::Interrupted | Wait::GroupStop => {}
                    }
                    ptrace::resume_to_syscall(*tid).map_err(self.failed("resuming"))?;
                    Ok(true)
                };
                step().unwrap_or_else(|e| {
                    failure.get_or_insert(e);
                    false
                })
            });
            if let Some(e) = failure {
                return Err(e);
            }
            if under_way.len() == before {
                self.pause(&mut stall)?;
            }
        }
        Ok(())
    }

    fn expect(&self, tid: Pid, wanted: impl Fn(Wait) -> bool) -> Result<()> {
        let mut stall = Stall::of_everyone();
        loop {
            match ptrace::wait(tid, false).map_err(self.failed("waiting for"))? {
                Wait::Running => self.pause(&mut stall)?,
                Wait::Exited => return Err(self.gone()),
                wait if wanted(wait) => return Ok(()),
                other => {
                    let found = format!("{other:?}");
                    return Err(RestoreFault::NotStopped { thread: tid, found }.into());
                }
            }
        }
    }

    fn pause(&self, stall: &mut Stall) -> Result<()> {
        stall.look(self.proc, &[self.process.pid])?;
        if Instant::now() > self.deadline {
            return Err(Error::stale(
                image_store::ReasonCode::Deadline,
                format!("process {} did not come to its stop in time", self.process.pid),
            ));
        }
        std::thread::sleep(PAUSE);
        Ok(())
    }

    fn gone(&self) -> Error {
        Error::Gone { pid: self.process.pid, step: "stopping it where it was" }
    }

    fn failed(&self, step: &'static str) -> impl Fn(Errno) -> Error {
        let pid = self.process.pid;
        move |e| Error::kernel(step, format!("process {pid}, which was stopped"), e)
    }
}
