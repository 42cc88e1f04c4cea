//! Children that have ended and that nobody has waited for.

use super::Pid;
use super::check::{Around, MAX_COMM_BYTES, Result, check};
use serde::{Deserialize, Serialize};

/// What is left of a process: its number, and what wait(2) will say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZombieV1 {
    pub pid: Pid,
    /// A process of the tree.
    pub parent: Pid,
    pub pgid: Pid,
    pub sid: Pid,
    /// Signal that its end sent.
    pub exit_signal: i32,
    /// As waitpid(2) gives it: an exit code shifted by 8, or the number of the signal that killed
    /// it. Never with the bit of a core dump.
    pub status: i32,
    /// At most 15 bytes.
    pub comm: Vec<u8>,
    /// Real, effective, saved; waitid(2) tells the first.
    pub uids: [u32; 3],
    pub gids: [u32; 3],
    pub groups: Vec<u32>,
}

/// Whether a wait status is that of an exit, or of a signal without a core dump.
pub fn can_end_so(status: i32) -> bool {
    (status & !0xff00) == 0 || (1..=64).contains(&status)
}

impl ZombieV1 {
    pub(crate) fn check(&self, around: &Around<'_>) -> Result<()> {
        check(around.has_process(self.parent), "a zombie of nobody")?;
        check(can_end_so(self.status), "a process that cannot have ended so")?;
        check(self.pgid.0 >= 0 && self.sid.0 >= 0, "a group or session out of range")?;
        check((0..=64).contains(&self.exit_signal), "a signal that does not exist")?;
        check(self.comm.len() <= MAX_COMM_BYTES, "a thread name too long")
    }
}
