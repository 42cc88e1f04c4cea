//! Where a file that a unit sees is for everyone else: at boot, evidence is checked outside the
//! unit's mount namespace.

use image_store::evidence::MountTable;
use image_store::mountinfo::{self, Mount};
use snap_state::Pid;
use snap_sys::netns;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Paths of a unit and paths of ours.
#[derive(Debug)]
pub(super) struct Mounts {
    theirs: Vec<Mount>,
    ours: Vec<Mount>,
    /// Types of theirs.
    table: MountTable,
    /// Of its mount namespace: the process may have changed its own. `None`: of a process that is
    /// gone, or that we may not look at.
    root: Option<OwnedFd>,
}

impl Mounts {
    /// The mounts of a process and ours. A process that is gone has none.
    pub fn of(pid: Pid) -> Self {
        let text = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
        let ours = mountinfo::parse(&text);
        let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
        if namespace(&pid.to_string()) == namespace("self") {
            let root = File::open("/").map(OwnedFd::from).ok();
            let table = MountTable::of(&ours);
            return Self { theirs: ours.clone(), ours, table, root };
        }
        let entered = File::open(format!("/proc/{pid}/ns/mnt")).ok();
        let entered = entered.as_ref().map(|namespace| namespace.as_fd());
        let mut text = Vec::new();
        if let Some(list) = entered.and_then(|namespace| netns::mount_list(namespace).ok()) {
            // What cannot be read is not found, and so cannot be checked at boot.
            File::from(list).read_to_end(&mut text).unwrap_or_default();
        }
        let root = entered.and_then(|namespace| netns::mount_root(namespace).ok());
        let theirs = mountinfo::parse(&text);
        Self { table: MountTable::of(&theirs), theirs, ours, root }
    }

    /// The type of the unit's file system at `path` if it is one that may not answer.
    pub fn remote(&self, path: &Path) -> Option<&str> {
        self.table.remote(path)
    }

    /// Our path to the file that the unit has at `path`; `None` when we have none.
    pub fn outside(&self, path: &Path) -> Option<PathBuf> {
        let inside = std::fs::symlink_metadata(self.inside(path)?).ok()?;
        let is_same = |candidate: &Path| {
            std::fs::symlink_metadata(candidate)
                .is_ok_and(|ours| (ours.dev(), ours.ino()) == (inside.dev(), inside.ino()))
        };
        if is_same(path) {
            return Some(path.to_owned());
        }
        translate(&self.theirs, &self.ours, path).into_iter().find(|candidate| is_same(candidate))
    }

    /// The unit's path to a file of this device and inode, which was told as `path`. That is the
    /// path itself, or what is below the root of a mount of a namespace that was gone by then: of
    /// /etc/group behind a mount on /etc (ProtectSystem=) the kernel says `/group` once the last
    /// process of that namespace has ended. `None`: another file, or nothing, is there now.
    pub fn told_as(&self, path: &Path, file: (u64, u64)) -> Option<PathBuf> {
        let is_it = |path: &Path| {
            let metadata = self.inside(path).and_then(|inside| std::fs::symlink_metadata(inside).ok());
            metadata.is_some_and(|metadata| (metadata.dev(), metadata.ino()) == file)
        };
        if is_it(path) {
            return Some(path.to_owned());
        }
        let below = path.strip_prefix("/").unwrap_or(path);
        let points = self.theirs.iter().rev().map(|mount| mount.point.join(below));
        points.into_iter().find(|path| is_it(path))
    }

    /// The unit's path as one that we can open, as long as no link on it is absolute.
    pub fn inside(&self, path: &Path) -> Option<PathBuf> {
        let root = PathBuf::from(format!("/proc/self/fd/{}", self.root.as_ref()?.as_raw_fd()));
        Some(root.join(path.strip_prefix("/").unwrap_or(path)))
    }
}

/// Candidates: the place in its file system, looked for in each of our mounts of that file system.
fn translate(theirs: &[Mount], ours: &[Mount], path: &Path) -> Vec<PathBuf> {
    // Of mounts on top of each other the last one is seen.
    let holds = |mount: &&Mount| path.starts_with(&mount.point);
    let Some(mount) = theirs.iter().filter(holds).max_by_key(|mount| mount.point.components().count()) else {
        return Vec::new();
    };
    let below = path.strip_prefix(&mount.point).unwrap_or(path);
    let place = mount.root.join(below);
    let of_same = ours.iter().filter(|ours| ours.device == mount.device);
    of_same.filter_map(|ours| Some(ours.point.join(place.strip_prefix(&ours.root).ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Vec<Mount> {
        mountinfo::parse(text.as_bytes())
    }

    const OURS: &str = "21 1 254:0 / / rw - ext4 /dev/vda rw\n22 21 0:20 / /run rw - tmpfs tmpfs rw\n";

    #[test]
    fn a_bind_mount_is_found_where_it_comes_from() {
        let theirs = format!("{OURS}40 21 254:0 /srv/my\\040site /etc/site ro - ext4 /dev/vda rw\n");
        let found = translate(&parse(&theirs), &parse(OURS), Path::new("/etc/site/a.conf"));
        assert_eq!(found, [PathBuf::from("/srv/my site/a.conf")]);
        let plain = translate(&parse(&theirs), &parse(OURS), Path::new("/etc/passwd"));
        assert_eq!(plain, [PathBuf::from("/etc/passwd")]);
    }

    #[test]
    fn what_only_the_unit_has_mounted_is_not_found() {
        let theirs = format!("{OURS}41 21 0:99 / /data rw - tmpfs tmpfs rw\n");
        assert!(translate(&parse(&theirs), &parse(OURS), Path::new("/data/x")).is_empty());
    }
}
