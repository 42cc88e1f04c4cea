//! File systems that may not answer: nothing on them is touched while a boot waits.

use std::fs;
use std::path::{Path, PathBuf};

use super::file::under_root;
use crate::mountinfo::{self, Mount};

/// Served by another machine or by a process. `fuse` with a dot behind it is meant too.
const REMOTE: [&str; 15] = [
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "ceph",
    "afs",
    "coda",
    "lustre",
    "9p",
    "fuse",
    "gfs2",
    "ocfs2",
    "glusterfs",
    "autofs",
];

/// What is mounted where.
#[derive(Debug, Default)]
pub struct MountTable(Vec<(PathBuf, String)>);

impl MountTable {
    /// Mounts of this process. Without /proc there are none.
    pub fn read(root: &Path) -> MountTable {
        let text = fs::read(under_root(root, Path::new("/proc/self/mountinfo"))).unwrap_or_default();
        MountTable::of(&mountinfo::parse(&text))
    }

    /// Of these mounts.
    pub fn of(mounts: &[Mount]) -> MountTable {
        MountTable(mounts.iter().map(|mount| (mount.point.clone(), mount.kind.clone())).collect())
    }

    /// Name of the file system type at `path` if that is one that may not answer. The file system
    /// of `/` always does: nothing would run without it.
    pub fn remote(&self, path: &Path) -> Option<&str> {
        // Of mounts on top of each other the last one is seen.
        let holds = |(point, _): &&(PathBuf, String)| path.starts_with(point);
        let (point, kind) =
            self.0.iter().filter(holds).max_by_key(|(point, _)| point.components().count())?;
        let is_remote =
            point != Path::new("/") && (REMOTE.contains(&kind.as_str()) || kind.starts_with("fuse."));
        is_remote.then_some(kind.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> MountTable {
        MountTable::of(&mountinfo::parse(text.as_bytes()))
    }

    #[test]
    fn what_may_not_answer_is_known_by_its_mount() {
        let table = parse(
            "21 1 254:0 / / rw - ext4 /dev/vda rw\n\
             30 21 0:50 / /mnt/my\\040share rw shared:1 - nfs4 server:/x rw\n\
             31 21 0:51 / /misc rw - autofs systemd-1 rw\n\
             32 31 254:1 / /misc/disk rw - ext4 /dev/vdb rw\n\
             33 21 0:52 / /home/a/gvfs rw - fuse.gvfsd-fuse gvfsd rw\n",
        );
        assert_eq!(table.remote(Path::new("/etc/passwd")), None);
        assert_eq!(table.remote(Path::new("/mnt/my share/a")), Some("nfs4"));
        assert_eq!(table.remote(Path::new("/misc/other")), Some("autofs"));
        assert_eq!(table.remote(Path::new("/misc/disk/a")), None);
        assert_eq!(table.remote(Path::new("/home/a/gvfs")), Some("fuse.gvfsd-fuse"));
        let network_root = parse("21 1 0:20 / / rw - nfs server:/root rw\n");
        assert_eq!(network_root.remote(Path::new("/etc/passwd")), None);
    }
}
