//! Why nobody looked on while a service started.

use image_store::StaleReason;
use nix::errno::Errno;
use std::fmt;

/// Why a start was not observed, and what there was to take its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotObserved {
    pub cause: Unwatched,
    /// An earlier image of the same processes had seen the start; it does not count any more.
    pub earlier: Option<EarlierStart>,
}

/// Why nobody could look on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwatched {
    /// The service was taken as it runs.
    NotRestarted,
    /// The kernel does not tell here.
    Kernel { step: &'static str, errno: Errno },
    /// Others do too much at the same time.
    Busy { after_s: u64 },
}

/// What is wrong with what an earlier image has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EarlierStart {
    /// Something that the start has read is not as it was.
    Changed(StaleReason),
    /// The image cannot be used itself.
    Unusable(StaleReason),
}

impl fmt::Display for NotObserved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.cause, &self.earlier) {
            (cause, None) => cause.fmt(f),
            (cause, Some(EarlierStart::Changed(reason))) => write!(f, "{cause}; since its start {reason}"),
            (cause, Some(EarlierStart::Unusable(reason))) => write!(f, "{cause}; {reason}"),
        }
    }
}

impl fmt::Display for Unwatched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRestarted => f.write_str("--no-restart"),
            Self::Kernel { step, errno } => write!(f, "cannot {step}: {errno}"),
            Self::Busy { after_s } => write!(f, "events were still waiting after {after_s} s"),
        }
    }
}
