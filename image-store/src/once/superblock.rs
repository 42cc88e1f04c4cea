//! How often a file system has been mounted for writing, as ext2, ext3 and ext4 note it themselves:
//! also by a rescue system, another kernel, or another machine that had the disk.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::evidence::{ReasonCode, StaleReason};

/// Where the superblock begins, and what we read of it.
const START: u64 = 1024;
const LEN: usize = 136;
const MAGIC: [u8; 2] = [0x53, 0xef];

/// What a file system says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSystemMark {
    /// Something on it.
    pub path: PathBuf,
    /// Its own id.
    pub uuid: [u8; 16],
    /// How often it was mounted for writing since it was last checked.
    pub mounts: u16,
}

impl FileSystemMark {
    /// Of the file system that `path` lies on; `None` where it is of another kind, or its device
    /// cannot be read (containers).
    pub fn of(path: &Path) -> Option<FileSystemMark> {
        let (uuid, mounts) = read(path)?;
        Some(FileSystemMark { path: path.to_owned(), uuid, mounts })
    }

    /// Whether it was mounted for writing once since, which is what this boot has done.
    ///
    /// # Errors
    /// [`ReasonCode::FileSystemUsed`].
    pub fn check(&self) -> Result<(), StaleReason> {
        let path = self.path.display();
        let refuse = |sentence: String| Err(StaleReason::new(ReasonCode::FileSystemUsed, sentence));
        match read(&self.path) {
            None => {
                refuse(format!("the file system of {path} does not tell any more how often it was mounted"))
            }
            Some((uuid, _)) if uuid != self.uuid => {
                refuse(format!("{path} lies on another file system than before"))
            }
            Some((_, mounts)) if mounts == self.mounts.wrapping_add(1) => Ok(()),
            Some((_, mounts)) => refuse(format!(
                "the file system of {path} was mounted or checked elsewhere: its count of mounts is {mounts}, and not {}",
                self.mounts.wrapping_add(1)
            )),
        }
    }
}

fn read(path: &Path) -> Option<([u8; 16], u16)> {
    let device = fs::metadata(path).ok()?.dev();
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let event = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/uevent")).ok()?;
    let name = event.lines().find_map(|line| line.strip_prefix("DEVNAME="))?;
    let disk = File::open(Path::new("/dev").join(name)).ok()?;
    if disk.metadata().ok()?.rdev() != device {
        return None;
    }
    let mut bytes = [0; LEN];
    disk.read_exact_at(&mut bytes, START).ok()?;
    parse(&bytes)
}

fn parse(bytes: &[u8; LEN]) -> Option<([u8; 16], u16)> {
    let uuid: [u8; 16] = bytes[104..120].try_into().ok()?;
    (bytes[56..58] == MAGIC).then(|| (uuid, u16::from_le_bytes([bytes[52], bytes[53]])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_superblock_tells_its_id_and_how_often_it_was_mounted() {
        let mut bytes = [0; LEN];
        (bytes[52], bytes[53]) = (2, 1);
        bytes[104..120].copy_from_slice(&[7; 16]);
        assert_eq!(parse(&bytes), None, "another kind");
        bytes[56..58].copy_from_slice(&MAGIC);
        assert_eq!(parse(&bytes), Some(([7; 16], 258)));
    }

    #[test]
    fn a_file_system_that_falls_silent_is_a_reason() {
        let mark = FileSystemMark { path: "/proc".into(), uuid: [0; 16], mounts: 3 };
        assert_eq!(FileSystemMark::of(Path::new("/proc")), None);
        assert_eq!(mark.check().unwrap_err().code, ReasonCode::FileSystemUsed);
    }
}
