//! The machine, its kernel and its processor.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::file::under_root;
use super::reason::{ReasonCode, StaleReason};
use crate::digest::Digest;
use crate::error::{Error, Result};

/// In an image that equal machines use, in the place of what is of one of them: it is never
/// compared. No machine id and no host name is spelled so, and a fastboot that does not know of it
/// finds a difference.
pub(super) const OF_ANY_MACHINE: &str = "*";

const UNINITIALIZED: &str = "uninitialized";

/// Which machines may use an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The one that it was taken on.
    ThisMachine,
    /// All that are equal to it.
    EqualMachines,
}

/// What identifies machine, kernel and processor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineEvidence {
    /// As `uname -r`.
    pub kernel_release: String,
    /// As `uname -v`: it has the build number and date.
    pub kernel_version: String,
    /// `/etc/machine-id`; `*` in an image for [`Scope::EqualMachines`].
    pub machine_id: String,
    /// Architecture that this program was built for, which is that of every image it can restore.
    pub architecture: String,
    /// The processor.
    pub cpu: CpuEvidence,
}

/// What a running program may have found out about the processor. Where the processors of a machine
/// differ, each text has all variants, sorted and joined by a comma.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuEvidence {
    /// `vendor_id`, or `CPU implementer` on arm64.
    pub vendor: String,
    /// `cpu family`, or `CPU architecture` on arm64.
    pub family: String,
    /// `model`, or `CPU part` on arm64.
    pub model: String,
    /// Digest of the sorted feature flags.
    pub flags_digest: Digest,
}

impl MachineEvidence {
    /// Look at `root/proc` and `root/etc`.
    ///
    /// # Errors
    /// [`Error::Gone`] or [`Error::Io`] when /proc is not there. A missing machine id is recorded
    /// as empty, and matches nothing; so is the word that stands in its place while it is being
    /// made (machine-id(5)), and so is what it cannot be.
    pub fn collect(root: &Path) -> Result<MachineEvidence> {
        let read = |path: &str| -> Result<String> {
            let path = under_root(root, Path::new(path));
            fs::read_to_string(&path).map_err(|source| Error::io(&path, "read", source))
        };
        let machine_id = read("/etc/machine-id").unwrap_or_default();
        let machine_id = Some(machine_id.trim()).filter(|id| ![UNINITIALIZED, OF_ANY_MACHINE].contains(id));
        Ok(MachineEvidence {
            kernel_release: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            kernel_version: read("/proc/sys/kernel/version")?.trim().to_owned(),
            machine_id: machine_id.unwrap_or_default().to_owned(),
            architecture: std::env::consts::ARCH.to_owned(),
            cpu: CpuEvidence::parse(&read("/proc/cpuinfo")?),
        })
    }

    /// As it stands in an image of this scope.
    pub fn in_scope(self, scope: Scope) -> MachineEvidence {
        match scope {
            Scope::ThisMachine => self,
            Scope::EqualMachines => MachineEvidence { machine_id: OF_ANY_MACHINE.to_owned(), ..self },
        }
    }

    /// Which machines may use the image that this stands in.
    pub fn scope(&self) -> Scope {
        if self.machine_id == OF_ANY_MACHINE { Scope::EqualMachines } else { Scope::ThisMachine }
    }

    /// Compare with the machine as it is now.
    ///
    /// # Errors
    /// What changed.
    pub fn check(&self, now: &MachineEvidence) -> std::result::Result<(), StaleReason> {
        let differs = |code, what: &str, was: &str, is: &str| {
            Err(StaleReason::new(code, format!("{what} is {is:?}, was {was:?} at the snapshot")))
        };
        if self.architecture != now.architecture {
            return differs(
                ReasonCode::MachineChanged,
                "architecture",
                &self.architecture,
                &now.architecture,
            );
        }
        let is_this_one = self.machine_id == now.machine_id && !now.machine_id.is_empty();
        if self.scope() == Scope::ThisMachine && !is_this_one {
            return differs(ReasonCode::MachineChanged, "/etc/machine-id", &self.machine_id, &now.machine_id);
        }
        if self.kernel_release != now.kernel_release {
            return differs(
                ReasonCode::KernelChanged,
                "kernel release",
                &self.kernel_release,
                &now.kernel_release,
            );
        }
        if self.kernel_version != now.kernel_version {
            return differs(
                ReasonCode::KernelChanged,
                "kernel build",
                &self.kernel_version,
                &now.kernel_version,
            );
        }
        if self.cpu.identity() != now.cpu.identity() {
            return differs(ReasonCode::CpuChanged, "CPU", &self.cpu.identity(), &now.cpu.identity());
        }
        if self.cpu.flags_digest != now.cpu.flags_digest {
            return Err(StaleReason::new(
                ReasonCode::CpuChanged,
                "CPU feature flags differ from the snapshot's",
            ));
        }
        Ok(())
    }
}

impl CpuEvidence {
    /// Read the text of `/proc/cpuinfo`.
    pub fn parse(cpuinfo: &str) -> CpuEvidence {
        let values = |keys: [&str; 2]| -> BTreeSet<&str> {
            let pairs = cpuinfo.lines().filter_map(|line| line.split_once(':'));
            pairs.filter(|(key, _)| keys.contains(&key.trim())).map(|(_, value)| value.trim()).collect()
        };
        let join = |values: BTreeSet<&str>| values.into_iter().collect::<Vec<_>>().join(",");
        let flags: BTreeSet<&str> =
            values(["flags", "Features"]).into_iter().flat_map(str::split_ascii_whitespace).collect();
        CpuEvidence {
            vendor: join(values(["vendor_id", "CPU implementer"])),
            family: join(values(["cpu family", "CPU architecture"])),
            model: join(values(["model", "CPU part"])),
            flags_digest: Digest::of(flags.into_iter().collect::<Vec<_>>().join(" ").as_bytes()),
        }
    }

    fn identity(&self) -> String {
        format!("{} family {} model {}", self.vendor, self.family, self.model)
    }
}
