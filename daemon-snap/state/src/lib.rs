//! What was: plain, serialisable structs. No descriptors, no system calls, no addresses of ours.
//!
//! A shared kernel object has one entry in one table of [`TreeV1`]; users hold its id.
//! What may not live here: anything that reads or changes the running system.

pub mod bands;
mod bus;
pub mod bus_framing;
mod cgroup;
pub mod check;
mod file;
mod ids;
mod inhibitor;
mod keyring;
mod label;
mod lock;
mod memory;
mod process;
mod ring;
pub mod sections;
mod socket;
mod stored;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod thread;
mod volatile;
mod zombie;

pub use bands::outside_bands;
pub use bus::*;
pub use cgroup::*;
pub use file::*;
pub use ids::*;
pub use inhibitor::*;
pub use keyring::*;
pub use label::*;
pub use lock::*;
pub use memory::*;
pub use process::*;
pub use ring::*;
pub use socket::*;
pub use stored::*;
pub use thread::*;
pub use volatile::*;
pub use zombie::*;

use serde::{Deserialize, Serialize};

/// A process tree: one or several roots whose parent is outside.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TreeV1 {
    pub clocks: ClocksV1,
    pub vdso: VdsoV1,
    /// Parents stand before their children.
    pub processes: Vec<ProcessV1>,
    /// Open file descriptions. Index is [`FileId`].
    pub files: Vec<FileV1>,
    /// Files by path, deleted files, memfds, shared memory. Index is [`InodeId`].
    pub inodes: Vec<InodeV1>,
    /// Index is [`PipeId`].
    pub pipes: Vec<PipeV1>,
    /// Classic BPF programs, in no order. Index is [`FilterId`].
    pub seccomp_filters: Vec<SeccompFilterV1>,
    /// Directories that have to exist before volatile files and sockets are made again, parents
    /// first.
    pub volatile_dirs: Vec<VolatileDirV1>,
    /// Directories whose watchers, files and sockets vanish at a reboot (RuntimeDirectory=,
    /// PrivateTmp=): files that nobody held open but that belong to the unit (PID files and the
    /// like).
    pub volatile_files: Vec<InodeId>,
    pub mapped_locks: Vec<MappedLockV1>,
    /// The same for symbolic links, further names of files and sockets that nobody has.
    pub volatile_nodes: Vec<VolatileNodeV1>,
    /// Ascending.
    pub zombies: Vec<ZombieV1>,
    /// Control groups of the unit; empty where there is none but its own.
    pub cgroups: Vec<CgroupV1>,
    /// `None`: that of who starts the tree.
    pub session_keyring: Option<SessionKeyringV1>,
    /// `None` where AppArmor is off, or the tree is not a unit.
    pub confinement: Option<ConfinementV1>,
    /// In the order in which systemd lists them.
    pub stored: Vec<StoredV1>,
}

/// Clocks of the tree at the moment of the freeze, as its processes saw them (time namespace
/// applied).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClocksV1 {
    pub monotonic_ns: i64,
    pub boottime_ns: i64,
    pub realtime_ns: i64,
}

/// The vDSO that the recorded addresses belong to; another one cannot take its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VdsoV1 {
    /// BLAKE3 of the vDSO's bytes.
    pub digest: [u8; 32],
    pub len_bytes: u64,
}

/// A directory on a volatile file system (tmpfs, PrivateTmp).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolatileDirV1 {
    pub path: RawPath,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub xattrs: XattrsV1,
}

impl TreeV1 {
    /// Number of pages that the image carries for processes and shared objects together.
    pub fn page_count(&self) -> u64 {
        let private: u64 = self.processes.iter().flat_map(|p| &p.mm.runs).map(|r| u64::from(r.pages)).sum();
        let shared: u64 = self.inodes.iter().flat_map(|i| &i.content).map(|c| u64::from(c.pages)).sum();
        private + shared
    }

    /// The processes whose parent is not in the tree.
    pub fn roots(&self) -> impl Iterator<Item = &ProcessV1> {
        self.processes.iter().filter(|p| p.parent.is_none())
    }
}
