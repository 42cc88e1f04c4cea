//! Control groups below that of the unit, and which process belongs into which.

use super::desk::Desk;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat, mkdirat};
use nix::unistd::{Gid, Uid, fchownat, write};
use snap_error::{Error, Result};
use snap_state::{CgroupV1, Pid};
use snap_sys as sys;
use std::fs::File;
use std::io::Read as _;
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

/// Makes what is not there below `unit`, the directory of the unit's own group. Called before
/// namespaces are entered.
///
/// 1. All groups, so that there is one to go to.
/// 2. Everybody leaves those that enable controllers: a group that is not empty may not (-EBUSY).
/// 3. Settings, from the unit's own downwards: files of controllers appear in a group when the one
///    above enables them, and only then can they be given away.
///
/// # Errors
/// mkdir(2), chown(2), writing a setting.
pub fn rebuild_cgroups(desk: &Desk, groups: &[CgroupV1], unit: BorrowedFd<'_>) -> Result<Cgroups> {
    let made = groups.iter().map(|group| Ok((desk.raise(make(unit, group)?)?, group)));
    let groups = made.collect::<Result<Vec<_>>>()?;
    leave_those_with_controllers(&groups)?;
    groups.iter().try_for_each(|(dir, group)| set_up(dir, group))?;
    Ok(Cgroups(groups.into_iter().map(|(dir, group)| (dir, group.members.clone())).collect()))
}

/// systemd has started the shim in the unit's own group, and the worker was made there. They go to
/// where some of the unit's processes will be, under as few limits as possible; if the restore
/// fails initd brings the shim back.
fn leave_those_with_controllers(groups: &[(OwnedFd, &CgroupV1)]) -> Result<()> {
    for (dir, group) in groups.iter().filter(|(_, group)| group.enables_controllers()) {
        let failed = |step| move |e| Error::kernel(step, format!("control group {}", group.path), e);
        let bears = |(_, group): &&(_, &CgroupV1)| !group.members.is_empty() && !group.enables_controllers();
        let to = groups.iter().filter(bears).min_by_key(|(_, group)| group.settings.len());
        let (to, _) = to.ok_or(Errno::EBUSY).map_err(failed("leave"))?;
        let open = |dir: &OwnedFd, flags| {
            openat(dir, "cgroup.procs", flags | OFlag::O_CLOEXEC, Mode::empty())
                .map_err(failed("open cgroup.procs of"))
        };
        let mut members = String::new();
        File::from(open(dir, OFlag::O_RDONLY)?)
            .read_to_string(&mut members)
            .map_err(|e| Error::io("read members of", format!("control group {}", group.path), &e))?;
        let to = open(to, OFlag::O_WRONLY)?;
        for pid in members.lines() {
            match write(&to, pid.as_bytes()) {
                // One that has ended meanwhile.
                Ok(_) | Err(Errno::ESRCH) => {}
                Err(e) => return Err(failed("leave")(e)),
            }
        }
    }
    Ok(())
}

fn make(unit: BorrowedFd<'_>, group: &CgroupV1) -> Result<OwnedFd> {
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
    openat(unit, path, flags, Mode::empty()).map_err(failed("open"))
}

/// Settings, owners, mode and attributes of one.
fn set_up(dir: &OwnedFd, group: &CgroupV1) -> Result<()> {
    let failed = |step| move |e| Error::kernel(step, format!("control group {}", group.path), e);
    for (name, value) in &group.settings {
        let failed =
            |step| move |e| Error::kernel(step, format!("{name} of control group {}", group.path), e);
        let file = openat(dir, name.as_str(), OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty());
        write(&file.map_err(failed("open"))?, value.as_bytes()).map_err(failed("write"))?;
    }
    if group.path.0.is_empty() {
        return Ok(());
    }
    let chown = |name: &str, uid, gid| {
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        fchownat(dir, name, uid, gid, AtFlags::empty()).map_err(failed("chown"))
    };
    chown(".", group.uid, group.gid)?;
    group.owners.iter().try_for_each(|(name, uid, gid)| chown(name, *uid, *gid))?;
    fchmodat(dir, ".", Mode::from_bits_truncate(group.mode), FchmodatFlags::FollowSymlink)
        .map_err(failed("chmod"))?;
    let in_proc = PathBuf::from(format!("/proc/self/fd/{}/.", dir.as_raw_fd()));
    for (name, value) in &group.xattrs {
        sys::xattr::set(&in_proc, name, value).map_err(failed("setting an extended attribute of"))?;
    }
    Ok(())
}
