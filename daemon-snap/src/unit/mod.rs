//! What systemd knows about a service, and what a snapshot of it needs beside the process tree.

pub mod band;
pub mod evidence;
pub mod extras;
pub mod settle;
pub mod systemd;

pub use systemd::{Systemd, UnitInfo};
