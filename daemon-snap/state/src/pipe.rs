//! Pipes, and descriptions of their ends.

use super::check::{Around, Result, check};
use super::kind::FileState;
use super::{InodeId, NodeV1, PipeId};
use serde::{Deserialize, Serialize};

/// A description of a pipe or of a named FIFO.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenPipeV1 {
    pub pipe: PipeId,
    pub end: PipeEnd,
}

/// Which end of a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PipeEnd {
    Read,
    Write,
    /// One description for both directions (O_RDWR through /proc/self/fd).
    Both,
}

/// A pipe, anonymous or behind a named FIFO.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipeV1 {
    /// F_GETPIPE_SZ, bytes.
    pub capacity_bytes: u32,
    /// Unread bytes.
    pub data: Vec<u8>,
    /// Lengths of the packets that `data` consists of (pipe2(2), O_DIRECT); empty for a stream.
    pub packets: Vec<u32>,
    /// The named FIFO that it is opened through.
    pub fifo: Option<InodeId>,
    /// A FIFO whose readers have seen the last writer go.
    pub hung_up: bool,
    pub node: NodeV1,
}

impl FileState for OpenPipeV1 {
    fn name(&self) -> &'static str {
        "pipe"
    }

    fn check(&self, flags: i32, around: &Around<'_>) -> Result<()> {
        check(around.has_pipe(self.pipe), "a pipe end without pipe")?;
        let fits = match flags & libc::O_ACCMODE {
            libc::O_RDONLY => self.end == PipeEnd::Read,
            libc::O_WRONLY => self.end == PipeEnd::Write,
            _ => self.end == PipeEnd::Both,
        };
        check(fits, "a pipe end with flags of another")
    }
}

impl PipeV1 {
    pub(crate) fn check(&self, around: &Around<'_>) -> Result<()> {
        let packets = self.packets.iter().map(|len| *len as usize).sum::<usize>();
        let whole = self.packets.is_empty() || packets == self.data.len() && !self.packets.contains(&0);
        let fits = whole
            && self.data.len() <= self.capacity_bytes as usize
            && self.fifo.is_none_or(|id| around.has_inode(id));
        check(fits, "a pipe with more than it holds")
    }
}
