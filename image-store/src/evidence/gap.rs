//! What nobody could see of a start.

use std::fmt;
use std::path::PathBuf;

use nix::errno::Errno;

/// Something that a service may have used without being seen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gap {
    /// The kernel had more events than it keeps.
    Dropped,
    /// An event could not be read; the number of the error.
    Unread { errno: i32 },
    /// A file system of the service that cannot be watched; the number of the error.
    Unwatchable { point: PathBuf, kind: String, errno: i32 },
    /// One that was seen for the first time when the service had it already.
    Late { point: PathBuf, kind: String },
}

/// Completes "not all was observed: …".
impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dropped => f.write_str("events that the kernel had to drop"),
            Self::Unread { errno } => {
                write!(f, "an event that could not be read: {}", Errno::from_raw(*errno))
            }
            Self::Unwatchable { point, kind, errno } => {
                let (point, errno) = (point.display(), Errno::from_raw(*errno));
                write!(f, "what lies on {point} ({kind}), which cannot be watched: {errno}")
            }
            Self::Late { point, kind } => {
                write!(f, "what it read from {} ({kind}) before that was watched", point.display())
            }
        }
    }
}
