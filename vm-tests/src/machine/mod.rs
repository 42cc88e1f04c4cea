//! Virtual machines: real boots of Debian's own kernels in QEMU, without a network, on throw-away
//! disks.
//!
//! A [`Machine`] is switched off; [`Machine::boot`] makes it a [`Running`] one, which is asked
//! through an agent.

mod accelerator;
mod agent;
mod disk;
mod power;
mod qemu;
mod running;

pub use accelerator::Accelerator;
pub use disk::{Disk, Kernel};
pub use power::{Boot, Machine};
pub use qemu::Store;
pub use running::Running;
