//! The system bus: what a daemon's connection to it was, and speaking the protocol for making it
//! again.
//!
//! The bus itself always starts cold. Looking at the daemon's descriptor may not live here
//! (`collect/bus.rs`), nor making the new one (`rebuild/bus.rs`).

mod known;
mod message;
mod news;
mod stream;
mod watch;

pub use known::Told;
pub use message::{
    DRIVER, answers, body, driver_call, driver_call_without_reply, driver_signal, message_len,
    name_owner_changed, split,
};
pub use news::{Watcher, news};
pub use stream::BusStream;
pub use watch::{BusWatch, Credentials, SYSTEM_BUS};

use image_store::StaleReason;
use std::sync::Arc;

/// What the collector may do about connections to the system bus.
#[derive(Clone, Debug, Default)]
pub enum BusAccess {
    /// They are peers outside like any other: refused.
    #[default]
    Refused,
    /// They can be carried, but are only looked at: for a plan.
    Looked,
    /// They would be recorded, but the bus could not be listened to: refused, and why.
    Unheard(StaleReason),
    /// They are recorded.
    Watched(Arc<BusWatch>),
}
