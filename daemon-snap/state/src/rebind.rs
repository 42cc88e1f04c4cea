//! Descriptors of objects of today.

use super::check::{Around, Result, check};
use super::kind::FileState;
use serde::{Deserialize, Serialize};

/// In place of a type of socket where systemd passes a named FIFO (`ListenFIFO=`).
pub const FIFO: i32 = 0;

/// Ends that belong to the new boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RebindV1 {
    /// A stream to journald that systemd made for stdout or stderr: the shim's own descriptor 1 or
    /// 2 takes its place.
    JournalStream { stdio: i32 },
    /// A pidfd of PID 1, which is systemd in every boot.
    Init,
    /// A socket that systemd holds too and passes as `LISTEN_FDS`; matched by address.
    Activation { address: Vec<u8>, socket_type: i32, name: Option<String> },
}

impl FileState for RebindV1 {
    fn name(&self) -> &'static str {
        "taken over from systemd"
    }

    fn check(&self, _: i32, _: &Around<'_>) -> Result<()> {
        match self {
            Self::JournalStream { stdio } => {
                check((0..3).contains(stdio), "a standard descriptor that is none")
            }
            Self::Init | Self::Activation { .. } => Ok(()),
        }
    }
}
