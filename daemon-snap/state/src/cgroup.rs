//! Control groups that a unit has made below its own (Delegate=).

use super::check::{Result, check};
use super::{Pid, RawPath, XattrsV1};
use serde::{Deserialize, Serialize};

/// A control group of a unit: its own, which systemd makes, or one below.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupV1 {
    /// Relative to the unit's own, whose path is empty. Parents stand before what is below them.
    pub path: RawPath,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Files in it that do not belong to root: name, user and group. Of the unit's own group
    /// systemd gives them away.
    pub owners: Vec<(String, u32, u32)>,
    /// Files with another value than a new group has: name and what is to be written, in this
    /// order. Of the unit's own group systemd sets those of controllers.
    pub settings: Vec<(String, String)>,
    pub xattrs: XattrsV1,
    /// Processes in it, not those of groups below.
    pub members: Vec<Pid>,
}

/// What says which controllers groups below a group have. Nobody may be in a group that enables one
/// of memory or I/O.
pub const SUBTREE_CONTROL: &str = "cgroup.subtree_control";

impl CgroupV1 {
    /// Whether controllers are enabled for groups below it.
    pub fn enables_controllers(&self) -> bool {
        self.settings.iter().any(|(name, _)| name == SUBTREE_CONTROL)
    }

    /// Nothing but names below the unit's own group.
    pub(crate) fn check(&self) -> Result<()> {
        let is_name = |name: &[u8]| {
            !name.is_empty() && name != b"." && name != b".." && !name.contains(&0) && !name.contains(&b'/')
        };
        let path = &self.path.0;
        let is_below = path.is_empty() || path.split(|byte| *byte == b'/').all(is_name);
        check(is_below, "an odd path of a control group")?;
        let owners = self.owners.iter().map(|(name, ..)| name);
        let mut files = owners.chain(self.settings.iter().map(|(name, _)| name));
        check(files.all(|name| is_name(name.as_bytes())), "an odd file of a control group")
    }
}
