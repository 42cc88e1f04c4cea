//! The frame that all tests of this workspace run in: what a test is, what it needs, how it ends.
//!
//! A [`Test`] is a name, needs and something to run. It ends with a [`Verdict`]: passed, failed or
//! skipped, the last two with a reason. [`Registry`] finds tests by their names, [`run`] runs them
//! and counts. [`libtest`] gives the same tests the command line of `cargo test`, for test programs
//! that are built with `harness = false`.
//!
//! No case lives here, and nothing that only one family of tests knows.

#![forbid(unsafe_code)]

mod checks;
pub mod libtest;
mod need;
mod once;
mod registry;
pub mod run;
mod select;
mod test;
mod verdict;

pub use checks::{Check, Checks};
pub use need::{CI_CANNOT_HAVE, Missing, Need, NeedKind};
pub use once::Once;
pub use registry::{Registry, Source};
pub use select::{exactly, near, with_word};
pub use test::{AloneBody, BesideBody, Body, Outcome, Report, Test, Together, When};
pub use verdict::{Count, Skip, Verdict};
