//! Containers with systemd as PID 1: boot a root, look inside, run commands, talk to its servers,
//! end it.

mod booted;
mod cgroup;
mod enter;
mod nspawn;
mod units;

pub use booted::{BootOptions, Container, end_left_over_machines};
pub use cgroup::Usage;
pub use enter::Output;
pub use nspawn::run_in_root;
pub use units::UnitState;

use std::time::{Duration, Instant};

use anyhow::Result;

/// A wait that did not end in time.
#[derive(Debug, thiserror::Error)]
#[error("{what} did not happen within {bound_s} s{detail}")]
pub struct TimedOut {
    /// What was waited for.
    pub what: String,
    /// The bound, in seconds.
    pub bound_s: f64,
    /// The last answer, as `: text`, or nothing.
    pub detail: String,
}

/// Ask `question` until it answers with a value, at most for `bound`. An error counts as "not yet"
/// and is shown when time is up.
///
/// # Errors
/// [`TimedOut`].
pub fn wait_until<T>(
    what: &str,
    bound: Duration,
    mut question: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let end = Instant::now() + bound;
    loop {
        let answer = question();
        if let Ok(Some(value)) = answer {
            return Ok(value);
        }
        if Instant::now() >= end {
            let detail = answer.err().map(|error| format!(": {error:#}")).unwrap_or_default();
            return Err(TimedOut { what: what.to_owned(), bound_s: bound.as_secs_f64(), detail }.into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
