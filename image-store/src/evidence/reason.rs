//! Why an image is not used: a stable code for machines, a sentence for people.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

macro_rules! reason_codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Stable name of a reason. The text form is part of the interface: log readers match on
        /// it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ReasonCode {
            $($(#[$doc])* $name,)*
        }

        impl ReasonCode {
            /// Every code.
            pub const ALL: &[ReasonCode] = &[$(ReasonCode::$name,)*];

            /// The stable text form.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(ReasonCode::$name => $text,)*
                }
            }
        }
    };
}

reason_codes! {
    /// Another kernel release or build runs.
    KernelChanged = "kernel-changed",
    /// Another systemd runs.
    SystemdChanged = "systemd-changed",
    /// Another machine id or architecture.
    MachineChanged = "machine-changed",
    /// Another CPU model or feature set.
    CpuChanged = "cpu-changed",
    /// The fragment or a drop-in changed, came or went.
    UnitChanged = "unit-changed",
    /// A file or directory that the unit depends on changed.
    FileChanged = "file-changed",
    /// Such a file is gone.
    FileMissing = "file-missing",
    /// A file of the kernel that the service sized itself by has another value.
    ValueChanged = "value-changed",
    /// A file lies on a file system that may not answer, and was not compared.
    FileUnreachable = "file-unreachable",
    /// The catalogue names an image that is not there.
    ImageMissing = "image-missing",
    /// A checksum or rule of the image does not hold.
    ImageCorrupt = "image-corrupt",
    /// The image could not be read for another reason.
    ImageUnreadable = "image-unreadable",
    /// The image was made by a version that this build does not understand.
    ImageUnsupported = "image-unsupported",
    /// The image failed before.
    ImageQuarantined = "image-quarantined",
    /// The image may be used once, and has been.
    ImageConsumed = "image-consumed",
    /// The image was for the next boot, and this is another one.
    BootBetween = "boot-between",
    /// A file system was mounted for writing elsewhere since.
    FileSystemUsed = "file-system-used",
    /// A file that the unit may write is not as it was when the unit had been taken.
    StateChanged = "state-changed",
    /// The unit is in fast-restart mode, and its golden image is not used.
    FastRestart = "fast-restart",
    /// A recorded process id is in use.
    PidTaken = "pid-taken",
    /// Somebody else got the number of a thread that the kernel numbers by counter.
    ThreadIdTaken = "thread-id-taken",
    /// An address that the unit listens on, a lock or a key that it holds is in use.
    AddressTaken = "address-taken",
    /// An address, a listener or an activation socket that the unit needs is not there.
    AddressMissing = "address-missing",
    /// The restore was tried and failed.
    RestoreFailed = "restore-failed",
    /// The service was restored, and ended soon after without having failed.
    EndedItself = "ended-by-itself",
    /// The restore took longer than it may.
    Deadline = "deadline",
    /// The restore daemon did not answer.
    InitdUnavailable = "initd-unavailable",
    /// The unit was started in this boot before.
    NotFirstStart = "not-first-start",
    /// Switched off on the kernel command line or by configuration.
    Disabled = "disabled",
    /// There is no image of the unit.
    NoImage = "no-image",
    /// A user or group has another id.
    IdentityChanged = "identity-changed",
    /// The start gives other supplementary groups.
    GroupsChanged = "groups-changed",
    /// The start gives other capabilities, another umask, or the like.
    PrivilegesChanged = "privileges-changed",
    /// The start gives other resource limits.
    LimitsChanged = "limits-changed",
    /// A credential has another content, came or went.
    CredentialsChanged = "credentials-changed",
    /// An environment variable has another value, came or went.
    EnvironmentChanged = "environment-changed",
    /// The start gives other processors or another priority.
    SchedulingChanged = "scheduling-changed",
    /// The machine has another name.
    HostnameChanged = "hostname-changed",
    /// The image is older than its unit allows.
    ImageTooOld = "image-too-old",
    /// AppArmor would confine a cold start in another way than at the snapshot.
    ConfinementChanged = "confinement-changed",
    /// The system bus cannot be reached, or does not answer.
    BusUnavailable = "bus-unavailable",
    /// The system bus refuses a name or a rule, or a name belongs to somebody else.
    BusRefused = "bus-refused",
    /// This kernel or environment cannot do what the restore needs.
    HostUnsupported = "host-unsupported",
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ReasonCode {
    type Err = String;

    fn from_str(text: &str) -> Result<ReasonCode, String> {
        let found = ReasonCode::ALL.iter().copied().find(|code| code.as_str() == text);
        found.ok_or_else(|| format!("unknown reason code {text:?}"))
    }
}

// By text in every format, so that adding a code in the middle changes nothing that is stored.
impl Serialize for ReasonCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ReasonCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ReasonCode, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A reason to start cold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaleReason {
    /// For machines.
    pub code: ReasonCode,
    /// For people: names the file or the fact, without a final full stop.
    pub sentence: String,
}

impl StaleReason {
    /// A reason from its two parts.
    pub fn new(code: ReasonCode, sentence: impl Into<String>) -> StaleReason {
        StaleReason { code, sentence: sentence.into() }
    }
}

impl fmt::Display for StaleReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl std::error::Error for StaleReason {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_reads_back_from_its_text() {
        for &code in ReasonCode::ALL {
            assert_eq!(code.as_str().parse(), Ok(code));
            assert!(code.as_str().bytes().all(|b| b.is_ascii_lowercase() || b == b'-'));
        }
        assert!("file-chnaged".parse::<ReasonCode>().is_err());
    }
}
