//! io_uring rings at rest.

use super::check::{Around, Result, check};
use super::kind::FileState;
use super::object::{Mapped, ObjectState};
use super::{InodeId, PAGE_BYTES};
use serde::{Deserialize, Serialize};

/// IORING_MAX_CQ_ENTRIES
const MAX_ENTRIES: u32 = 65536;
const MAX_TURNS: u32 = 1 << 22;
const MAX_BYTES: usize = 16 << 20;

/// A description of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenRingV1 {
    pub ring: InodeId,
}

impl FileState for OpenRingV1 {
    fn name(&self) -> &'static str {
        "io_uring ring"
    }

    fn inode(&self) -> Option<InodeId> {
        Some(self.ring)
    }

    fn check(&self, _: i32, around: &Around<'_>) -> Result<()> {
        check(around.rings.contains(&self.ring), "a ring that is none")
    }
}

/// An io_uring(7) instance without requests under way. Both areas that it shares with its users are
/// kept to the byte: counters, requests that were prepared and not submitted, completions that
/// nobody has looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingV1 {
    /// Of the submission queue, a power of two.
    pub sq_entries: u32,
    /// Of the completion queue, a power of two.
    pub cq_entries: u32,
    /// There is no index array (IORING_SETUP_NO_SQARRAY, since Linux 6.6).
    pub no_array: bool,
    /// How many requests the kernel has taken, and as many completions it has written, modulo 2^32.
    pub turns: u32,
    /// What is mapped at IORING_OFF_SQ_RING.
    pub queues: Vec<u8>,
    /// What is mapped at IORING_OFF_SQES.
    pub requests: Vec<u8>,
}

/// IORING_OFF_SQ_RING, IORING_OFF_CQ_RING, IORING_OFF_SQES
pub const RING_OFFSETS: [u64; 3] = [0, 0x800_0000, 0x1000_0000];

impl RingV1 {
    /// Whether a mapping of this length at this offset is one of its areas, as far as it goes.
    pub fn has_room(&self, offset: u64, len_bytes: u64) -> bool {
        let area = match RING_OFFSETS.iter().position(|known| *known == offset) {
            Some(0 | 1) => &self.queues,
            Some(_) => &self.requests,
            None => return false,
        };
        len_bytes <= (area.len() as u64).next_multiple_of(PAGE_BYTES)
    }
}

impl ObjectState for RingV1 {
    fn check(&self, _: u64) -> Result<()> {
        let entries = [self.sq_entries, self.cq_entries];
        let sized = entries.iter().all(|count| count.is_power_of_two() && *count <= MAX_ENTRIES);
        check(sized && self.turns <= MAX_TURNS, "an io_uring ring of odd size")?;
        let fits = self.queues.len() <= MAX_BYTES && self.requests.len() <= MAX_BYTES;
        check(fits, "an io_uring ring with more than it holds")
    }

    fn has_pages(&self) -> bool {
        false
    }

    fn check_mapping(&self, mapped: Mapped) -> Result<()> {
        let fits = mapped.shared && self.has_room(mapped.offset, mapped.len_bytes);
        check(fits, "more of an io_uring ring than there is")
    }
}
