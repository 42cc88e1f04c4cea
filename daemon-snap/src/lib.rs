//! The snapshot path: from a unit's name to its image in the store, and what surrounds it.
//!
//! The engine is in the crates below: `collect` reads a live tree into `state`, `rebuild` makes a
//! live tree from it.

pub mod boot;
pub mod chart;
pub mod doctor;
pub mod fast_restart;
pub mod package_manager;
pub mod snapshot;
pub mod unit;
