//! Threads: registers, signals, credentials, scheduling.

use super::injected::{Scratch, call};
use crate::blockers::{Blockers, failed};
use crate::freeze::is_interrupted_wait;
use crate::member::Member;
use crate::seccomp::Filters;
use snap_error::obstacle::ProcessObstacle;
use snap_error::{Part, Result};
use snap_state::{Addr, AltStackV1, CredsV1, Pid, RegsV1, SigActionV1, SigInfoV1, ThreadControlV1, ThreadV1};
use snap_sys::inject::Injector;
use snap_sys::proc::Status;
use snap_sys::ptrace::{self, Regs};
use snap_sys::{proc, sched, vmread};

const ERESTARTSYS: i64 = -512;
const ERESTARTNOINTR: i64 = -513;
const ERESTARTNOHAND: i64 = -514;
const ERESTART_RESTARTBLOCK: i64 = -516;
/// PF_MEMALLOC_NOIO and PF_LOCAL_THROTTLE, which together are PR_SET_IO_FLUSHER; PR_GET_IO_FLUSHER
/// itself needs privilege.
const PF_IO_FLUSHER: u64 = 0x0018_0000;
const EINTR: i64 = -(libc::EINTR as i64);
/// Length of the `syscall` instruction.
const SYSCALL_BYTES: u64 = 2;

/// A thread as seen from outside, and what it shall be given back after an injection.
#[derive(Debug)]
pub(crate) struct OutsideThread {
    /// Without what only the thread itself can tell.
    pub thread: ThreadV1,
    pub resume: Regs,
    /// The signal whose handler runs first when the thread goes on.
    handled: Option<u32>,
}

impl OutsideThread {
    /// A call that repeats after handlers with SA_RESTART alone, and is about to see one without.
    pub fn is_interrupted_without_restart(&self, sigactions: &[Option<SigActionV1>]) -> bool {
        let in_syscall = self.resume.orig_rax as i64 >= 0;
        let action = self.handled.and_then(|signal| sigactions.get(signal as usize - 1)?.as_ref());
        in_syscall
            && self.resume.rax as i64 == ERESTARTSYS
            && action.is_some_and(|action| action.flags & libc::SA_RESTART as u64 == 0)
    }
}

/// The signal whose handler runs before the thread does anything else: of its own queue, or of that
/// of its process, which the first thread takes that does not block it.
fn first_handled(
    member: &Member,
    tid: Pid,
    caught: u64,
    mask: u64,
    own: &[SigInfoV1],
) -> std::result::Result<Option<u32>, nix::errno::Errno> {
    let bit = |signal: u32| 1u64 << (signal - 1);
    let first = |queue: &[SigInfoV1]| {
        let number =
            |info: &SigInfoV1| info.0.first_chunk::<4>().map_or(0, |bytes| u32::from_ne_bytes(*bytes));
        let is_handled = |signal: &u32| (1..=64).contains(signal) && bit(*signal) & caught & !mask != 0;
        queue.iter().map(number).filter(is_handled).min()
    };
    if let Some(signal) = first(own) {
        return Ok(Some(signal));
    }
    let Some(signal) = first(&pending(member.pid, true)?) else { return Ok(None) };
    for (earlier, _) in member.threads.iter().take_while(|(earlier, _)| *earlier != tid) {
        if ptrace::sigmask(*earlier)? & bit(signal) == 0 {
            return Ok(None);
        }
    }
    Ok(Some(signal))
}

/// Everything about a thread that can be read from outside; `None` when it is refused.
pub(crate) fn collect_thread(
    member: &Member,
    tid: Pid,
    status: &Status,
    filters: &mut Filters,
    blockers: &mut Blockers,
) -> Result<Option<OutsideThread>> {
    let pid = member.pid;
    let part = Part::of_task(pid, tid);
    let name = format!("thread {tid}");
    let fail = |step| failed(step, pid, &name);
    let Some(stopped) = ptrace::regs(tid).map_err(fail("read registers"))? else {
        blockers.add(pid, part, ProcessObstacle::ThirtyTwoBit);
        return Ok(None);
    };
    if ptrace::has_syscall_user_dispatch(tid).map_err(fail("read system call dispatch"))? {
        blockers.add(pid, part, ProcessObstacle::SyscallUserDispatch);
    }
    if sched::is_clamped(tid).map_err(fail("read scheduling"))? {
        blockers.add(pid, part, ProcessObstacle::UtilisationClamp);
    }
    if sched::has_core_cookie(tid) {
        blockers.add(pid, part, ProcessObstacle::CoreScheduling);
    }
    if tid != pid && proc::read_task(pid, tid, "personality")? != proc::read(pid, "personality")? {
        blockers.add(pid, part, ProcessObstacle::PersonalityDiffers);
    }
    let stack = filters.of_thread(tid, status);
    let seccomp = blockers.note(pid, part, stack)?.unwrap_or_default();
    let pending = pending(tid, false).map_err(fail("read pending signals"))?;
    let sigmask = ptrace::sigmask(tid).map_err(fail("read signal mask"))?;
    let rseq = ptrace::rseq(tid).map_err(fail("read rseq"))?;
    let mut resume = stopped;
    if let Some(rseq) = rseq {
        resume.rip = after_rseq(tid, rseq.addr, stopped.rip).map_err(fail("read rseq section"))?;
    }
    let handled = first_handled(member, tid, status.sig_caught, sigmask, &pending)
        .map_err(fail("read pending signals"))?;
    let thread = ThreadV1 {
        tid,
        comm: status.comm.clone(),
        regs: rewound(&resume, handled.is_some()),
        xstate: ptrace::xstate(tid).map_err(fail("read extended state"))?,
        sigmask,
        altstack: AltStackV1 { sp: Addr(0), flags: 0, len_bytes: 0 },
        pending,
        rseq,
        robust_list: sched::robust_list(tid).map_err(fail("read robust list"))?,
        tid_address: Addr(0),
        pdeath_signal: 0,
        timer_slack_ns: 0,
        creds: creds(status),
        sched: sched::attributes(tid).map_err(fail("read scheduling"))?,
        affinity: sched::affinity(tid).map_err(fail("read affinity"))?,
        no_new_privs: status.no_new_privs,
        seccomp,
        ring_numbers: Vec::new(),
        control: ThreadControlV1 {
            io_flusher: proc::task_flags(pid, tid)? & PF_IO_FLUSHER == PF_IO_FLUSHER,
            ..ThreadControlV1::default()
        },
    };
    Ok(Some(OutsideThread { thread, resume, handled }))
}

/// What only the thread itself can tell.
pub(super) fn collect_inside(
    pid: Pid,
    thread: &mut ThreadV1,
    injector: &mut Injector,
    scratch: Scratch,
) -> Result<()> {
    const PR_GET_TID_ADDRESS: u64 = 40;
    let prctl = |injector: &mut Injector, step, option: i32, arg: u64| {
        call(pid, injector, step, libc::SYS_prctl, [option as u64, arg, 0, 0, 0, 0])
    };
    let (stack_at, tid_at, death_at) = (scratch.at.0, scratch.at.0 + 24, scratch.at.0 + 32);
    call(pid, injector, "sigaltstack", libc::SYS_sigaltstack, [0, stack_at, 0, 0, 0, 0])?;
    call(pid, injector, "PR_GET_TID_ADDRESS", libc::SYS_prctl, [PR_GET_TID_ADDRESS, tid_at, 0, 0, 0, 0])?;
    prctl(injector, "PR_GET_PDEATHSIG", libc::PR_GET_PDEATHSIG, death_at)?;
    thread.timer_slack_ns = prctl(injector, "PR_GET_TIMERSLACK", libc::PR_GET_TIMERSLACK, 0)?;
    thread.creds.securebits = prctl(injector, "PR_GET_SECUREBITS", libc::PR_GET_SECUREBITS, 0)? as u32;
    // stack_t: pointer, flags (and padding), size; then pointer and int.
    let words = scratch.words::<5>(pid)?;
    thread.altstack = AltStackV1 { sp: Addr(words[0]), flags: words[1] as i32, len_bytes: words[2] };
    thread.tid_address = Addr(words[3]);
    thread.pdeath_signal = words[4] as i32;
    collect_control(pid, &mut thread.control, injector, scratch)
}

/// What prctl(2) and arch_prctl(2) tell of a thread.
fn collect_control(
    pid: Pid,
    control: &mut ThreadControlV1,
    injector: &mut Injector,
    scratch: Scratch,
) -> Result<()> {
    const PR_GET_SPECULATION_CTRL: u64 = 52;
    const ARCH_GET_CPUID: u64 = 0x1011;
    const PR_SPEC_PRCTL: u32 = 1;
    let get_tsc = [libc::PR_GET_TSC as u64, scratch.at.0, 0, 0, 0, 0];
    call(pid, injector, "PR_GET_TSC", libc::SYS_prctl, get_tsc)?;
    control.tsc_faults = scratch.words::<1>(pid)?[0] as i32 == libc::PR_TSC_SIGSEGV;
    let get_failure = [libc::PR_MCE_KILL_GET as u64, 0, 0, 0, 0, 0];
    control.memory_failure = call(pid, injector, "PR_MCE_KILL_GET", libc::SYS_prctl, get_failure)? as u32;
    // Kernels and CPUs without it say 1 too, or nothing.
    control.cpuid_faults = injector.call(libc::SYS_arch_prctl, [ARCH_GET_CPUID, 0, 0, 0, 0, 0]) == Ok(0);
    for (which, setting) in control.speculation.iter_mut().enumerate() {
        let found = injector.call(libc::SYS_prctl, [PR_GET_SPECULATION_CTRL, which as u64, 0, 0, 0, 0]);
        *setting = found.ok().map(|found| found as u32).filter(|found| found & PR_SPEC_PRCTL != 0);
    }
    Ok(())
}

/// Signals in a queue, of the thread or of its process.
pub(super) fn pending(tid: Pid, shared: bool) -> std::result::Result<Vec<SigInfoV1>, nix::errno::Errno> {
    Ok(ptrace::pending_signals(tid, shared)?.into_iter().map(SigInfoV1).collect())
}

fn creds(status: &Status) -> CredsV1 {
    CredsV1 {
        uids: status.uids,
        gids: status.gids,
        groups: status.groups.clone(),
        cap_inheritable: status.cap_inheritable,
        cap_permitted: status.cap_permitted,
        cap_effective: status.cap_effective,
        cap_bounding: status.cap_bounding,
        cap_ambient: status.cap_ambient,
        securebits: 0,
    }
}

/// Where the thread goes on with respect to restartable sequences.
///
/// A thread that is stopped inside one must continue at its abort address. The kernel does that on
/// the way back to user mode, after our stop, and judges by the registers at that time: once we
/// have injected something it would see an address outside and forget the sequence. So we do it
/// ourselves, as the kernel would.
fn after_rseq(tid: Pid, area: Addr, rip: u64) -> std::result::Result<u64, nix::errno::Errno> {
    const RSEQ_CS_OFFSET: u64 = 8;
    let words = |addr: u64, count: usize| -> std::result::Result<Vec<u64>, nix::errno::Errno> {
        let bytes = vmread::read(tid, Addr(addr), count * 8)?;
        Ok(bytes.as_chunks::<8>().0.iter().map(|word| u64::from_ne_bytes(*word)).collect())
    };
    let section = words(area.0 + RSEQ_CS_OFFSET, 1)?[0];
    if section == 0 {
        return Ok(rip);
    }
    // struct rseq_cs: version and flags, start, length, abort address.
    let section = words(section, 4)?;
    let (start, length, abort) = (section[1], section[2], section[3]);
    Ok(if rip.wrapping_sub(start) < length { abort } else { rip })
}

/// Registers as a restored thread shall have them: an interrupted call is repeated, or has been
/// interrupted.
///
/// `interrupted`: a handler runs before anything else, so that a call which only repeats without one
/// must not.
fn rewound(regs: &Regs, interrupted: bool) -> RegsV1 {
    let in_syscall = regs.orig_rax as i64 >= 0;
    let (rax, rip) = match regs.rax as i64 {
        ERESTARTSYS | ERESTARTNOINTR if in_syscall => (regs.orig_rax, regs.rip - SYSCALL_BYTES),
        ERESTARTNOHAND if in_syscall && !interrupted => (regs.orig_rax, regs.rip - SYSCALL_BYTES),
        EINTR if is_interrupted_wait(regs) && !interrupted => (regs.orig_rax, regs.rip - SYSCALL_BYTES),
        // The kernel would go on with what is left of the time limit, which it does not tell;
        // programs without handlers never see EINTR from these calls (signal(7)). They wait for
        // their whole limit again. That is what is left where the limit is a point in time
        // (futex(2) with a bitset, as all of glibc's are), none (most of poll(2)), or where the
        // kernel has written what is left over it (nanosleep(2) of sleep(3)).
        ERESTART_RESTARTBLOCK if in_syscall && !interrupted => (regs.orig_rax, regs.rip - SYSCALL_BYTES),
        ERESTARTNOHAND | ERESTART_RESTARTBLOCK if in_syscall => (EINTR as u64, regs.rip),
        _ => (regs.rax, regs.rip),
    };
    RegsV1 {
        r15: regs.r15,
        r14: regs.r14,
        r13: regs.r13,
        r12: regs.r12,
        rbp: regs.rbp,
        rbx: regs.rbx,
        r11: regs.r11,
        r10: regs.r10,
        r9: regs.r9,
        r8: regs.r8,
        rax,
        rcx: regs.rcx,
        rdx: regs.rdx,
        rsi: regs.rsi,
        rdi: regs.rdi,
        rip,
        cs: regs.cs,
        eflags: regs.eflags,
        rsp: regs.rsp,
        ss: regs.ss,
        fs_base: regs.fs_base,
        gs_base: regs.gs_base,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stopped(number: i64, result: i64, timeout: u64) -> Regs {
        let word = |value: i64| value as u64;
        Regs {
            r15: 0,
            r14: 0,
            r13: 0,
            r12: 0,
            rbp: 0,
            rbx: 0,
            r11: 0,
            r10: timeout,
            r9: 0,
            r8: 0,
            rax: word(result),
            rcx: 0,
            rdx: 0,
            rsi: 0,
            rdi: 0,
            orig_rax: word(number),
            rip: 0x1002,
            cs: 0x33,
            eflags: 0,
            rsp: 0,
            ss: 0,
            fs_base: 0,
            gs_base: 0,
            ds: 0,
            es: 0,
            fs: 0,
            gs: 0,
        }
    }

    fn outcome(number: i64, result: i64, timeout: u64, interrupted: bool) -> (i64, u64) {
        let regs = rewound(&stopped(number, result, timeout), interrupted);
        (regs.rax as i64, regs.rip)
    }

    #[test]
    fn interrupted_calls_are_repeated_or_say_so() {
        assert_eq!(outcome(libc::SYS_read, ERESTARTSYS, 0, false), (libc::SYS_read, 0x1000));
        assert_eq!(outcome(libc::SYS_pause, ERESTARTNOHAND, 0, false), (libc::SYS_pause, 0x1000));
        assert_eq!(outcome(libc::SYS_pause, ERESTARTNOHAND, 0, true), (EINTR, 0x1002));
        let nanosleep = libc::SYS_nanosleep;
        assert_eq!(outcome(nanosleep, ERESTART_RESTARTBLOCK, 0, false), (nanosleep, 0x1000));
        assert_eq!(outcome(nanosleep, ERESTART_RESTARTBLOCK, 0, true), (EINTR, 0x1002));
        assert_eq!(outcome(libc::SYS_poll, ERESTART_RESTARTBLOCK, 0, false), (libc::SYS_poll, 0x1000));
        assert_eq!(outcome(libc::SYS_poll, ERESTART_RESTARTBLOCK, 0, true), (EINTR, 0x1002));
        assert_eq!(outcome(-1, ERESTARTSYS, 0, false), (ERESTARTSYS, 0x1002));
    }

    #[test]
    fn only_endless_epoll_waits_and_semaphores_are_repeated() {
        let endless = u64::from(u32::MAX);
        assert_eq!(outcome(libc::SYS_epoll_wait, EINTR, endless, false), (libc::SYS_epoll_wait, 0x1000));
        assert_eq!(outcome(libc::SYS_epoll_wait, EINTR, endless, true), (EINTR, 0x1002));
        assert_eq!(outcome(libc::SYS_epoll_wait, EINTR, 500, false), (EINTR, 0x1002));
        assert_eq!(outcome(libc::SYS_semop, EINTR, 0, false), (libc::SYS_semop, 0x1000));
        assert_eq!(outcome(libc::SYS_semtimedop, EINTR, 8, false), (libc::SYS_semtimedop, 0x1000));
        assert_eq!(outcome(libc::SYS_semop, EINTR, 0, true), (EINTR, 0x1002));
        assert_eq!(outcome(libc::SYS_recvfrom, EINTR, 0, false), (libc::SYS_recvfrom, 0x1000));
        assert_eq!(outcome(libc::SYS_recvfrom, EINTR, 0, true), (EINTR, 0x1002));
        // Its limit is in rdx, which is none here.
        assert_eq!(outcome(libc::SYS_rt_sigtimedwait, EINTR, 0, false), (libc::SYS_rt_sigtimedwait, 0x1000));
        assert_eq!(outcome(libc::SYS_close, EINTR, endless, false), (EINTR, 0x1002));
    }
}
