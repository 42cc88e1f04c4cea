//! What only the process itself can tell: system calls executed by its own threads.
//!
//! A thread finds back by itself when we die: the calls run on a stack whose only content is a
//! signal frame with the thread's own registers and mask. For the leader it lies in the unused part
//! of its own stack, so that memory for the others can be mapped and unmapped on it.

use super::gate::{Gate, Gates};
use super::injected::{Scratch, call};
use super::keyring::Keyrings;
use super::landlock::Bystanders;
use super::memory::AddressSpace;
use super::sysv_semaphore::UndoSearch;
use super::thread::{OutsideThread, collect_inside};
use crate::blockers::failed;
use crate::{ring, timers};
use snap_error::obstacle::ProcessObstacle;
use snap_error::{Blocker, Part, Result};
use snap_state::{
    Addr, AltStackV1, LockFutureV1, PAGE_BYTES, Pid, ProcessV1, SessionKeyringV1, SigActionV1, TargetFd,
    ThreadV1, UndoV1,
};
use snap_sys::frame;
use snap_sys::inject::{Injector, SafeStack};
use snap_sys::{proc, vmread};

/// Highest signal number.
const SIGNALS: u64 = 64;
/// `struct kernel_sigaction`.
const SIGACTION_BYTES: usize = 32;

/// What is found out once and helps with every process of a tree.
#[derive(Debug, Default)]
pub(crate) struct Insides {
    gates: Gates,
    bystanders: Bystanders,
    keyrings: Keyrings,
    undo: UndoSearch,
}

impl Insides {
    pub fn new(undo: UndoSearch) -> Self {
        Self { undo, ..Self::default() }
    }

    /// The session keyring of the tree, what was found that an image does not carry, and what its
    /// processes would undo of semaphores.
    pub fn into_parts(self) -> (Option<SessionKeyringV1>, Vec<Blocker>, Vec<UndoV1>) {
        let (keyring, lost) = self.keyrings.into_parts();
        (keyring, lost, self.undo.into_found())
    }
}

/// The signal comes when that thread ends which has made the child, and a restored one has been
/// made by the first thread of its parent.
fn inspect_death_signals(process: &ProcessV1) -> Result<()> {
    let Some(parent) = process.parent else { return Ok(()) };
    let Some(thread) = process.threads.iter().find(|thread| thread.pdeath_signal != 0) else {
        return Ok(());
    };
    if proc::children(parent, parent)?.contains(&process.pid) {
        return Ok(());
    }
    let obstacle = ProcessObstacle::ThreadDeathSignal { signal: thread.pdeath_signal };
    Err(Blocker::new(process.pid, Part::of_task(process.pid, thread.tid), obstacle).into())
}

/// Lets the process tell what only it can; `rings`: its descriptors of io_uring rings, one of each.
/// Every thread is given its registers and signal mask back, whatever happens.
pub(crate) fn collect_insides(
    process: &mut ProcessV1,
    outsides: &[OutsideThread],
    space: &AddressSpace,
    insides: &mut Insides,
    rings: &[TargetFd],
    stopped_children: &[Pid],
) -> Result<()> {
    let pid = process.pid;
    let Some((leader, others)) = outsides.split_first() else { return Ok(()) };
    let Insides { gates, bystanders, keyrings, undo } = insides;
    let Some(gate) = gates.find(pid, space) else {
        return Err(Blocker::new(pid, Part::Process, ProcessObstacle::NoUsableVdso).into());
    };
    let begin =
        |outside: &OutsideThread, stack| {
            let thread = &outside.thread;
            Injector::begin(pid, thread.tid, gate.syscall, stack, outside.resume, thread.sigmask)
                .map_err(failed("take over", pid, format!("thread {}", thread.tid)))
        };
    let frame_bytes =
        outsides.iter().map(|outside| frame::len_bound(&outside.thread)).max().unwrap_or_default();
    let len_bytes = PAGE_BYTES + frame_bytes.next_multiple_of(PAGE_BYTES);

    let borrowed = BorrowedStack::take(pid, leader, space)?;
    let stack = match &borrowed {
        Some(borrowed) => safe_stack(pid, &leader.thread, gate, borrowed.at)?,
        None => None,
    };
    let mut injector = begin(leader, stack)?;
    let locked_before = proc::locked_kib(pid)?;
    let scratch = Scratch::map(pid, &mut injector, len_bytes)?;
    let collected = (|| {
        process.mm.lock_future = lock_future(pid, locked_before, scratch)?;
        bystanders.inspect(pid, &leader.thread, process.profile.as_deref(), &mut injector)?;
        keyrings.collect_of_process(pid, &mut injector, scratch)?;
        undo.collect_of_process(pid, &mut injector, scratch)?;
        collect_by_leader(process, &mut injector, scratch)?;
        process.told_stops = collect_stops(pid, stopped_children, &mut injector, scratch)?;
        collect_inside(pid, &mut process.threads[0], &mut injector, scratch)?;
        process.threads[0].ring_numbers = ring::collect_numbers((pid, pid), &mut injector, rings)?;
        let profile = process.profile.as_deref();
        for (outside, thread) in others.iter().zip(&mut process.threads[1..]) {
            let stack = safe_stack(pid, &outside.thread, gate, scratch.frame_place())?;
            let mut injector = begin(outside, stack)?;
            bystanders.inspect(pid, thread, profile, &mut injector)?;
            keyrings.collect_of_thread(pid, &mut injector, scratch)?;
            collect_inside(pid, thread, &mut injector, scratch)?;
            thread.ring_numbers = ring::collect_numbers((pid, thread.tid), &mut injector, rings)?;
            injector.finish().map_err(failed("give back", pid, format!("thread {}", thread.tid)))?;
        }
        for (outside, thread) in outsides.iter().zip(&mut process.threads) {
            if outside.is_interrupted_without_restart(&process.sigactions) {
                thread.regs.rax = -i64::from(libc::EINTR) as u64;
                thread.regs.rip = outside.resume.rip;
            }
        }
        inspect_death_signals(process)
    })();
    let unmapped =
        call(pid, &mut injector, "munmap", libc::SYS_munmap, [scratch.at.0, len_bytes, 0, 0, 0, 0]);
    injector.finish().map_err(failed("give back", pid, "leader"))?;
    if let Some(borrowed) = borrowed {
        borrowed.give_back(pid)?;
    }
    collected.and(unmapped.map(drop))
}

/// What a mapping that has just been made tells of `mlockall(2)`: the kernel itself does not say.
fn lock_future(pid: Pid, locked_before: u64, scratch: Scratch) -> Result<LockFutureV1> {
    if proc::locked_kib(pid)? == locked_before {
        return Ok(LockFutureV1::No);
    }
    let entries = proc::parse_smaps(&proc::read(pid, "smaps")?)?;
    let fresh = entries.iter().find(|entry| entry.start <= scratch.at && scratch.at < entry.end);
    Ok(match fresh {
        Some(entry) if entry.has(b"lf") => LockFutureV1::OnFault,
        Some(entry) if entry.has(b"lo") => LockFutureV1::AtOnce,
        _ => LockFutureV1::No,
    })
}

/// A part of the leader's stack that nothing lives in, and what was there before.
struct BorrowedStack {
    at: Addr,
    before: Vec<u8>,
}

impl BorrowedStack {
    /// Below the stack pointer and the red zone of the ABI. Only the stack that the kernel made is
    /// known to have nothing else there; a coroutine's may be a few bytes in the middle of a heap.
    fn take(pid: Pid, leader: &OutsideThread, space: &AddressSpace) -> Result<Option<Self>> {
        const RED_ZONE_BYTES: u64 = 128;
        const ALIGNMENT: u64 = 64;
        let sp = leader.resume.rsp;
        let stack = space.areas.iter().map(|area| &area.vma);
        let Some(stack) =
            stack.filter(|vma| vma.flags.grows_down).find(|vma| vma.start.0 <= sp && sp < vma.end.0)
        else {
            return Ok(None);
        };
        let len = frame::len_bound(&leader.thread);
        let at = sp.saturating_sub(RED_ZONE_BYTES + len) / ALIGNMENT * ALIGNMENT;
        if at < stack.start.0 {
            return Ok(None);
        }
        let before =
            vmread::read(pid, Addr(at), len as usize).map_err(failed("read stack", pid, stack.start))?;
        Ok(Some(Self { at: Addr(at), before }))
    }

    fn give_back(self, pid: Pid) -> Result<()> {
        vmread::write(pid, self.at, &self.before).map_err(failed("write stack", pid, self.at))
    }
}

/// Writes the frame that brings a thread back. `None` where the process has no instructions for
/// that, or the CPU state is one that frames do not take.
fn safe_stack(pid: Pid, thread: &ThreadV1, gate: Gate, at: Addr) -> Result<Option<SafeStack>> {
    let Some(safe) = gate.safe else { return Ok(None) };
    // The alternate stack is not known yet; the kernel ignores one with flags that it does not
    // know.
    let unknown = AltStackV1 { sp: Addr(0), flags: i32::from(u8::MAX), len_bytes: 0 };
    let Ok(mut frame) = frame::build(&ThreadV1 { altstack: unknown, ..thread.clone() }, at.0) else {
        return Ok(None);
    };
    // Its first word is where the `ret` behind the call leads.
    frame[..8].copy_from_slice(&safe.sigreturn.0.to_ne_bytes());
    vmread::write(pid, at, &frame).map_err(failed("write frame", pid, at))?;
    Ok(Some(SafeStack { syscall_ret: safe.syscall_ret, top: at }))
}

fn collect_by_leader(process: &mut ProcessV1, injector: &mut Injector, scratch: Scratch) -> Result<()> {
    const PR_GET_MDWE: u64 = 66;
    const PR_GET_MEMORY_MERGE: u64 = 68;
    let pid = process.pid;
    process.sigactions = collect_sigactions(pid, injector, scratch)?;
    process.itimers = timers::collect_itimers(pid, injector, scratch)?;
    let tids: Vec<Pid> = process.threads.iter().map(|thread| thread.tid).collect();
    process.posix_timers = timers::collect_posix_timers(pid, &tids, injector, scratch)?;
    let mut prctl =
        |step, option: u64, arg: u64| call(pid, injector, step, libc::SYS_prctl, [option, arg, 0, 0, 0, 0]);
    process.dumpable = prctl("PR_GET_DUMPABLE", libc::PR_GET_DUMPABLE as u64, 0)? as i32;
    prctl("PR_GET_CHILD_SUBREAPER", libc::PR_GET_CHILD_SUBREAPER as u64, scratch.at.0)?;
    let thp = prctl("PR_GET_THP_DISABLE", libc::PR_GET_THP_DISABLE as u64, 0)?;
    // Before Linux 6.3 there is none.
    process.mdwe = prctl("PR_GET_MDWE", PR_GET_MDWE, 0).unwrap_or_default() as u32;
    process.child_subreaper = scratch.words::<1>(pid)?[0] as u32 != 0;
    if thp > 1 {
        return Err(Blocker::new(pid, Part::Process, ProcessObstacle::ThpRestricted).into());
    }
    process.thp_disable = thp == 1;
    // Without KSM in the kernel there is nothing to merge.
    process.mm.merge_all = prctl("PR_GET_MEMORY_MERGE", PR_GET_MEMORY_MERGE, 0).unwrap_or_default() == 1;
    process.membarrier = membarrier_registrations(injector);
    collect_arch(process, injector, scratch)?;
    // Kernels without the call have no such table either.
    let ldt_bytes =
        injector.call(libc::SYS_modify_ldt, [0, scratch.at.0, PAGE_BYTES, 0, 0, 0]).unwrap_or_default();
    if ldt_bytes != 0 {
        return Err(Blocker::new(pid, Part::Process, ProcessObstacle::SegmentDescriptors).into());
    }
    process.mm.layout.brk = Addr(call(pid, injector, "brk", libc::SYS_brk, [0; 6])?);
    Ok(())
}

/// What arch_prctl(2) tells of a process.
fn collect_arch(process: &mut ProcessV1, injector: &mut Injector, scratch: Scratch) -> Result<()> {
    const ARCH_GET_XCOMP_PERM: u64 = 0x1022;
    const ARCH_GET_UNTAG_MASK: u64 = 0x4001;
    const TILE_DATA: u64 = 1 << 18;
    let pid = process.pid;
    let mut get = |what| match injector.call(libc::SYS_arch_prctl, [what, scratch.at.0, 0, 0, 0, 0]) {
        Ok(_) => scratch.words::<1>(pid).map(|words| Some(words[0])),
        Err(_) => Ok(None),
    };
    process.tiles = get(ARCH_GET_XCOMP_PERM)?.is_some_and(|features| features & TILE_DATA != 0);
    if get(ARCH_GET_UNTAG_MASK)?.is_some_and(|mask| mask != u64::MAX) {
        return Err(Blocker::new(pid, Part::Process, ProcessObstacle::TaggedAddresses).into());
    }
    Ok(())
}

/// Those of the stopped children of whose stop the process has been told already.
fn collect_stops(pid: Pid, children: &[Pid], injector: &mut Injector, scratch: Scratch) -> Result<Vec<Pid>> {
    let mut told = Vec::new();
    for &child in children {
        vmread::write(pid, scratch.at, &[0; 128]).map_err(failed("write", pid, scratch.at))?;
        let flags = (libc::WSTOPPED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL) as u64;
        let wait = [u64::from(libc::P_PID), child.0 as u64, scratch.at.0, flags, 0, 0];
        call(pid, injector, "waitid", libc::SYS_waitid, wait)?;
        // siginfo_t: signal, errno, code, padding, pid, uid, status.
        let words = scratch.words::<4>(pid)?;
        let (signal, status) = (words[0] as u32, words[3] as i32);
        if signal == 0 {
            told.push(child);
        } else if status != libc::SIGSTOP {
            // Only SIGSTOP stops everybody, whatever its handlers, mask and process group are.
            let obstacle = ProcessObstacle::StopUntold { signal: status };
            return Err(Blocker::new(child, Part::Process, obstacle).into());
        }
    }
    Ok(told)
}

/// What the process has registered for. Before Linux 6.3 the kernel does not tell, but lets only who
/// is registered use a command, which is no more than a barrier. The call may be filtered.
fn membarrier_registrations(injector: &mut Injector) -> u32 {
    const GET_REGISTRATIONS: u64 = 1 << 9;
    /// Commands beside those that register for them: MEMBARRIER_CMD_PRIVATE_EXPEDITED,
    /// MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE, MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ.
    const COMMANDS: [(u64, u32); 3] = [(1 << 3, 1 << 4), (1 << 5, 1 << 6), (1 << 7, 1 << 8)];
    let mut call = |command| injector.call(libc::SYS_membarrier, [command, 0, 0, 0, 0, 0]);
    if let Ok(registered) = call(GET_REGISTRATIONS) {
        return registered as u32;
    }
    COMMANDS.iter().filter(|(command, _)| call(*command).is_ok()).map(|(_, register)| register).sum()
}

fn collect_sigactions(
    pid: Pid,
    injector: &mut Injector,
    scratch: Scratch,
) -> Result<Vec<Option<SigActionV1>>> {
    for signal in 1..=SIGNALS {
        let slot = scratch.at.0 + (signal - 1) * SIGACTION_BYTES as u64;
        call(pid, injector, "rt_sigaction", libc::SYS_rt_sigaction, [signal, 0, slot, 8, 0, 0])?;
    }
    let bytes = scratch.bytes(pid, SIGNALS as usize * SIGACTION_BYTES)?;
    let words: Vec<u64> = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_ne_bytes(*word)).collect();
    let action = |words: &[u64]| {
        let action = SigActionV1 {
            handler: Addr(words[0]),
            flags: words[1],
            restorer: Addr(words[2]),
            mask: words[3],
        };
        (action.handler.0 != 0 || action.flags != 0).then_some(action)
    };
    Ok(words.chunks_exact(4).map(action).collect())
}
