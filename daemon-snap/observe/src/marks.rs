//! Which file systems are watched, and watching them.

use std::collections::BTreeSet;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use image_store::evidence::{Gap, MountTable};
use image_store::mountinfo::{self, Mount};
use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::sys::fanotify::{Fanotify, MarkFlags, MaskFlags};

/// Nothing that a service depends on is read from these, and opening a device a second time may do
/// something.
const SKIPPED: [&str; 18] = [
    "autofs",
    "devtmpfs",
    "devpts",
    "mqueue",
    "hugetlbfs",
    "debugfs",
    "tracefs",
    "configfs",
    "securityfs",
    "selinuxfs",
    "pstore",
    "bpf",
    "efivarfs",
    "binfmt_misc",
    "fusectl",
    "nsfs",
    "rpc_pipefs",
    "nfsd",
];
/// Made anew at each boot or views of the kernel: to watch them a moment late loses nothing that is
/// compared by content.
const PASSING: [&str; 6] = ["tmpfs", "ramfs", "proc", "sysfs", "cgroup2", "cgroup"];
/// Longest that a mount whose server is gone may hold things up.
const REMOTE_BOUND: Duration = Duration::from_secs(2);

/// File systems that are watched.
#[derive(Debug)]
pub(crate) struct Marks {
    group: Arc<Fanotify>,
    /// Major and minor numbers.
    devices: Mutex<BTreeSet<(u32, u32)>>,
    /// The kernel can tell listing from opening.
    tells_listing: bool,
}

impl Marks {
    /// Watches everything that this process has mounted.
    ///
    /// # Errors
    /// When not even the root file system can be watched.
    pub fn of_this_process(group: Arc<Fanotify>) -> Result<(Self, Vec<Gap>), Errno> {
        let root = Path::new("/");
        let tells_listing = ignore_reading(&group, root).is_ok();
        let marks = Self { group, devices: Mutex::default(), tells_listing };
        marks.mark(root)?;
        let text = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
        let (_, failed) = marks.add(&mountinfo::parse(&text), Path::new("/"));
        Ok((marks, failed))
    }

    /// Whether a directory that is only opened has to count as listed.
    pub fn tells_listing(&self) -> bool {
        self.tells_listing
    }

    /// Watches what a process has mounted and is not watched yet. Returns what it may have used
    /// before.
    pub fn of_process(&self, pid: i32) -> Vec<Gap> {
        let Ok(text) = std::fs::read(format!("/proc/{pid}/mountinfo")) else { return Vec::new() };
        let (late, failed) = self.add(&mountinfo::parse(&text), Path::new(&format!("/proc/{pid}/root")));
        late.into_iter().chain(failed).collect()
    }

    /// Returns what was not watched until now and may hold configuration, and what cannot be
    /// watched.
    fn add(&self, mounts: &[Mount], root: &Path) -> (Vec<Gap>, Vec<Gap>) {
        let (mut late, mut failed) = (Vec::new(), Vec::new());
        let table = MountTable::of(mounts);
        for mount in mounts {
            let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
            if !is_watched(mount) || !devices.insert(mount.device) {
                continue;
            }
            drop(devices);
            let below = mount.point.strip_prefix("/").unwrap_or(&mount.point);
            let (point, kind) = (mount.point.clone(), mount.kind.clone());
            if let Err(errno) = self.mark_within(&root.join(below), table.remote(&point).is_some()) {
                failed.push(Gap::Unwatchable { point, kind, errno: errno as i32 });
            } else if !PASSING.contains(&kind.as_str()) {
                late.push(Gap::Late { point, kind });
            }
        }
        (late, failed)
    }

    fn mark_within(&self, path: &Path, is_remote: bool) -> Result<(), Errno> {
        if !is_remote {
            return self.mark(path);
        }
        // The thread stays if the server does not answer; it holds nothing but the group.
        let (send, receive) = mpsc::channel();
        let (group, tells_listing, path) = (Arc::clone(&self.group), self.tells_listing, path.to_owned());
        std::thread::spawn(move || send.send(mark(&group, tells_listing, &path)));
        receive.recv_timeout(REMOTE_BOUND).unwrap_or(Err(Errno::ETIMEDOUT))
    }

    fn mark(&self, path: &Path) -> Result<(), Errno> {
        mark(&self.group, self.tells_listing, path)
    }
}

fn mark(group: &Fanotify, tells_listing: bool, path: &Path) -> Result<(), Errno> {
    let mut mask =
        MaskFlags::FAN_OPEN | MaskFlags::FAN_OPEN_EXEC | MaskFlags::FAN_CLOSE_WRITE | MaskFlags::FAN_ONDIR;
    if tells_listing {
        ignore_reading(group, path)?;
        mask |= MaskFlags::FAN_ACCESS;
    }
    let flags = MarkFlags::FAN_MARK_ADD | MarkFlags::FAN_MARK_FILESYSTEM;
    group.mark(flags, mask, AT_FDCWD.as_fd(), Some(path))
}

/// FAN_ACCESS of a directory means that it was listed; of files it would be every read(2), and is
/// not wanted. An ignore mask without FAN_ONDIR leaves directories alone (FAN_MARK_IGNORE, since
/// Linux 6.0).
fn ignore_reading(group: &Fanotify, path: &Path) -> Result<(), Errno> {
    let flags = MarkFlags::FAN_MARK_ADD | MarkFlags::FAN_MARK_FILESYSTEM | MarkFlags::FAN_MARK_IGNORE_SURV;
    group.mark(flags, MaskFlags::FAN_ACCESS, AT_FDCWD.as_fd(), Some(path))
}

fn is_watched(mount: &Mount) -> bool {
    !SKIPPED.contains(&mount.kind.as_str()) && mount.point != Path::new("/dev")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_and_automounts_are_left_alone() {
        let mounts = mountinfo::parse(
            b"21 1 254:0 / / rw - ext4 /dev/vda rw\n22 21 0:5 / /dev rw - devtmpfs udev rw\n\
             23 21 0:6 / /proc rw - proc proc rw\n24 21 0:7 / /misc rw - autofs systemd-1 rw\n\
             25 21 0:8 / /srv/a\\040b rw - nfs4 server:/ rw\n26 21 0:9 / /dev rw - tmpfs tmpfs rw\n",
        );
        let watched: Vec<&Path> =
            mounts.iter().filter(|mount| is_watched(mount)).map(|mount| mount.point.as_path()).collect();
        assert_eq!(watched, ["/", "/proc", "/srv/a b"].map(Path::new));
        let table = MountTable::of(&mounts);
        let remote: Vec<bool> = mounts.iter().map(|mount| table.remote(&mount.point).is_some()).collect();
        assert_eq!(remote, [false, false, false, true, true, false]);
    }
}
