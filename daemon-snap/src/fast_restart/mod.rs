//! Fast restart: units whose state on the disk moves with their memory are taken when the machine
//! goes down, and go on at the boot that follows, once.
//!
//! `look → freeze → collect → sync → write → end → compare → publish`, over all units in each step.
//! Until they are ended whatever fails, and whoever interrupts, leaves them running on. Publishing
//! comes last: an image counts only when its service is dead and its files have been looked at.
//!
//! How a unit is inspected and frozen may not live here (`snapshot`, `unit`), nor what is asked of
//! an image at the boot (`image_store::once`, `initd`).

mod enable;
mod going_down;
mod inputs;
mod moment;
mod next_kernel;

pub use enable::{DROP_IN, disable, enable};
pub use going_down::{GoingDown, is_going_down};
pub use moment::{Row, Taken, Waiting, look, take};
