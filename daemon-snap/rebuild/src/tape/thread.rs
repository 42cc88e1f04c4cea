//! Ops of one thread: being created, and what belongs to it alone.

use super::area::{Area, Region};
use super::assembly::{Assembly, Framed};
use super::creds;
use super::env::{TapeEnv, TidMode};
use super::finish::Ends;
use super::op::{Op, Record, RecordKind, Step, Want};
use super::sequence::Sequence;
use image_store::ReasonCode;
use snap_error::{Error, Result};
use snap_state::{MEMORY_FAILURE_DEFAULT, SigInfoV1, ThreadControlV1, ThreadV1};
use snap_sys::ring::REGISTER_RING_FDS;
use std::mem::size_of;

const CLONE_FLAGS: u64 = (libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM) as u64;

/// How often a thread id is asked for when ids are given out by counter.
const LAST_PID_ATTEMPTS: usize = 16;

const ARCH_SET_GS: u64 = 0x1001;
const ARCH_SET_FS: u64 = 0x1002;
const IOPRIO_WHO_PROCESS: u64 = 1;

/// `struct clone_args` up to `set_tid_size` (VER1, since Linux 5.5).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
}

const _: () = assert!(size_of::<CloneArgs>() == 80);

/// A thread to be made.
#[derive(Clone, Copy, Debug)]
pub struct NewThread {
    /// With 0 any id will do.
    pub tid: i32,
    pub mode: TidMode,
    /// Its [`Context`](super::op::Context).
    pub context: u64,
    /// Word that the kernel clears, and wakes a waiter of, when the thread will not run user code
    /// again.
    pub cleared_at_end: Option<u64>,
}

/// `clone3` of a thread into the leader's tape.
pub fn clone_op(area: &mut Area, new: NewThread) -> Result<Op> {
    let NewThread { tid, mode, context: child, cleared_at_end } = new;
    let mut args = CloneArgs { flags: CLONE_FLAGS, ..CloneArgs::default() };
    if let Some(word) = cleared_at_end {
        args.flags |= libc::CLONE_CHILD_CLEARTID as u64;
        args.child_tid = word;
    }
    if tid != 0 && mode == TidMode::SetTid {
        args.set_tid = area.put(Region::Drop, &tid.to_ne_bytes(), 8)?;
        args.set_tid_size = 1;
    }
    let mut bytes = Vec::with_capacity(size_of::<CloneArgs>());
    for word in [
        args.flags,
        args.pidfd,
        args.child_tid,
        args.parent_tid,
        args.exit_signal,
        args.stack,
        args.stack_size,
        args.tls,
        args.set_tid,
        args.set_tid_size,
    ] {
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    let at = area.put(Region::Drop, &bytes, 8)?;
    let want = if tid == 0 { Want::Success } else { Want::Exactly(i64::from(tid)) };
    Ok(Op::clone(at, bytes.len() as u64, child, want))
}

/// Appends to the leader's tape the creation of `thread`, and places the thread's own tape.
pub fn create(asm: &mut Assembly<'_>, framed: Framed<'_>, ends: &Ends, leader: &mut Sequence) -> Result<()> {
    let (env, process, words, thread) = (asm.env, asm.process, asm.words, framed.thread);
    let tid_mode = env.duties.tid_mode;
    let mut own = Sequence::default();
    if tid_mode == TidMode::LastPid {
        let gettid =
            Op::syscall(Step::CheckTid, libc::SYS_gettid, &[], Want::Exactly(i64::from(thread.tid.0)));
        own.push(gettid.or_else(ends.exit));
        own.push(ordinary(&mut asm.area)?);
    }
    own.push(Op::wait_at_least(Step::WaitMapped, words.mapped, 1, words.patience));
    own.append(own_state(asm, thread)?);
    own.append(give_up_privilege(asm, thread)?);
    own.push(Op::post(words.arrived, ends.wait_go));
    let tape = own.place(&mut asm.area, Region::Drop)?;
    let context = asm.put_context(tape, framed.frame)?;

    let area = &mut asm.area;
    let new = NewThread { tid: thread.tid.0, mode: tid_mode, context, cleared_at_end: None };
    match tid_mode {
        TidMode::SetTid => leader.push(clone_op(area, new)?),
        TidMode::LastPid => {
            let want = Record::new(RecordKind::WantTid, process.pid.0, i64::from(thread.tid.0));
            let record = area.put(Region::Drop, &want.bytes(), 8)?;
            let answer = area.reserve(Region::Drop, 8, 8)?;
            // The worker makes the process a real-time task just before it answers, which a new
            // thread inherits.
            let after = leader.len() + 3 * LAST_PID_ATTEMPTS;
            for attempt in 0..LAST_PID_ATTEMPTS {
                let write = [env.fds.status as u64, record, Record::BYTES as u64];
                leader.push(Op::syscall(
                    Step::WantTid,
                    libc::SYS_write,
                    &write,
                    Want::Exactly(Record::BYTES as i64),
                ));
                let read = [env.fds.go as u64, answer, 1];
                leader.push(Op::syscall(Step::WantTid, libc::SYS_read, &read, Want::Exactly(1)));
                let again = (attempt + 1 < LAST_PID_ATTEMPTS).then(|| leader.len() + 1);
                leader.push_jumping(clone_op(area, new)?, Some(after), again);
            }
            leader.push(ordinary(area)?);
            let done = Record::new(RecordKind::TidTaken, process.pid.0, i64::from(thread.tid.0));
            let done = area.put(Region::Drop, &done.bytes(), 8)?;
            let write = [env.fds.status as u64, done, Record::BYTES as u64];
            let whole = Want::Exactly(Record::BYTES as i64);
            leader.push(Op::syscall(Step::WantTid, libc::SYS_write, &write, whole));
        }
    }
    Ok(())
}

/// SCHED_OTHER, which needs no privilege.
fn ordinary(area: &mut Area) -> Result<Op> {
    let parameters = area.put(Region::Drop, &0i32.to_ne_bytes(), 8)?;
    let args = [0, libc::SCHED_OTHER as u64, parameters];
    Ok(Op::syscall(Step::Scheduler, libc::SYS_sched_setscheduler, &args, Want::Exactly(0)))
}

/// What a thread sets for itself while it still has every privilege.
pub fn own_state(asm: &mut Assembly<'_>, thread: &ThreadV1) -> Result<Sequence> {
    let (env, area) = (asm.env, &mut asm.area);
    let mut seq = Sequence::default();
    let ok = Want::Exactly(0);
    let tid = Want::Exactly(i64::from(thread.tid.0));
    seq.push(Op::syscall(Step::TidAddress, libc::SYS_set_tid_address, &[thread.tid_address.0], tid));
    let (head, len) = thread.robust_list;
    if len != 0 {
        seq.push(Op::syscall(Step::RobustList, libc::SYS_set_robust_list, &[head.0, len], ok));
    }
    let arch_prctl = |step, code, base| Op::syscall(step, libc::SYS_arch_prctl, &[code, base], ok);
    seq.push(arch_prctl(Step::FsBase, ARCH_SET_FS, thread.regs.fs_base));
    seq.push(arch_prctl(Step::GsBase, ARCH_SET_GS, thread.regs.gs_base));
    if let Some(rseq) = thread.rseq {
        let args = [rseq.addr.0, u64::from(rseq.len_bytes), 0, u64::from(rseq.signature)];
        seq.push(Op::syscall(Step::Rseq, libc::SYS_rseq, &args, ok));
    }
    let mut comm = thread.comm.clone();
    comm.resize(16, 0);
    comm[15] = 0;
    let comm = area.put(Region::Drop, &comm, 8)?;
    seq.push(Op::syscall(Step::Comm, libc::SYS_prctl, &[libc::PR_SET_NAME as u64, comm], ok));
    seq.append(scheduling(env, area, thread)?);
    let slack = [libc::PR_SET_TIMERSLACK as u64, thread.timer_slack_ns];
    seq.push(Op::syscall(Step::TimerSlack, libc::SYS_prctl, &slack, ok));
    seq.extend(control(&thread.control));
    for &(number, fd) in &thread.ring_numbers {
        // struct io_uring_rsrc_update: the wanted number, and what shall be under it.
        let mut update = number.to_ne_bytes().to_vec();
        update.extend_from_slice(&[0; 4]);
        update.extend_from_slice(&(fd.0 as u64).to_ne_bytes());
        let at = area.put(Region::Drop, &update, 8)?;
        let args = [fd.0 as u64, REGISTER_RING_FDS, at, 1];
        seq.push(Op::syscall(Step::RingNumber, libc::SYS_io_uring_register, &args, Want::Exactly(1)));
    }
    Ok(seq)
}

/// What only prctl(2) and arch_prctl(2) set. Nothing of the tape reads the time stamp counter or
/// asks the CPU.
fn control(control: &ThreadControlV1) -> Vec<Op> {
    const PR_MCE_KILL_SET: u64 = 1;
    const PR_SET_IO_FLUSHER: u64 = 57;
    const PR_SET_SPECULATION_CTRL: u64 = 53;
    const PR_SPEC_PRCTL: u32 = 1;
    const ARCH_SET_CPUID: u64 = 0x1012;
    let ok = Want::Exactly(0);
    let prctl = |step, args: &[u64]| Op::syscall(step, libc::SYS_prctl, args, ok);
    let mut ops = Vec::new();
    if control.memory_failure != MEMORY_FAILURE_DEFAULT {
        let policy = u64::from(control.memory_failure);
        ops.push(prctl(Step::MemoryFailure, &[libc::PR_MCE_KILL as u64, PR_MCE_KILL_SET, policy, 0, 0]));
    }
    if control.io_flusher {
        ops.push(prctl(Step::IoFlusher, &[PR_SET_IO_FLUSHER, 1, 0, 0, 0]));
    }
    for (which, setting) in control.speculation.into_iter().enumerate() {
        let Some(setting) = setting.filter(|_| setting != snap_sys::own::speculation(which as u32)) else {
            continue;
        };
        let wanted = u64::from(setting & !PR_SPEC_PRCTL);
        ops.push(prctl(Step::Speculation, &[PR_SET_SPECULATION_CTRL, which as u64, wanted, 0, 0]));
    }
    if control.tsc_faults {
        let args = [libc::PR_SET_TSC as u64, libc::PR_TSC_SIGSEGV as u64, 0, 0, 0];
        ops.push(prctl(Step::TimeStampCounter, &args));
    }
    if control.cpuid_faults {
        ops.push(Op::syscall(Step::CpuIdentity, libc::SYS_arch_prctl, &[ARCH_SET_CPUID, 0], ok));
    }
    ops
}

fn scheduling(env: &TapeEnv<'_>, area: &mut Area, thread: &ThreadV1) -> Result<Sequence> {
    let mut seq = Sequence::default();
    let sched = &thread.sched;
    // struct sched_attr, first published size (48 bytes, since Linux 3.14).
    let mut attr = Vec::with_capacity(48);
    attr.extend_from_slice(&48u32.to_ne_bytes());
    attr.extend_from_slice(&sched.policy.to_ne_bytes());
    attr.extend_from_slice(&sched.flags.to_ne_bytes());
    attr.extend_from_slice(&sched.nice.to_ne_bytes());
    attr.extend_from_slice(&sched.priority.to_ne_bytes());
    for word in [sched.runtime_ns, sched.deadline_ns, sched.period_ns] {
        attr.extend_from_slice(&word.to_ne_bytes());
    }
    let attr = area.put(Region::Drop, &attr, 8)?;
    // Policies that do not use the nice value keep it nevertheless, but only setpriority sets it
    // for them.
    let nice = [0, 0, i64::from(sched.nice) as u64];
    seq.push(Op::syscall(Step::Scheduler, libc::SYS_setpriority, &nice, Want::Exactly(0)));
    seq.push(Op::syscall(Step::Scheduler, libc::SYS_sched_setattr, &[0, attr, 0], Want::Exactly(0)));
    // A thread that may run everywhere keeps doing so on a machine with other CPUs.
    let trimmed = |mask: &[u64]| mask.iter().rposition(|w| *w != 0).map_or(0, |i| i + 1);
    let same = |a: &[u64], b: &[u64]| a[..trimmed(a)] == b[..trimmed(b)];
    if !same(&thread.affinity, env.now.affinity) {
        let bytes: Vec<u8> = thread.affinity.iter().flat_map(|w| w.to_ne_bytes()).collect();
        let mask = area.put(Region::Drop, &bytes, 8)?;
        let args = [0, bytes.len() as u64, mask];
        seq.push(Op::syscall(Step::Affinity, libc::SYS_sched_setaffinity, &args, Want::Exactly(0)));
    }
    if sched.ioprio != 0 {
        let args = [IOPRIO_WHO_PROCESS, 0, u64::from(sched.ioprio)];
        seq.push(Op::syscall(Step::IoPriority, libc::SYS_ioprio_set, &args, Want::Exactly(0)));
    }
    Ok(seq)
}

/// Credentials, and what a change of credentials would reset. Nothing after this needs privilege.
///
/// The parent death signal of a root waits until its parent is the one that stays
/// ([`parent_death`], after the go).
pub fn give_up_privilege(asm: &mut Assembly<'_>, thread: &ThreadV1) -> Result<Sequence> {
    let process = asm.process;
    let mut seq = creds::ops(asm.env, &mut asm.area, thread, process.profile.as_deref())?;
    // They count towards what the user may have pending.
    for info in &thread.pending {
        let at = put_siginfo(&mut asm.area, info)?;
        let args = [process.pid.0 as u64, thread.tid.0 as u64, signal_number(info), at];
        seq.push(Op::syscall(Step::PendingSignal, libc::SYS_rt_tgsigqueueinfo, &args, Want::Exactly(0)));
    }
    if process.parent.is_some() {
        seq.push(parent_death(thread));
    } else if thread.pdeath_signal != 0 && thread.tid != process.pid {
        return Err(Error::stale(
            ReasonCode::HostUnsupported,
            format!("thread {} of a root has a parent death signal", thread.tid),
        ));
    }
    Ok(seq)
}

/// `PR_SET_PDEATHSIG`.
pub fn parent_death(thread: &ThreadV1) -> Op {
    let args = [libc::PR_SET_PDEATHSIG as u64, thread.pdeath_signal as u64];
    Op::syscall(Step::ParentDeath, libc::SYS_prctl, &args, Want::Exactly(0))
}

/// Copies a siginfo into the area.
pub fn put_siginfo(area: &mut Area, info: &SigInfoV1) -> Result<u64> {
    let mut bytes = info.0.clone();
    bytes.resize(128, 0);
    area.put(Region::Drop, &bytes, 16)
}

/// `si_signo`.
pub fn signal_number(info: &SigInfoV1) -> u64 {
    info.0.first_chunk::<4>().map_or(0, |b| u64::from(u32::from_ne_bytes(*b)))
}
