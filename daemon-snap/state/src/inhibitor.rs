//! Inhibitors of logind.

use super::Pid;
use super::check::{Around, Result, check};
use super::kind::FileState;
use serde::{Deserialize, Serialize};

/// Held as long as the descriptor that logind gave for it is open (systemd-inhibit(1)). Its process
/// asks for it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InhibitorV1 {
    /// What is held up: `sleep:shutdown`.
    pub what: String,
    pub who: String,
    pub why: String,
    /// `block`, `delay`, `block-weak`.
    pub mode: String,
    /// The process that asked, and the only one that has the descriptor.
    pub pid: Pid,
    /// Its user then, in the namespace of logind.
    pub uid: u32,
}

impl FileState for InhibitorV1 {
    fn name(&self) -> &'static str {
        "inhibitor of logind"
    }

    fn check(&self, _: i32, around: &Around<'_>) -> Result<()> {
        check(around.has_process(self.pid), "an inhibitor of nobody")?;
        // What a D-Bus string may not hold.
        let texts = [&self.what, &self.who, &self.why, &self.mode];
        check(texts.iter().all(|text| !text.contains('\0')), "an inhibitor with an odd text")
    }
}
