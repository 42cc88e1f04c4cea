//! What fastboot keeps for one boot, and what it leaves for the generator of the next one.
//!
//! ```text
//! /run/fastboot/                0755: the shims of all users reach the socket in it
//!   initd.sock                  made by systemd (fastboot-initd.socket)
//!   generator.json        0600  what the generator decided          generator.rs
//!   status.json           0600  what became of each unit            status.rs
//!   disk-use.json         0600  what the disks did at the boot      disk_use.rs
//!   asked/UNIT            0600  who has asked for an image          first_start.rs
//!   trial/UNIT.*          0600  permits of a snapshot, and outcomes trial.rs
//!   soft-reboots          0644  how often userspace began anew      soft_reboot.rs
//!   going-down                  units have been ended for the next boot
//!   ids.lock              0600  who moves the counter of thread ids ids_lock.rs
//! /etc/fastboot/                0700
//!   catalogue.json        0600  for generators, where the store is mounted later than they run
//! ```
//!
//! Every program of fastboot reads and writes these files through this crate, so that each of them
//! has one type and one path. Files are replaced by rename, and readers bound what they read.
//! Images and the store that holds them may not live here (`image_store`), and neither may
//! decisions: this crate only says how they are written down.

pub mod boot;
pub mod cmdline;
pub mod disk_use;
mod file;
pub mod first_start;
pub mod generator;
pub mod ids_lock;
pub mod journal;
mod judgement;
pub mod soft_reboot;
pub mod status;
mod store;
pub mod trial;

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

pub use first_start::{Claim, FirstStarts, ProcessId};
pub use generator::{GeneratorRecord, UnitDecision};
pub use judgement::{NamedReason, stale_reason};
pub use status::{BootStatus, Outcome, StatusFile, UnitStatus};
pub use store::{EARLY_CATALOGUE, open_store};
pub use trial::Trials;

/// Directory of everything that fastboot keeps for one boot.
pub const RUN_DIR: &str = "/run/fastboot";
/// Where the restore daemon listens; as in `fastboot-initd.socket`.
pub const SOCKET_PATH: &str = "/run/fastboot/initd.sock";

/// The directory of this boot: [`RUN_DIR`], except in tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunDir {
    path: PathBuf,
}

impl RunDir {
    /// The one of the system whose root directory is `root`.
    pub fn below(root: &Path) -> RunDir {
        RunDir { path: root.join(RUN_DIR.trim_start_matches('/')) }
    }

    /// This directory.
    pub fn at(path: impl Into<PathBuf>) -> RunDir {
        RunDir { path: path.into() }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Make it, readable for all: the shims of all users have to reach the socket in it.
    ///
    /// # Errors
    /// When it cannot be made, or belongs to somebody else.
    pub fn create(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o755).create(&self.path)?;
        fs::set_permissions(&self.path, Permissions::from_mode(0o755))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Default for RunDir {
    fn default() -> RunDir {
        RunDir::at(RUN_DIR)
    }
}
