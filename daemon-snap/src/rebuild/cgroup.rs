//! Control groups below that of the unit, and which process belongs into which.

use super::desk::Desk;
use crate::error::{Error, Result};
use crate::state::{CgroupV1, Pid, TreeV1};
use crate::sys;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat, mkdirat};
use nix::unistd::{Gid, Uid, fchownat, write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Groups by process; empty where all belong into the unit's own, which the worker is in.
#[derive(Debug, Default)]
pub struct Cgroups(Vec<(OwnedFd, Vec<Pid>)>);

impl Cgroups {
    /// Where a process has to be created; `None`: where its creator is.
    pub fn of(&self, pid: Pid) -> Option<BorrowedFd<'_>> {
        self.0.iter().find(|(_, members)| members.contains(&pid)).map(|(dir, _)| dir.as_fd())
    }
}

/// Makes what is not there below `unit`, the directory of the unit's own group. Called before namespaces are entered.
///
/// # Errors
/// mkdir(2), chown(2), writing a setting.
pub fn rebuild_cgroups(desk: &Desk, tree: &TreeV1, unit: BorrowedFd<'_>) -> Result<Cgroups> {
    let groups = tree.cgroups.iter().map(|group| {
        let dir = rebuild(unit, group)?;
        Ok((desk.raise(dir)?, group.members.clone()))
    });
    groups.collect::<Result<_>>().map(Cgroups)
}

fn rebuild(unit: BorrowedFd<'_>, group: &CgroupV1) -> Result<OwnedFd> {
    let failed = |step| move |e| Error::kernel(step, format!("control group {}", group.path), e);
    let is_own = group.path.0.is_empty();
    let path = if is_own { Path::new(".") } else { group.path.as_path() };
    if !is_own {
        match mkdirat(unit, path, Mode::S_IRWXU) {
            // DelegateSubgroup=
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(e) => return Err(failed("mkdir")(e)),
        }
    }
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let dir = openat(unit, path, flags, Mode::empty()).map_err(failed("open"))?;
    for (name, value) in &group.settings {
        let file = openat(&dir, name.as_str(), OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty());
        let file = file.map_err(failed("open a file of"))?;
        write(&file, value.as_bytes()).map_err(failed("write a file of"))?;
    }
    if is_own {
        return Ok(dir);
    }
    let chown = |name: &str, uid, gid| {
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        fchownat(&dir, name, uid, gid, AtFlags::empty()).map_err(failed("chown"))
    };
    chown(".", group.uid, group.gid)?;
    group.owners.iter().try_for_each(|(name, uid, gid)| chown(name, *uid, *gid))?;
    fchmodat(&dir, ".", Mode::from_bits_truncate(group.mode), FchmodatFlags::FollowSymlink)
        .map_err(failed("chmod"))?;
    let in_proc = PathBuf::from(format!("/proc/self/fd/{}/.", dir.as_raw_fd()));
    for (name, value) in &group.xattrs {
        sys::xattr::set(&in_proc, name, value).map_err(failed("setting an extended attribute of"))?;
    }
    Ok(dir)
}
