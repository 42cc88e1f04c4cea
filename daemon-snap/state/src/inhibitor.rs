//! Inhibitors of logind.

use super::Pid;
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
