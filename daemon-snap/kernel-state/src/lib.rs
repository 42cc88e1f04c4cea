//! What there is in the kernel outside of processes: rules of packet filters, network interfaces,
//! addresses, routes, mounts, block devices. No image carries it, and a service that comes back
//! believes in it.
//!
//! Two views of different moments tell what somebody has made between them, or what was lost. Who
//! looks when, and what follows, is decided by the callers; nothing is changed here.

mod filter;
mod local;
mod look;
mod mounts;
mod network;
mod place;
mod sockets;
mod told;
mod view;

pub use place::Place;
pub use sockets::configuring_sockets;
pub use view::{Key, Kind, Thing, View};
