//! What services open, execute, list and write while they start, as the kernel tells it
//! (fanotify(7)).
//!
//! File systems are marked as a whole, with notifications only: nobody ever waits for this process.
//! Events are attributed to units by the control group of the process; of a process that was gone
//! before it could be looked at, by its number. Which rule something is compared by, and what
//! follows from a gap, is decided by the callers.

mod book;
mod marks;
mod recorder;

pub use book::{Seen, Stamp, UnitLog};
pub use recorder::{Error, Recorder, group_of};
