//! A run of ops with jumps inside it.

use super::area::{Area, Region};
use super::op::{OP_BYTES, Op};
use snap_error::Result;

/// Ops in order; jump targets may be indices until the sequence is placed.
#[derive(Debug, Default)]
pub struct Sequence {
    ops: Vec<(Op, Jumps)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Jumps {
    ok: Option<usize>,
    bad: Option<usize>,
}

impl Sequence {
    /// Number of ops; the index of the next one.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Appends an op.
    pub fn push(&mut self, op: Op) {
        self.ops.push((op, Jumps::default()));
    }

    /// Appends an op that goes on at other indices of this sequence.
    pub fn push_jumping(&mut self, op: Op, ok: Option<usize>, bad: Option<usize>) {
        self.ops.push((op, Jumps { ok, bad }));
    }

    /// Appends ops.
    pub fn extend(&mut self, ops: impl IntoIterator<Item = Op>) {
        self.ops.extend(ops.into_iter().map(|op| (op, Jumps::default())));
    }

    /// Appends all ops of another sequence; its indices shift.
    pub fn append(&mut self, other: Sequence) {
        let base = self.len();
        self.ops.extend(other.ops.into_iter().map(|(op, jumps)| {
            (op, Jumps { ok: jumps.ok.map(|i| i + base), bad: jumps.bad.map(|i| i + base) })
        }));
    }

    /// Bytes that [`Sequence::place`] takes.
    pub fn len_bytes(&self) -> u64 {
        self.ops.len() as u64 * OP_BYTES
    }

    /// Copies the ops into the area and returns the address of the first.
    ///
    /// # Errors
    /// The area is full.
    pub fn place(&self, area: &mut Area, region: Region) -> Result<u64> {
        let at = area.reserve(region, self.len_bytes(), 8)?;
        self.write_at(area, at);
        Ok(at)
    }

    /// The same into room that was reserved before.
    pub fn write_at(&self, area: &mut Area, at: u64) {
        let address = |index: usize| at + index as u64 * OP_BYTES;
        for (index, (op, jumps)) in self.ops.iter().enumerate() {
            let mut op = *op;
            if let Some(target) = jumps.ok {
                op = op.then(address(target));
            }
            if let Some(target) = jumps.bad {
                op = op.or_else(address(target));
            }
            area.write(address(index), &op.bytes());
        }
    }
}
