//! The engine: process trees to state and back.
//!
//! `inspect`/`collect` read a live tree into [`state`]; `rebuild` and `tape` make a live tree from it.
//! `collect` and `rebuild` never import each other; both know `state`.

pub mod bus;
pub mod collect;
pub mod doctor;
pub mod dump;
pub mod encode;
pub mod error;
pub mod freeze;
pub mod inspect;
pub mod rebuild;
pub mod restore;
pub mod snapshot;
pub mod state;
pub mod sys;
pub mod tape;
pub mod unit;

pub use error::{Blocker, Error, Kind, Part, Result};
