//! Reasons against a dump, gathered while everything is looked at.

use snap_error::obstacle::Role;
use snap_error::{Blocker, Error, Obstacle, Part, Result};
use snap_state::Pid;

/// Reasons not to dump, gathered while everything is looked at.
#[derive(Debug, Default)]
pub(crate) struct Blockers(Vec<Blocker>);

impl From<&[Blocker]> for Blockers {
    fn from(found: &[Blocker]) -> Self {
        Self(found.to_vec())
    }
}

impl Blockers {
    pub fn add(&mut self, pid: Pid, part: Part, obstacle: impl Into<Obstacle>) {
        self.0.push(Blocker::new(pid, part, obstacle));
    }

    /// Keeps the value; turns a refusal into a blocker.
    pub fn note<T>(&mut self, pid: Pid, part: Part, found: Found<T>) -> Result<Option<T>> {
        match found {
            Ok(value) => Ok(Some(value)),
            Err(Trouble::Refused(obstacle)) => {
                self.add(pid, part, obstacle);
                Ok(None)
            }
            Err(Trouble::Failed(e)) => Err(e),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each once, sorted as people read them.
    pub fn into_list(mut self) -> Vec<Blocker> {
        self.0.sort_by_cached_key(|blocker| (blocker.pid, blocker.part, blocker.obstacle.to_string()));
        self.0.dedup();
        self.0
    }
}

/// Why an object could not be collected.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// Cannot be carried.
    Refused(Obstacle),
    Failed(Error),
}

impl Trouble {
    /// The same of a file that is a process's executable or one of its directories.
    pub fn of(self, role: Role) -> Self {
        match self {
            Self::Refused(obstacle) => Self::Refused(Obstacle::As { role, obstacle: Box::new(obstacle) }),
            failed @ Self::Failed(_) => failed,
        }
    }
}

impl From<Error> for Trouble {
    fn from(e: Error) -> Self {
        Self::Failed(e)
    }
}

/// An object, or why not.
pub(crate) type Found<T> = std::result::Result<T, Trouble>;

/// Shorthand for [`Trouble::Refused`].
pub(crate) fn refused<T>(obstacle: impl Into<Obstacle>) -> Found<T> {
    Err(Trouble::Refused(obstacle.into()))
}

/// The error of a system call on an object of a recorded process.
pub(crate) fn failed<T: std::fmt::Display>(
    step: &'static str,
    pid: Pid,
    what: T,
) -> impl Fn(nix::errno::Errno) -> Error + use<T> {
    move |errno| match errno {
        nix::errno::Errno::ESRCH => Error::Gone { pid, step },
        _ => Error::kernel(step, format_args!("pid {pid} {what}"), errno),
    }
}
