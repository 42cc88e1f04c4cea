//! The one judge of whether a systemd service can be restored from an image.
//!
//! [`judge`] is asked by `fastboot plan`, by `fastboot snapshot` before it restarts anything, and
//! by the generator before it puts the shim in front of a command. Both ways lead to one [`Unit`]:
//! the text of its files as the generator finds them, and beside it, where there is one to ask,
//! what systemd tells. The answer is every [`Reason`] against it, or a [`Restorable`], which alone
//! gets a drop-in.
//!
//! Everything here is pure: no system calls, no bus, no files, no clock.

mod budget;
mod exec_line;
mod judge;
mod manager;
mod options;
mod reason;
mod sandbox;
mod settings;
mod standing;
mod unit;
pub mod unit_text;

pub use budget::{StartBudget, StartTimes};
pub use exec_line::{ExecLine, ExecLineProblem};
pub use judge::{Restorable, Surroundings, judge};
pub use manager::ManagerView;
pub use options::{Identity, KernelState, LostPeer, Mode, Options, Refresh};
pub use reason::Reason;
pub use settings::{ServiceType, Settings};
pub use standing::Standing;
pub use unit::{TextFile, Unit};

/// The shim, as it stands in drop-ins.
pub const SHIM: &str = "/usr/lib/fastboot/fastboot-exec";
