//! inotify(7): watches, whose paths the kernel has forgotten.

use super::description::Description;
use crate::blockers::{Found, failed, refused};
use crate::spaces::Spaces;
use image_store::mountinfo;
use nix::fcntl::AtFlags;
use nix::sys::stat::{fstat, fstatat};
use snap_error::Error;
use snap_error::obstacle::DescriptorObstacle;
use snap_state::{FileKindV1, InotifyV1, InotifyWatchV1, Pid, RawPath};
use snap_sys::proc::{self, FdInfo, MarkedInode};
use snap_sys::{fdquery, netns};
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::OpenOptionsExt as _;

/// The watches of one inotify descriptor.
pub(super) fn collect(
    file: &Description,
    fd: BorrowedFd<'_>,
    info: &FdInfo,
    spaces: &Spaces,
) -> Found<FileKindV1> {
    let Some(marks) = info.inotify_marks() else {
        return refused(DescriptorObstacle::InotifyUntold);
    };
    if fdquery::unread_bytes(fd).map_err(failed("read inotify queue", file.pid, file.fd))? > 0 {
        return refused(DescriptorObstacle::InotifyUnread);
    }
    let mounts = if marks.is_empty() { Vec::new() } else { mounts(spaces)? };
    let mut watches = Vec::with_capacity(marks.len());
    for mark in marks {
        let Some(path) = path_of(&mark.inode, &mounts, spaces) else {
            return refused(DescriptorObstacle::InotifyPathUnknown { inode: mark.inode.ino });
        };
        watches.push(InotifyWatchV1 { wd: mark.wd, path, mask: mark.mask });
    }
    watches.sort_by_key(|watch| watch.wd);
    Ok(FileKindV1::Inotify(InotifyV1 { watches }))
}

/// A mount of the tree's namespace.
#[derive(Debug)]
pub(super) struct Mount {
    pub id: u32,
    /// As the kernel names it in fdinfo.
    pub device: u32,
    pub point: RawPath,
}

/// All mounts of the tree's namespace.
pub(super) fn mounts(spaces: &Spaces) -> Found<Vec<Mount>> {
    // A process that has changed its root (avahi) is shown only what is mounted below that; its
    // namespace has the rest too.
    let own = Pid(std::process::id() as i32);
    let namespace = |pid| proc::read_link(pid, "ns/mnt");
    let text = if namespace(spaces.main)? == namespace(own)? {
        proc::read(own, "mountinfo")?
    } else {
        let path = format!("/proc/{}/ns/mnt", spaces.main);
        let failed = |e| Error::io("read mounts", &path, &e);
        let list = File::open(&path).map_err(failed)?;
        let list = netns::mount_list(list.as_fd())
            .map_err(|e| Error::kernel("enter", format!("mount namespace of pid {}", spaces.main), e))?;
        let mut text = Vec::new();
        File::from(list).read_to_end(&mut text).map_err(failed)?;
        text
    };
    let mounts = mountinfo::parse(&text).into_iter().map(|mount| {
        let (major, minor) = mount.device;
        Mount { id: mount.id, device: major << 20 | minor, point: RawPath::from_path(&mount.point) }
    });
    Ok(mounts.collect())
}

/// Asks each mount of the file system for the file with this handle, and believes a path only if it
/// leads there.
pub(super) fn path_of(mark: &MarkedInode, mounts: &[Mount], spaces: &Spaces) -> Option<RawPath> {
    for Mount { point, .. } in mounts.iter().filter(|mount| mount.device == mark.sdev) {
        let reachable = spaces.reachable(point);
        // A mount point may be anything; opening a FIFO must not wait.
        let mount = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&reachable);
        let Ok(mount) = mount else { continue };
        let Ok(file) = fdquery::open_handle(mount.as_fd(), mark.handle_type, &mark.handle) else { continue };
        let Ok(link) = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())) else { continue };
        let path = RawPath(link.into_os_string().into_vec());
        let there = fstatat(nix::fcntl::AT_FDCWD, &spaces.reachable(&path), AtFlags::AT_SYMLINK_NOFOLLOW);
        if let (Ok(there), Ok(here)) = (there, fstat(&file))
            && (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)
        {
            return Some(path);
        }
    }
    None
}
