//! A systemd service from the snapshot's point of view: what systemd says about it, whether it may
//! be taken, how it is restarted in a band of PIDs, when it has settled, and what has to stay as it
//! is for an image to be usable.
//!
//! Reading threads and memory may not live here (`collect/`), nor deciding what is done in which
//! order (`snapshot.rs`).

mod activation;
mod band;
mod boot_times;
mod cgroup;
mod eligible;
mod evidence;
mod files;
mod gathered;
mod identity;
mod kernel_settings;
mod library_dirs;
mod links;
mod mounts;
mod named;
mod observed;
mod of_one_machine;
mod open_state;
mod patterns;
mod properties;
mod randomness;
mod settle;
mod state_places;
mod systemd;
mod text_since;

pub use activation::activation_sockets;
pub use band::Band;
pub use boot_times::{BootTimes, UnitTimes};
pub use cgroup::Cgroup;
pub use eligible::{judge_unit, read_text, read_unit, text_mark, view_of};
pub use evidence::{Gathered, gather_evidence};
pub use gathered::Past;
pub use observed::Start;
pub use of_one_machine::renews;
pub use open_state::inspect_open_state;
pub use properties::UnitProperties;
pub use randomness::inspect_random;
pub use settle::{Interrupt, Patience, Settled, settle};
pub use state_places::StatePlaces;
pub use systemd::{ListedUnit, Systemd, full_name};

use snap_bus::BusAccess;
use snap_collect::dump::{CollectOptions, LostPeer};
use snap_error::Result;

/// What the engine has to know about a unit before it looks at its processes.
///
/// # Errors
/// When its descriptors cannot be read.
pub fn collect_options(
    properties: &UnitProperties,
    cgroup: &Cgroup,
    bus: BusAccess,
    lost_peer: LostPeer,
) -> Result<CollectOptions> {
    Ok(CollectOptions {
        unit: true,
        cgroup: Some(cgroup.path().to_owned()),
        volatile_roots: properties.volatile_roots(),
        activation: activation_sockets(cgroup, properties.main_pid, &properties.stored)?,
        stored: properties.stored.clone(),
        bus,
        lost_peer,
    })
}
