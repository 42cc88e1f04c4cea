//! A tape while it is put together.

use super::area::{Area, Region};
use super::env::TapeEnv;
use super::op::{Context, OP_BYTES, Op, Record, RecordKind, Step, Want};
use snap_error::Result;
use snap_state::{ProcessV1, ThreadV1};

/// The process, what is known of it, and the memory that its tape is written to.
#[derive(Debug)]
pub struct Assembly<'a> {
    pub env: &'a TapeEnv<'a>,
    pub process: &'a ProcessV1,
    pub area: Area,
    pub words: Words,
}

/// A thread and the address of its signal frame.
#[derive(Clone, Copy, Debug)]
pub struct Framed<'a> {
    pub thread: &'a ThreadV1,
    pub frame: u64,
}

/// Words that the threads of the process wait for. They lie in the dropped region: the kept one is
/// read-only by then.
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

/// Seconds without progress after which a waiting thread gives up; the worker's deadline normally
/// comes first.
const PATIENCE_S: u64 = 60;

impl Words {
    pub fn place(area: &mut Area) -> Result<Self> {
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

impl Assembly<'_> {
    /// Places a context and returns its address. `frame`: where the thread goes on, 0 where it
    /// never returns.
    ///
    /// # Errors
    /// The area is full.
    pub fn put_context(&mut self, tape: u64, frame: u64) -> Result<u64> {
        let record = Record::new(RecordKind::TapeFailed, self.process.pid.0, 0);
        let status_fd = self.env.fds.status as u64;
        self.area.put(Region::Drop, &Context { tape, frame, status_fd, record }.bytes(), 64)
    }
}

/// An op that always goes on at `target`.
pub fn jump(target: u64) -> Op {
    Op::syscall(Step::Post, libc::SYS_getpid, &[], Want::Anything).then(target)
}

/// Bytes that `count` ops take.
pub fn ops_bytes(count: u64) -> u64 {
    count * OP_BYTES
}
