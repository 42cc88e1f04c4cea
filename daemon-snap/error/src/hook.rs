//! What went wrong with a hook of a service.

use nix::errno::Errno;
use snap_state::Pid;
use std::fmt;
use std::process::ExitStatus;

/// A hook, and why it does not let the service go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookFailure {
    pub hook: Hook,
    pub why: HookEnd,
}

/// Who was called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hook {
    /// A line of the unit file.
    Command { key: &'static str, line: String },
    /// A process that wants to hear itself of this event.
    Channel { pid: Pid, event: &'static str },
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HookEnd {
    /// The command cannot be started where the main process is.
    Surroundings(Errno),
    NotExecuted(Errno),
    Ended(ExitStatus),
    NotInTime,
    /// The process, or its channel, cannot be reached.
    Unreachable(Errno),
    /// The process said no, in its own words.
    Answer(String),
    NoAnswer,
}

impl fmt::Display for HookFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.hook {
            Hook::Command { key, line } => write!(f, "{key}{line}: {}", self.why),
            Hook::Channel { pid, event } => {
                write!(f, "pid {pid} was told {event} over its hook channel: {}", self.why)
            }
        }
    }
}

impl fmt::Display for HookEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Surroundings(errno) => write!(f, "its surroundings: {errno}"),
            Self::NotExecuted(errno) => write!(f, "cannot be executed: {errno}"),
            Self::Ended(status) => status.fmt(f),
            Self::NotInTime => f.write_str("did not end in time"),
            Self::Unreachable(errno) => errno.fmt(f),
            Self::Answer(words) => f.write_str(words),
            Self::NoAnswer => f.write_str("no answer in time"),
        }
    }
}
