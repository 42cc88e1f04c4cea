//! State of one process → its tape.

use super::area::{Area, Region};
use super::inherited::{Inherited, Kept};
use super::op::{Context, OP_BYTES, Op, Record, RecordKind, Step, Want};
use super::sequence::Sequence;
use super::{finish, late, memory, thread};
use snap_error::Result;
use snap_state::{FileId, InodeId, PAGE_BYTES, ProcessV1, SeccompFilterV1, ThreadV1};
use snap_sys::frame;
use std::ops::Range;

/// How threads get their ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TidMode {
    /// `clone3` with `set_tid` (since Linux 5.5; needs CAP_CHECKPOINT_RESTORE in the owner of the PID namespace).
    SetTid,
    /// Inside a user namespace: the worker outside makes the id the next one to be given out; verified.
    LastPid,
}

/// A part of the vDSO by role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VdsoPart {
    Code,
    Data(u8),
}

/// Where this process has a part of the vDSO now.
#[derive(Clone, Copy, Debug)]
pub struct VdsoPlace {
    pub backing: VdsoPart,
    pub start: u64,
    pub end: u64,
}

/// What the tape needs to know of the process that will run it.
pub struct TapeEnv<'a> {
    pub image_fd: i32,
    pub exe_fd: i32,
    /// Write end of the pipe to the worker.
    pub status_fd: i32,
    /// Read end of this process's own pipe from the worker.
    pub go_fd: i32,
    /// All descriptors from here up are ours and closed at the end.
    pub first_own_fd: i32,
    pub tid_mode: TidMode,
    pub vdso_parts: Vec<VdsoPlace>,
    /// What of the recorded memory is in place already.
    pub inherited: &'a Inherited,
    /// Address ranges that are mapped now.
    pub mapped_now: Vec<Range<u64>>,
    /// Our descriptor for a mapped object; second argument: a writable one is needed.
    pub mapped_fd: &'a dyn Fn(InodeId, bool) -> Result<i32>,
    /// Id of a System V segment, when the object is one.
    pub segment: &'a dyn Fn(InodeId) -> Option<i32>,
    /// Whether the kernel chooses where an object is mapped.
    pub is_unplaceable: &'a dyn Fn(InodeId) -> bool,
    pub filters: &'a [SeccompFilterV1],
    /// Thread id for the thread that installs seccomp filters; free in the whole tree. 0: whichever comes.
    pub helper_tid: i32,
    /// Whether the process says that it exists, for the sake of those who have a descriptor of it.
    pub announces: bool,
    /// Socket that late descriptors of this process come from.
    pub late_fd: Option<i32>,
    /// Whether a description is made when all processes exist.
    pub is_late: &'a dyn Fn(FileId) -> bool,
    /// Whether children of this process are stopped.
    pub has_stopped_children: bool,
    /// Whether supplementary groups are still to be set (inside a user namespace they were set before it was entered).
    pub sets_groups: bool,
    /// Translates a user or group id of the image into one that system calls of this process take.
    pub map_uid: &'a dyn Fn(u32) -> Result<u32>,
    pub map_gid: &'a dyn Fn(u32) -> Result<u32>,
    /// Effective capabilities of this process now.
    pub own_caps: u64,
    /// Capability bounding set of this process now.
    pub own_bounding: u64,
    /// CPU mask of this process now; equal masks are not set again.
    pub own_affinity: &'a [u64],
}

impl std::fmt::Debug for TapeEnv<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TapeEnv")
            .field("image_fd", &self.image_fd)
            .field("first_own_fd", &self.first_own_fd)
            .finish()
    }
}

/// A tape ready to run.
#[derive(Debug)]
pub struct Compiled {
    /// Address of the interpreter.
    pub code: u64,
    /// Address of the leader's [`Context`].
    pub context: u64,
}

/// Words that the threads of the process wait for. They lie in the dropped region: the kept one is read-only by then.
#[derive(Clone, Copy, Debug)]
pub struct Words {
    /// 1 when the memory is in place.
    pub mapped: u64,
    /// Number of threads that have finished their own part.
    pub arrived: u64,
    /// 1 when all may return into the daemon.
    pub go: u64,
    /// Number of threads that will not look at the dropped region again.
    pub departed: u64,
    /// 1 when the helper may install filters.
    pub filter_start: u64,
    /// 1 when it has.
    pub filter_done: u64,
    /// A timespec: how long a wait may see no progress.
    pub patience: u64,
}

/// Seconds without progress after which a waiting thread gives up; the worker's deadline normally comes first.
const PATIENCE_S: u64 = 60;

impl Words {
    fn place(area: &mut Area) -> Result<Self> {
        let words = area.put(Region::Drop, &[0; 64], 64)?;
        let mut timespec = PATIENCE_S.to_ne_bytes().to_vec();
        timespec.extend_from_slice(&0u64.to_ne_bytes());
        let patience = area.put(Region::Drop, &timespec, 8)?;
        Ok(Self {
            mapped: words,
            arrived: words + 4,
            go: words + 8,
            departed: words + 12,
            filter_start: words + 16,
            filter_done: words + 20,
            patience,
        })
    }
}

/// Places a context and returns its address.
pub(super) fn put_context(
    env: &TapeEnv<'_>,
    area: &mut Area,
    pid: i32,
    tape: u64,
    frame: u64,
) -> Result<u64> {
    let record = Record::new(RecordKind::TapeFailed, pid, 0);
    area.put(Region::Drop, &Context { tape, frame, status_fd: env.status_fd as u64, record }.bytes(), 64)
}

/// Compiles the rest of a restore. The caller has placed descriptors, forked children, set signal handlers.
///
/// # Errors
/// Something in the state cannot be expressed here (`Stale`, `Corrupt`), or no memory.
pub fn compile(process: &ProcessV1, env: &TapeEnv<'_>) -> Result<Compiled> {
    let mut taken: Vec<Range<u64>> = process.mm.vmas.iter().map(|v| v.start.0..v.end.0).collect();
    taken.extend(env.mapped_now.iter().cloned());
    let vdso_len: u64 = env.vdso_parts.iter().map(|p| p.end - p.start).sum();
    let keep = finish::keep_bound(process, env);
    let kept = Kept::new(&process.mm.vmas, &process.mm.runs, env.inherited);
    let drop = memory::drop_bound(process, &kept)
        + thread::drop_bound(process)
        + finish::locks_bound(process)
        + late::drop_bound(process, env)
        + vdso_len
        + 2 * PAGE_BYTES;
    let mut area = Area::map(&mut taken, keep, drop)?;

    let words = Words::place(&mut area)?;
    let frames = put_frames(&mut area, &process.threads)?;
    let ends = finish::place_ends(env, &mut area, process, &words)?;

    let mut leader = Sequence::default();
    for (thread, frame) in process.threads.iter().zip(&frames).skip(1) {
        thread::create(env, &mut area, process, thread, *frame, &words, &ends, &mut leader)?;
    }
    finish::create_helper(env, &mut area, &ends, &mut leader)?;
    leader.append(late::ops(env, &mut area, process)?);

    let parking = area.reserve(Region::Drop, vdso_len, PAGE_BYTES)?;
    leader.append(memory::unmap_ops(env, &area, process, &kept, parking)?);
    leader.append(memory::map_ops(env, &mut area, process, &kept)?);
    leader.push(memory::layout_op(env, &mut area, &process.mm)?);
    let after = leader.len() + 1;
    leader.push_jumping(Op::post(words.mapped, 0), Some(after), None);

    let first = &process.threads[0];
    leader.append(thread::own_state(env, &mut area, process, first)?);
    leader.append(finish::process_ops(env, &mut area, process, &words)?);
    leader.append(thread::give_up_privilege(env, &mut area, process, first)?);
    leader.append(finish::last_ops(env, &mut area, process, &ends)?);
    let tape = leader.place(&mut area, Region::Drop)?;
    let context = put_context(env, &mut area, process.pid.0, tape, frames[0])?;
    area.seal()?;
    Ok(Compiled { code: area.code(), context })
}

fn put_frames(area: &mut Area, threads: &[ThreadV1]) -> Result<Vec<u64>> {
    threads
        .iter()
        .map(|thread| {
            let at = area.reserve(Region::Keep, frame::len_bound(thread), 64)?;
            let bytes = frame::build(thread, at)?;
            debug_assert!(bytes.len() as u64 <= frame::len_bound(thread));
            area.write(at, &bytes);
            Ok(at)
        })
        .collect()
}

/// An op that always goes on at `target`.
pub(super) fn jump(target: u64) -> Op {
    Op::syscall(Step::Post, libc::SYS_getpid, &[], Want::Anything).then(target)
}

/// Bytes that `count` ops take.
pub(super) fn ops_bytes(count: u64) -> u64 {
    count * OP_BYTES
}
