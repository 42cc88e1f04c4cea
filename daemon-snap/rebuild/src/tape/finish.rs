//! Ops of a whole process around its threads: limits, barrier, timers, filters, the end of the
//! tape.

use super::area::{Area, Region};
use super::assembly::{Assembly, jump, ops_bytes};
use super::bpf;
use super::creds;
use super::env::{TapeEnv, TidMode};
use super::op::{Op, Record, RecordKind, Step, Want};
use super::sequence::Sequence;
use super::thread::{NewThread, clone_op, parent_death, put_siginfo, signal_number};
use image_store::ReasonCode;
use snap_error::{Error, Result};
use snap_state::check::{Corrupt, Wanted};
use snap_state::{IntervalTimerV1, LockKindV1, PosixTimerV1, ProcessV1, ThreadV1};

const PR_SET_MDWE: u64 = 65;
const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
const XFEATURE_XTILEDATA: u64 = 18;
const SECCOMP_SET_MODE_FILTER: u64 = 1;
const SECCOMP_FILTER_FLAG_TSYNC: u64 = 1;
/// Not private: that is how the kernel wakes whoever waits for the end of a thread.
const FUTEX_WAIT: u64 = 0;

/// Addresses in the kept region where tapes end.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// For every thread but the leader: wait for the go, return into the daemon.
    pub wait_go: u64,
    /// For the leader: filters, release the others, unmap, return into the daemon.
    pub leader: u64,
    dumpable: DumpableWhen,
    /// Ends one thread quietly.
    pub exit: u64,
    /// The helper thread, when there are filters.
    pub helper: Option<Helper>,
}

/// The thread that installs the filters.
#[derive(Clone, Copy, Debug)]
pub struct Helper {
    context: u64,
    /// Word that is cleared when it has ended, where that is waited for.
    ended: Option<u64>,
}

/// When a process may be looked into by others of its user again (PR_SET_DUMPABLE): when no
/// descriptor of ours is left in it and no thread with a privilege that the process does not have,
/// because whoever may write the memory of one thread writes that of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DumpableWhen {
    /// 2 (readable by root only) cannot be asked for; it is what a change of credentials leaves
    /// behind by itself.
    Never,
    /// The helper, if there is one, has the credentials of the process.
    BeforeFilters,
    /// The helper needs CAP_SYS_ADMIN for filters without no_new_privs.
    AfterFilters,
}

fn dumpable_when(process: &ProcessV1, programs: &[&[u8]], helper_ended: u64) -> Result<DumpableWhen> {
    if process.dumpable >= 2 {
        return Ok(DumpableWhen::Never);
    }
    if programs.is_empty() || takes_credentials(process) {
        return Ok(DumpableWhen::BeforeFilters);
    }
    let prctl = bpf::allows(programs, libc::SYS_prctl as u32, &dumpable_args(process));
    if prctl && bpf::allows(programs, libc::SYS_futex as u32, &[helper_ended, FUTEX_WAIT]) {
        return Ok(DumpableWhen::AfterFilters);
    }
    // Who is root may look into it anyway.
    let is_root = |thread: &ThreadV1| thread.creds.uids[..3].iter().all(|uid| *uid == 0);
    if process.threads.iter().all(is_root) {
        return Ok(DumpableWhen::BeforeFilters);
    }
    Err(Error::stale(
        ReasonCode::HostUnsupported,
        format!("the seccomp filter of process {} forbids prctl or futex", process.pid),
    ))
}

/// With no_new_privs no privilege is needed for filters.
fn takes_credentials(process: &ProcessV1) -> bool {
    process.threads.first().is_some_and(|thread| thread.no_new_privs)
}

fn dumpable_args(process: &ProcessV1) -> [u64; 5] {
    [libc::PR_SET_DUMPABLE as u64, process.dumpable as u64, 0, 0, 0]
}

fn dumpable_op(process: &ProcessV1) -> Op {
    Op::syscall(Step::Dumpable, libc::SYS_prctl, &dumpable_args(process), Want::Exactly(0))
}

fn filters_of(process: &ProcessV1) -> &[(snap_state::FilterId, u32)] {
    process.threads.first().map_or(&[], |t| t.seccomp.as_slice())
}

/// Places what outlives the tape. Nobody reads the dropped region after `departed` has counted
/// every thread but the leader, so the leader may unmap it then.
pub fn place_ends(asm: &mut Assembly<'_>) -> Result<Ends> {
    let (env, process, words) = (asm.env, asm.process, asm.words);
    let filters = filters_of(process);
    if process.threads.iter().any(|t| t.seccomp != filters) {
        return Err(Error::stale(
            ReasonCode::HostUnsupported,
            format!("process {}: threads with different seccomp filters", process.pid),
        ));
    }
    let others = process.threads.len() as u32 - 1;
    let drop = asm.area.drop_range();
    let unmap = [drop.start, drop.end - drop.start];
    let programs = programs(env, filters)?;
    for (number, args, what) in [
        (libc::SYS_rt_sigreturn, &[0u64, 0][..], "rt_sigreturn"),
        (libc::SYS_futex, &[words.go, 128][..], "futex"),
        (libc::SYS_exit, &[0, 0][..], "exit"),
    ] {
        if !bpf::allows(&programs, number as u32, args) {
            return Err(Error::stale(
                ReasonCode::HostUnsupported,
                format!("the seccomp filter of process {} forbids {what}", process.pid),
            ));
        }
    }

    let helper_ended = asm.area.put(Region::Drop, &1u32.to_ne_bytes(), 8)?;
    let dumpable = dumpable_when(process, &programs, helper_ended)?;
    let mut leader = Sequence::default();
    if !filters.is_empty() {
        leader.push_jumping(Op::post(words.filter_start, 0), Some(leader.len() + 1), None);
        leader.push(Op::wait_at_least(Step::WaitFilters, words.filter_done, 1, words.patience));
    }
    if dumpable == DumpableWhen::AfterFilters {
        // EAGAIN: it has ended already.
        let wait = [helper_ended, FUTEX_WAIT, 1, 0];
        leader.push(Op::syscall(Step::WaitFilters, libc::SYS_futex, &wait, Want::Anything));
        leader.push(dumpable_op(process));
    }
    if others > 0 {
        leader.push_jumping(Op::post(words.go, 0), Some(leader.len() + 1), None);
        leader.push(Op::wait_at_least(Step::WaitThreads, words.departed, others, words.patience));
    }
    // A filter that forbids munmap leaves the tape's memory behind rather than the daemon dead.
    if bpf::allows(&programs, libc::SYS_munmap as u32, &unmap) {
        leader.push(Op::syscall(Step::UnmapTape, libc::SYS_munmap, &unmap, Want::Exactly(0)));
    }
    leader.push(Op::sigreturn());
    let sigreturn_offset = ops_bytes(leader.len() as u64 - 1);
    let leader = leader.place(&mut asm.area, Region::Keep)?;
    let sigreturn = leader + sigreturn_offset;

    let (mut wait_go, mut exit, mut helper) = (0, 0, None);
    if others > 0 {
        let mut seq = Sequence::default();
        seq.push(Op::wait_at_least(Step::WaitGo, words.go, 1, words.patience));
        seq.push(Op::post(words.departed, sigreturn));
        wait_go = seq.place(&mut asm.area, Region::Keep)?;
    }
    if others > 0 || !filters.is_empty() {
        let mut seq = Sequence::default();
        seq.push(Op::syscall(Step::ExitHelper, libc::SYS_exit, &[0], Want::Success));
        exit = seq.place(&mut asm.area, Region::Keep)?;
    }
    if !filters.is_empty() {
        let mut seq = Sequence::default();
        // It counts as arrived, so that nobody unmaps the op that it was created by before it has
        // read it.
        seq.push_jumping(Op::post(words.arrived, 0), Some(1), None);
        seq.push(Op::wait_at_least(Step::WaitFilters, words.filter_start, 1, words.patience));
        for ((_, flags), program) in filters.iter().zip(&programs) {
            let at = asm.area.put(Region::Keep, program, 8)?;
            let mut fprog = ((program.len() / 8) as u64).to_ne_bytes().to_vec();
            fprog.extend_from_slice(&at.to_ne_bytes());
            let fprog = asm.area.put(Region::Keep, &fprog, 8)?;
            let args = [SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC | u64::from(*flags), fprog];
            seq.push(Op::syscall(Step::Seccomp, libc::SYS_seccomp, &args, Want::Exactly(0)));
        }
        seq.push(Op::post(words.filter_done, exit));
        let mut tape = seq.place(&mut asm.area, Region::Keep)?;
        if let Some(thread) = process.threads.first().filter(|_| takes_credentials(process)) {
            let mut before = creds::ops(env, &mut asm.area, thread, process.profile.as_deref())?;
            before.push(jump(tape));
            tape = before.place(&mut asm.area, Region::Drop)?;
        }
        let ended = (dumpable == DumpableWhen::AfterFilters).then_some(helper_ended);
        helper = Some(Helper { context: asm.put_context(tape, 0)?, ended });
    }
    Ok(Ends { wait_go, leader, dumpable, exit, helper })
}

fn programs<'a>(env: &TapeEnv<'a>, filters: &[(snap_state::FilterId, u32)]) -> Result<Vec<&'a [u8]>> {
    let program = |id: snap_state::FilterId| {
        let filter = env.filters.get(id.0 as usize);
        filter.map(|f| f.program.as_slice()).ok_or_else(|| Corrupt::NotMade(Wanted::Filter(id)).into())
    };
    filters.iter().map(|(id, _)| program(*id)).collect()
}

/// Creates the thread that will install the filters, while the leader still has every privilege.
pub fn create_helper(asm: &mut Assembly<'_>, ends: &Ends, leader: &mut Sequence) -> Result<()> {
    let duties = asm.env.duties;
    if let Some(Helper { context, ended }) = ends.helper {
        let tid = if duties.tid_mode == TidMode::SetTid { duties.helper_tid } else { 0 };
        let new = NewThread { tid, mode: duties.tid_mode, context, cleared_at_end: ended };
        leader.push(clone_op(&mut asm.area, new)?);
    }
    Ok(())
}

/// Process-wide state. Waits for the other threads first, which need the old limits.
pub fn process_ops(asm: &mut Assembly<'_>) -> Result<Sequence> {
    let (process, words, area) = (asm.process, asm.words, &mut asm.area);
    let mut seq = Sequence::default();
    let ok = Want::Exactly(0);
    let others = process.threads.len() as u32 - 1 + u32::from(!filters_of(process).is_empty());
    if others > 0 {
        seq.push(Op::wait_at_least(Step::WaitThreads, words.arrived, others, words.patience));
    }
    let prctl = |step, args: &[u64]| Op::syscall(step, libc::SYS_prctl, args, ok);
    if process.child_subreaper {
        seq.push(prctl(Step::Subreaper, &[libc::PR_SET_CHILD_SUBREAPER as u64, 1]));
    }
    if process.thp_disable {
        seq.push(prctl(Step::ThpDisable, &[libc::PR_SET_THP_DISABLE as u64, 1, 0, 0, 0]));
    }
    seq.append(super::memory::future_ops(&process.mm));
    if process.mdwe != 0 {
        seq.push(prctl(Step::Mdwe, &[PR_SET_MDWE, u64::from(process.mdwe), 0, 0, 0]));
    }
    for command in (0..32).map(|bit| process.membarrier & 1u32 << bit).filter(|command| *command != 0) {
        let args = [u64::from(command), 0, 0];
        seq.push(Op::syscall(Step::Membarrier, libc::SYS_membarrier, &args, ok));
    }
    if process.tiles {
        let tiles = [ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA];
        seq.push(Op::syscall(Step::Tiles, libc::SYS_arch_prctl, &tiles, ok));
    }
    let personality = [u64::from(process.personality)];
    seq.push(Op::syscall(Step::Personality, libc::SYS_personality, &personality, Want::Success));
    set_limits(area, process, When::WithPrivilege, &mut seq)?;
    Ok(seq)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    WithPrivilege,
    Last,
}

/// Limits. Those come last that are not only asked when something is taken that was there before
/// they were lowered: timers count towards signals, and who becomes a user with more processes than
/// are allowed may execute nothing. Lowering needs no privilege; a hard limit above ours does.
fn set_limits(area: &mut Area, process: &ProcessV1, when: When, seq: &mut Sequence) -> Result<()> {
    const LAST: [u32; 2] = [libc::RLIMIT_NPROC, libc::RLIMIT_SIGPENDING];
    for (resource, (soft, hard)) in (0..).zip(&process.rlimits) {
        let ours = snap_sys::limits::get(resource);
        let can_wait = LAST.contains(&resource) && ours.is_some_and(|(_, ours)| *hard <= ours);
        let at = if can_wait { When::Last } else { When::WithPrivilege };
        if at != when || ours == Some((*soft, *hard)) {
            continue;
        }
        let mut bytes = soft.to_ne_bytes().to_vec();
        bytes.extend_from_slice(&hard.to_ne_bytes());
        let value = area.put(Region::Drop, &bytes, 8)?;
        let args = [0, u64::from(resource), value, 0];
        seq.push(Op::syscall(Step::Rlimit, libc::SYS_prlimit64, &args, Want::Exactly(0)));
    }
    Ok(())
}

/// Signals for the whole process. They count towards what its user may have pending.
fn queue_signals(area: &mut Area, process: &ProcessV1, seq: &mut Sequence) -> Result<()> {
    for info in &process.pending {
        let at = put_siginfo(area, info)?;
        let args = [process.pid.0 as u64, signal_number(info), at];
        seq.push(Op::syscall(Step::PendingSignal, libc::SYS_rt_sigqueueinfo, &args, Want::Exactly(0)));
    }
    Ok(())
}

/// Children that were stopped have just been stopped once more. What that has told this process is
/// taken away; what it had been told then and not taken yet is in its recorded queue, and so is a
/// SIGCHLD.
fn forget_stops(area: &mut Area, process: &ProcessV1, seq: &mut Sequence) -> Result<()> {
    let set = area.put(Region::Drop, &(1u64 << (libc::SIGCHLD - 1)).to_ne_bytes(), 8)?;
    let now = area.put(Region::Drop, &[0; 16], 8)?;
    let take = [set, 0, now, 8];
    seq.push(Op::syscall(Step::PendingSignal, libc::SYS_rt_sigtimedwait, &take, Want::Anything));
    for child in &process.told_stops {
        let flags = (libc::WUNTRACED | libc::WNOHANG | libc::__WALL) as u64;
        let wait = [child.0 as u64, 0, flags, 0];
        seq.push(Op::syscall(Step::StopTold, libc::SYS_wait4, &wait, Want::Exactly(i64::from(child.0))));
    }
    queue_signals(area, process, seq)
}

/// From the last change of credentials to the kept region: locks, barrier, timers, descriptors,
/// dumpable.
pub fn last_ops(asm: &mut Assembly<'_>, ends: &Ends) -> Result<Sequence> {
    let (env, process, area) = (asm.env, asm.process, &mut asm.area);
    let mut seq = Sequence::default();
    lock_files(area, process, &mut seq)?;
    if !env.duties.has_stopped_children {
        queue_signals(area, process, &mut seq)?;
    }
    let ready = area.put(Region::Drop, &Record::new(RecordKind::Ready, process.pid.0, 0).bytes(), 8)?;
    let write = [env.fds.status as u64, ready, Record::BYTES as u64];
    seq.push(Op::syscall(Step::Ready, libc::SYS_write, &write, Want::Exactly(Record::BYTES as i64)));
    let answer = area.reserve(Region::Drop, 8, 8)?;
    let read = [env.fds.go as u64, answer, 1];
    seq.push(Op::syscall(Step::Go, libc::SYS_read, &read, Want::Exactly(1)));
    if process.parent.is_none() {
        seq.extend(process.threads.first().map(parent_death));
    }
    if env.duties.has_stopped_children {
        forget_stops(area, process, &mut seq)?;
    }

    // One that has expired while its signal waits goes on when the signal is taken: no time is
    // left, but there is an interval.
    let runs = |timer: &IntervalTimerV1| timer.remaining_us != 0 || timer.interval_us != 0;
    for (which, timer) in process.itimers.iter().enumerate().filter(|(_, timer)| runs(timer)) {
        let mut bytes = Vec::with_capacity(32);
        for us in [timer.interval_us, timer.remaining_us.max(1)] {
            bytes.extend_from_slice(&(us / 1_000_000).to_ne_bytes());
            bytes.extend_from_slice(&(us % 1_000_000).to_ne_bytes());
        }
        let at = area.put(Region::Drop, &bytes, 8)?;
        seq.push(Op::syscall(
            Step::IntervalTimer,
            libc::SYS_setitimer,
            &[which as u64, at, 0],
            Want::Exactly(0),
        ));
    }
    let mut timers: Vec<&PosixTimerV1> = process.posix_timers.iter().collect();
    timers.sort_by_key(|t| t.id);
    let mut next_id = 0;
    for timer in timers {
        posix_timer(area, timer, &mut next_id, &mut seq)?;
    }
    set_limits(area, process, When::Last, &mut seq)?;
    let close = [env.fds.first as u64, u64::from(u32::MAX), 0];
    seq.push(Op::syscall(Step::CloseFds, libc::SYS_close_range, &close, Want::Exactly(0)));
    if ends.dumpable == DumpableWhen::BeforeFilters {
        seq.push(dumpable_op(process));
    }
    seq.push(jump(ends.leader));
    Ok(seq)
}

/// Closes our descriptors as soon as memory is in place, the two that the barrier needs aside:
/// nothing of ours is left in a process that has given up its privileges. A process also loses its
/// locks on a file when it closes any descriptor of that file.
pub fn close_unneeded(env: &TapeEnv<'_>, seq: &mut Sequence) {
    let (low, high) = (env.fds.status.min(env.fds.go), env.fds.status.max(env.fds.go));
    for (first, last) in [(env.fds.first, low - 1), (low + 1, high - 1), (high + 1, i32::MAX)] {
        if first <= last {
            let args = [first as u64, last as u64, 0];
            seq.push(Op::syscall(Step::CloseFds, libc::SYS_close_range, &args, Want::Exactly(0)));
        }
    }
}

/// File locks; no descriptor of ours refers to a locked file any more.
fn lock_files(area: &mut Area, process: &ProcessV1, seq: &mut Sequence) -> Result<()> {
    const F_OFD_SETLK: u64 = 37;
    for lock in &process.locks {
        let fd = lock.fd.0 as u64;
        let op = if lock.kind == LockKindV1::Flock {
            let how = if lock.exclusive { libc::LOCK_EX } else { libc::LOCK_SH } | libc::LOCK_NB;
            Op::syscall(Step::FileLock, libc::SYS_flock, &[fd, how as u64], Want::Exactly(0))
        } else {
            let kind = if lock.exclusive { libc::F_WRLCK } else { libc::F_RDLCK };
            let len = lock.last.map_or(0, |last| last - lock.start + 1);
            // struct flock: type, whence (SEEK_SET), start, length, pid.
            let mut bytes = vec![0; 32];
            bytes[..2].copy_from_slice(&(kind as i16).to_ne_bytes());
            bytes[8..16].copy_from_slice(&lock.start.to_ne_bytes());
            bytes[16..24].copy_from_slice(&len.to_ne_bytes());
            let at = area.put(Region::Drop, &bytes, 8)?;
            let command = if lock.kind == LockKindV1::Ofd { F_OFD_SETLK } else { libc::F_SETLK as u64 };
            Op::syscall(Step::FileLock, libc::SYS_fcntl, &[fd, command, at], Want::Exactly(0))
        };
        seq.push(op);
    }
    Ok(())
}

/// A timer with its recorded id: ids are given out in order from zero, so those between are made
/// and deleted.
fn posix_timer(area: &mut Area, timer: &PosixTimerV1, next_id: &mut i32, seq: &mut Sequence) -> Result<()> {
    const MAX_ID: i32 = 1 << 16;
    if timer.id < *next_id || timer.id > MAX_ID {
        return Err(Error::stale(
            ReasonCode::HostUnsupported,
            format!("POSIX timer id {} cannot be made again", timer.id),
        ));
    }
    let mut event = Vec::with_capacity(64);
    event.extend_from_slice(&timer.sigval.to_ne_bytes());
    event.extend_from_slice(&timer.signal.to_ne_bytes());
    event.extend_from_slice(&timer.notify.to_ne_bytes());
    event.extend_from_slice(&timer.target.map_or(0, |t| t.0).to_ne_bytes());
    event.resize(64, 0);
    let event = area.put(Region::Drop, &event, 8)?;
    let id = area.put(Region::Drop, &[0; 8], 8)?;
    let create = [timer.clock_id as i64 as u64, event, id];
    while *next_id <= timer.id {
        seq.push(Op::syscall(Step::PosixTimer, libc::SYS_timer_create, &create, Want::Exactly(0)));
        if *next_id < timer.id {
            seq.push(Op::syscall(
                Step::PosixTimer,
                libc::SYS_timer_delete,
                &[*next_id as u64],
                Want::Exactly(0),
            ));
        }
        *next_id += 1;
    }
    if timer.remaining_ns != 0 {
        let mut spec = Vec::with_capacity(32);
        for ns in [timer.interval_ns, timer.remaining_ns] {
            spec.extend_from_slice(&(ns / 1_000_000_000).to_ne_bytes());
            spec.extend_from_slice(&(ns % 1_000_000_000).to_ne_bytes());
        }
        let at = area.put(Region::Drop, &spec, 8)?;
        let args = [timer.id as u64, 0, at, 0];
        seq.push(Op::syscall(Step::PosixTimer, libc::SYS_timer_settime, &args, Want::Exactly(0)));
    }
    Ok(())
}
