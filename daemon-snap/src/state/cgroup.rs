//! Control groups that a unit has made below its own (Delegate=).

use super::{Pid, RawPath, XattrsV1};
use serde::{Deserialize, Serialize};

/// A control group of a unit: its own, which systemd makes, or one below. Controllers are not enabled in any of them, so there are no
/// limits to carry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupV1 {
    /// Relative to the unit's own, whose path is empty. Parents stand before what is below them.
    pub path: RawPath,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Files in it that do not belong to root: name, user and group. Of the unit's own group systemd gives them away.
    pub owners: Vec<(String, u32, u32)>,
    /// Files of cgroup.* with another value than a new group has: name and value.
    pub settings: Vec<(String, String)>,
    pub xattrs: XattrsV1,
    /// Processes in it, not those of groups below.
    pub members: Vec<Pid>,
}
