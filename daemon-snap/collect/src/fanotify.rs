//! fanotify(7): groups that are only notified. Everything that they are is told in fdinfo, but for
//! the privilege they were made with.

use super::description::Description;
use super::inotify::{Mount, mounts, path_of};
use crate::blockers::{Found, failed, refused};
use crate::spaces::Spaces;
use snap_error::obstacle::{self, DescriptorObstacle};
use snap_state::{FanotifyMarkV1, FanotifyV1, FileKindV1, RawPath};
use snap_sys::proc::{FdInfo, MarkedObject, Status};
use snap_sys::{fanotify, fdquery};
use std::fs::{self, File};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;

/// One group.
pub(super) fn collect(
    file: &Description,
    fd: BorrowedFd<'_>,
    info: &FdInfo,
    spaces: &Spaces,
) -> Found<FileKindV1> {
    const CAP_SYS_ADMIN: u64 = 1 << 21;
    let Some(info) = info.fanotify() else {
        return refused(DescriptorObstacle::FanotifyMarkUnknown);
    };
    if info.flags & fanotify::CLASS_BITS != 0 {
        return refused(DescriptorObstacle::FanotifyPermission);
    }
    // One that was made without privilege is told less, and nothing shows it.
    if Status::of(file.pid, file.pid)?.cap_permitted & CAP_SYS_ADMIN == 0 {
        return refused(DescriptorObstacle::FanotifyUnprivileged);
    }
    if fdquery::unread_bytes(fd).map_err(failed("read fanotify queue", file.pid, file.fd))? > 0 {
        return refused(DescriptorObstacle::FanotifyUnread);
    }
    let mounts = if info.marks.is_empty() { Vec::new() } else { mounts(spaces)? };
    let mut marks = Vec::with_capacity(info.marks.len());
    for mark in info.marks {
        let (kind, path) = match &mark.object {
            MarkedObject::Inode(inode) => (fanotify::MARK_INODE, path_of(inode, &mounts, spaces)),
            MarkedObject::Mount(id) => {
                (fanotify::MARK_MOUNT, point_of(&mounts, spaces, |mount| mount.id == *id))
            }
            MarkedObject::FileSystem(device) => {
                (fanotify::MARK_FILESYSTEM, point_of(&mounts, spaces, |mount| mount.device == *device))
            }
        };
        let Some(path) = path else {
            let object = match &mark.object {
                MarkedObject::Inode(inode) => obstacle::MarkedObject::Inode(inode.ino),
                MarkedObject::Mount(id) => obstacle::MarkedObject::Mount(*id),
                MarkedObject::FileSystem(device) => obstacle::MarkedObject::FileSystem { device: *device },
            };
            return refused(DescriptorObstacle::FanotifyPathUnknown { object });
        };
        if mark.flags & !fanotify::MARK_FLAGS != 0 || mark.mask | mark.ignored_mask == 0 {
            return refused(DescriptorObstacle::FanotifyMarkKind { path });
        }
        let (flags, mask, ignored_mask) = (mark.flags, mark.mask, mark.ignored_mask);
        marks.push(FanotifyMarkV1 { kind, path, flags, mask, ignored_mask });
    }
    marks.sort();
    Ok(FileKindV1::Fanotify(FanotifyV1 { flags: info.flags, event_flags: info.event_flags, marks }))
}

/// Where a mount lies. Something else may be mounted over it, so the path is believed only if it
/// leads there.
fn point_of(mounts: &[Mount], spaces: &Spaces, is_it: impl Fn(&Mount) -> bool) -> Option<RawPath> {
    let leads_there = |mount: &&Mount| {
        let mut options = File::options();
        let Ok(there) = options.read(true).custom_flags(libc::O_PATH).open(spaces.reachable(&mount.point))
        else {
            return false;
        };
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", there.as_raw_fd())).unwrap_or_default();
        let id = info.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
        id == Some(mount.id)
    };
    mounts.iter().filter(|mount| is_it(mount)).find(leads_there).map(|mount| mount.point.clone())
}
