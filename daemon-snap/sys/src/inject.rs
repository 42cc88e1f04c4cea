//! System calls executed by a stopped thread on our behalf. No code is written into it.
//!
//! Its registers are pointed at a `syscall` instruction that its vDSO already has, and it is
//! resumed from system-call stop to system-call stop. These stops are reported without a signal: a
//! single step would end in a SIGTRAP, for which the kernel resets the handler of a process that
//! ignores or blocks it.
//!
//! What has to be exactly as before afterwards, and who sees to it:
//! 1. Signal mask: all signals are blocked meanwhile, the old mask comes back at the end
//!    ([`Injector::finish`]).
//! 2. Registers: set at the end in an interrupt stop, because only on the way out of that stop the
//!    kernel restarts an interrupted system call (orig_rax and rax are those from before).
//! 3. orig_rax is -1 meanwhile, so that the kernel does not take our calls for an interrupted one.
//! 4. SIGSTOP cannot be blocked: one that arrives meanwhile is taken away and sent again at the
//!    end.
//!
//! When we die in the middle of it, a thread on a [`SafeStack`] goes back by itself. For its sake
//! registers change before the mask at the beginning, and after it at the end.

use super::ptrace::{self, Regs, Wait};
use nix::errno::Errno;
use snap_state::{Addr, Pid};

/// A stack in memory of the process on which a signal frame lies, topped by the address of an
/// `rt_sigreturn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SafeStack {
    /// A `syscall` with a `ret` behind it.
    pub syscall_ret: Addr,
    pub top: Addr,
}

/// A thread whose registers and signal mask are ours for a while.
#[derive(Debug)]
pub struct Injector {
    pid: Pid,
    tid: Pid,
    gate: Addr,
    stack: Option<SafeStack>,
    original: Regs,
    sigmask: u64,
    withheld: Vec<i32>,
    changed: bool,
}

impl Injector {
    /// Takes over a thread in an interrupt stop. `gate` is the address of a `syscall` instruction,
    /// used as long as there is no stack; `regs` and `sigmask` are what the thread shall have
    /// afterwards.
    ///
    /// # Errors
    /// `ESRCH` when the thread has ended.
    pub fn begin(
        pid: Pid,
        tid: Pid,
        gate: Addr,
        stack: Option<SafeStack>,
        regs: Regs,
        sigmask: u64,
    ) -> Result<Self, Errno> {
        let injector =
            Self { pid, tid, gate, stack, original: regs, sigmask, withheld: Vec::new(), changed: true };
        if let Some(stack) = stack {
            // From here on the thread would return through its frame, and with that to its mask.
            const POINTER_BYTES: u64 = 8;
            let regs = injector.registers(libc::SYS_rt_sigreturn, [0; 6]);
            ptrace::set_regs(tid, &Regs { rsp: stack.top.0 + POINTER_BYTES, ..regs })?;
        }
        ptrace::set_sigmask(tid, u64::MAX)?;
        Ok(injector)
    }

    fn registers(&self, number: i64, args: [u64; 6]) -> Regs {
        const NO_SYSCALL: u64 = u64::MAX;
        let (rip, rsp) = match self.stack {
            Some(stack) => (stack.syscall_ret.0, stack.top.0),
            None => (self.gate.0, self.original.rsp),
        };
        Regs {
            rax: number as u64,
            rdi: args[0],
            rsi: args[1],
            rdx: args[2],
            r10: args[3],
            r8: args[4],
            r9: args[5],
            rip,
            rsp,
            orig_rax: NO_SYSCALL,
            ..self.original
        }
    }

    /// Executes one system call. An error of the call itself is `Err` too.
    ///
    /// # Errors
    /// The call's own; `ESRCH` when the thread has ended.
    pub fn call(&mut self, number: i64, args: [u64; 6]) -> Result<u64, Errno> {
        ptrace::set_regs(self.tid, &self.registers(number, args))?;
        self.run_to_syscall_stop()?;
        self.run_to_syscall_stop()?;
        const MAX_ERRNO: i64 = 4095;
        match ptrace::rax(self.tid)? {
            error if (-MAX_ERRNO..0).contains(&error) => Err(Errno::from_raw(-error as i32)),
            value => Ok(value as u64),
        }
    }

    /// Gives registers and signal mask back; the thread is then in an interrupt stop as before.
    ///
    /// # Errors
    /// `ESRCH` when the thread has ended.
    pub fn finish(mut self) -> Result<(), Errno> {
        self.give_back()
    }

    fn run_to_syscall_stop(&mut self) -> Result<(), Errno> {
        loop {
            ptrace::resume_to_syscall(self.tid)?;
            match self.wait()? {
                Wait::Syscall => return Ok(()),
                Wait::Signal(signal) => self.withheld.push(signal),
                _ => {}
            }
        }
    }

    fn give_back(&mut self) -> Result<(), Errno> {
        self.changed = false;
        ptrace::interrupt(self.tid)?;
        loop {
            ptrace::resume(self.tid, 0)?;
            match self.wait()? {
                // The latter where a signal had stopped the whole process before we came.
                Wait::Interrupted | Wait::GroupStop => break,
                Wait::Signal(signal) => self.withheld.push(signal),
                _ => {}
            }
        }
        ptrace::set_sigmask(self.tid, self.sigmask)?;
        ptrace::set_regs(self.tid, &self.original)?;
        for signal in self.withheld.drain(..) {
            // SAFETY: plain system call without pointers.
            Errno::result(unsafe { libc::syscall(libc::SYS_tgkill, self.pid.0, self.tid.0, signal) })?;
        }
        Ok(())
    }

    fn wait(&self) -> Result<Wait, Errno> {
        match ptrace::wait(self.tid, true)? {
            Wait::Exited => Err(Errno::ESRCH),
            stop => Ok(stop),
        }
    }
}

impl Drop for Injector {
    fn drop(&mut self) {
        if self.changed {
            // Best effort on the way out of another error; a thread that has ended needs nothing.
            let _ = self.give_back();
        }
    }
}
