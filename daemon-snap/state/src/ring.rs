//! io_uring rings at rest.

use super::PAGE_BYTES;
use serde::{Deserialize, Serialize};

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
