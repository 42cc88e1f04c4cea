//! POSIX message queues (mq_overview(7)).

use super::check::{Result, check};
use super::object::ObjectState;
use serde::{Deserialize, Serialize};

/// Highest priority and one (MQ_PRIO_MAX), longest name.
const PRIORITIES: u32 = 32_768;
const NAME_MAX: usize = 255;

/// `mq_open(3)`. Owner and mode are those of the inode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PosixQueueV1 {
    /// Without the slash in front.
    pub name: Vec<u8>,
    /// mq_unlink(3) was called: it ends with the last who has it open.
    pub removed: bool,
    pub max_messages: u64,
    /// Most bytes of a message.
    pub message_bytes: u64,
    /// In the order in which they are received.
    pub messages: Vec<PosixMessageV1>,
    /// Tells in the same boot whether a queue of this name is still the same; 0 where it has none.
    pub ino: u64,
}

/// A message that nobody has received yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PosixMessageV1 {
    pub priority: u32,
    pub data: Vec<u8>,
}

impl ObjectState for PosixQueueV1 {
    fn check(&self, _: u64) -> Result<()> {
        let is_name =
            (1..=NAME_MAX).contains(&self.name.len()) && !self.name.iter().any(|b| [0, b'/'].contains(b));
        check(is_name, "a message queue without a name")?;
        let limits = [self.max_messages, self.message_bytes];
        check(
            limits.iter().all(|limit| (1..=i64::MAX as u64).contains(limit)),
            "a message queue out of range",
        )?;
        let fits = |message: &PosixMessageV1| {
            message.data.len() as u64 <= self.message_bytes && message.priority < PRIORITIES
        };
        let all = self.messages.len() as u64 <= self.max_messages && self.messages.iter().all(fits);
        check(all, "more messages than a queue takes")?;
        check(self.messages.is_sorted_by(|a, b| a.priority >= b.priority), "messages out of order")
    }

    fn has_pages(&self) -> bool {
        false
    }
}
