//! Pressure triggers and descriptors of namespaces.

use super::InodeId;
use super::check::{Around, Result, check};
use super::kind::FileState;
use serde::{Deserialize, Serialize};

/// Entries of /proc/PID/ns.
const NAMESPACES: [&str; 8] = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];
const MAX_TRIGGER_BYTES: usize = 64;

/// A file in /proc/pressure or of a control group with a trigger (since Linux 5.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PressureTriggerV1 {
    pub inode: InodeId,
    /// What was written to it.
    pub text: Vec<u8>,
}

/// `/proc/PID/ns/NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceV1 {
    pub name: String,
    pub of: NamespaceOfV1,
}

/// Whose namespace a descriptor refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NamespaceOfV1 {
    /// The tree's own.
    Tree,
    /// That of PID 1.
    Init,
}

impl FileState for PressureTriggerV1 {
    fn name(&self) -> &'static str {
        "pressure trigger"
    }

    fn inode(&self) -> Option<InodeId> {
        Some(self.inode)
    }

    fn check(&self, _: i32, around: &Around<'_>) -> Result<()> {
        let sized = (1..=MAX_TRIGGER_BYTES).contains(&self.text.len());
        check(around.has_inode(self.inode) && sized, "an odd pressure trigger")
    }
}

impl FileState for NamespaceV1 {
    fn name(&self) -> &'static str {
        "namespace"
    }

    fn check(&self, _: i32, _: &Around<'_>) -> Result<()> {
        check(NAMESPACES.contains(&self.name.as_str()), "a namespace that does not exist")
    }
}
