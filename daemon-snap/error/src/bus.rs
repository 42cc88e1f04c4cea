//! What goes wrong in a conversation with the bus, or with systemd.

use nix::errno::Errno;
use std::fmt;

/// Why a question has no answer that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BusFault {
    /// An error, by its D-Bus name and with its own words.
    Refused {
        name: String,
        text: String,
    },
    NoAnswer,
    /// The connection is gone.
    Connection(Errno),
    /// What came is no message, or not the one that was asked for; the parser's word.
    NotUnderstood {
        found: String,
    },
}

impl fmt::Display for BusFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { name, text } if text.is_empty() => f.write_str(name),
            Self::Refused { name, text } => write!(f, "{name}: {text}"),
            Self::NoAnswer => f.write_str("it does not answer"),
            Self::Connection(errno) => errno.fmt(f),
            Self::NotUnderstood { found } => f.write_str(found),
        }
    }
}
